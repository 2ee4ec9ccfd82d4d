//! What userspace makes in the file system has limits, and is never lost to a change of the map.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::world::{Parameter, World, errno, null, seconds};

fn free_kib(place: &Path) -> u64 {
    let stat = rustix::fs::statfs(place).unwrap();
    u64::try_from(stat.f_bsize).unwrap() * stat.f_bavail / 1024
}

#[test]
#[ignore = "in the virtual machine"]
fn files_have_room_up_to_a_limit_that_they_share() {
    let _limit = Parameter::set("max_files_kib", 1024);
    let world = World::new();
    let (first, second) = (world.path("first"), world.path("second"));
    fs::write(&first, vec![1; 700 << 10]).unwrap();
    assert_eq!(free_kib(&world.root), 324);
    let full = fs::write(&second, vec![2; 400 << 10]).unwrap_err();
    assert_eq!(errno(&full), Errno::NOSPC);
    File::options().write(true).open(&second).unwrap().set_len(2 << 20).unwrap_err();
    File::options().write(true).open(&first).unwrap().set_len(100 << 10).unwrap();
    fs::write(&second, vec![2; 400 << 10]).unwrap();
    let mut appended = File::options().append(true).open(&second).unwrap();
    appended.write_all(&vec![3; 500 << 10]).unwrap();
    assert_eq!(fs::metadata(&second).unwrap().len(), 900 << 10);
    // what is open keeps its room until it is closed
    fs::remove_file(&second).unwrap();
    fs::remove_file(&first).unwrap();
    assert_eq!(free_kib(&world.root), 124);
    drop(appended);
    assert_eq!(free_kib(&world.root), 1024);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_file_has_blocks_for_its_bytes_and_no_hole_where_it_has_data() {
    let world = World::new();
    let path = world.path("file");
    let pages = |bytes: u64| bytes.next_multiple_of(4096) / 512;
    let blocks = || fs::metadata(&path).unwrap().blocks();
    fs::write(&path, b"").unwrap();
    assert_eq!(blocks(), 0);
    fs::write(&path, vec![1; 300_000]).unwrap();
    assert_eq!(blocks(), pages(300_000));
    let file = File::options().read(true).append(true).open(&path).unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 0);
    assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 300_000);
    (&file).write_all(&[1; 4096]).unwrap();
    assert_eq!(blocks(), pages(304_096));
    file.set_len(5000).unwrap();
    assert_eq!(blocks(), pages(5000));
    // what it has room for is no hole, so that nothing written into it later is left out
    file.set_len(1 << 20).unwrap();
    assert_eq!(blocks(), pages(1 << 20));
    assert_eq!(seek(&file, SeekFrom::Data(5000)).unwrap(), 5000);
    file.set_len(0).unwrap();
    assert_eq!(blocks(), 0);
    fs::remove_file(&path).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn userspace_makes_no_more_names_than_a_limit() {
    let _limit = Parameter::set("max_names", 4);
    let mut world = World::new();
    for n in 0..4 {
        fs::create_dir(world.path(&format!("dir{n}"))).unwrap();
    }
    assert_eq!(errno(&fs::create_dir(world.path("dir4")).unwrap_err()), Errno::NOSPC);
    world.put("dir0/null", &null());
    fs::rename(world.path("dir1"), world.path("moved")).unwrap_err();
    for n in 1..4 {
        fs::remove_dir(world.path(&format!("dir{n}"))).unwrap();
    }
    fs::write(world.path("file"), b"").unwrap();
    fs::remove_file(world.path("file")).unwrap();
    assert!(world.map.remove(b"dir0/null"));
    fs::remove_dir(world.path("dir0")).unwrap();
}

/// Makes a name again and again; what was made is there until it is removed.
fn make(path: &Path, stop: &AtomicBool, made: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        match File::create_new(path) {
            Ok(file) => drop(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            // the name came and went at both looks
            Err(error) if errno(&error) == Errno::STALE => continue,
            Err(error) => panic!("{error}"),
        }
        assert!(fs::symlink_metadata(path).expect("it was made").is_file());
        fs::remove_file(path).expect("it is there");
        made.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn what_userspace_makes_is_not_lost_while_the_map_has_the_name_now_and_then() {
    let mut world = World::new();
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = world.path("both");
    let changes = std::thread::scope(|scope| {
        let maker = scope.spawn(|| make(&path, &stop, &made));
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(fs::symlink_metadata(&path));
                }
            });
        }
        let (started, mut changes) = (Instant::now(), 0);
        while started.elapsed() < seconds() && !maker.is_finished() {
            world.put("both", &null());
            assert!(world.map.remove(b"both"));
            changes += 2;
        }
        stop.store(true, Ordering::Relaxed);
        changes
    });
    assert!(made.load(Ordering::Relaxed) > 10 && changes > 10, "{made:?} made, {changes} changes");
}

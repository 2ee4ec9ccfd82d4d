//! C1: names, types, owners, modes and numbers come from the daemon's memory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mapdev::map::{Kind, Node};

use super::daemon::{Machine, sorted};
use super::world::{World, absent, char_device, link, list, names, null};

#[test]
#[ignore = "in the virtual machine"]
fn c1_stat_open_and_readdir_are_answered_from_the_map() {
    let mut world = World::new();
    world.put("null", &Node { uid: 7, gid: 8, ..char_device(1, 3, 0o640) });
    world.put("zero", &char_device(1, 5, 0o666));
    world.put("net/tun", &char_device(10, 200, 0o666));
    world.put("disk/by-id/one", &link("../../sda"));
    let kind = Kind::Block { major: 8, minor: 0 };
    world.put("sda", &Node { kind, mode: 0o660, uid: 0, gid: 6, flags: 0 });

    let stat = fs::metadata(world.path("null")).unwrap();
    assert!(stat.file_type().is_char_device());
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o640, 7, 8));
    assert_eq!(stat.rdev(), 1 << 8 | 3);
    let stat = fs::metadata(world.path("sda")).unwrap();
    assert!(stat.file_type().is_block_device());
    assert_eq!((stat.rdev(), stat.gid()), (8 << 8, 6));
    assert!(fs::metadata(world.path("net")).unwrap().is_dir());
    let target = fs::read_link(world.path("disk/by-id/one")).unwrap();
    assert_eq!(target.to_str().unwrap(), "../../sda");
    absent(fs::metadata(world.path("nothing")));
    absent(fs::metadata(world.path("net/nothing")));

    let mut bytes = [1; 16];
    File::open(world.path("zero")).unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    let mut file = File::options().write(true).open(world.path("null")).unwrap();
    file.write_all(b"gone").unwrap();

    assert_eq!(world.list(""), names(&["null", "zero", "net", "disk", "sda"]));
    assert_eq!(world.list("net"), names(&["tun"]));
    assert_eq!(world.list("disk/by-id"), names(&["one"]));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_change_of_the_map_is_seen_by_the_next_look_up() {
    let mut world = World::new();
    absent(fs::metadata(world.path("null")));
    world.put("null", &null());
    let first = fs::metadata(world.path("null")).unwrap();
    assert!(world.map.remove(b"null"));
    absent(fs::metadata(world.path("null")));
    world.put("null", &char_device(1, 5, 0o600));
    let second = fs::metadata(world.path("null")).unwrap();
    assert_ne!(first.rdev(), second.rdev());
    assert_ne!(first.ino(), second.ino(), "another object is another inode");
    world.put("where", &link("null"));
    assert_eq!(fs::metadata(world.path("where")).unwrap().rdev(), second.rdev());
    world.put("where", &link("nowhere"));
    absent(fs::metadata(world.path("where")));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_file_that_is_open_works_on_when_its_name_is_gone() {
    let mut world = World::new();
    world.put("dir/zero", &char_device(1, 5, 0o666));
    let mut file = File::open(world.path("dir/zero")).unwrap();
    assert!(world.map.remove(b"dir/zero"));
    absent(fs::metadata(world.path("dir")));
    let mut bytes = [1; 4];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 4]);
    assert_eq!(file.metadata().unwrap().rdev(), 1 << 8 | 5);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_of_ten_thousand_names_is_listed_whole_while_it_changes() {
    let mut world = World::new();
    for n in 0..10_000 {
        world.put(&format!("many/tty{n}"), &char_device(4, n, 0o620));
    }
    let path = world.path("many");
    let lister = std::thread::spawn(move || {
        for _ in 0..20 {
            let seen = list(&path);
            // what comes and goes is even
            let stays = (0..10_000).filter(|n| n % 2 == 1);
            let missing: Vec<_> =
                stays.filter(|n| !seen.contains(&format!("tty{n}"))).take(3).collect();
            assert!(missing.is_empty(), "missing in a listing of {}: {missing:?}", seen.len());
        }
    });
    let mut n = 0;
    while !lister.is_finished() {
        let name = format!("many/tty{n}");
        assert!(world.map.remove(name.as_bytes()));
        world.put(&name, &char_device(4, n, 0o620));
        n = (n + 2) % 10_000;
    }
    lister.join().unwrap();
    assert_eq!(world.list("many").len(), 10_000);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_can_be_read_on_from_where_a_reader_was() {
    use rustix::fs::{Dir, Mode, OFlags, SeekFrom, open, seek};
    let mut world = World::new();
    for n in 0..3000 {
        world.put(&format!("ptr{n}"), &char_device(4, n, 0o620));
    }
    fs::create_dir(world.path("shm")).unwrap();
    fs::create_dir(world.path("pts")).unwrap();
    let fd = open(&world.root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut places = Vec::new();
    for entry in Dir::read_from(&fd).unwrap() {
        let entry = entry.unwrap();
        places.push((entry.file_name().to_owned(), entry.offset()));
    }
    assert_eq!(places.len(), 3004);
    for at in [0, 1, 2, 700, 2999, 3000, 3001, 3002] {
        seek(&fd, SeekFrom::Start(u64::try_from(places[at].1).unwrap())).unwrap();
        let mut rest = rustix::fs::RawDir::new(&fd, Vec::with_capacity(8192).spare_capacity_mut())
            .next()
            .map(|entry| entry.unwrap().file_name().to_owned());
        assert_eq!(rest.take().unwrap(), places[at + 1].0, "after entry {at}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c1_the_daemons_own_map_is_what_devtmpfs_has() {
    let machine = Machine::new();
    let _daemon = machine.start();
    let wanted = sorted(Path::new("/dev"));
    assert!(wanted.len() > 50, "{}", wanted.len());
    assert_eq!(sorted(&machine.dev), wanted);
    let link = fs::read_link(machine.path("char/1:3")).unwrap();
    assert_eq!(link.to_str().unwrap(), "../null");
    assert_eq!(machine.ask(&["status"])["shim_attached"], true);
}

//! The cache: what did not change is not read again, and what is damaged is not believed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mapdev::modules::{ModuleDb, cache};

use super::random::Random;
use super::{module, tree};

/// Opens through the cache; also how many files were read, and what went wrong.
fn open(root: &Path, release: &str, file: &Path) -> (ModuleDb, usize, Option<String>) {
    let read = AtomicUsize::new(0);
    let progress = |_, _| {
        read.fetch_add(1, Ordering::Relaxed);
    };
    let (db, problem) = cache::open(root, release, file, &progress);
    (db, read.into_inner(), problem.map(|problem| problem.to_string()))
}

fn names(db: &ModuleDb) -> Vec<String> {
    db.devnames().map(|devname| devname.name.escape_ascii().to_string()).collect()
}

/// Writes a module as if long ago: what is new may change again without a trace.
fn write(path: &Path, bytes: &[u8], age: u64) {
    fs::write(path, bytes).unwrap();
    let then = SystemTime::now() - Duration::from_secs(age);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn only_what_changed_is_read_again() {
    let (root, folder) = tree();
    let file = root.path().join("var/cache/mapdev/modules-6.1");
    for name in ["a", "b", "c"] {
        write(&folder.join(format!("kernel/{name}.ko")), &module(name, 1), 60);
    }
    let opened = |read, names_wanted: &[&str]| {
        let (db, count, problem) = open(root.path(), "6.1", &file);
        assert_eq!((names(&db), count, problem), (to_strings(names_wanted), read, None));
    };
    opened(3, &["a", "b", "c"]);
    opened(0, &["a", "b", "c"]);
    // rewritten in place, of the same size
    write(&folder.join("kernel/b.ko"), &module("x", 1), 50);
    opened(1, &["a", "c", "x"]);
    opened(0, &["a", "c", "x"]);
    fs::remove_file(folder.join("kernel/a.ko")).unwrap();
    opened(0, &["c", "x"]);
    fs::create_dir(folder.join("kernel/new")).unwrap();
    write(&folder.join("kernel/new/d.ko"), &module("d", 1), 40);
    opened(1, &["c", "d", "x"]);
    // another file of the same time and size in its place
    let old = fs::metadata(folder.join("kernel/c.ko")).unwrap().modified().unwrap();
    fs::write(folder.join("c.new"), module("y", 1)).unwrap();
    let new = fs::File::options().write(true).open(folder.join("c.new")).unwrap();
    new.set_modified(old).unwrap();
    drop(new);
    fs::rename(folder.join("c.new"), folder.join("kernel/c.ko")).unwrap();
    opened(1, &["d", "x", "y"]);
    // the lists of the kernel's build are part of it
    write(&folder.join("modules.builtin.modinfo"), b"z.alias=devname:z\0", 60);
    opened(0, &["d", "x", "y", "z"]);
    opened(0, &["d", "x", "y", "z"]);
}

fn to_strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Within one tick of the file system's clock a file can change twice and look the same.
#[test]
fn a_file_that_changed_just_now_is_not_believed_to_be_settled() {
    let (root, folder) = tree();
    let file = root.path().join("cache");
    fs::write(folder.join("kernel/a.ko"), module("a", 1)).unwrap();
    let stamp = fs::metadata(folder.join("kernel/a.ko")).unwrap().modified().unwrap();
    assert_eq!(open(root.path(), "6.1", &file).1, 1);
    fs::write(folder.join("kernel/a.ko"), module("b", 1)).unwrap();
    let written = fs::File::options().write(true).open(folder.join("kernel/a.ko")).unwrap();
    written.set_modified(stamp).unwrap();
    drop(written);
    assert_eq!(names(&open(root.path(), "6.1", &file).0), ["b"]);
}

#[test]
fn another_kernels_cache_is_made_anew() {
    let (root, folder) = tree();
    let other = root.path().join("lib/modules/6.2/kernel");
    fs::create_dir_all(&other).unwrap();
    write(&folder.join("kernel/a.ko"), &module("a", 1), 60);
    write(&other.join("b.ko"), &module("b", 1), 60);
    let file = root.path().join("cache");
    assert_eq!(names(&open(root.path(), "6.1", &file).0), ["a"]);
    let (db, read, problem) = open(root.path(), "6.2", &file);
    assert_eq!((names(&db), read, problem), (to_strings(&["b"]), 1, None));
    assert_eq!(db.release(), "6.2");
}

#[test]
fn a_damaged_cache_is_made_anew_and_never_trusted() {
    let (root, folder) = tree();
    for name in ["a", "b"] {
        write(&folder.join(format!("kernel/{name}.ko")), &module(name, 1), 60);
    }
    let file = root.path().join("cache");
    drop(open(root.path(), "6.1", &file));
    let whole = fs::read(&file).unwrap();
    let mut random = Random(3);
    let rounds: usize = 2000;
    for round in 0..rounds {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(random.below(whole.len())),
            1 => bytes.extend([0; 8]),
            _ => {
                let at = random.below(whole.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        fs::write(&file, &bytes).unwrap();
        let (db, read, problem) = open(root.path(), "6.1", &file);
        assert_eq!((names(&db), read), (to_strings(&["a", "b"]), 2), "round {round}");
        assert!(problem.is_some_and(|what| what.contains("made anew")), "round {round}");
        assert_eq!(fs::read(&file).unwrap(), whole, "round {round}");
    }
}

#[test]
fn a_cache_that_others_may_write_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let (root, folder) = tree();
    write(&folder.join("kernel/a.ko"), &module("a", 1), 60);
    let file = root.path().join("cache");
    drop(open(root.path(), "6.1", &file));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let (_, read, problem) = open(root.path(), "6.1", &file);
    assert_eq!(read, 1);
    assert!(problem.unwrap().contains("not ours alone"));
}

#[test]
fn where_no_cache_can_be_kept_the_modules_are_known_all_the_same() {
    let (root, folder) = tree();
    write(&folder.join("kernel/a.ko"), &module("a", 1), 60);
    fs::write(root.path().join("in-the-way"), "").unwrap();
    let (db, _, problem) = open(root.path(), "6.1", &root.path().join("in-the-way/cache"));
    assert_eq!(names(&db), ["a"]);
    assert!(problem.is_some());
}

//! Whatever allocation fails in a call, it says so or does what it shall; all is as before then, and the same
//! call works. Only on a kernel that can let allocations fail (`make check-kasan`).

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mapdev::map::kernel::{NameChange, Since};
use mapdev::map::layout::{E_MODULE, ID_ROOT};
use mapdev::map::shim;
use mapdev::map::{Kind, MapWriter, Node};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, Uid, XattrFlags, accessat, chmod,
    chownat, fstat, getxattr, inotify, linkat, lstat, mkdir, mknodat, open, readlink, removexattr,
    rename, rmdir, setxattr, stat, symlink, unlink,
};
use rustix::io::Errno;

use super::acls::{has_acl, rights};
use super::c4_loads::{is_loaded, pending, unload};
use super::failing::{Failing, cold, state};
use super::world::{World, absent, char_device, device, errno, link, null};

const ACL: &str = "system.posix_acl_access";

fn at(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn world() -> World {
    let mut world = World::new();
    world.put("null", &null());
    world.put("link", &link("null"));
    world.put("net/tun", &char_device(10, 200, 0o600));
    world.put("bus/usb/001/002", &char_device(189, 1, 0o600));
    world
}

/// The names of a directory, without a call between that could fail for want of memory elsewhere.
fn listing(path: &CString) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut room = [MaybeUninit::uninit(); 4096];
    let (mut entries, mut names) = (RawDir::new(&dir, &mut room), BTreeSet::new());
    while let Some(entry) = entries.next() {
        assert!(names.insert(entry?.file_name().to_bytes().to_vec()));
    }
    Ok(names)
}

/// Goes through `Failing::every` with names that are not cached, in a world that shall stay as it is.
fn cold_calls<T>(
    failing: &Failing,
    world: &World,
    what: &str,
    wanted: Result<(), Errno>,
    call: impl FnMut() -> Result<T, Errno>,
) {
    let before = state(&world.root);
    let same = |when: &str| assert_eq!(state(&world.root), before, "{when}");
    let failed = failing.every(what, wanted, cold, call, drop, same);
    assert!(failed > 0, "{what}: nothing failed");
}

#[test]
#[ignore = "in the virtual machine"]
fn looks_and_opens_say_it_and_are_right_the_next_time() {
    let (failing, world) = (Failing::new(), world());
    fs::write(world.path("net/mine"), b"").unwrap();
    fs::write(world.path("bus/usb/001/mine"), b"").unwrap();
    let [root, null, name, deep, none] =
        ["", "null", "link", "bus/usb/001/002", "bus/usb/none"].map(|name| at(&world.path(name)));
    let calls = |what, wanted, call: &mut dyn FnMut() -> Result<(), Errno>| {
        cold_calls(&failing, &world, what, wanted, call);
    };
    calls("stat", Ok(()), &mut || stat(&null).map(drop));
    calls("stat of a link", Ok(()), &mut || lstat(&name).map(drop));
    calls("stat through a link", Ok(()), &mut || stat(&name).map(drop));
    calls("stat in directories", Ok(()), &mut || stat(&deep).map(drop));
    calls("stat of no name", Err(Errno::NOENT), &mut || stat(&none).map(drop));
    calls("access", Ok(()), &mut || accessat(CWD, &null, Access::READ_OK, AtFlags::empty()));
    calls("readlink", Ok(()), &mut || readlink(&name, Vec::with_capacity(64)).map(drop));
    calls("open", Ok(()), &mut || open(&null, OFlags::RDWR, Mode::empty()).map(drop));
    calls("getfacl", Err(Errno::NODATA), &mut || getxattr(&null, ACL, &mut [0; 64]).map(drop));
    let all = listing(&root).unwrap();
    calls("listing", Ok(()), &mut || listing(&root).map(|names| assert_eq!(names, all)));
    let net = at(&world.path("bus/usb"));
    let all = listing(&net).unwrap();
    calls("listing below", Ok(()), &mut || listing(&net).map(|names| assert_eq!(names, all)));
    let watches = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let watch = |path| inotify::add_watch(&watches, path, inotify::WatchFlags::CREATE);
    calls("inotify", Ok(()), &mut || {
        let number = watch(&null)?;
        inotify::remove_watch(&watches, number)
    });
    for name in ["net/mine", "bus/usb/001/mine"] {
        fs::remove_file(world.path(name)).unwrap();
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn what_userspace_makes_is_there_or_is_not() {
    let (failing, mut world) = (Failing::new(), world());
    fs::write(world.path("file"), b"contents").unwrap();
    let file = at(&world.path("file"));
    let mode = Mode::from_raw_mode(0o640);
    for place in ["made", "net/made", "bus/usb/001/made"] {
        let made = at(&world.path(place));
        let before = state(&world.root);
        let same = |when: &str| assert_eq!(state(&world.root), before, "{when}");
        let makes = |what: &str,
                     make: &mut dyn FnMut() -> Result<(), Errno>,
                     undo: &mut dyn FnMut() -> Result<(), Errno>| {
            let what = format!("{what} {place}");
            let undo = |_| undo().unwrap();
            assert!(failing.every(&what, Ok(()), cold, make, undo, same) > 0, "{what}");
        };
        let gone = || unlink(&made);
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        makes("create", &mut || open(&made, create, mode).map(drop), &mut { gone });
        makes("mkdir", &mut || mkdir(&made, mode), &mut || rmdir(&made));
        let fifo = || mknodat(CWD, &made, FileType::Fifo, mode, 0);
        makes("mkfifo", &mut { fifo }, &mut { gone });
        makes("symlink", &mut || symlink(&file, &made), &mut { gone });
        makes("link", &mut || linkat(CWD, &file, CWD, &made, AtFlags::empty()), &mut { gone });
        makes("rename", &mut || rename(&file, &made), &mut || rename(&made, &file));
        // the other way round: what is there at first is taken away
        fifo().unwrap();
        let names = state(&world.root).len();
        let same = |when: &str| assert_eq!(state(&world.root).len(), names, "{when}");
        failing.every(&format!("unlink {place}"), Ok(()), cold, gone, |_| fifo().unwrap(), same);
        unlink(&made).unwrap();
        let over = || rename(&file, &made);
        let prepare = || {
            cold();
            fifo().unwrap();
        };
        let undo = |done: Option<()>| {
            if done.is_some() {
                rename(&made, &file).unwrap();
            }
        };
        let same = |when: &str| {
            unlink(&made).ok();
            assert!(fs::metadata(world.path("file")).unwrap().is_file(), "{when}");
        };
        failing.every(&format!("rename over {place}"), Ok(()), prepare, over, undo, same);
    }
    fs::remove_file(world.path("file")).unwrap();
    // nothing is held any more
    assert!(world.map.remove(b"net/tun") && world.map.remove(b"bus/usb/001/002"));
    absent(fs::metadata(world.path("net")));
    absent(fs::metadata(world.path("bus")));
}

#[test]
#[ignore = "in the virtual machine"]
fn attributes_are_changed_or_are_not() {
    let (failing, world) = (Failing::new(), world());
    fs::write(world.path("net/mine"), b"").unwrap();
    for name in ["null", "bus/usb/001", "net", "net/mine"] {
        let path = at(&world.path(name));
        let mode = Mode::from_raw_mode(stat(&path).unwrap().st_mode & 0o7777);
        let before = state(&world.root);
        let same = |when: &str| assert_eq!(state(&world.root), before, "{when}");
        let changes = |what: &str,
                       change: &mut dyn FnMut() -> Result<(), Errno>,
                       back: &mut dyn FnMut() -> Result<(), Errno>| {
            let what = format!("{what} {name}");
            failing.every(&what, Ok(()), cold, change, |_| back().unwrap(), same)
        };
        let change = || chmod(&path, Mode::from_raw_mode(0o751));
        changes("chmod", &mut { change }, &mut || chmod(&path, mode));
        let own = |id| {
            chownat(CWD, &path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)), AtFlags::empty())
        };
        changes("chown", &mut || own(7), &mut || own(0));
        let acl = rights(6);
        let grant = || setxattr(&path, ACL, &acl, XattrFlags::empty());
        let failed = changes("setfacl", &mut { grant }, &mut || {
            assert!(has_acl(&world.path(name)));
            removexattr(&path, ACL)?;
            chmod(&path, mode)
        });
        assert!(failed > 0);
        // and with one: it is changed, by chmod too, or removed
        grant().unwrap();
        let given = Mode::from_raw_mode(stat(&path).unwrap().st_mode & 0o7777);
        let before = state(&world.root);
        let same = |when: &str| assert_eq!(state(&world.root), before, "{when}");
        let back = |_| {
            chmod(&path, given).unwrap();
            grant().unwrap();
        };
        let what = format!("chmod with an ACL {name}");
        failing.every(&what, Ok(()), cold, change, back, same);
        let remove = || removexattr(&path, ACL);
        failing.every("remove the ACL", Ok(()), cold, remove, back, same);
        removexattr(&path, ACL).unwrap();
        chmod(&path, mode).unwrap();
    }
    fs::remove_file(world.path("net/mine")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn a_map_is_taken_or_the_one_before_stays() {
    let (failing, mut world) = (Failing::new(), world());
    fs::write(world.path("net/mine"), b"").unwrap();
    let mut kernel = world.map.detach_kernel().unwrap();
    // larger, with the same names and a new one
    let mut other = MapWriter::create(4096).unwrap();
    for (name, node) in [("null", null()), ("net/tap", char_device(10, 201, 0o600))] {
        other.upsert(name.as_bytes(), &node).unwrap();
    }
    let length = |map: &MapWriter| fstat(map.as_fd()).unwrap().st_size.unsigned_abs();
    let (old, new) = (length(&world.map), length(&other));
    assert!(new > old);
    let root = world.root.clone();
    let before = state(&root);
    let same = |when: &str| assert_eq!(state(&root), before, "{when}");
    // only one of the two closures has the kernel at a time
    let kernel = std::cell::RefCell::new(&mut kernel);
    let publish = |map: &MapWriter, len, since| {
        let done = kernel.borrow_mut().publish(map.as_fd(), len, since);
        done.map(drop).map_err(|error| errno(&error))
    };
    let back = |done: Option<()>| {
        assert!(done.is_some());
        assert!(fs::metadata(root.join("net/tap")).is_ok(), "it is served");
        publish(&world.map, old, Since::Lost).unwrap();
    };
    let larger = || publish(&other, new, Since::Lost);
    assert!(failing.every("publish another map", Ok(()), cold, larger, back, same) > 0);
    let again = || publish(&world.map, old, Since::CarriedOver);
    assert!(failing.every("publish it again", Ok(()), cold, again, drop, same) > 0);
    // of what needs no memory, or little
    let sync = || kernel.borrow_mut().sync().map_err(|error| errno(&error));
    failing.every("sync", Ok(()), cold, sync, drop, same);
    let watched = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let all = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watched, &root, all).unwrap();
    for (what, change) in [("came", NameChange::Came), ("went", NameChange::Went)] {
        let tell = || {
            let told = kernel.borrow_mut().notify(ID_ROOT, b"null", false, change);
            told.map_err(|error| errno(&error))
        };
        failing.every(what, Ok(()), cold, tell, drop, same);
    }
    let stats = || device().stats().map(drop).map_err(|error| errno(&error));
    stats().unwrap();
    let control = device();
    let stats = || control.stats().map(drop).map_err(|error| errno(&error));
    failing.every("statistics", Ok(()), cold, stats, drop, same);
    fs::remove_file(root.join("net/mine")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn the_memory_of_the_map_can_be_asked_for_again() {
    let (failing, mut world) = (Failing::new(), world());
    drop((world.map.detach_kernel(), world.events.take()));
    let control = device();
    let ask = || control.memory().map(drop).map_err(|error| errno(&error));
    let same = |_: &str| ();
    failing.every("the map's memory", Ok(()), cold, ask, drop, same);
    let opens = || open(shim::DEVICE, OFlags::RDWR, Mode::empty()).map(drop);
    assert!(failing.every("open the device", Ok(()), cold, opens, drop, same) > 0);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_name_that_is_gone_is_gone() {
    let (failing, world) = (Failing::new(), std::cell::RefCell::new(world()));
    let (root, path) = (world.borrow().root.clone(), at(&world.borrow().path("net/old")));
    let before = state(&root);
    let same = |when: &str| assert_eq!(state(&root), before, "{when}");
    let goes = || {
        world.borrow_mut().put("net/old", &null());
        stat(&path).unwrap();
        assert!(world.borrow_mut().map.remove(b"net/old"));
    };
    failing.every("discard", Err(Errno::NOENT), goes, || stat(&path).map(drop), drop, same);
    let replaced = || {
        world.borrow_mut().put("net/old", &null());
        stat(&path).unwrap();
        world.borrow_mut().put("net/old", &char_device(1, 5, 0o600));
    };
    let look = || stat(&path).map(|stat| assert_eq!(stat.st_rdev, 1 << 8 | 5));
    let undo = |_| ();
    let same = |when: &str| {
        assert!(world.borrow_mut().map.remove(b"net/old"));
        assert_eq!(state(&root), before, "{when}");
    };
    assert!(failing.every("another device", Ok(()), replaced, look, undo, same) > 0);
}

#[test]
#[ignore = "in the virtual machine"]
fn an_open_that_loads_says_that_there_is_no_memory() {
    let (failing, mut world) = (Failing::new(), world());
    world.put("nothing", &pending("no-module-of-this-name", false, 0o600));
    let kind = Kind::Block { major: 7, minor: 0 };
    world.put("loop0", &Node { kind, mode: 0o600, uid: 0, gid: 0, flags: E_MODULE });
    let path = at(&world.path("nothing"));
    let opens = || open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map(drop);
    cold_calls(&failing, &world, "open of a pending name", Err(Errno::NXIO), opens);
    let path = at(&world.path("loop0"));
    let opens = || open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map(drop);
    let before = state(&world.root);
    let same = |when: &str| assert_eq!(state(&world.root), before, "{when}");
    let before = || {
        unload("loop");
        cold();
    };
    let loaded = |done: Option<()>| assert!(done.is_some() && is_loaded("loop"));
    assert!(failing.every("open of a block device", Ok(()), before, opens, loaded, same) > 0);
}

#[test]
#[ignore = "in the virtual machine"]
fn it_is_mounted_or_is_not() {
    let failing = Failing::new();
    let mounted = || device().stats().unwrap().mounted;
    assert_eq!(mounted(), 0);
    let mount = || shim::detached_mount().map_err(|error| errno(&error));
    let same = |when: &str| assert_eq!(mounted(), 0, "{when}");
    let undo = |tree: Option<_>| {
        assert_eq!(mounted(), 1);
        drop(tree);
    };
    assert!(failing.every("mount", Ok(()), cold, mount, undo, same) > 0);
    // and the end of it, which cannot fail
    let tree = std::cell::RefCell::new(None);
    let before = || *tree.borrow_mut() = Some(shim::detached_mount().unwrap());
    let end = || {
        drop(tree.borrow_mut().take());
        Ok(())
    };
    failing.every("unmount", Ok(()), before, end, drop, same);
}

#[test]
#[ignore = "in the virtual machine"]
fn the_module_is_loaded_or_is_not() {
    let failing = Failing::new();
    let timeout = fs::read_to_string("/sys/module/mapdevfs/parameters/open_timeout_ms").unwrap();
    let parameters = CString::new(format!("open_timeout_ms={}", timeout.trim())).unwrap();
    let release = rustix::system::uname().release().to_str().unwrap().to_owned();
    let path = format!("/lib/modules/{release}/extra/mapdevfs.ko");
    let file = fs::File::open(path).unwrap();
    unload("mapdevfs");
    let load = || rustix::system::finit_module(&file, &parameters, 0);
    let same = |when: &str| assert!(!is_loaded("mapdevfs"), "{when}");
    let loaded = |_| {
        drop(shim::detached_mount().unwrap());
        unload("mapdevfs");
    };
    assert!(failing.every("load the module", Ok(()), || (), load, loaded, same) > 0);
    load().unwrap();
}

//! What userspace makes in /dev lives beside the names of the map.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::world::{EPERM, World, absent, char_device, names, null};

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

#[test]
#[ignore = "in the virtual machine"]
fn directories_sockets_links_fifos_and_files_can_be_made_and_removed() {
    let mut world = World::new();
    world.put("null", &null());
    fs::create_dir(world.path("shm")).unwrap();
    symlink("/proc/self/fd", world.path("fd")).unwrap();
    let log = UnixDatagram::bind(world.path("log")).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"hello", world.path("log")).unwrap();
    let mut bytes = [0; 8];
    assert_eq!(log.recv(&mut bytes).unwrap(), 5);
    mknodat(CWD, world.path("initctl"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    mknodat(CWD, world.path("mine"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), 0x103)
        .unwrap();
    fs::write(world.path("mine"), b"into /dev/null").unwrap();
    let mut file = fs::File::create_new(world.path("shm/file")).unwrap();
    file.write_all(b"contents").unwrap();
    fs::hard_link(world.path("shm/file"), world.path("shm/other")).unwrap();
    fs::rename(world.path("shm/other"), world.path("moved")).unwrap();
    let mut text = String::new();
    fs::File::open(world.path("moved")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "contents");
    assert!(fs::metadata(world.path("initctl")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(world.path("fd")).unwrap().is_symlink());
    assert_eq!(world.list(""), names(&["null", "shm", "fd", "log", "initctl", "mine", "moved"]));
    fs::remove_file(world.path("moved")).unwrap();
    absent(fs::metadata(world.path("moved")));
    assert!(fs::remove_dir(world.path("shm")).is_err(), "it is not empty");
    fs::remove_file(world.path("shm/file")).unwrap();
    // as the start of a system does with what it makes in /dev
    for (name, mode) in [("shm", 0o1777), ("initctl", 0o620), ("mine", 0o640)] {
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::lchown(world.path(name), Some(7), Some(8)).unwrap();
        assert_eq!(world.mode(name), (mode, 7, 8), "{name}");
    }
    std::os::unix::fs::lchown(world.path("fd"), Some(7), Some(8)).unwrap();
    fs::remove_dir(world.path("shm")).unwrap();
    for name in ["fd", "log", "initctl", "mine"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    assert_eq!(world.list(""), names(&["null"]));
}

#[test]
#[ignore = "in the virtual machine"]
fn names_of_the_map_cannot_be_removed_renamed_or_linked() {
    let mut world = World::new();
    world.put("null", &null());
    world.put("net/tun", &char_device(10, 200, 0o600));
    fs::write(world.path("file"), b"").unwrap();
    let (null, file, other) = (world.path("null"), world.path("file"), world.path("other"));
    assert_eq!(errno(&fs::remove_file(&null).unwrap_err()), EPERM);
    assert_eq!(errno(&fs::rename(&null, &other).unwrap_err()), EPERM);
    assert_eq!(errno(&fs::rename(&file, &null).unwrap_err()), EPERM);
    assert_eq!(errno(&fs::hard_link(&null, &other).unwrap_err()), EPERM);
    assert_eq!(errno(&fs::remove_dir(world.path("net")).unwrap_err()), EPERM);
    assert_eq!(world.list(""), names(&["null", "net", "file"]));
    fs::remove_file(file).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_of_both_shows_both_and_survives_the_maps() {
    let mut world = World::new();
    world.put("net/tun", &char_device(10, 200, 0o600));
    let control = UnixListener::bind(world.path("net/control")).unwrap();
    assert_eq!(world.list("net"), names(&["tun", "control"]));
    assert!(world.map.remove(b"net/tun"));
    assert_eq!(world.list("net"), names(&["control"]));
    drop(UnixStream::connect(world.path("net/control")).unwrap());
    world.put("net/tap", &char_device(10, 201, 0o600));
    assert_eq!(world.list("net"), names(&["tap", "control"]), "under another id");
    assert_eq!(world.list(""), names(&["net"]));
    drop(control);
    fs::remove_file(world.path("net/control")).unwrap();
    assert_eq!(world.list("net"), names(&["tap"]));
    assert!(world.map.remove(b"net/tap"));
    absent(fs::metadata(world.path("net")));

    fs::create_dir(world.path("bus")).unwrap();
    world.put("bus/usb/001", &char_device(189, 0, 0o600));
    assert_eq!(world.list("bus/usb"), names(&["001"]), "the map's in a directory of userspace's");
    assert!(fs::remove_dir(world.path("bus")).is_err());
    assert!(world.map.remove(b"bus/usb/001"));
    fs::remove_dir(world.path("bus")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn what_userspace_made_hides_a_name_of_the_map_until_it_is_removed() {
    let mut world = World::new();
    fs::write(world.path("null"), b"mine").unwrap();
    world.put("null", &null());
    assert!(fs::metadata(world.path("null")).unwrap().is_file());
    assert_eq!(world.list(""), names(&["null"]));
    fs::remove_file(world.path("null")).unwrap();
    assert_eq!(fs::metadata(world.path("null")).unwrap().rdev(), 1 << 8 | 3);
    assert_eq!(world.list(""), names(&["null"]));
    assert_eq!(super::world::device().stats().unwrap().mounted, 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn file_systems_can_be_mounted_in_it_and_stay_when_the_map_changes() {
    let mut world = World::new();
    world.put("null", &null());
    for (name, kind) in [("pts", "devpts"), ("shm", "tmpfs"), ("mqueue", "mqueue")] {
        fs::create_dir(world.path(name)).unwrap();
        mount(kind, world.path(name), kind, MountFlags::empty(), None).unwrap();
    }
    fs::write(world.path("shm/file"), b"x").unwrap();
    // over a name of the map, as containers do
    fs::write("/tmp/hidden", b"hidden").unwrap();
    rustix::mount::mount_bind("/tmp/hidden", world.path("null")).unwrap();
    for n in 0..500 {
        world.put(&format!("other{n}"), &null());
    }
    assert_eq!(fs::read(world.path("shm/file")).unwrap(), b"x");
    assert!(fs::metadata(world.path("pts/ptmx")).is_ok());
    assert_eq!(fs::read(world.path("null")).unwrap(), b"hidden");
    for name in ["pts", "shm", "mqueue", "null"] {
        unmount(world.path(name), UnmountFlags::empty()).unwrap();
    }
    assert_eq!(fs::metadata(world.path("null")).unwrap().rdev(), 1 << 8 | 3);
    for name in ["pts", "shm", "mqueue"] {
        fs::remove_dir(world.path(name)).unwrap();
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn two_mounts_show_the_same() {
    let mut world = World::new();
    world.put("null", &null());
    let other = tempfile::tempdir().unwrap();
    mapdev::map::shim::mount_at(other.path()).unwrap();
    fs::create_dir(world.path("shm")).unwrap();
    assert_eq!(super::world::list(other.path()), names(&["null", "shm"]));
    unmount(other.path(), UnmountFlags::empty()).unwrap();
    fs::remove_dir(world.path("shm")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn the_map_serves_names_in_32_directories_that_are_held_and_no_deeper() {
    let mut world = World::new();
    let deep = "d/".repeat(32);
    world.put(&format!("{deep}null"), &null());
    world.put(&format!("{deep}d/null"), &null());
    fs::write(world.path(&format!("{deep}d/mine")), b"").unwrap();
    assert_eq!(fs::metadata(world.path(&format!("{deep}null"))).unwrap().rdev(), 1 << 8 | 3);
    assert_eq!(world.list(&deep), names(&["d", "null"]));
    absent(fs::metadata(world.path(&format!("{deep}d/null"))));
    assert_eq!(world.list(&format!("{deep}d")), names(&["mine"]));
    fs::remove_file(world.path(&format!("{deep}d/mine"))).unwrap();
    world.put("other", &null());
    assert_eq!(fs::metadata(world.path(&format!("{deep}d/null"))).unwrap().rdev(), 1 << 8 | 3);
}

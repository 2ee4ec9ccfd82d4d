//! What is not as in devtmpfs: the list in the module's README.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mapdev::map::{Kind, Node};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, XattrFlags, ioctl_getflags, open, renameat_with};
use rustix::fs::{rename, setxattr};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};

use super::acls::rights;
use super::c4_loads::{is_loaded, pending, unload};
use super::world::{World, null};

#[test]
#[ignore = "in the virtual machine"]
fn what_else_devtmpfs_can_is_refused_and_not_half_done() {
    let mut world = World::new();
    world.put("null", &null());
    let [dir, file, other, node] = ["dir", "file", "other", "null"].map(|name| world.path(name));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, b"contents").unwrap();
    fs::write(&other, b"").unwrap();
    let label = |path: &Path, name| setxattr(path, name, b"x", XattrFlags::empty()).unwrap_err();
    assert_eq!(label(&file, "user.name"), Errno::OPNOTSUPP);
    let default = "system.posix_acl_default";
    let refusal = setxattr(&dir, default, &rights(4), XattrFlags::empty()).unwrap_err();
    assert_eq!(refusal, Errno::OPNOTSUPP);
    for path in [&file, &dir, &node] {
        assert_eq!(label(path, "trusted.name"), Errno::OPNOTSUPP);
        assert_eq!(label(path, "security.name"), Errno::OPNOTSUPP);
    }
    assert_eq!(rename(&dir, world.path("moved")).unwrap_err(), Errno::XDEV);
    for flags in [RenameFlags::EXCHANGE, RenameFlags::WHITEOUT] {
        let refusal = renameat_with(CWD, &file, CWD, &other, flags).unwrap_err();
        assert_eq!(refusal, Errno::INVAL);
    }
    let unnamed = open(&dir, OFlags::TMPFILE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
    assert_eq!(unnamed.unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(ioctl_getflags(File::open(&file).unwrap()).unwrap_err(), Errno::NOTTY);
    mount_remount(&world.root, MountFlags::empty(), c"size=1m").unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), b"contents");
    fs::remove_file(file).unwrap();
    fs::remove_file(other).unwrap();
    fs::remove_dir(dir).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn a_name_without_a_number_has_number_zero_and_is_opened_by_its_name_only() {
    unload("mapdev_probe");
    let mut world = World::new();
    world.put("probe", &pending("devname:mapdev-probe", false, 0o600));
    let path = world.path("probe");
    let stat = fs::symlink_metadata(&path).unwrap();
    assert!(stat.file_type().is_char_device() && stat.rdev() == 0, "what overlayfs has for hidden");
    let held = open(&path, OFlags::PATH, Mode::empty()).unwrap();
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    let opener = std::thread::spawn(move || File::open(again).unwrap_err().raw_os_error());
    while !is_loaded("mapdev_probe") && !opener.is_finished() {
        std::thread::yield_now();
    }
    let old = world.map.get(b"probe").unwrap().clone();
    world.put("probe", &Node { kind: Kind::Char { major: 1, minor: 5 }, ..old });
    assert_eq!(opener.join().unwrap(), Some(Errno::STALE.raw_os_error()));
    assert!(is_loaded("mapdev_probe"));
    let mut byte = [1];
    File::open(&path).unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0], "by its name it is the device");
}

//! An ACL is of one device: it goes with it, and the group has no more rights after it than before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use mapdev::map::kernel::Kernel;
use mapdev::map::shim::{self, Told};
use mapdev::map::{Kind, Node};
use rustix::fs::{XattrFlags, getxattr, listxattr, listxattr_query, setxattr};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::c4_loads::{fill_in, open_as, pending, unload};
use super::world::{World, char_device, device};

const USER: u32 = 1000;
const NAME: &str = "system.posix_acl_access";

/// Gives the user all rights beside an owner with all and a group with some.
pub(crate) fn grant(path: &Path, group: u16) {
    try_to_grant(path, group).unwrap();
}

pub(crate) fn try_to_grant(path: &Path, group: u16) -> Result<(), Errno> {
    setxattr(path, NAME, &rights(group), XattrFlags::empty())
}

pub(crate) fn rights(group: u16) -> Vec<u8> {
    let entries = [(1, 6, !0), (2, 6, USER), (4, group, !0), (16, 6, !0), (32, 0, !0)];
    [2_u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(entries.map(|(tag, perm, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        }))
        .flatten()
        .collect()
}

pub(crate) fn has_acl(path: &Path) -> bool {
    let mut room = [0; 256];
    match getxattr(path, NAME, &mut room) {
        Ok(_) => true,
        Err(Errno::NODATA) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Takes in what the kernel tells, as the daemon does.
fn listen(world: &mut World) {
    for told in world.told() {
        match told {
            Told::Changed(change) => drop(world.map.changed_by_kernel(&change)),
            Told::CompareAll => drop(world.map.compare()),
        }
    }
}

/// Gives a name another body, with mode and owner as the daemon knows them.
fn becomes(world: &mut World, name: &str, kind: Kind) {
    listen(world);
    let old = world.map.get(name.as_bytes()).unwrap().clone();
    world.put(name, &Node { kind, ..old });
}

fn mode(world: &World, name: &str) -> u32 {
    world.mode(name).0
}

fn zero() -> Kind {
    Kind::Char { major: 1, minor: 5 }
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_ends_with_its_device_when_the_name_has_no_number_any_more() {
    for looked_at in [true, false] {
        let mut world = World::new();
        world.put("probe", &char_device(1, 5, 0o640));
        let path = world.path("probe");
        grant(&path, 4);
        assert!(open_as(path.clone(), USER));
        assert_eq!(mode(&world, "probe"), 0o660);
        becomes(&mut world, "probe", pending("no-such-module", false, 0).kind);
        if looked_at {
            assert!(!has_acl(&path));
            assert_eq!(mode(&world, "probe"), 0o640, "the group has what it had before");
        }
        becomes(&mut world, "probe", zero());
        assert!(!open_as(path.clone(), USER), "this is another device");
        assert!(!has_acl(&path));
        assert_eq!(mode(&world, "probe"), 0o640);
        listen(&mut world);
        assert_eq!(world.map.get(b"probe").unwrap().mode, 0o640, "and the daemon knows");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_ends_with_its_device_when_another_has_the_name() {
    let mut world = World::new();
    world.put("null", &char_device(1, 3, 0o620));
    let path = world.path("null");
    grant(&path, 2);
    becomes(&mut world, "null", zero());
    assert!(!has_acl(&path));
    assert_eq!(mode(&world, "null"), 0o620);
    // a chmod in between took the group's rights
    grant(&path, 2);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    becomes(&mut world, "null", Kind::Char { major: 1, minor: 3 });
    assert_eq!(mode(&world, "null"), 0o600, "no right comes back");
    assert!(!has_acl(&path));
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_of_a_name_without_a_number_is_its_devices_when_it_comes() {
    unload("mapdev_probe");
    let mut world = World::new();
    let probe = pending("devname:mapdev-probe", false, 0o640);
    world.put("mapdev-probe", &probe);
    let path = world.path("mapdev-probe");
    grant(&path, 4);
    listen(&mut world);
    let opener = std::thread::spawn({
        let path = path.clone();
        move || open_as(path, USER)
    });
    let sysfs = "/sys/class/misc/mapdev-probe";
    fill_in(&mut world, "mapdev-probe", sysfs, &AtomicBool::new(false));
    assert!(opener.join().unwrap(), "the second walk finds the ACL too");
    assert!(has_acl(&path));
    assert_eq!(mode(&world, "mapdev-probe"), 0o660);
    // the device takes it with it
    becomes(&mut world, "mapdev-probe", probe.kind.clone());
    assert!(!has_acl(&path));
    assert_eq!(mode(&world, "mapdev-probe"), 0o640);
    // one that nobody has looked at is none the less
    grant(&path, 4);
    becomes(&mut world, "mapdev-probe", zero());
    becomes(&mut world, "mapdev-probe", probe.kind);
    assert!(!has_acl(&path));
    assert_eq!(mode(&world, "mapdev-probe"), 0o640);
}

/// A name has a device that nobody looks at, and then null's number, to which nothing of its ACL goes.
fn ends_with_who_came_between(node: &Node) {
    let mut world = World::new();
    world.put("probe", node);
    let path = world.path("probe");
    grant(&path, 4);
    becomes(&mut world, "probe", zero());
    becomes(&mut world, "probe", Kind::Char { major: 1, minor: 3 });
    assert!(!has_acl(&path));
    assert!(!open_as(path, USER));
    assert_eq!(mode(&world, "probe"), 0o640);
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_of_a_name_without_a_number_is_the_first_devices_and_no_others() {
    ends_with_who_came_between(&pending("no-such-module", false, 0o640));
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_does_not_come_back_with_a_number_that_a_name_had_before() {
    ends_with_who_came_between(&char_device(1, 3, 0o640));
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_that_was_taken_from_a_device_does_not_come_back() {
    let mut world = World::new();
    world.put("probe", &pending("no-such-module", false, 0o640));
    let path = world.path("probe");
    grant(&path, 4);
    becomes(&mut world, "probe", zero());
    assert!(has_acl(&path));
    rustix::fs::removexattr(&path, NAME).unwrap();
    world.put("other", &char_device(1, 3, 0o600));
    device().sync().unwrap();
    assert!(!has_acl(&path));
}

#[test]
#[ignore = "in the virtual machine"]
fn acls_end_with_the_last_mount_and_the_mode_is_as_before() {
    let mut world = World::new();
    world.put("null", &char_device(1, 3, 0o640));
    grant(&world.path("null"), 4);
    unmount(&world.root, UnmountFlags::empty()).unwrap();
    shim::mount_at(&world.root).unwrap();
    assert!(!has_acl(&world.path("null")));
    assert_eq!(mode(&world, "null"), 0o640);
}

fn listed(path: &Path) -> Vec<u8> {
    let mut room = [0; 64];
    let len = listxattr(path, &mut room).unwrap();
    room[..len].to_vec()
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_is_listed_where_there_is_one_and_nowhere_else() {
    let mut world = World::new();
    world.put("net/null", &char_device(1, 3, 0o640));
    world.put("net/pending", &pending("no-such-module", false, 0o640));
    fs::create_dir(world.path("mine")).unwrap();
    fs::write(world.path("mine/file"), b"").unwrap();
    let name = format!("{NAME}\0").into_bytes();
    for what in ["net", "net/null", "net/pending", "mine/file", "mine"] {
        let path = world.path(what);
        assert_eq!(listed(&path), b"", "{what}");
        grant(&path, 4);
        assert_eq!(listed(&path), name, "{what}");
        let len = listxattr_query(&path).unwrap();
        assert_eq!(len, name.len(), "{what}");
        let mut short = vec![0_u8; len - 1];
        assert_eq!(listxattr(&path, &mut short[..]).unwrap_err(), Errno::RANGE, "{what}");
        let mut exact = vec![0_u8; len];
        assert_eq!(listxattr(&path, &mut exact[..]).unwrap(), len, "{what}");
        rustix::fs::removexattr(&path, NAME).unwrap();
        assert_eq!(listed(&path), b"", "{what}");
    }
    fs::remove_file(world.path("mine/file")).unwrap();
    fs::remove_dir(world.path("mine")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn an_acl_of_a_directory_stays_as_long_as_somebody_has_something_in_it() {
    let mut world = World::new();
    world.put("net/tun", &char_device(10, 200, 0o600));
    let dir = world.path("net");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    grant(&dir, 5);
    fs::write(dir.join("mine"), b"").unwrap();
    assert!(world.map.remove(b"net/tun"));
    assert!(has_acl(&dir));
    fs::remove_file(dir.join("mine")).unwrap();
    world.put("net/tun", &char_device(10, 200, 0o600));
    assert!(!has_acl(&dir), "another directory");
    assert_eq!(mode(&world, "net"), 0o755);
    grant(&dir, 5);
    device().sync().unwrap();
    assert!(has_acl(&dir));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_label_of_a_security_module_is_kept_for_no_node_and_so_for_no_successor() {
    let mut world = World::new();
    world.put("null", &char_device(1, 3, 0o666));
    for name in ["security.selinux", "security.SMACK64"] {
        let refused = setxattr(world.path("null"), name, b"label", XattrFlags::empty());
        assert_eq!(refused, Err(Errno::OPNOTSUPP), "{name}");
    }
}

/// Inodes of all file systems that are in memory.
fn inodes() -> u32 {
    let text = fs::read_to_string("/proc/sys/fs/inode-nr").unwrap();
    text.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "in the virtual machine"]
fn no_inode_is_kept_for_an_acl_of_a_device_that_is_gone() {
    let mut world = World::new();
    let node = |minor| char_device(4, minor, 0o600);
    world.put("tty", &node(0));
    let before = inodes();
    for minor in 1..2000 {
        world.put("tty", &node(minor));
        grant(&world.path("tty"), 0);
        listen(&mut world);
    }
    let after = inodes();
    assert!(after < before + 1000, "{before} before, {after} after");
}

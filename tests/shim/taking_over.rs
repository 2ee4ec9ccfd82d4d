//! A daemon that finds a map in the kernel which is not its own, another process that has the kernel, or a
//! module that it does not fit.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mapdev::map::MapWriter;
use mapdev::map::kernel::{Kernel, Since};
use mapdev::map::layout::{E_LIVE, header};
use mapdev::map::shim;
use mapdev::map::{Kind, Node};
use mapdev::switch::{Wanted, switch};
use mapdev::uevent::Devnum;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::c4_loads::unload;
use super::daemon::{Machine, is_live, module, sorted, wait};
use super::own_dev::{depth, end_maps};
use super::switching::detach;
use super::world::{EPERM, absent, device, null};

const ACL: &str = "system.posix_acl_access";

/// `user::rw-, user:1000:rw-, group::---, mask::rw-, other::---`
pub(crate) fn list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, !0), (2, 6, 1000), (4, 0, !0), (16, 6, !0), (32, 0, !0)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permission.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn probe_policy(machine: &Machine) {
    machine.policy(
        "schema = 1\n[[rule]]\nid = \"probe\"\nmatch.devname = \"mapdev-probe\"\n\
         set = { owner = \"user\", mode = \"0640\", symlink = { add = [\"probe/of/tests\"] } }\n",
    );
}

#[test]
#[ignore = "in the virtual machine"]
fn a_process_that_has_the_kernel_is_waited_for() {
    let machine = Machine::new();
    probe_policy(&machine);
    let mut map = MapWriter::create(64).unwrap();
    map.upsert(b"null", &null()).unwrap();
    map.attach(Box::new(device())).unwrap();
    chown(machine.path("null"), Some(77), None).unwrap();
    let _daemon = machine.start();
    module("modprobe", "mapdev_probe");
    machine.ask(&["settle"]);
    absent(fs::symlink_metadata(machine.path("tty1")));
    absent(fs::symlink_metadata(machine.path("char")));
    assert_eq!(machine.ask(&["status"])["shim_attached"], false);
    drop(map.detach_kernel());
    wait("the daemon's map", || is_live(&machine.path("tty1")));
    let probe = fs::metadata(machine.path("probe/of/tests")).unwrap();
    assert_eq!((probe.uid(), probe.mode() & 0o777), (1000, 0o640));
    assert_eq!(fs::metadata(machine.path("null")).unwrap().uid(), 77, "as it was");
    for link in ["probe/of/tests", "char/1:3"] {
        let refused = fs::remove_file(machine.path(link)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(EPERM), "{link} is the map's own");
    }
    assert_eq!(machine.said("the kernel does not serve the map"), 1);
    unload("mapdev_probe");
}

/// Makes the published map one that no daemon takes back: it serves on, since the kernel has its own copy of
/// these bytes.
pub(crate) fn spoil() {
    let memory = File::from(device().memory().unwrap().expect("a map is published"));
    memory.write_all_at(&99_u32.to_ne_bytes(), header::VERSION as u64).unwrap();
}

fn names(below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir()) {
            names(&path, found);
        }
        found.insert(path);
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_daemon_that_lost_its_map_takes_no_name_away() {
    let machine = Machine::new();
    let daemon = machine.start();
    chown(machine.path("tty1"), Some(77), None).unwrap();
    setxattr(machine.path("tty2"), ACL, &list(), XattrFlags::empty()).unwrap();
    let listed = fs::metadata(machine.path("tty2")).unwrap().mode();
    drop(daemon);
    spoil();
    let mut all = BTreeSet::new();
    names(&machine.dev, &mut all);
    assert!(all.len() > 100, "{}", all.len());
    let stop = AtomicBool::new(false);
    let gone = |path: &&PathBuf| fs::symlink_metadata(path).is_err();
    let (rounds, absences) = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let (mut rounds, mut absences) = (0, BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                absences.extend(all.iter().filter(gone).cloned());
                rounds += 1;
            }
            (rounds, absences)
        });
        let daemon = machine.start();
        machine.ask(&["settle"]);
        stop.store(true, Ordering::Relaxed);
        drop(daemon);
        looks.join().unwrap()
    });
    println!("# {rounds} times {} names", all.len());
    assert_eq!(absences, BTreeSet::new(), "names that were gone for a moment");
    assert!(rounds > 10, "{rounds}");
    assert_eq!(machine.said("a kept map cannot be used"), 1);
    assert_eq!(machine.said("the kernel serves the map"), 2);
    assert_eq!(fs::metadata(machine.path("tty1")).unwrap().uid(), 77);
    let mut bytes = [0; 100];
    let len = getxattr(machine.path("tty2"), ACL, &mut bytes).unwrap();
    assert_eq!(bytes[..len], list());
    assert_eq!(fs::metadata(machine.path("tty2")).unwrap().mode(), listed);
}

/// A program of an event that lasts until this is dropped.
struct Held;

impl Held {
    const RULES: &str = "/etc/udev/rules.d/50-held.rules";
    const WHILE: &str = "/run/held";
    const BEGUN: &str = "/run/held-begun";

    fn program_of(kernel: &str) -> Self {
        fs::create_dir_all("/etc/udev/rules.d").unwrap();
        let (held, begun) = (Self::WHILE, Self::BEGUN);
        let program = format!(": >{begun}; while [ -e {held} ]; do sleep 0.1; done");
        fs::write(held, "").unwrap();
        let rule = format!("KERNEL==\"{kernel}\", PROGRAM=\"/bin/sh -c '{program}'\"\n");
        fs::write(Self::RULES, rule).unwrap();
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for file in [Self::RULES, Self::WHILE, Self::BEGUN] {
            // the last one may not be there
            drop(fs::remove_file(file));
        }
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_daemon_that_lost_its_map_waits_for_no_program_and_takes_no_name_away() {
    unload("mapdev_probe");
    let machine = Machine::new();
    let daemon = machine.start();
    chown(machine.path("tty3"), Some(77), None).unwrap();
    drop(daemon);
    spoil();
    let mut all = BTreeSet::new();
    names(&machine.dev, &mut all);
    let held = Held::program_of("tty3");
    let daemon = machine.spawn(&[]);
    wait("the program", || Path::new(Held::BEGUN).exists());
    wait("the daemon's map", || machine.said("the kernel serves the map") == 2);
    module("modprobe", "mapdev_probe");
    wait("a new device", || is_live(&machine.path("mapdev-probe")));
    let gone: Vec<_> = all.iter().filter(|path| fs::symlink_metadata(path).is_err()).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(fs::metadata(machine.path("tty3")).unwrap().uid(), 77);
    drop(held);
    daemon.wait_until_ready();
    machine.ask(&["settle"]);
    let mut now = BTreeSet::new();
    names(&machine.dev, &mut now);
    let gone: Vec<_> = all.difference(&now).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(fs::metadata(machine.path("tty3")).unwrap().uid(), 77);
    unload("mapdev_probe");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_map_that_was_taken_away_beneath_dev_comes_back() {
    let machine = Machine::on_dev();
    drop(machine.start_with(&["--mount-dev"]));
    device().withdraw().unwrap();
    absent(fs::metadata("/dev/null"));
    assert!(shim::is_mounted_on(Path::new("/dev")));
    let _daemon = machine.start_with(&["--mount-dev"]);
    wait("the map on /dev", || {
        shim::is_mounted_on(Path::new("/dev")) && is_live(Path::new("/dev/null"))
    });
    detach();
    assert_eq!(depth(), 1);
}

/// The module of another version in the place of ours.
struct OtherModule {
    parameter: String,
}

impl OtherModule {
    fn load() -> Self {
        let file = "/sys/module/mapdevfs/parameters/open_timeout_ms";
        let other = Self { parameter: fs::read_to_string(file).unwrap() };
        module("rmmod", "mapdevfs");
        module("insmod", "/lib/mapdevfs-other.ko");
        other
    }
}

impl Drop for OtherModule {
    fn drop(&mut self) {
        end_maps();
        module("rmmod", "mapdevfs");
        let parameter = format!("open_timeout_ms={}", self.parameter.trim());
        let mut modprobe = Command::new("/sbin/modprobe");
        assert!(modprobe.args(["mapdevfs", &parameter]).status().unwrap().success());
    }
}

/// What a daemon of the other module's version would have published for today's devices.
fn publish_other() {
    let mut map = MapWriter::create(64).unwrap();
    for (name, rdev, block) in sorted(Path::new("/dev")) {
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        let kind = Kind::of(Devnum { block, major, minor });
        let node = Node { kind, mode: 0o600, uid: 0, gid: 0, flags: E_LIVE };
        map.upsert(name.as_os_str().as_encoded_bytes(), &node).unwrap();
    }
    let memory = File::from(map.as_fd().try_clone_to_owned().unwrap());
    memory.write_all_at(&OTHER_VERSION.to_ne_bytes(), header::VERSION as u64).unwrap();
    let len = memory.metadata().unwrap().len();
    device().publish(memory.as_fd(), len, Since::Lost).unwrap();
}

/// As `scripts/shim.sh` builds it.
const OTHER_VERSION: u32 = 99;

#[test]
#[ignore = "in the virtual machine"]
fn with_a_module_of_another_version_dev_becomes_devtmpfs() {
    let machine = Machine::on_dev();
    probe_policy(&machine);
    unload("mapdev_probe");
    let other = OtherModule::load();
    publish_other();
    switch(Path::new("/dev"), Path::new("/sys"), Wanted::Map, Duration::ZERO).unwrap();
    assert!(shim::is_mounted_on(Path::new("/dev")));
    let daemon = machine.start_with(&["--mount-dev"]);
    wait("devtmpfs", || !shim::is_mounted_on(Path::new("/dev")));
    module("modprobe", "mapdev_probe");
    wait("a new device", || {
        fs::metadata("/dev/probe/of/tests").is_ok_and(|stat| stat.uid() == 1000)
    });
    assert_eq!(machine.said("update-initramfs -u"), 2, "that it is so, and what became of /dev");
    assert_eq!(depth(), 1);
    unload("mapdev_probe");
    drop(daemon);
    device().withdraw().unwrap();
    drop(other);
}

//! A device that comes in another one's place while nobody listens has nothing of what was that one's.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::acls::{grant, has_acl};
use super::c4_loads::{open_as, unload};
use super::daemon::{Daemon, Machine, is_live, module, wait};
use super::taking_over::spoil;

const CONTROL: &str = "/sys/class/zram-control";
/// More than the daemon's buffer holds.
const EVENTS: u32 = 8000;

/// Owner, group, mode and the object that has them.
fn node(path: &Path) -> (u32, u32, u32, u64) {
    let stat = fs::metadata(path).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o777, stat.ino())
}

fn disk_comes() -> String {
    let number = fs::read_to_string(Path::new(CONTROL).join("hot_add")).unwrap();
    number.trim().to_owned()
}

fn disk_goes(number: &str) {
    let remove = || fs::write(Path::new(CONTROL).join("hot_remove"), number);
    // somebody may have it open for a moment
    wait("its end", || remove().is_ok());
}

/// A disk that was given to somebody, and a terminal too.
fn given(machine: &Machine) -> (String, PathBuf, PathBuf) {
    let number = disk_comes();
    let disk = machine.path(&format!("zram{number}"));
    wait("the disk", || is_live(&disk));
    machine.ask(&["settle"]);
    grant(&disk, 4);
    chown(&disk, Some(1000), None).unwrap();
    assert!(open_as(disk.clone(), 1000));
    let terminal = machine.path("tty2");
    chown(&terminal, Some(1000), None).unwrap();
    (number, disk, terminal)
}

fn is_the_kernels_default(disk: &Path, before: (u32, u32, u32, u64)) {
    let (uid, gid, mode, inode) = node(disk);
    assert_eq!((uid, gid, mode), (0, 0, 0o600));
    assert_ne!(inode, before.3, "a node of its own");
    assert!(!has_acl(disk) && !open_as(disk.to_owned(), 1000));
}

fn overflow(daemon: &Daemon, machine: &Machine, meanwhile: impl FnOnce()) {
    let lost = machine.said("lost uevents");
    daemon.signal(Signal::STOP);
    wait("its stop", || daemon.is_stopped());
    for _ in 0..EVENTS {
        fs::write("/sys/class/mem/null/uevent", b"change").unwrap();
    }
    meanwhile();
    daemon.signal(Signal::CONT);
    wait("the loss", || machine.said("lost uevents") > lost);
    machine.ask(&["settle"]);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_device_whose_coming_was_lost_has_nothing_of_the_one_in_whose_place_it_came() {
    module("modprobe", "zram");
    let machine = Machine::new();
    let daemon = machine.start_with(&["--receive-buffer", "1048576"]);
    let (first, disk, terminal) = given(&machine);
    let before = (node(&disk), node(&terminal));
    overflow(&daemon, &machine, || {
        disk_goes(&first);
        assert_eq!(disk_comes(), first, "the same number");
    });
    is_the_kernels_default(&disk, before.0);
    assert_eq!(node(&terminal), before.1, "a device that was there all the time keeps what it has");
    let now = node(&disk);
    chown(&disk, Some(1000), None).unwrap();
    overflow(&daemon, &machine, || ());
    assert_eq!(node(&disk), (1000, now.1, now.2, now.3), "and so does the new one from then on");
    drop(daemon);
    unload("zram");
}

/// Of a disk: as long as this is there, it is told as the first one.
struct First;

impl First {
    const RULES: &str = "/etc/udev/rules.d/50-first.rules";

    fn begin() -> Self {
        fs::create_dir_all("/etc/udev/rules.d").unwrap();
        let rule = "KERNEL==\"zram*\", TAG+=\"first\", ENV{FIRST}=\"1\", SYMLINK+=\"first/disk\"\n";
        fs::write(Self::RULES, rule).unwrap();
        Self
    }

    /// What there is of it, beside the node.
    fn traces(machine: &Machine, disk: &str) -> Vec<PathBuf> {
        let id = format!("b{disk}");
        let record = Path::new("/run/udev/data").join(&id);
        let said = fs::read_to_string(&record).unwrap_or_default();
        let places = [
            Path::new("/run/udev/tags/first").join(&id),
            Path::new(r"/run/udev/links/first\x2fdisk").join(&id),
            machine.path("first/disk"),
        ];
        let there = places.into_iter().filter(|path| fs::symlink_metadata(path).is_ok());
        there.chain(said.contains("FIRST").then_some(record)).collect()
    }
}

impl Drop for First {
    fn drop(&mut self) {
        fs::remove_file(Self::RULES).unwrap();
    }
}

fn devnum(disk: &Path) -> String {
    let rdev = fs::metadata(disk).unwrap().rdev();
    format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

#[test]
#[ignore = "in the virtual machine"]
fn a_fresh_map_has_nothing_for_a_device_of_the_one_in_whose_place_it_came() {
    module("modprobe", "zram");
    let machine = Machine::new();
    let daemon = machine.start();
    let (first, disk, terminal) = given(&machine);
    let before = (node(&disk), node(&terminal));
    drop(daemon);
    disk_goes(&first);
    assert_eq!(disk_comes(), first, "the same number");
    spoil();
    let daemon = machine.start();
    is_the_kernels_default(&disk, before.0);
    let now = node(&terminal);
    let (uid, gid, mode, _) = before.1;
    assert_eq!((now.0, now.1, now.2), (uid, gid, mode), "what stays keeps what it has");
    assert_eq!(machine.said("a kept map cannot be used"), 1);
    drop(daemon);
    unload("zram");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_device_that_came_while_no_daemon_ran_has_nothing_of_the_one_in_whose_place_it_came() {
    module("modprobe", "zram");
    let machine = Machine::new();
    let rules = First::begin();
    let daemon = machine.start();
    let (first, disk, terminal) = given(&machine);
    let before = (node(&disk), node(&terminal));
    let number = devnum(&disk);
    assert_eq!(First::traces(&machine, &number).len(), 4);
    drop(rules);
    drop(daemon);
    let daemon = machine.start();
    assert_eq!((node(&disk), node(&terminal)), before, "what stays keeps what it has");
    drop(daemon);
    disk_goes(&first);
    assert_eq!(disk_comes(), first, "the same number");
    let daemon = machine.start();
    machine.ask(&["settle"]);
    is_the_kernels_default(&disk, before.0);
    assert_eq!(First::traces(&machine, &number), Vec::<PathBuf>::new());
    assert_eq!(node(&terminal), before.1);
    drop(daemon);
    unload("zram");
}

//! Disks that other programs work on: locked ones wait, and a writer's close is told.

use std::fs::{self, File};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::sysfs::Device;

const RULES: &str = r#"
SUBSYSTEM=="block", SYMLINK+="live/%k"
SUBSYSTEM=="block", ENV{LIVE_WATCH}!="0", OPTIONS+="watch"
SUBSYSTEM=="block", ENV{LIVE_WRITE}=="1", RUN+="/bin/sh -c ': >/run/live/first/dev/loop6'"
"#;

fn rules(machine: &Machine) {
    let folder = machine.root.join("etc/udev/rules.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-live.rules"), RULES).unwrap();
}

/// Block devices that every machine has, under names of ours: they can be opened, and have no partitions.
fn disk(number: &str) -> Device {
    let name = format!("loop{number}");
    let pairs =
        [("MAJOR", "7"), ("MINOR", number), ("DEVNAME", name.as_str()), ("DEVTYPE", "disk")];
    Device::new(&format!("/devices/live/block/{name}"), "block", &pairs)
}

fn partition() -> Device {
    let pairs =
        [("MAJOR", "259"), ("MINOR", "77"), ("DEVNAME", "loop7p1"), ("DEVTYPE", "partition")];
    Device::new("/devices/live/block/loop7/loop7p1", "block", &pairs)
}

#[test]
fn a_locked_disk_waits_with_its_partitions_and_nobody_else() {
    private(module_path!(), "a_locked_disk_waits_with_its_partitions_and_nobody_else", |machine| {
        let mut machine = machine;
        rules(&machine);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let disk_0 = disk("7");
        listener.until(machine.add(&disk_0));
        listener.until(machine.add(&partition()));
        let node = File::open(machine.place.dev.join("loop7")).unwrap();
        flock(&node, FlockOperation::LockExclusive).unwrap();

        let first = machine.change(&disk_0);
        let second = machine.change(&partition());
        let other = machine.add(&disk("6"));
        let told = listener.until(other);
        assert!(told.iter().all(|told| told.number("LIVE_N") != Some(first)), "not locked");
        // longer than the time between two tries
        let more = (0..20).map(|_| machine.change(&disk("6"))).last().unwrap();
        listener.until(more);
        let third = machine.change(&disk_0);
        flock(&node, FlockOperation::Unlock).unwrap();
        let told = listener.until(third);
        let told: Vec<_> = told.iter().filter_map(|told| told.number("LIVE_N")).collect();
        assert_eq!(told, [first, second, third], "in their order");

        // neither the end of a daemon waits, nor its start, nor a disk that goes
        flock(&node, FlockOperation::LockExclusive).unwrap();
        machine.change(&disk_0);
        machine.change(&partition());
        daemon.stop();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let link = machine.place.dev.join("live/loop7");
        assert!(link.is_symlink() && machine.place.records.join("b259:77").exists());
        bus.settle();
        flock(&node, FlockOperation::Unlock).unwrap();
        listener.until(machine.change(&disk_0));
        assert!(link.is_symlink());
        flock(&node, FlockOperation::LockExclusive).unwrap();
        listener.until(machine.remove(&partition()));
        listener.until(machine.remove(&disk_0));
        assert!(!link.is_symlink());
        daemon.stop();
    });
}

#[test]
fn a_writers_close_is_told_but_not_that_of_the_event_itself() {
    private(
        module_path!(),
        "a_writers_close_is_told_but_not_that_of_the_event_itself",
        |machine| {
            let mut machine = machine;
            rules(&machine);
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let listener = Listener::new();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            let disk = disk("6");
            listener.until(machine.add(&disk));
            let uevent = machine.sysfs.root().join("devices/live/block/loop6/uevent");
            let before = fs::read_to_string(&uevent).unwrap();
            let watch = machine.place.records.with_file_name("watch");
            let watched = |id: &str| fs::read_link(watch.join(id)).is_ok();
            let write = |machine: &Machine| {
                let node = machine.place.dev.join("loop6");
                drop(fs::OpenOptions::new().write(true).open(node).unwrap());
            };
            // "change" stands at the beginning of what was there
            let told = || fs::read_to_string(&uevent).unwrap().starts_with("change");
            let wait = || {
                while !told() {
                    std::thread::yield_now();
                }
                fs::write(&uevent, &before).unwrap();
            };
            assert!(watched("b7:6"));
            write(&machine);
            wait();

            listener.until(machine.tell("change", &disk, &[("LIVE_WRITE", "1")]));
            bus.settle();
            assert!(!told(), "the event heard itself: {}", daemon.log());
            assert!(watched("b7:6"), "it is no longer watched: {}", daemon.log());

            daemon.kill();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            write(&machine);
            wait();
            listener.until(machine.tell("change", &disk, &[("LIVE_WATCH", "0")]));
            assert!(!watched("b7:6") && fs::read_dir(&watch).unwrap().next().is_none());
            write(&machine);
            listener.until(machine.change(&disk));
            assert!(watched("b7:6") && !told());
            listener.until(machine.remove(&disk));
            assert!(fs::read_dir(&watch).unwrap().next().is_none());
            daemon.stop();
        },
    );
}

const SEAT: &str = r#"
SUBSYSTEM=="live", TAG+="uaccess", SECLABEL{smack}+="live", SECLABEL{selinux}+="a_label"
TAG=="uaccess", ENV{MAJOR}!="", RUN{builtin}+="uaccess"
"#;

#[test]
fn a_seats_device_is_given_to_its_active_user_and_labels_are_readable() {
    let name = "a_seats_device_is_given_to_its_active_user_and_labels_are_readable";
    private(module_path!(), name, |mut machine| {
        let folder = machine.root.join("etc/udev/rules.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("50-live.rules"), SEAT).unwrap();
        let seats = machine.root.join("run/systemd/seats");
        fs::create_dir_all(&seats).unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let pairs = [("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1"), ("DEVMODE", "0640")];
        let device = Device::new("/devices/live/livec1", "live", &pairs);
        let node = machine.place.dev.join("livec1");
        let list = || {
            let output = Command::new("getfacl").args(["-cn", "-p"]).arg(&node).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        listener.until(machine.add(&device));
        assert_eq!(list(), "user::rw- group::r-- other::---");
        fs::write(seats.join("seat0"), "ACTIVE=c1\nACTIVE_UID=1234\n").unwrap();
        listener.until(machine.change(&device));
        let given = "user::rw- user:1234:rw- group::r-- mask::rw- other::---";
        assert_eq!(list(), given);
        fs::write(seats.join("seat0"), "ACTIVE=c2\nACTIVE_UID=99\n").unwrap();
        listener.until(machine.change(&device));
        assert_eq!(list(), given.replace("1234", "99"));
        fs::remove_file(seats.join("seat0")).unwrap();
        listener.until(machine.change(&device));
        assert_eq!(list(), "user::rw- group::r-- mask::r-- other::---");

        for (name, wanted) in
            [("security.selinux", &b"a_label\0"[..]), ("security.SMACK64", b"live")]
        {
            let mut label = [0; 64];
            let length = rustix::fs::getxattr(&node, name, &mut label).unwrap();
            assert_eq!(&label[..length], wanted, "{name}");
        }
        daemon.stop();
    });
}

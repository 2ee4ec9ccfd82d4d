//! A disk that does not answer: its probe is ended, it is marked, and nobody else notices.

use std::fs::{self, File};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::sysfs::Device;

const RULES: &str = "SUBSYSTEM==\"block\", IMPORT{builtin}=\"blkid\"\n\
    ENV{ID_FS_TYPE}==\"?*\", SYMLINK+=\"live/$env{ID_FS_TYPE}\"\n";

const CONFIG: &str = "probe-timeout = 3\nworkers = 2\n";

/// An image with a file system, on a loop device that goes when the file is closed.
fn disk(machine: &Machine) -> (Device, File) {
    let make = |path: &str, kind, major, minor| {
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(major, minor)).unwrap();
    };
    make("/dev/loop-control", FileType::CharacterDevice, 10, 237);
    for minor in 0..64 {
        make(&format!("/dev/loop{minor}"), FileType::BlockDevice, 7, minor);
    }
    let image = machine.top.join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let image = image.to_str().unwrap();
    run("mke2fs", &["-q", image]);
    let node = run("losetup", &["--find", "--show", image]);
    let node = node.trim();
    let open = File::open(node).unwrap();
    run("losetup", &["--detach", node]);
    let name = node.trim_start_matches("/dev/");
    let minor = name.trim_start_matches("loop");
    let pairs = [("MAJOR", "7"), ("MINOR", minor), ("DEVNAME", name), ("DEVTYPE", "disk")];
    (Device::new(&format!("/devices/virtual/block/{name}"), "block", &pairs), open)
}

/// The probes of this namespace.
fn probes() -> Vec<Pid> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_probe = |number: &i32| {
        let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        name.trim() == "mapdev-probe"
    };
    numbers.filter(is_probe).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_disk_that_does_not_answer_is_marked_while_100_other_events_complete() {
    let test = "a_disk_that_does_not_answer_is_marked_while_100_other_events_complete";
    private(module_path!(), test, |mut machine| {
        let folder = machine.root.join("etc/udev/rules.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("50-live.rules"), RULES).unwrap();
        fs::write(machine.root.join("etc/mapdev/mapdev.toml"), CONFIG).unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let (disk, _open) = disk(&machine);
        let pairs = [("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1")];
        let other = Device::new("/devices/live/livec1", "live", &pairs);
        listener.until(machine.add(&other));
        let told = listener.until(machine.add(&disk)).pop().unwrap();
        assert_eq!(told.text("ID_FS_TYPE"), "ext2", "{}", daemon.log());
        let link = machine.place.dev.join("live/ext2");
        assert!(link.is_symlink());

        // the worker that is free has its probe stopped, or starts one: the next time it has one
        let marked = (0..4).find_map(|_| {
            let stopped = probes();
            stopped.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
            let number = machine.change(&disk);
            let last = (0..100).map(|_| machine.change(&other)).last().unwrap();
            let mut told = listener.until(last);
            let disk_is_told = |told: &[crate::listen::Announcement]| {
                told.iter().find(|told| told.number("LIVE_N") == Some(number)).cloned()
            };
            let early = disk_is_told(&told);
            if early.is_none() {
                told = listener.until(number);
            }
            let told = early.clone().or_else(|| disk_is_told(&told)).unwrap();
            if told.text("MAPDEV_PROBE").is_empty() {
                assert_eq!(told.text("ID_FS_TYPE"), "ext2");
                return None;
            }
            assert!(early.is_none(), "the others waited for the disk");
            Some(told)
        });
        let marked = marked.expect("wanted a probe that hangs");
        assert_eq!(
            (marked.text("MAPDEV_PROBE"), marked.text("ID_FS_TYPE")),
            ("time-up".into(), "".into())
        );
        let record = machine.place.records.join(format!("b7:{}", disk.get("MINOR").unwrap()));
        let record = fs::read_to_string(record).unwrap();
        assert!(record.contains("E:MAPDEV_PROBE=time-up\n"), "{record}");
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("did not answer")).unwrap_or_default();
        assert!(line.contains(disk.sysname()), "{log}");

        // stopped ones may still wait for their question
        let again = (0..4).any(|_| {
            let told = listener.until(machine.change(&disk)).pop().unwrap();
            told.text("MAPDEV_PROBE").is_empty() && told.text("ID_FS_TYPE") == "ext2"
        });
        assert!(again && link.is_symlink(), "the disk is read again");
        daemon.stop();
    });
}

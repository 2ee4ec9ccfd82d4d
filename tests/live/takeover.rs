//! One manager takes over from the other, and keeps everything.

use std::fs;
use std::process::Command;

use crate::bus::Bus;
use crate::daemon::Manager;
use crate::listen::Listener;
use crate::machine::Machine;
use crate::managers::{Running, differences, left, shared};
use crate::sysfs::Device;

const RULES: &str = r#"
SUBSYSTEM!="block|live", GOTO="end"
SYMLINK+="live/%k live/all", TAG+="live1", ENV{ID_LIVE}="%k a"
SUBSYSTEM=="block", OPTIONS+="watch"
KERNEL=="lived0", OPTIONS+="link_priority=5", OPTIONS+="db_persist", GROUP="8"
KERNEL=="livec0", OWNER="7", MODE="0640"
LABEL="end"
"#;

fn devices() -> Vec<Device> {
    let device = |name: &str, subsystem: &str, minor: &str, more: &[(&str, &str)]| {
        let mut pairs = vec![("MAJOR", "400"), ("MINOR", minor), ("DEVNAME", name)];
        pairs.extend(more);
        Device::new(&format!("/devices/live/{subsystem}/{name}"), subsystem, &pairs)
    };
    let disk = [("DEVTYPE", "disk")];
    vec![
        device("lived0", "block", "0", &disk),
        device("lived1", "block", "1", &disk),
        device("livec0", "live", "2", &[]),
        device("livec1", "live", "3", &[("DEVMODE", "0666")]),
    ]
}

/// `udevadm info` on a node: what a client of libudev finds.
fn info(name: &str) -> String {
    let mut command = Command::new("udevadm");
    command.args(["info", "--query=all", "--name", name]).env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Half of the devices come under `first`, which then goes; `second` takes over, hears of the other half, and
/// of the end of all.
fn take_over(
    machine: &mut Machine,
    listener: &Listener,
    first: impl FnOnce(&Machine) -> Running,
    second: impl FnOnce(&Machine) -> Running,
) -> Vec<crate::managers::Lines> {
    let devices = devices();
    let running = first(machine);
    for device in [&devices[0], &devices[1], &devices[2]] {
        listener.until(machine.add(device));
    }
    listener.until(machine.change(&devices[1]));
    let before = left();
    let times = times();
    running.stop();
    let running = second(machine);
    assert_eq!(differences(&left(), &before), [""; 0], "the second has changed something");
    assert_eq!(times, self::times(), "and when devices were first handled");
    let mut all = vec![before];
    listener.until(machine.add(&devices[3]));
    all.push(left());
    for device in [0, 3, 1, 2].map(|n| &devices[n]) {
        listener.until(machine.remove(device));
        all.push(left());
    }
    running.stop();
    all
}

/// The times in the records.
fn times() -> Vec<String> {
    let mut times = Vec::new();
    for entry in fs::read_dir("/run/udev/data").unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.contains("400:") {
            times.extend(
                text.lines().filter(|l| l.starts_with("I:")).map(|l| format!("{name} {l}")),
            );
        }
    }
    times.sort();
    times
}

#[test]
fn each_manager_takes_over_from_the_other_and_keeps_everything() {
    let name = "each_manager_takes_over_from_the_other_and_keeps_everything";
    shared(module_path!(), name, RULES, |mut machine| {
        let listener = Listener::new();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let ours = |machine: &Machine| Running::ours(machine, &bus, &manager);
        let theirs = |_: &Machine| Running::theirs();
        let alone = take_over(&mut machine, &listener, theirs, theirs);
        assert!(alone[0].len() > 20 && alone[5].is_empty(), "{:#?}", alone[5]);
        for (what, found) in [
            ("theirs, then ours", take_over(&mut machine, &listener, theirs, ours)),
            ("ours, then theirs", take_over(&mut machine, &listener, ours, theirs)),
            ("ours, then ours", take_over(&mut machine, &listener, ours, ours)),
        ] {
            for (step, (found, wanted)) in found.iter().zip(&alone).enumerate() {
                let other = differences(found, wanted);
                assert!(other.is_empty(), "{what}, step {step}:\n{}", other.join("\n"));
            }
        }
    });
}

#[test]
fn udevadm_reads_what_we_write_and_its_clean_up_is_made_good() {
    let name = "udevadm_reads_what_we_write_and_its_clean_up_is_made_good";
    shared(module_path!(), name, RULES, |mut machine| {
        let listener = Listener::new();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Running::ours(&machine, &bus, &manager);
        let devices = devices();
        devices.iter().for_each(|device| drop(listener.until(machine.add(device))));
        let found = info("/dev/livec0");
        for line in ["S: live/livec0", "S: live/all", "E: ID_LIVE=livec0 a", "E: TAGS=:live1:"] {
            assert!(found.lines().any(|found| found == line), "no `{line}` in {found}");
        }
        let status = Command::new("udevadm").args(["info", "--cleanup-db"]).status().unwrap();
        assert!(status.success());
        let before = left();
        assert!(!before.contains_key("/run/udev/data/c400:2"), "{before:#?}");
        assert!(before.contains_key("/run/udev/data/b400:0"), "what persists is gone: {before:#?}");
        devices.iter().for_each(|device| drop(listener.until(machine.change(device))));
        let after = left();
        for name in [
            "/run/udev/data/c400:2",
            "/run/udev/tags/live1/c400:2",
            "/run/udev/links/live\\x2fall/c400:2",
        ] {
            assert!(after.contains_key(name), "no {name} in {after:#?}");
        }
        assert_eq!(info("/dev/livec0").lines().count(), found.lines().count());
        daemon.stop();
    });
}

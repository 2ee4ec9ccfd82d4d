//! Devices whose driver does not answer: whoever handles their events is stuck in the kernel, and everybody
//! else's events go on.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::private;
use crate::sysfs::Device;

/// Has a program run, for longer than whoever waits for it keeps his place, and then what is above a device
/// read.
const RULES: &str = "SUBSYSTEM==\"live\", DEVPATH==\"/devices/stuck/*\", PROGRAM=\"/bin/sleep 0.02\"\n\
    SUBSYSTEM==\"live\", SUBSYSTEMS==\"nobody\", ENV{ID_NEVER}=\"1\"\n";

/// More than there are threads at first: two that lead, and two that work.
const STUCK: usize = 6;

fn device(folder: &str, minor: usize) -> Device {
    let (name, minor) = (format!("livec{minor}"), minor.to_string());
    let pairs = [("MAJOR", "4000"), ("MINOR", &*minor), ("DEVNAME", &*name)];
    Device::new(&format!("/devices/{folder}/{name}"), "live", &pairs)
}

#[test]
fn devices_that_do_not_answer_hold_up_nobody_else() {
    let test = "devices_that_do_not_answer_hold_up_nobody_else";
    private(module_path!(), test, |mut machine| {
        let folder = machine.root.join("etc/udev/rules.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("50-live.rules"), RULES).unwrap();
        fs::write(machine.root.join("etc/mapdev/mapdev.toml"), "workers = 2\n").unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);

        // to open it takes until somebody opens it for writing, as a driver takes until its device answers
        let parent = machine.sysfs.root().join("devices/stuck");
        fs::create_dir_all(&parent).unwrap();
        let answer = parent.join("uevent");
        mknodat(CWD, &answer, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for minor in 0..STUCK {
            machine.add(&device("stuck", minor));
        }
        let names = |range: std::ops::Range<usize>| -> BTreeSet<String> {
            range.map(|minor| format!("/dev/livec{minor}")).collect()
        };
        let hear = |count: usize| -> BTreeSet<String> {
            (0..count).map(|_| listener.next().text("DEVNAME")).collect()
        };
        for minor in 100..200 {
            machine.add(&device("live", minor));
        }
        assert_eq!(hear(100), names(100..200));
        listener.until(machine.change(&device("live", 100)));

        let answers = OpenOptions::new().write(true).open(&answer).unwrap();
        fs::remove_file(&answer).unwrap();
        drop(answers);
        assert_eq!(hear(STUCK), names(0..STUCK), "{}", daemon.log());
        listener.until(machine.change(&device("stuck", 0)));
        daemon.stop();
    });
}

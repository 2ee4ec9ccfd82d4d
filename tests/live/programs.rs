//! Programs of rules under the daemon: when they run, what they find, what is told when rules fail, and that
//! one which takes long holds nobody up.

use std::fs;
use std::process::Command;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::sysfs::Device;

pub(crate) fn rules(machine: &Machine, text: &str) {
    let folder = machine.root.join("etc/udev/rules.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-live.rules"), text).unwrap();
}

/// A hardware database of these lines.
fn database(machine: &Machine, text: &str) {
    let folder = machine.root.join("etc/udev/hwdb.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-live.hwdb"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    let made = command.args(["hwdb", "update", "--root"]).arg(&machine.root).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

pub(crate) fn device(minor: usize) -> Device {
    let (name, minor) = (format!("livec{minor}"), minor.to_string());
    let pairs = [("MAJOR", "4000"), ("MINOR", &*minor), ("DEVNAME", &*name)];
    Device::new(&format!("/devices/live/{name}"), "live", &pairs)
}

/// What is run sees the event's end: link and record are there, and the announcement comes after it.
const LAST: &str = r#"
ACTION!="remove", SUBSYSTEM=="live", SYMLINK+="live/$kernel", TAG+="seat", ENV{ID_LIVE}="$kernel", ENV{.DOT}="1"
SUBSYSTEM=="live", RUN+="/bin/sh -c 'cd /run/live; echo $$ACTION $$DEVLINKS $$TAGS $$ID_LIVE >>ran;\
    readlink first/dev/live/$kernel >>ran; cat first/udev/data/c4000:$minor | grep -c ID_LIVE >>ran; env >env'"
SUBSYSTEM=="live", RUN+="/bin/sh -c 'echo last >>/run/live/ran; exit 3'", RUN{builtin}+="kmod load none"
SUBSYSTEM=="live", ENV{FOUND}="before", RUN{builtin}+="hwdb live:c"
"#;

#[test]
fn what_is_run_finds_link_and_record_and_is_over_when_the_event_is_told() {
    private(
        module_path!(),
        "what_is_run_finds_link_and_record_and_is_over_when_the_event_is_told",
        |mut machine| {
            rules(&machine, LAST);
            database(&machine, "live:c\n FOUND=by a builtin\n");
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let listener = Listener::new();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            let ran = machine.top.join("ran");
            let first = device(1);
            let told = listener.until(machine.add(&first)).pop().unwrap();
            // what is found after the record was written is told, and is not in it
            assert_eq!(told.text("FOUND"), "by a builtin");
            let record = fs::read_to_string(machine.place.records.join("c4000:1")).unwrap();
            assert!(record.contains("E:FOUND=before\n"), "{record}");
            let wanted = "add /dev/live/livec1 :seat: livec1\n../livec1\n1\nlast\n";
            assert_eq!(fs::read_to_string(&ran).unwrap(), wanted);
            let env = fs::read_to_string(machine.top.join("env")).unwrap();
            assert!(env.contains("USEC_INITIALIZED="), "{env}");
            assert!(!env.contains("PATH=/usr") && !env.contains("LANG="), "{env}");

            fs::remove_file(&ran).unwrap();
            let told = listener.until(machine.remove(&first)).pop().unwrap();
            // its record, link and tags are the event's, and gone when this is run
            let wanted = "remove /dev/live/livec1 :seat: livec1\n0\nlast\n";
            assert_eq!(fs::read_to_string(&ran).unwrap(), wanted);
            assert_eq!(
                (told.text("ID_LIVE"), told.text("TAGS")),
                ("livec1".into(), ":seat:".into())
            );
            assert_eq!(
                (told.text("DEVLINKS"), told.text(".DOT")),
                ("/dev/live/livec1".into(), "".into())
            );

            let second = device(2);
            listener.until(machine.add(&second));
            fs::remove_file(&ran).unwrap();
            daemon.stop();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            assert!(!ran.exists(), "a restart runs again what was run before");
            daemon.stop();
        },
    );
}

#[test]
fn an_event_whose_rules_fail_says_so_and_leaves_the_record() {
    private(
        module_path!(),
        "an_event_whose_rules_fail_says_so_and_leaves_the_record",
        |mut machine| {
            let good = "SUBSYSTEM==\"live\", MODE=\"0640\", SYMLINK+=\"live/x\", ENV{ID_A}=\"1\", TAG+=\"t\"\n";
            let bad = "ACTION==\"change\", ENV{ID_B}=\"2\"\nACTION==\"change\", IMPORT{file}=\"/run/live/loop\"\n\
                ACTION==\"change\", SYMLINK+=\"live/no\", RUN+=\"/bin/touch /run/live/no\"\n";
            rules(&machine, &format!("{good}{bad}"));
            std::os::unix::fs::symlink("loop", machine.top.join("loop")).unwrap();
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let listener = Listener::new();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            let first = device(1);
            listener.until(machine.add(&first));
            let record = machine.place.records.join("c4000:1");
            let before = fs::read_to_string(&record).unwrap();
            let told = listener.until(machine.change(&first)).pop().unwrap();
            for (key, value) in [
                ("UDEV_WORKER_FAILED", "1"),
                ("UDEV_WORKER_ERRNO", "40"),
                ("UDEV_WORKER_ERRNO_NAME", "ELOOP"),
                ("ID_A", "1"),
                ("ID_B", "2"),
            ] {
                assert_eq!(told.text(key), value, "{key}");
            }
            assert_eq!(fs::read_to_string(&record).unwrap(), before);
            let dev = machine.place.dev.clone();
            assert!(dev.join("live/x").exists() && !dev.join("live/no").exists());
            assert!(!machine.top.join("no").exists(), "something was run");
            let log = daemon.log();
            assert!(log.contains("50-live.rules:3"), "{log}");
            daemon.stop();
        },
    );
}

/// Programs that wait until the gate is opened.
const SLOW: &str = r#"
KERNEL=="livec1?", SUBSYSTEM=="live", PROGRAM=="/bin/sh -c 'read line </run/live/gate'", ENV{ID_READ}="1"
KERNEL=="livec[2-5]?", SUBSYSTEM=="live", RUN+="/bin/sh -c 'read line </run/live/gate'"
KERNEL=="livec9*", SUBSYSTEM=="live", PROGRAM=="/bin/echo fast", ENV{ID_FAST}="$result"
"#;

#[test]
fn programs_that_wait_hold_up_no_other_device() {
    private(module_path!(), "programs_that_wait_hold_up_no_other_device", |mut machine| {
        rules(&machine, SLOW);
        let gate = machine.top.join("gate");
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let slow: Vec<_> = (10..60).map(device).collect();
        for device in &slow {
            machine.add(device);
        }
        // the last of them is told only when all of these are
        let quick: Vec<_> = (900..1000).map(device).collect();
        let mut number = 0;
        quick.iter().for_each(|device| number = machine.add(device));
        let told = listener.until(number);
        let fast = |told: &&crate::listen::Announcement| told.text("ID_FAST") == "fast";
        let before = told.iter().filter(fast).count();
        let slow_told =
            told.iter().filter(|told| told.text("DEVNAME").len() == "/dev/livec10".len());
        assert_eq!(slow_told.count(), 0, "a program that waits is done");
        let rest = (before..quick.len()).map(|_| listener.next());
        assert!(rest.collect::<Vec<_>>().iter().all(|told| told.text("ID_FAST") == "fast"));

        // an order of one device is kept: its change waits for the program
        let last = machine.change(&slow[40]);
        let open = fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
        let write = |_| std::io::Write::write_all(&mut &open, b"go\n").unwrap();
        (0..=slow.len()).for_each(write);
        let rest = listener.until(last);
        let slow_told = rest.iter().filter(|told| told.text("DEVNAME") == "/dev/livec50").count();
        assert_eq!(slow_told, 2);
        bus.settle();
        daemon.stop();
    });
}

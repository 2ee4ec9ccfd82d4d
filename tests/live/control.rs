//! The machine's own `udevadm` asks the daemon: whether it has heard, to wait, to go on, to read rules anew.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::programs::{device, rules};

fn udevadm(words: &[&str]) -> Output {
    Command::new("udevadm").args(words).output().expect("wanted udevadm")
}

/// What it asked was done, says the daemon.
fn done(words: &[&str]) {
    let asked = udevadm(words);
    assert!(asked.status.success(), "{words:?}: {}", String::from_utf8_lossy(&asked.stderr));
}

/// What is at udev's place is the daemon's.
fn at_udevs_place(machine: &Machine) -> PathBuf {
    let folder = machine.place.records.parent().unwrap();
    symlink(folder, "/run/udev").unwrap();
    folder.to_owned()
}

#[test]
fn udevadm_settle_waits_for_what_is_not_handled() {
    private(module_path!(), "udevadm_settle_waits_for_what_is_not_handled", |mut machine| {
        // opens when somebody writes
        let gate = machine.top.join("gate");
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let text = format!("SUBSYSTEM==\"live\", RUN+=\"/bin/cat {}\"\n", gate.display());
        rules(&machine, &text);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let folder = at_udevs_place(&machine);
        let _daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let control = fs::symlink_metadata("/run/udev/control").unwrap();
        assert!(control.file_type().is_socket() && control.permissions().mode() & 0o777 == 0o600);
        done(&["settle"]);
        assert!(!folder.join("queue").exists());
        machine.add(&device(1));
        // it has heard of the device when it answers
        done(&["control", "--ping"]);
        assert!(folder.join("queue").exists());
        let mut settle = Command::new("udevadm").arg("settle").spawn().unwrap();
        done(&["control", "--ping"]);
        assert!(settle.try_wait().unwrap().is_none(), "it waits");
        fs::write(&gate, "go").unwrap();
        assert!(settle.wait().unwrap().success());
        assert!(!folder.join("queue").exists());
    });
}

#[test]
fn events_wait_while_udevadm_has_the_queue_stopped() {
    private(module_path!(), "events_wait_while_udevadm_has_the_queue_stopped", |mut machine| {
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let folder = at_udevs_place(&machine);
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let record = |minor: usize| machine.place.records.join(format!("c4000:{minor}"));
        let (first, second) = (record(1), record(2));
        done(&["control", "--stop-exec-queue"]);
        machine.add(&device(1));
        done(&["control", "--ping"]);
        assert!(folder.join("queue").exists() && !first.exists());
        done(&["control", "--start-exec-queue"]);
        done(&["settle"]);
        assert!(first.exists());
        // a daemon that is stopped lets nothing wait
        done(&["control", "--stop-exec-queue"]);
        let told = machine.add(&device(2));
        daemon.stop();
        listener.until(told);
        assert!(second.exists());
    });
}

#[test]
fn udevadm_has_rules_read_anew_and_ends_the_daemon() {
    private(module_path!(), "udevadm_has_rules_read_anew_and_ends_the_daemon", |mut machine| {
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        at_udevs_place(&machine);
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        rules(&machine, "SUBSYSTEM==\"live\", ENV{READ}=\"anew\"\n");
        done(&["control", "--reload"]);
        let told = listener.until(machine.add(&device(1))).pop().unwrap();
        assert_eq!(told.text("READ"), "anew");
        done(&["control", "--log-level=debug"]);
        assert_eq!(bus.ctl(&["log-level"]).trim(), "debug");
        // what cannot be done is told in the log, and nothing else comes of it
        done(&["control", "--children-max=3"]);
        let other = Command::new(env!("CARGO_BIN_EXE_mapdevd")).args(["--mode", "active"]).output();
        let other = other.unwrap();
        let said = String::from_utf8_lossy(&other.stderr).into_owned();
        assert!(!other.status.success() && said.contains("/run/udev/control"), "{said}");
        assert!(daemon.log().contains("--children-max"), "{}", daemon.log());
        done(&["control", "--exit"]);
        assert!(daemon.wait().success());
        assert!(Path::new("/run/udev/control").exists(), "who starts now is told by the next one");
        assert!(udevadm(&["control", "--ping"]).status.code() != Some(0));
    });
}

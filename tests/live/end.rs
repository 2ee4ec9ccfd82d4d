//! The daemon's end.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::private;
use crate::storm::{Permissions, Storm};

#[test]
fn what_came_before_sigterm_is_handled_before_the_end() {
    private(module_path!(), "what_came_before_sigterm_is_handled_before_the_end", |mut machine| {
        let mut storm = Storm::new(Permissions::Stay);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let listener = Listener::new();
        storm.fill(&mut machine);
        daemon.freeze();
        for _ in 0..1500 {
            storm.step(&mut machine);
        }
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::CONT);
        let log = daemon.log();
        let status = daemon.wait();
        assert!(status.success(), "{status}: {log}");
        let heard = listener.waiting();
        let mut numbers: Vec<u64> = heard.iter().filter_map(|one| one.number("LIVE_N")).collect();
        numbers.sort_unstable();
        let (got, sent) = (numbers.len(), machine.sent());
        assert!(numbers.into_iter().eq(1..=sent), "{got} of {sent} announced");
    });
}

#[test]
fn a_start_that_fails_says_what_was_tried_and_why() {
    private(module_path!(), "a_start_that_fails_says_what_was_tried_and_why", |machine| {
        let file = machine.top.join("file");
        fs::write(&file, "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevd"));
        command.args(["--mode", "shadow", "--bus", "none"]).arg("--root").arg(&machine.root);
        command.arg("--sysfs").arg(machine.sysfs.root()).arg("--dev").arg(&machine.place.dev);
        command.arg("--runtime").arg(&machine.place.runtime).arg("--records").arg(file.join("x"));
        let output = command.env_remove("JOURNAL_STREAM").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot start dispatch: "), "{said}");
    });
}

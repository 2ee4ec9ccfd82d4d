//! Opens that wait, for modprobe or for the daemon: what wakes them, and that they can be killed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use mapdev::map::kernel::{Kernel, Since};
use mapdev::map::shim::Shim;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::c4_loads::pending;
use super::world::{Parameter, World, device, null, patient};

/// So long that no open ends by it while a test looks on.
const NEVER_MS: u32 = 1_800_000;
const FOR_MODPROBE: &str = "wait_for_load";
const FOR_NUMBER: &str = "wait_for_number";
const HELD: &str = "mapdev-held";

/// A process that opens something.
struct Opener(Child);

impl Opener {
    fn of(path: &Path) -> Self {
        let script = format!("exec 3< {}", path.display());
        Self(Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap())
    }

    /// Returns when it sleeps in a function of the kernel's.
    fn sleeps(&mut self, function: &str) {
        let place = format!("/proc/{}/wchan", self.0.id());
        while !fs::read_to_string(&place).unwrap().starts_with(function) {
            assert!(self.0.try_wait().unwrap().is_none(), "it has ended");
            std::thread::yield_now();
        }
    }

    /// Waits for its end, but not for ever; true if it has opened it.
    fn has_opened(&mut self) -> bool {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            assert!(started.elapsed() < patient(60), "it waits on");
            std::thread::yield_now();
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        // it may be gone
        drop(self.0.kill());
    }
}

/// A module's name for which modprobe waits until it is let go.
struct HeldModule {
    rule: PathBuf,
    gate: PathBuf,
    _place: tempfile::TempDir,
}

impl HeldModule {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let gate = place.path().join("gate");
        mknodat(CWD, &gate, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let rules = Path::new("/etc/modprobe.d");
        fs::create_dir_all(rules).unwrap();
        let rule = rules.join("held.conf");
        fs::write(&rule, format!("install {HELD} : < {}\n", gate.display())).unwrap();
        Self { rule, gate, _place: place }
    }

    /// Waits for modprobe, which ends then.
    fn let_go(&self) {
        drop(File::options().write(true).open(&self.gate).unwrap());
    }
}

impl Drop for HeldModule {
    fn drop(&mut self) {
        fs::remove_file(&self.rule).unwrap();
        // of a test that failed
        drop(File::options().read(true).write(true).open(&self.gate).unwrap());
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn an_open_that_waits_for_modprobe_can_be_killed() {
    let _timeout = Parameter::set("open_timeout_ms", NEVER_MS);
    let (module, mut world) = (HeldModule::new(), World::new());
    world.put("held", &pending(HELD, false, 0o600));
    let mut opener = Opener::of(&world.path("held"));
    opener.sleeps(FOR_MODPROBE);
    opener.0.kill().unwrap();
    assert!(!opener.has_opened());
    module.let_go();
}

#[test]
#[ignore = "in the virtual machine"]
fn an_open_that_waits_for_its_number_can_be_killed() {
    let _timeout = Parameter::set("open_timeout_ms", NEVER_MS);
    let mut world = World::new();
    world.put("silent", &pending("devname:mapdev-probe", false, 0o600));
    let mut opener = Opener::of(&world.path("silent"));
    opener.sleeps(FOR_NUMBER);
    opener.0.kill().unwrap();
    assert!(!opener.has_opened());
}

/// Fills in a number of which the kernel is not told, until it is asked for something else.
fn is_woken(by: impl FnOnce(&mut Shim, &World)) {
    let _timeout = Parameter::set("open_timeout_ms", NEVER_MS);
    let mut world = World::new();
    world.put("silent", &pending("devname:mapdev-probe", false, 0o600));
    let mut opener = Opener::of(&world.path("silent"));
    opener.sleeps(FOR_NUMBER);
    drop(world.map.detach_kernel().unwrap());
    world.put("silent", &null());
    opener.sleeps(FOR_NUMBER);
    // the publisher has its events, too
    drop(world.events.take());
    by(&mut device(), &world);
    assert!(opener.has_opened());
}

#[test]
#[ignore = "in the virtual machine"]
fn what_is_waited_for_is_seen_when_the_daemon_asks_for_readers_to_end() {
    is_woken(|shim, _| shim.sync().unwrap());
}

#[test]
#[ignore = "in the virtual machine"]
fn what_is_waited_for_is_seen_when_a_map_is_published() {
    is_woken(|shim, world| {
        let memory = world.map.as_fd().try_clone_to_owned().unwrap();
        shim.publish(memory.as_fd(), world.map.stats().bytes, Since::Lost).unwrap();
    });
}

#[test]
#[ignore = "in the virtual machine"]
fn however_many_open_a_name_its_module_is_asked_for_once() {
    let _timeout = Parameter::set("open_timeout_ms", NEVER_MS);
    let (module, mut world) = (HeldModule::new(), World::new());
    world.put("held", &pending(HELD, false, 0o600));
    let before = device().stats().unwrap();
    let mut openers: Vec<_> = (0..4).map(|_| Opener::of(&world.path("held"))).collect();
    for opener in &mut openers {
        opener.sleeps(FOR_MODPROBE);
    }
    world.put("held", &null());
    module.let_go();
    for mut opener in openers {
        assert!(opener.has_opened());
    }
    let after = device().stats().unwrap();
    assert_eq!(after.pending_opens - before.pending_opens, 4);
    assert_eq!(after.loads - before.loads, 1);
}

//! Links that many devices claim: always the right one, at the same cost, and over a restart.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::random::Random;
use crate::sysfs::Device;

const CLAIMANTS: usize = 5000;

/// What a device's number says of its priority.
const RULES: &str = r#"
SUBSYSTEM=="live", SYMLINK+="live/all"
SUBSYSTEM=="live", ENV{LIVE_PRIORITY}=="1", OPTIONS+="link_priority=1"
SUBSYSTEM=="live", ENV{LIVE_PRIORITY}=="2", OPTIONS+="link_priority=2"
"#;

fn rules(machine: &Machine, text: &str) {
    let folder = machine.root.join("etc/udev/rules.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-live.rules"), text).unwrap();
}

fn device(number: usize) -> Device {
    let (name, minor) = (format!("livec{number}"), number.to_string());
    let priority = (number % 3).to_string();
    let pairs =
        [("MAJOR", "4000"), ("MINOR", &*minor), ("DEVNAME", &*name), ("LIVE_PRIORITY", &*priority)];
    Device::new(&format!("/devices/live/{name}"), "live", &pairs)
}

fn owner(machine: &Machine) -> Option<String> {
    let link = fs::read_link(machine.place.dev.join("live/all")).ok()?;
    Some(link.file_name().unwrap().to_str().unwrap().to_owned())
}

/// The highest priority, and of these who came last: nobody is handled twice here.
fn wanted(there: &[usize]) -> Option<String> {
    let top = there.iter().map(|number| number % 3).max()?;
    let best = there.iter().rev().find(|number| *number % 3 == top)?;
    Some(format!("livec{best}"))
}

/// System calls of the daemon while `work` is done, less those that only wait; `None` without strace.
fn calls(daemon: &Daemon, top: &Path, work: impl FnOnce()) -> Option<usize> {
    let log = top.join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg("-p").arg(daemon.number().to_string());
    command.args(["-e", "trace=!futex,epoll_wait,sched_yield"]);
    let mut strace = command.stderr(Stdio::null()).spawn().ok()?;
    // every thread is traced when it says so
    let traced = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    let tasks = || fs::read_dir(format!("/proc/{}/task", daemon.number())).unwrap().flatten();
    while !tasks().all(traced) {
        assert_eq!(strace.try_wait().unwrap(), None, "strace ended");
        std::thread::yield_now();
    }
    work();
    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    strace.wait().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    Some(text.lines().filter(|line| !line.contains("resumed>")).count())
}

#[test]
fn a_link_of_five_thousand_is_always_right_and_costs_no_more_than_one_of_fifty() {
    let name = "a_link_of_five_thousand_is_always_right_and_costs_no_more_than_one_of_fifty";
    private(module_path!(), name, |mut machine| {
        rules(&machine, RULES);
        let mut random = Random::new();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let top = machine.top.clone();
        let mut there: Vec<usize> = Vec::new();
        let add = |machine: &mut Machine, there: &mut Vec<usize>| {
            there.push(there.len());
            listener.until(machine.add(&device(there.len() - 1)));
            assert_eq!(owner(machine), wanted(there));
        };
        let mut few = None;
        while there.len() < CLAIMANTS {
            if there.len() == 50 {
                few = calls(&daemon, &top, || (0..50).for_each(|_| add(&mut machine, &mut there)));
                continue;
            }
            if there.len() == CLAIMANTS - 50 {
                let many = calls(&daemon, &top, || {
                    (0..50).for_each(|_| add(&mut machine, &mut there));
                });
                compare("added", few, many);
                continue;
            }
            add(&mut machine, &mut there);
        }
        assert_eq!(fs::read_dir(claims(&machine)).unwrap().count(), CLAIMANTS);

        let mut remove = |machine: &mut Machine, there: &mut Vec<usize>| {
            let number = there.remove(random.below(there.len()));
            listener.until(machine.remove(&device(number)));
            assert_eq!(owner(machine), wanted(there));
        };
        let many = calls(&daemon, &top, || {
            (0..50).for_each(|_| remove(&mut machine, &mut there));
        });
        while there.len() > 100 {
            remove(&mut machine, &mut there);
        }
        let few = calls(&daemon, &top, || {
            (0..50).for_each(|_| remove(&mut machine, &mut there));
        });
        compare("removed", few, many);
        while !there.is_empty() {
            remove(&mut machine, &mut there);
        }
        assert!(!claims(&machine).exists(), "an empty folder stays");
        daemon.stop();
    });
}

fn claims(machine: &Machine) -> std::path::PathBuf {
    machine.place.records.with_file_name("links").join("live\\x2fall")
}

/// Of 50 events each. The machine's own events reach every namespace and cost some; a folder of thousands
/// that is read would cost more, and its entries a hundred times as much.
fn compare(what: &str, few: Option<usize>, many: Option<usize>) {
    match few.zip(many) {
        Some((few, many)) => {
            println!("50 {what}: {few} system calls among few, {many} among thousands");
            assert!(few > 100 && many < few + few / 4, "{what}: {few} and {many}");
        }
        None => println!("skipped: there is no strace to count with"),
    }
}

#[test]
fn a_link_leads_where_it_led_after_a_kill_and_never_to_a_device_that_went_meanwhile() {
    let name = "a_link_leads_where_it_led_after_a_kill_and_never_to_a_device_that_went_meanwhile";
    private(module_path!(), name, |mut machine| {
        rules(&machine, RULES);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        // all of one priority; 6 was handled last, and is in the middle by name and by age
        let devices: Vec<Device> = (0..4).map(|n| device(n * 3)).collect();
        devices.iter().for_each(|device| drop(listener.until(machine.add(device))));
        listener.until(machine.change(&devices[2]));
        assert_eq!(owner(&machine).as_deref(), Some("livec6"));
        daemon.kill();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        assert_eq!(owner(&machine).as_deref(), Some("livec6"), "a walk is no event");
        daemon.kill();
        machine.remove(&devices[2]);
        machine.remove(&devices[3]);
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        assert_eq!(owner(&machine).as_deref(), Some("livec3"), "who came last of those there");
        let entries = fs::read_dir(claims(&machine)).unwrap().flatten();
        let mut entries: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        entries.sort();
        assert_eq!(entries, ["c4000:0", "c4000:3"]);
        daemon.stop();
    });
}

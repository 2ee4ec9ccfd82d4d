//! Random sequences of events, handled by systemd-udevd and by the daemon, leave the same behind.

use std::collections::BTreeMap;
use std::fs;

use crate::bus::Bus;
use crate::daemon::Manager;
use crate::listen::{Announcement, Listener};
use crate::machine::Machine;
use crate::managers::{Lines, Running, differences, left, shared};
use crate::random::Random;
use crate::sysfs::Device;

const SEQUENCES: usize = 100;
const EVENTS: usize = 20;

/// What an event carries decides what is wanted of its device.
const RULES: &str = r#"
SUBSYSTEM!="block|live|net", GOTO="end"
ENV{LIVE_A}=="1", SYMLINK+="live/a"
ENV{LIVE_B}=="1", SYMLINK+="live/deep/er/b live-top"
ENV{LIVE_C}=="1", SYMLINK+="live/LONG/LONG/LONG"
ENV{LIVE_D}=="1", SYMLINK="live/%k"
ENV{LIVE_PRIORITY}=="low", OPTIONS+="link_priority=-5"
ENV{LIVE_PRIORITY}=="high", OPTIONS+="link_priority=9"
ENV{LIVE_TAG}=="add", TAG+="live1", TAG+="live2"
ENV{LIVE_TAG}=="less", TAG+="live1", TAG-="live1"
ENV{LIVE_TAG}=="only", TAG="live3"
ENV{LIVE_MODE}=="?*", MODE="$env{LIVE_MODE}"
ENV{LIVE_OWNER}=="?*", OWNER="$env{LIVE_OWNER}"
ENV{LIVE_GROUP}=="?*", GROUP="$env{LIVE_GROUP}"
ENV{LIVE_KEEP}=="1", OPTIONS+="db_persist"
ENV{LIVE_WATCH}=="1", OPTIONS+="watch"
ENV{LIVE_SET}=="1", ENV{ID_LIVE}="$name a", ENV{ID_EMPTY}="$env{NONE}", ENV{.ID_DOT}="x", ENV{ID_LAST}="%M:%m"
ENV{LIVE_SET}=="2", IMPORT{db}="ID_LIVE", ENV{ID_LAST}="2"
LABEL="end"
"#;

/// One event of a sequence, by the device's place in the list.
#[derive(Clone, Debug)]
struct Step {
    action: &'static str,
    device: usize,
    pairs: Vec<(&'static str, &'static str)>,
}

fn devices() -> Vec<Device> {
    let device = |devpath: &str, subsystem: &str, minor: Option<u32>, more: &[(&str, &str)]| {
        let name = devpath.rsplit('/').next().unwrap();
        let number = minor.map(|minor| minor.to_string());
        let mut pairs = Vec::new();
        if let Some(number) = &number {
            pairs.extend([("MAJOR", "400"), ("MINOR", number.as_str()), ("DEVNAME", name)]);
        }
        pairs.extend(more);
        Device::new(devpath, subsystem, &pairs)
    };
    let (disk, part) = ([("DEVTYPE", "disk")], [("DEVTYPE", "partition")]);
    vec![
        device("/devices/live/block/lived0", "block", Some(0), &disk),
        device("/devices/live/block/lived0/lived0p1", "block", Some(1), &part),
        device("/devices/live/block/lived1", "block", Some(2), &disk),
        device("/devices/live/block/lived2", "block", Some(3), &disk),
        device("/devices/live/livec0", "live", Some(0), &[]),
        device("/devices/live/livec1", "live", Some(1), &[("DEVMODE", "0666")]),
        device("/devices/live/livec2", "live", Some(2), &[("DEVMODE", "0620"), ("DEVGID", "5")]),
        device("/devices/live/liveplain", "live", None, &[]),
        device(
            "/devices/live/net/live0",
            "net",
            None,
            &[("INTERFACE", "live0"), ("IFINDEX", "4001")],
        ),
    ]
}

/// Devices come before they change, and parents before their children.
fn sequence(random: &mut Random, devices: &[Device]) -> Vec<Step> {
    let mut there = vec![false; devices.len()];
    let mut steps = Vec::new();
    while steps.len() < EVENTS {
        let device = random.below(devices.len());
        let alone = !there[1];
        let action = match (there[device], random.below(4)) {
            (false, _) if device == 1 && !there[0] => continue,
            (false, _) => "add",
            (true, 0) if device == 0 && !alone => continue,
            (true, 0) => "remove",
            (true, _) => "change",
        };
        there[device] = action != "remove";
        steps.push(Step { action, device, pairs: wishes(random) });
    }
    for device in (0..devices.len()).rev().filter(|device| there[*device]) {
        steps.push(Step { action: "remove", device, pairs: Vec::new() });
    }
    steps
}

fn wishes(random: &mut Random) -> Vec<(&'static str, &'static str)> {
    let mut pairs = Vec::new();
    let mut one_of = |key, values: &[&'static str]| {
        pairs.extend(values.get(random.below(values.len() + 2)).map(|value| (key, *value)));
    };
    for link in ["LIVE_A", "LIVE_B", "LIVE_C"] {
        one_of(link, &["1", "1"]);
    }
    one_of("LIVE_D", &["1"]);
    one_of("LIVE_PRIORITY", &["low", "high"]);
    one_of("LIVE_TAG", &["add", "less", "only"]);
    one_of("LIVE_MODE", &["0600", "0664", "4755", "bad"]);
    one_of("LIVE_OWNER", &["7", "0"]);
    one_of("LIVE_GROUP", &["8", "0"]);
    one_of("LIVE_KEEP", &["1"]);
    one_of("LIVE_WATCH", &["1"]);
    one_of("LIVE_SET", &["1", "2"]);
    pairs
}

/// What was left after each event, and what was told of it.
fn play(
    machine: &mut Machine,
    listener: &Listener,
    devices: &[Device],
    sequences: &[Vec<Step>],
) -> Vec<(Lines, Lines)> {
    let mut all = Vec::new();
    for Step { action, device, pairs } in sequences.iter().flatten() {
        let device = &devices[*device];
        let number = match *action {
            "add" => machine.add_with(device, pairs),
            "remove" => machine.remove(device),
            action => machine.tell(action, device, pairs),
        };
        let told = listener.until(number).pop().unwrap();
        all.push((left(), said(&told)));
    }
    all
}

/// Less what counts and clocks say; sets lose their order.
fn said(told: &Announcement) -> Lines {
    let mut lines = BTreeMap::new();
    for (key, value) in &told.properties {
        let key = String::from_utf8(key.clone()).unwrap();
        let mut value = String::from_utf8(value.clone()).unwrap();
        let separator = match key.as_str() {
            "DEVLINKS" => ' ',
            "TAGS" | "CURRENT_TAGS" => ':',
            "SEQNUM" | "LIVE_N" | "USEC_INITIALIZED" => {
                value.clear();
                ' '
            }
            _ => {
                lines.insert(key, value);
                continue;
            }
        };
        let mut parts: Vec<&str> = value.split(separator).collect();
        parts.sort_unstable();
        let value = parts.join(" ");
        lines.insert(key, value);
    }
    lines
}

#[test]
fn random_sequences_leave_what_systemd_udevd_leaves() {
    let rules = RULES.replace("LONG", &"long".repeat(30));
    let name = "random_sequences_leave_what_systemd_udevd_leaves";
    shared(module_path!(), name, &rules, |mut machine| {
        let mut random = Random::new();
        let devices = devices();
        let sequences: Vec<_> = (0..SEQUENCES).map(|_| sequence(&mut random, &devices)).collect();
        let listener = Listener::new();
        let peer = Running::theirs();
        let theirs = play(&mut machine, &listener, &devices, &sequences);
        peer.stop();
        fs::remove_dir_all("/run/udev").unwrap();

        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Running::ours(&machine, &bus, &manager);
        let ours = play(&mut machine, &listener, &devices, &sequences);
        daemon.stop();

        let steps = sequences.iter().flatten();
        let mut wrong = Vec::new();
        for ((step, (left, said)), (their_left, their_said)) in steps.zip(&ours).zip(&theirs) {
            let mut other = differences(left, their_left);
            other.extend(differences(said, their_said));
            if !other.is_empty() {
                let device = &devices[step.device].devpath;
                wrong.push(format!(
                    "{} {device} {:?}:\n{}",
                    step.action,
                    step.pairs,
                    other.join("\n")
                ));
            }
        }
        let lines: usize = theirs.iter().map(|(left, said)| left.len() + said.len()).sum();
        println!("{SEQUENCES} sequences, {} events, {lines} lines compared", ours.len());
        let count = wrong.len();
        wrong.truncate(5);
        assert!(count == 0, "{count} events differ:\n{}", wrong.join("\n"));
    });
}

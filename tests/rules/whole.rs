//! Whole events: after the same events, `mapdevctl event` and systemd-udevd have left the same `/dev` and
//! `/run/udev`, and have run the same programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command};

use crate::inject::{Injector, payload};
use crate::peer::{Daemon, private};
use crate::random::Random;
use crate::random_rules::alone;
use crate::tree::{DEVICES, Tree, plug, unplug};

/// Sequences of events, one after the other.
const SEQUENCES: usize = 100;

/// Rules whose devices have events at the same time, and how often each.
const PARALLEL: usize = 5;
const TIMES: usize = 20;

/// How often udevd is asked to read its rules, until it has.
const RELOADS: usize = 10;

/// The devices of the tree that have events; the last has no node.
const NAMES: [&str; 5] = ["disk", "partition", "bus", "odd", "port"];

const LINKS: [&str; 6] =
    ["common", "disk/by-x/one", "disk/by-x/two", "deep/a/b/c", "deep/a/d", "x y"];

/// Which rules decided last.
const MARK: &str = "/run/mark";

/// A path, and what is there.
type Snapshot = BTreeMap<String, String>;

#[derive(Clone, Debug)]
struct Event {
    device: &'static str,
    action: &'static str,
}

fn of(device: &str) -> (&'static str, &'static str, &'static str) {
    let (_, devpath, subsystem, uevent) =
        DEVICES.iter().find(|(name, ..)| *name == device).unwrap();
    (devpath, subsystem, uevent)
}

/// What each device claims, is tagged with and is given, other things when it is added than when it changes.
/// Where events meet each other, priorities differ, since of equals the last wins. A device that does not
/// exist says which rules these are.
fn rules(random: &mut Random, distinct: bool, number: usize) -> String {
    let mut text = String::new();
    for (index, device) in NAMES.iter().enumerate() {
        let name = of(device).0.rsplit('/').next().unwrap().replace('!', "/");
        for action in ["add", "change"] {
            let mut rule = format!("KERNEL==\"{name}\", ACTION==\"{action}\"");
            let links: Vec<_> = LINKS.iter().filter(|_| random.below(3) > 0).copied().collect();
            rule.push_str(&format!(", SYMLINK+=\"{} own/$kernel\"", links.join(" ")));
            let priority = if distinct { index * 10 } else { random.below(3) * 5 };
            rule.push_str(&format!(", OPTIONS+=\"link_priority={priority}\""));
            for tag in ["a", "b", "seat"].iter().filter(|_| random.below(2) > 0) {
                rule.push_str(&format!(", TAG+=\"{tag}\""));
            }
            for key in ["ID_A", "ID_B", ".DOT"] {
                if random.below(2) == 0 {
                    continue;
                }
                rule.push_str(&format!(", ENV{{{key}}}=\"$kernel {}\"", random.below(3)));
            }
            match random.below(4) {
                0 => rule.push_str(", GROUP=\"7\""),
                1 => rule.push_str(", MODE=\"0640\", OWNER=\"5\""),
                2 => rule.push_str(", OPTIONS+=\"db_persist\", MODE=\"0606\""),
                _ => {}
            }
            text.push_str(&rule);
            text.push('\n');
        }
        text.push_str(&format!(
            "KERNEL==\"{name}\", IMPORT{{db}}=\"ID_A\", PROGRAM=\"/bin/echo $env{{ID_A}}\", ENV{{ID_SAID}}=\"$result\"\n"
        ));
    }
    text.push_str("ENV{ID_B}==\"*1\", TAG-=\"a\", SYMLINK=\"instead\"\n");
    text.push_str("RUN+=\"/bin/sh -c 'echo $$ACTION $$DEVPATH $$ID_A $$ID_SAID >>/run/ran'\"\n");
    text.push_str(&format!("KERNEL==\"mark\", RUN=\"/bin/sh -c 'echo {number} >{MARK}'\"\n"));
    text
}

/// A device is added before anything else, and may be added again; then it changes, or goes.
fn sequence(random: &mut Random) -> Vec<Event> {
    let mut there = BTreeSet::new();
    let length = 6 + random.below(6);
    let next = |_| {
        let device = NAMES[random.below(NAMES.len())];
        let action = match random.below(4) {
            _ if there.insert(device) => "add",
            0 => "add",
            1 => {
                there.remove(device);
                "remove"
            }
            _ => "change",
        };
        Event { device, action }
    };
    (0..length).map(next).collect()
}

/// The machine before the first event.
fn begin(text: &str) {
    for folder in ["data", "tags", "links"] {
        drop(fs::remove_dir_all(Path::new("/run/udev").join(folder)));
    }
    fs::create_dir_all("/run/udev/data").unwrap();
    for entry in fs::read_dir("/dev").unwrap().flatten().filter(|e| e.file_name() != "null") {
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
    drop(fs::remove_file("/run/ran"));
    fs::write("/etc/udev/rules.d/50-test.rules", text).unwrap();
}

/// As the kernel does before it tells of it.
fn node(event: &Event) {
    match event.action {
        "add" => plug(of(event.device).2),
        "remove" => unplug(of(event.device).2),
        _ => {}
    }
}

fn ours(event: &Event) -> Child {
    node(event);
    let path = format!("/sys{}", of(event.device).0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    command.args(["event", "--action", event.action, &path]);
    command.stderr(std::process::Stdio::null()).spawn().unwrap()
}

fn theirs(injector: &Injector, event: &Event) {
    node(event);
    let (devpath, subsystem, uevent) = of(event.device);
    let pairs = uevent.lines().map(|line| line.split_once('=').unwrap());
    let pairs = pairs.chain([("SUBSYSTEM", subsystem)]);
    let pairs: Vec<_> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    injector.inject(&payload(event.action, devpath, &pairs));
}

/// Has udevd read the rules of this number. On a busy machine it happens that it says it has, and goes on with
/// those that it had.
fn reload(injector: &Injector, number: usize) {
    drop(fs::remove_file(MARK));
    for _ in 0..RELOADS {
        udevadm(&["control", "--reload"]);
        let pairs = [("SUBSYSTEM".to_owned(), "x".to_owned())];
        injector.inject(&payload("remove", "/devices/virtual/x/mark", &pairs));
        udevadm(&["settle", "--timeout=60"]);
        if fs::read_to_string(MARK).is_ok_and(|said| said.trim() == number.to_string()) {
            return;
        }
    }
    panic!("systemd-udevd does not read its rules");
}

fn udevadm(arguments: &[&str]) {
    assert!(Command::new("udevadm").args(arguments).status().unwrap().success(), "{arguments:?}");
}

fn look(path: &Path, found: &mut Snapshot) {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        entries => entries.unwrap(),
    };
    for entry in entries.map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let kind = meta.file_type();
        let owned = format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        let what = if kind.is_dir() {
            look(&path, found);
            // empty folders of links and tags stay for a while, or for good
            if path.starts_with("/run") { continue } else { format!("folder {owned}") }
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_block_device() || kind.is_char_device() {
            format!("node {} {owned}", meta.rdev())
        } else if path.file_name().unwrap().as_bytes() == b".lock" {
            continue;
        } else {
            // sets have no order
            let text = fs::read_to_string(&path).unwrap();
            let mut lines: Vec<_> = text.lines().filter(|l| !l.starts_with("I:")).collect();
            lines.sort_unstable();
            format!("file {owned}: {}", lines.join(" | "))
        };
        found.insert(path.display().to_string(), what);
    }
}

fn snapshot() -> Snapshot {
    let mut found = Snapshot::new();
    for folder in ["/dev", "/run/udev/data", "/run/udev/tags", "/run/udev/links"] {
        look(Path::new(folder), &mut found);
    }
    let ran = fs::read_to_string("/run/ran").unwrap_or_default();
    let mut ran: Vec<_> = ran.lines().collect();
    ran.sort_unstable();
    found.insert("(ran)".into(), ran.join("\n"));
    found
}

/// Whether both agree; prints what differs.
fn agree(name: &str, text: &str, events: &[Event], ours: &Snapshot, theirs: &Snapshot) -> bool {
    if ours == theirs {
        return true;
    }
    println!("{name}: {events:?}");
    if std::env::var_os("MAPDEV_TEST_SEED").is_some() {
        println!("{text}");
    }
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path)) {
        println!(
            "    {path}\n      ours   {:?}\n      udevd's {:?}",
            ours.get(path),
            theirs.get(path)
        );
    }
    false
}

#[test]
fn sequences_of_events_leave_what_systemd_udevd_leaves() {
    private(module_path!(), "sequences_of_events_leave_what_systemd_udevd_leaves", || {
        let _tree = (alone(), Daemon::start());
        let (injector, mut random) = (Injector::new(), Random::new());
        let (mut wrong, mut events) = (0, 0);
        for number in 0..SEQUENCES {
            let (text, sequence) = (rules(&mut random, false, number), sequence(&mut random));
            events += sequence.len();
            begin(&text);
            for event in &sequence {
                ours(event).wait().unwrap();
            }
            let ours = snapshot();
            begin(&text);
            reload(&injector, number);
            for event in &sequence {
                theirs(&injector, event);
                udevadm(&["settle", "--timeout=60"]);
            }
            let name = format!("sequence {number}");
            wrong += usize::from(!agree(&name, &text, &sequence, &ours, &snapshot()));
        }
        println!("{SEQUENCES} sequences of {events} events, {wrong} differ");
        assert_eq!(wrong, 0);
    });
}

#[test]
fn events_at_the_same_time_leave_what_systemd_udevd_leaves() {
    private(module_path!(), "events_at_the_same_time_leave_what_systemd_udevd_leaves", || {
        let _tree: (Tree, Daemon) = (alone(), Daemon::start());
        let (injector, mut random) = (Injector::new(), Random::new());
        let mut wrong = 0;
        for number in 0..PARALLEL {
            let text = rules(&mut random, true, number);
            // one that is above another would be waited for
            let devices: Vec<_> = ["partition", "bus", "odd"].into_iter().collect();
            let last = devices[random.below(devices.len())];
            let all = |action| devices.iter().map(move |device| Event { device, action });
            let rounds: [Vec<Event>; 3] = [
                all("add").collect(),
                all("change").collect(),
                vec![Event { device: last, action: "remove" }],
            ];
            let sequence = rounds.concat();
            for time in 0..TIMES {
                begin(&text);
                for round in &rounds {
                    let running: Vec<_> = round.iter().map(ours).collect();
                    for mut child in running {
                        child.wait().unwrap();
                    }
                }
                let ours = snapshot();
                begin(&text);
                reload(&injector, number);
                for round in &rounds {
                    round.iter().for_each(|event| theirs(&injector, event));
                    udevadm(&["settle", "--timeout=60"]);
                }
                let name = format!("rules {number}, time {time}");
                wrong += usize::from(!agree(&name, &text, &sequence, &ours, &snapshot()));
            }
        }
        println!("{PARALLEL} rules, {TIMES} times each, {wrong} differ");
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_device_that_sysfs_no_longer_has_is_removed_as_by_systemd_udevd() {
    let name = "a_device_that_sysfs_no_longer_has_is_removed_as_by_systemd_udevd";
    private(module_path!(), name, || {
        let (tree, _daemon): (Tree, Daemon) = (alone(), Daemon::start());
        let (injector, mut random) = (Injector::new(), Random::new());
        let text = rules(&mut random, false, 0);
        let mut wrong = 0;
        for device in ["odd", "partition", "bus"] {
            let [add, remove] = ["add", "remove"].map(|action| Event { device, action });
            let (devpath, subsystem, uevent) = of(device);
            let (folder, away) = (tree.root.join(&devpath[1..]), Path::new("/run/away"));
            begin(&text);
            ours(&add).wait().unwrap();
            fs::rename(&folder, away).unwrap();
            node(&remove);
            let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
            command.args(["event", "--action", "remove", devpath]);
            let refused = command.output().unwrap();
            assert_eq!(refused.status.code(), Some(3), "it has no subsystem");
            let subsystem = format!("SUBSYSTEM={subsystem}");
            command.args(uevent.lines().chain([&*subsystem]).flat_map(|pair| ["-p", pair]));
            let done = command.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let ours = snapshot();
            fs::rename(away, &folder).unwrap();

            begin(&text);
            reload(&injector, 0);
            theirs(&injector, &add);
            udevadm(&["settle", "--timeout=60"]);
            assert_ne!(snapshot(), ours, "nothing was removed");
            fs::rename(&folder, away).unwrap();
            theirs(&injector, &remove);
            udevadm(&["settle", "--timeout=60"]);
            wrong += usize::from(!agree(device, &text, &[add, remove], &ours, &snapshot()));
            fs::rename(away, &folder).unwrap();
        }
        assert_eq!(wrong, 0);
    });
}

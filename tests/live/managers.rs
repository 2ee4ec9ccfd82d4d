//! systemd-udevd and the daemon in each other's place: on the same `/dev`, `/run/udev` and sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::{Machine, Place, private};

/// What a manager leaves behind, by name.
pub(crate) type Lines = BTreeMap<String, String>;

/// Runs a test on a machine of which systemd-udevd and the daemon see the same; without a systemd-udevd
/// it says so, and fails where `MAPDEV_REQUIRE_UDEV` is set.
pub(crate) fn shared(module: &str, test: &str, rules: &str, body: impl FnOnce(Machine)) {
    let version = Command::new("udevadm").arg("--version").output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"25")) {
        assert!(std::env::var_os("MAPDEV_REQUIRE_UDEV").is_none(), "udevadm 252 or later wanted");
        println!("skipped: there is no udevadm to compare with");
        return;
    }
    private(module, test, |mut machine| {
        machine.place = Place {
            dev: "/dev".into(),
            runtime: "/run/mapdev".into(),
            records: "/run/udev/data".into(),
        };
        let folder = machine.root.join("etc/udev/rules.d");
        let empty = machine.top.join("empty");
        for folder in [&folder, &empty] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(folder.join("50-live.rules"), rules).unwrap();
        mount(&folder, "/etc/udev/rules.d");
        mount(&empty, "/usr/lib/udev/rules.d");
        mount(machine.sysfs.root(), "/sys");
        body(machine);
    });
}

fn mount(folder: &Path, place: &str) {
    let status = Command::new("mount").arg("--bind").arg(folder).arg(place).status().unwrap();
    assert!(status.success(), "{place}");
}

/// Either of them, running.
pub(crate) enum Running {
    Theirs(Child),
    Ours(Daemon),
}

impl Running {
    pub(crate) fn theirs() -> Self {
        let mut command = Command::new("/usr/lib/systemd/systemd-udevd");
        // our sysfs is a folder
        command.env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut ping = Command::new("udevadm");
        ping.args(["control", "--ping", "--timeout=20"]).stderr(Stdio::null());
        // refused at once while there is no socket, answered when the daemon has started
        while !ping.status().unwrap().success() {
            assert_eq!(child.try_wait().unwrap(), None, "systemd-udevd ended");
        }
        Self::Theirs(child)
    }

    pub(crate) fn ours(machine: &Machine, bus: &Bus, manager: &Manager) -> Self {
        Self::Ours(Daemon::start(machine, &machine.place, bus, manager, &ACTIVE))
    }

    pub(crate) fn stop(self) {
        match self {
            Self::Theirs(mut child) => {
                kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
                assert!(child.wait().unwrap().success());
                // its socket file outlives it, as under systemd
            }
            Self::Ours(daemon) => daemon.stop(),
        }
    }
}

/// Everything in `/dev` and `/run/udev` that speaks of a device of the test. Of times there is only that they
/// are there; what is a set has no order.
pub(crate) fn left() -> Lines {
    let mut lines = Lines::new();
    nodes(Path::new("/dev"), &mut lines);
    for (folder, of) in [("data", record as fn(&Path) -> String), ("tags", tag), ("links", link)] {
        walk(&Path::new("/run/udev").join(folder), of, &mut lines);
    }
    for entry in fs::read_dir("/run/udev/watch").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let number = fs::read_link(entry.path()).unwrap();
        if name.parse::<u32>().is_err() {
            let back = fs::read_link(Path::new("/run/udev/watch").join(number)).unwrap();
            lines.insert(format!("watch/{name}"), back.display().to_string());
        }
    }
    lines.retain(|name, _| is_ours(name));
    lines
}

/// By the numbers and names that devices of these tests have.
fn is_ours(name: &str) -> bool {
    ["live", "400"].iter().any(|mark| name.contains(mark))
}

fn nodes(folder: &Path, lines: &mut Lines) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let name = path.display().to_string();
        if meta.is_dir() {
            nodes(&path, lines);
        } else if meta.is_symlink() {
            lines.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else {
            let (mode, uid, gid, rdev) = (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
            lines.insert(name, format!("{mode:o} {uid}:{gid} {rdev:x}"));
        }
    }
}

fn walk(folder: &Path, of: fn(&Path) -> String, lines: &mut Lines) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, of, lines);
        } else if !path.ends_with(".lock") {
            lines.insert(path.display().to_string(), of(&path));
        }
    }
}

/// Mode and lines: those of links and tags are sets, and `I:` is a time.
fn record(path: &Path) -> String {
    let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
    let mut lines: Vec<&str> =
        text.lines().map(|line| if line.starts_with("I:") { "I:" } else { line }).collect();
    // stable: only sets lose their order
    lines.sort_by_key(|line| {
        let letter = line.as_bytes()[0];
        let set = matches!(letter, b'S' | b'G' | b'Q');
        ("SLIEGQV".find(char::from(letter)), if set { *line } else { "" })
    });
    format!("{:o} {}", fs::metadata(path).unwrap().mode(), lines.join("\n"))
}

fn tag(path: &Path) -> String {
    let meta = fs::metadata(path).unwrap();
    format!("{:o} {} bytes", meta.mode(), meta.len())
}

fn link(path: &Path) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

/// What differs, at most ten lines of it.
pub(crate) fn differences(ours: &Lines, theirs: &Lines) -> Vec<String> {
    let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    let other = names.filter(|name| ours.get(*name) != theirs.get(*name));
    let show = |name: &String| {
        format!("{name}\n  ours   {:?}\n  theirs {:?}", ours.get(name), theirs.get(name))
    };
    other.take(10).map(show).collect()
}

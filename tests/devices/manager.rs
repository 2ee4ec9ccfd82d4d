//! A device manager that runs for a while, and a machine that is afterwards as it was.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Udevd,
    Mapdevd,
}

pub(crate) struct Running {
    pub(crate) manager: Manager,
    child: Child,
    modules: BTreeSet<String>,
}

/// What `look` finds out under one manager, and under the other.
pub(crate) fn both<T>(look: impl Fn(&Running) -> T) -> [T; 2] {
    [Manager::Udevd, Manager::Mapdevd].map(|manager| look(&Running::start(manager)))
}

/// Waits for what the kernel or the manager does on its own; nothing tells of it.
pub(crate) fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Runs a program that must succeed.
pub(crate) fn program(name: &str, words: &[&str]) {
    let output = Command::new(name).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {words:?}: {said}");
}

/// What is loaded.
pub(crate) fn modules() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/modules").unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

impl Running {
    /// Ready, and done with all devices that there are.
    fn start(manager: Manager) -> Self {
        let modules = modules();
        let mut command = match manager {
            Manager::Udevd => Command::new("/usr/lib/systemd/systemd-udevd"),
            Manager::Mapdevd => Command::new("/usr/sbin/mapdevd"),
        };
        if manager == Manager::Mapdevd {
            command.args(["--mode", "active"]);
        }
        let log = fs::File::create("/tmp/log").unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let running = Self { manager, child: command.spawn().unwrap(), modules };
        wait("the manager", || running.settles());
        if manager == Manager::Udevd {
            program("udevadm", &["trigger", "--action=add"]);
        }
        running.settle();
        running
    }

    fn settles(&self) -> bool {
        let mut command = match self.manager {
            Manager::Udevd => Command::new("udevadm"),
            Manager::Mapdevd => Command::new("mapdevctl"),
        };
        command.arg("settle").stdout(Stdio::null()).stderr(Stdio::null());
        // this one believes that there is nothing to wait for where there is nobody
        let there = self.manager == Manager::Mapdevd || Path::new("/run/udev/control").exists();
        there && command.status().unwrap().success()
    }

    /// All that has happened was handled.
    pub(crate) fn settle(&self) {
        assert!(self.settles());
    }

    /// Waits until the device's record is there and `until` holds for it.
    pub(crate) fn record(&self, syspath: &Path, until: impl Fn(&Record) -> bool) -> Record {
        let mut record = None;
        wait(&format!("the record of {}", syspath.display()), || {
            self.settle();
            record = Record::of(syspath).filter(&until);
            record.is_some()
        });
        record.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string("/tmp/log").unwrap_or_default());
        }
        for folder in ["/run/udev", "/dev/disk", "/dev/input/by-id", "/dev/input/by-path"] {
            drop(fs::remove_dir_all(folder));
        }
        // who needs another goes first, whichever that is
        while modules().difference(&self.modules).any(|module| {
            let mut rmmod = Command::new("rmmod");
            rmmod.arg(module).stderr(Stdio::null()).status().unwrap().success()
        }) {}
        if !std::thread::panicking() {
            assert_eq!(modules(), self.modules);
        }
    }
}

/// What `/run/udev/data` says of a device: all lines but the time and the kernel's count of disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record(pub(crate) BTreeSet<String>);

impl Record {
    pub(crate) fn of(syspath: &Path) -> Option<Self> {
        let text = fs::read_to_string(Path::new("/run/udev/data").join(id(syspath)?)).ok()?;
        let counted =
            |line: &&str| line.starts_with("I:") || line.starts_with("S:disk/by-diskseq/");
        let lines = text.lines().filter(|line| !counted(line));
        Some(Self(lines.map(str::to_owned).collect()))
    }

    pub(crate) fn property(&self, key: &str) -> Option<&str> {
        let mut pairs = self.0.iter().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
        pairs.find(|(known, _)| *known == key).map(|(_, value)| value)
    }
}

/// The name of its record.
fn id(syspath: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(syspath.join(name)).ok();
    let subsystem = fs::canonicalize(syspath.join("subsystem")).ok()?;
    let subsystem = subsystem.file_name()?.to_str()?;
    if let Some(number) = read("dev") {
        let kind = if subsystem == "block" { 'b' } else { 'c' };
        return Some(format!("{kind}{}", number.trim()));
    }
    if let Some(index) = read("ifindex") {
        return Some(format!("n{}", index.trim()));
    }
    let path = fs::canonicalize(syspath).ok()?;
    Some(format!("+{subsystem}:{}", path.file_name()?.to_str()?))
}

/// The node of a device, made by the kernel.
pub(crate) fn node(syspath: &Path) -> PathBuf {
    let uevent = fs::read_to_string(syspath.join("uevent")).unwrap();
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).unwrap();
    let node = Path::new("/dev").join(name);
    assert_ne!(fs::metadata(&node).unwrap().rdev(), 0);
    node
}

//! The real daemon publishes, in active mode, into the file system that it settles nodes in.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mapdev::map::shim;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::c4_loads::unload;
use super::hostile::Dice;
use super::own_dev::OwnDev;
use super::world::{absent, device, patient};

pub(crate) struct Daemon {
    child: Child,
    notify: UnixDatagram,
}

/// The mount that the daemon takes for /dev, and a bus to ask it on.
pub(crate) struct Machine {
    pub(crate) dev: PathBuf,
    bus: Child,
    address: String,
    folder: tempfile::TempDir,
    /// Ends last.
    _own_dev: Option<OwnDev>,
}

const BUS: &str = r#"<busconfig><type>system</type><auth>EXTERNAL</auth><policy context="default">
<allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/></policy></busconfig>"#;

/// Waits for what a device or the daemon does on its own; nothing tells of it.
pub(crate) fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < patient(30), "{what} did not come");
        std::thread::yield_now();
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dev = folder.path().join("dev");
        fs::create_dir(&dev).unwrap();
        shim::mount_at(&dev).unwrap();
        Self::with(folder, dev, None)
    }

    /// With the machine's own /dev.
    pub(crate) fn on_dev() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "/dev".into(), Some(OwnDev::look()))
    }

    fn with(folder: tempfile::TempDir, dev: PathBuf, own_dev: Option<OwnDev>) -> Self {
        let config = folder.path().join("bus.conf");
        let address = format!("unix:path={}", folder.path().join("bus").display());
        fs::write(&config, BUS.replace("<auth>", &format!("<listen>{address}</listen><auth>")))
            .unwrap();
        let bus = Command::new("/bin/dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(&config)
            .spawn()
            .unwrap();
        wait("the bus", || folder.path().join("bus").exists());
        Self { dev, bus, address, folder, _own_dev: own_dev }
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, words: &[&str]) -> Daemon {
        let daemon = self.spawn(words);
        daemon.wait_until_ready();
        daemon
    }

    pub(crate) fn spawn(&self, words: &[&str]) -> Daemon {
        let path = self.folder.path().join("notify");
        drop(fs::remove_file(&path));
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(patient(60))).unwrap();
        // no /dev/null: a test may have taken it away
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new("/bin/mapdevd")
            .args(["--mode", "active", "--bus", &self.address])
            .arg("--dev")
            .arg(&self.dev)
            .arg("--runtime")
            .arg(self.folder.path().join("run"))
            .args(words)
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child, notify }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// How many lines of what the daemons said so far have these words.
    pub(crate) fn said(&self, words: &str) -> usize {
        let log = fs::read(self.log()).unwrap();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(words)).count()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dev.join(name)
    }

    /// A file of policy, for the daemon's next start or reload.
    pub(crate) fn policy(&self, text: &str) {
        let folder = self.folder.path().join("run/policy.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("50-test.toml"), text).unwrap();
    }

    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let mut answer = Value::Null;
        // a daemon that is ready may not have its name on the bus yet
        wait("the daemon's answer", || {
            let mut ask = Command::new("/bin/mapdevctl");
            let asked = ask.args(["--bus", &self.address, "--json"]).args(words).output().unwrap();
            answer = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            asked.status.success()
        });
        answer
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.bus.kill().unwrap();
        self.bus.wait().unwrap();
        if self.dev != Path::new("/dev") {
            unmount(&self.dev, UnmountFlags::DETACH).unwrap();
        }
        let withdrawn = device().withdraw();
        // one that failed may have left more
        assert!(withdrawn.is_ok() || std::thread::panicking(), "{withdrawn:?}");
    }
}

impl Daemon {
    /// Stops it, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether its threads stand still.
    pub(crate) fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat"));
        tasks.flatten().map(stat).all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
    }

    pub(crate) fn wait_until_ready(&self) {
        let mut bytes = [0; 4096];
        loop {
            let len = self.notify.recv(&mut bytes).expect("the daemon becomes ready");
            if String::from_utf8_lossy(&bytes[..len]).contains("READY=1") {
                return;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // one that a test has ended is no error
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

/// Every node below a folder with its number, by path.
fn nodes(root: &Path, below: &Path, found: &mut Vec<(PathBuf, u64, bool)>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        if stat.is_dir() {
            nodes(root, &path, found);
        } else if stat.file_type().is_char_device() || stat.file_type().is_block_device() {
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.push((name, stat.rdev(), stat.file_type().is_block_device()));
        }
    }
}

/// Those with a device: names may be there before.
pub(crate) fn sorted(root: &Path) -> Vec<(PathBuf, u64, bool)> {
    let mut found = Vec::new();
    nodes(root, root, &mut found);
    found.retain(|(_, rdev, block)| {
        let (major, minor) = (rustix::fs::major(*rdev), rustix::fs::minor(*rdev));
        let kind = if *block { "block" } else { "char" };
        Path::new(&format!("/sys/dev/{kind}/{major}:{minor}")).exists()
    });
    found.sort();
    found
}

/// Whether a node has a number; its name may be there before and after.
pub(crate) fn is_live(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.rdev() != 0)
}

pub(crate) fn module(verb: &str, name: &str) {
    assert!(Command::new(format!("/sbin/{verb}")).arg(name).status().unwrap().success());
}

/// A disk whose name nobody knows before: it comes and goes.
pub(crate) fn hot_add() {
    let number = fs::read_to_string("/sys/class/zram-control/hot_add").unwrap();
    let remove = || fs::write("/sys/class/zram-control/hot_remove", number.trim());
    // the daemon may have it locked
    wait("its end", || remove().is_ok());
}

/// Each a change of the map, until it is told to stop. Returns how many.
fn disks_come_and_go(stop: &AtomicBool) -> u32 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        hot_add();
        count += 1;
    }
    count
}

/// Every name but those of disks that come and go, with or without a device: mode, owner, group, number.
fn owned(root: &Path) -> Vec<(PathBuf, u32, u32, u32, u64)> {
    let mut found = Vec::new();
    nodes(root, root, &mut found);
    found.retain(|(name, ..)| !name.as_os_str().as_encoded_bytes().starts_with(b"zram"));
    found.sort();
    let names = found.into_iter().map(|(name, ..)| {
        let stat = fs::symlink_metadata(root.join(&name)).unwrap();
        (name, stat.mode(), stat.uid(), stat.gid(), stat.rdev())
    });
    names.collect()
}

#[test]
#[ignore = "in the virtual machine"]
fn a_daemon_that_is_killed_comes_back_to_its_map() {
    module("modprobe", "zram");
    for module in ["uinput", "mapdev_probe"] {
        unload(module);
    }
    let machine = Machine::new();
    let daemon = machine.start();
    chown(machine.path("tty1"), Some(77), None).unwrap();
    // of names that have no device, too
    for name in ["uinput", "mapdev-probe"] {
        fs::set_permissions(machine.path(name), fs::Permissions::from_mode(0o621)).unwrap();
    }
    let all = owned(&machine.dev);
    assert!(
        all.iter()
            .any(|(name, mode, ..)| name.ends_with("mapdev-probe") && *mode & 0o7777 == 0o621)
    );
    let inode = fs::metadata(machine.path("tty1")).unwrap().ino();
    drop(daemon);
    let stop = Arc::new(AtomicBool::new(false));
    let storm = std::thread::spawn({
        let stop = stop.clone();
        move || disks_come_and_go(&stop)
    });
    let rounds: Option<u64> = std::env::var("SHIM_KILLS").ok().and_then(|text| text.parse().ok());
    let mut dice = Dice::new("moments");
    let mut whole = Duration::ZERO;
    for round in 0..rounds.unwrap_or(5) {
        let started = Instant::now();
        let daemon = machine.spawn(&[]);
        let until = if round % 2 == 0 {
            daemon.wait_until_ready();
            whole = started.elapsed();
            assert_eq!(owned(&machine.dev), all);
            started.elapsed() + Duration::from_micros(dice.roll(200_000))
        } else {
            // while it takes up the map, and all that is in sysfs
            whole.mul_f64(f64::from(u32::try_from(dice.roll(1000)).unwrap()) / 1000.0)
        };
        while started.elapsed() < until {
            assert_eq!(fs::metadata(machine.path("null")).unwrap().rdev(), 1 << 8 | 3);
        }
        drop(daemon);
        assert_eq!(owned(&machine.dev), all, "served on without the daemon");
        let stat = fs::metadata(machine.path("tty1")).unwrap();
        assert_eq!((stat.uid(), stat.ino()), (77, inode), "the same object, round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    println!("# kills: {} disks came and went", storm.join().unwrap());
    let _daemon = machine.start();
    machine.ask(&["settle"]);
    assert_eq!(sorted(&machine.dev), sorted(Path::new("/dev")), "as the kernel's own");
    assert_eq!(fs::metadata(machine.path("tty1")).unwrap().ino(), inode);
    unload("zram");
}

#[test]
#[ignore = "in the virtual machine"]
fn mapdevctl_tells_of_the_module_and_mounts_it() {
    let machine = Machine::new();
    let daemon = machine.start();
    let run = |words: &[&str]| Command::new("/bin/mapdevctl").args(words).output().unwrap();
    let text = |words: &[&str]| String::from_utf8(run(words).stdout).unwrap();
    let told = text(&["shim", "status"]);
    assert!(told.contains("map\tserved\n"), "{told}");
    assert!(told.contains(&format!("mounted on\t{}\n", machine.dev.display())), "{told}");
    drop(daemon);
    assert!(text(&["shim", "status"]).contains("map\tserved; the daemon is gone\n"));
    let place = machine.folder.path().join("place");
    fs::create_dir(&place).unwrap();
    let place = place.to_str().unwrap();
    assert!(run(&["shim", "attach", place]).status.success());
    assert!(fs::metadata(Path::new(place).join("null")).is_ok());
    assert!(run(&["shim", "detach", place]).status.success());
    absent(fs::metadata(Path::new(place).join("null")));
    assert_eq!(run(&["shim", "detach", place]).status.code(), Some(1));
}

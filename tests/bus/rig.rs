//! A private bus, the daemon's bus side on it, and a dispatch that answers from a table.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::{Arc, Mutex};

use super::modules::{served, zram};
use futures_util::StreamExt;
use mapdev::bus::{Accounts, Bus, BusConfig, Log};
use mapdev::device::DeviceId;
use mapdev::device::record::Record;
use mapdev::dispatch::command::{Change, Command, LoadError, Notice, Served, Status, Terms};
use mapdev::dispatch::known::{KernelHands, Known};
use mapdev::nodes::{Mismatch, Permissions};
use mapdev::rules::decision::{Attribute, Decision, Source};
use mapdev::uevent::{Action, Origin, Uevent};
use tokio::sync::{mpsc, watch};
use zbus::{Connection, MatchRule, MessageStream, connection};

/// A user that is nobody's and not root.
pub(crate) const OTHER: u32 = 65534;

const BUS_CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>ADDRESS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true"/>
  </policy>
  <limit name="max_connections_per_user">512</limit>
</busconfig>
"#;

/// Ends its process when it is dropped.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a bus; it takes calls when this returns.
pub(crate) fn daemon(folder: &Path) -> (Ended, String) {
    let address = format!("unix:path={}", folder.join("bus").display());
    let config = folder.join("bus.conf");
    fs::write(&config, BUS_CONFIG.replace("ADDRESS", &address)).unwrap();
    let mut child = Program::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--print-address=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("dbus-daemon is needed: install dbus");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("unix:"), "dbus-daemon did not start: {line:?}");
    (Ended(child), address)
}

/// What was changed, in order.
pub(crate) type Changes = Arc<Mutex<Vec<(DeviceId, Change, Terms)>>>;

#[derive(Debug)]
struct TwoUsers;

impl Accounts for TwoUsers {
    fn uid(&self, name: &str) -> Option<u32> {
        match name {
            "root" => Some(0),
            "alice" => Some(1000),
            _ => None,
        }
    }
    fn gid(&self, name: &str) -> Option<u32> {
        if name == "lab" { Some(77) } else { None }
    }
    fn user_name(&self, uid: u32) -> Option<String> {
        ["root", "alice"].into_iter().find(|n| self.uid(n) == Some(uid)).map(str::to_owned)
    }
    fn group_name(&self, gid: u32) -> Option<String> {
        (gid == 77).then(|| "lab".to_owned())
    }
}

#[derive(Debug)]
struct OneLevel(Mutex<tracing::Level>);

impl Log for OneLevel {
    fn level(&self) -> tracing::Level {
        *self.0.lock().unwrap()
    }
    fn set_level(&self, level: tracing::Level) -> Result<(), String> {
        *self.0.lock().unwrap() = level;
        Ok(())
    }
}

pub(crate) fn known(devpath: &str, pairs: &[(&str, &[u8])]) -> Known {
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_bytes(), *v)).collect();
    let uevent = Uevent::synthetic(Origin::Coldplug, Action::Add, devpath.as_bytes(), 1, &pairs);
    let mut decision = Decision::default();
    decision.set(Attribute::Mode, 0o600, Source::Kernel);
    Known {
        by_kernel: KernelHands::default(),
        id: DeviceId::of(&uevent),
        uevent: Arc::new(uevent),
        instance: 42,
        parent: None,
        module: None,
        generation: 1,
        said: Arc::new(decision.clone()),
        decision,
        permissions: Permissions { uid: 0, gid: 77, mode: 0o600 },
        record: Record { initialized_usec: Some(5), ..Record::default() },
        mismatches: Vec::new(),
    }
}

/// A misc device, a disk that differs from the machine's, and a device without node.
pub(crate) fn table() -> Vec<Arc<Known>> {
    let tun = known(
        "/devices/virtual/misc/tun",
        &[
            ("SUBSYSTEM", b"misc"),
            ("MAJOR", b"10"),
            ("MINOR", b"200"),
            ("DEVNAME", b"net/tun"),
            ("BAD", b"a\xffb"),
        ],
    );
    let mut disk = known(
        "/devices/x/block/sda",
        &[
            ("SUBSYSTEM", b"block"),
            ("DEVTYPE", b"disk"),
            ("MAJOR", b"8"),
            ("MINOR", b"0"),
            ("DEVNAME", b"sda"),
        ],
    );
    disk.record.links = vec![b"disk/by-id/x".to_vec()];
    let mismatch = |attribute| Mismatch { attribute, ours: "0600".into(), theirs: "0660".into() };
    disk.mismatches = vec![mismatch(Attribute::Mode)];
    let mut usb = known("/devices/usb1/1-1", &[("SUBSYSTEM", b"usb"), ("DEVTYPE", b"usb_device")]);
    usb.record.initialized_usec = None;
    vec![Arc::new(tun), Arc::new(disk), Arc::new(usb)]
}

/// What was loaded, and whether only for trying.
pub(crate) type Loaded = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

struct Table {
    devices: Vec<Arc<Known>>,
    changes: Changes,
    loaded: Loaded,
    notices: mpsc::Sender<Notice>,
    waiting: Vec<Command>,
}

impl Table {
    fn find(&self, id: &DeviceId) -> Option<Arc<Known>> {
        self.devices.iter().find(|device| device.id == *id).cloned()
    }

    fn resolve(&self, name: &[u8]) -> Option<Arc<Known>> {
        let name = name.strip_prefix(b"/dev/").unwrap_or(name);
        let fits = |d: &&Arc<Known>| d.devname() == Some(name) || d.id.as_bytes() == name;
        self.devices.iter().find(fits).cloned()
    }

    /// Drops answers to those that are gone, as dispatch does.
    fn answer(&mut self, command: Command) {
        match command {
            Command::Status(to) => {
                let devices = self.devices.len() as u64;
                to.send(Status { shadow: true, devices, generation: 3, ..Status::default() }).ok();
            }
            Command::List(to) => drop(to.send(self.devices.clone())),
            Command::Device(id, to) => drop(to.send(self.find(&id))),
            Command::Resolve(name, to) => drop(to.send(self.resolve(&name))),
            Command::Map(to) => {
                let file = fs::File::open("/dev/null").unwrap();
                to.send(Ok((file.into(), 9))).ok();
            }
            Command::Settle(to) | Command::Ping(to) => drop(to.send(())),
            Command::Hold(_) => {}
            Command::Await(name, to) => match self.resolve(&name) {
                Some(known) => drop(to.send(known)),
                None => self.waiting.push(Command::Await(name, to)),
            },
            Command::Reload(to) => drop(to.send(4)),
            Command::Compare(to) => {
                let differ = self.devices.iter().filter(|device| !device.mismatches.is_empty());
                to.send(differ.cloned().collect()).ok();
            }
            Command::Modules(_) => {}
            Command::Served(name, to) => {
                let wanted = |row: &Served| name.as_ref().is_none_or(|name| *row.name == **name);
                to.send(served().into_iter().filter(wanted).collect()).ok();
            }
            Command::Name(name, to) => drop(to.send((name == b"zram0").then(zram))),
            Command::NamesChanged(to) => {
                let by = zram().by_kernel.last.unwrap();
                to.send(vec![(b"zram0".as_slice().into(), by)]).ok();
            }
            Command::Load(name, dry_run, to) => {
                let refused = LoadError::NoModule("no module has this name".to_owned());
                let known = name == b"tun" || name == b"root";
                self.loaded.lock().unwrap().push((name, dry_run));
                to.send(if known { Ok(()) } else { Err(refused) }).ok();
            }
            Command::Change(id, change, terms, to) => {
                self.change(&id, &change);
                self.changes.lock().unwrap().push((id, change, terms));
                to.send(Ok(())).ok();
            }
        }
    }

    fn change(&mut self, id: &DeviceId, change: &Change) {
        let Change::Set { attribute: Attribute::Owner, value } = change else { return };
        for device in self.devices.iter_mut().filter(|device| device.id == *id) {
            let permissions = Permissions { uid: *value, ..device.permissions };
            *device = Arc::new(Known { permissions, ..(**device).clone() });
            self.notices.try_send(Notice::Changed { device: device.clone() }).unwrap();
        }
    }
}

/// Everything that a test talks to; all of it ends with the rig.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) address: String,
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) changes: Changes,
    pub(crate) loaded: Loaded,
    pub(crate) daemon: Option<Ended>,
    pub(crate) folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.send(true).ok();
    }
}

impl Rig {
    /// A bus that nobody serves yet.
    pub(crate) fn empty() -> (tempfile::TempDir, Ended, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (daemon, address) = daemon(folder.path());
        (folder, daemon, address)
    }

    pub(crate) fn new() -> Self {
        Self::with(table())
    }

    /// Serves these devices; returns when the name is on the bus.
    pub(crate) fn with(devices: Vec<Arc<Known>>) -> Self {
        let (folder, daemon, address) = Self::empty();
        let appears = Appears::watch(&address);
        let rig = Self::serve(devices, folder, daemon, address);
        appears.wait();
        rig
    }

    pub(crate) fn serve(
        devices: Vec<Arc<Known>>,
        folder: tempfile::TempDir,
        daemon: Ended,
        address: String,
    ) -> Self {
        let (commands, mut asked) = mpsc::channel(16);
        let (notices, told) = mpsc::channel(4096);
        let (stop, stopped) = watch::channel(false);
        let (changes, loaded) = (Changes::default(), Loaded::default());
        let mut table = Table {
            devices,
            changes: changes.clone(),
            loaded: loaded.clone(),
            notices: notices.clone(),
            waiting: Vec::new(),
        };
        std::thread::spawn(move || {
            while let Some(command) = asked.blocking_recv() {
                table.answer(command);
            }
        });
        let config = BusConfig { address: Some(address.clone()), ..BusConfig::default() };
        let log = Arc::new(OneLevel(Mutex::new(tracing::Level::INFO)));
        let bus = Bus::new(config, commands, told, Arc::new(TwoUsers), log);
        drop(bus.start(stopped).unwrap());
        Self { address, notices, changes, loaded, daemon: Some(daemon), folder, stop }
    }

    /// Runs busctl as a user; its output, or its complaint.
    pub(crate) fn busctl(&self, uid: u32, arguments: &[&str]) -> Result<String, String> {
        let address = format!("--address={}", self.address);
        let mut program = if uid == 0 {
            Program::new("busctl")
        } else {
            let mut program = Program::new("setpriv");
            program.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]);
            program.args(["--clear-groups", "busctl"]);
            program
        };
        let output = program.arg(address).args(arguments).output().expect("busctl is needed");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn manager(&self, uid: u32, method: &[&str]) -> Result<String, String> {
        let object = ["call", "org.mapdev1", "/org/mapdev1", "org.mapdev1.Manager"];
        self.busctl(uid, &[&object, method].concat())
    }

    pub(crate) fn modules(&self, uid: u32, method: &[&str]) -> Result<String, String> {
        let object = ["call", "org.mapdev1", "/org/mapdev1", "org.mapdev1.Modules"];
        self.busctl(uid, &[&object, method].concat())
    }

    pub(crate) fn tun(&self, uid: u32, method: &[&str]) -> Result<String, String> {
        let path = "/org/mapdev1/device/c10_200";
        let object = ["call", "org.mapdev1", path, "org.mapdev1.Device"];
        self.busctl(uid, &[&object, method].concat())
    }

    pub(crate) fn changed(&self) -> Vec<(DeviceId, Change, Terms)> {
        self.changes.lock().unwrap().clone()
    }
}

/// One thread for all that a test awaits.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let limit = std::time::Duration::from_secs(30);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("it came in time") })
}

pub(crate) async fn connect(address: &str) -> Connection {
    connection::Builder::address(address).build().await.unwrap()
}

/// Knows when our name comes to the bus.
pub(crate) struct Appears {
    runtime: tokio::runtime::Runtime,
    stream: MessageStream,
}

impl Appears {
    pub(crate) fn watch(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let rule = MatchRule::builder()
                .msg_type(zbus::message::Type::Signal)
                .member("NameOwnerChanged")
                .arg(0, "org.mapdev1")
                .build()
                .unwrap();
            MessageStream::for_match_rule(rule, &connect(address).await, None).await.unwrap()
        });
        Self { runtime, stream }
    }

    pub(crate) fn wait(mut self) {
        self.runtime.block_on(async {
            let limit = std::time::Duration::from_secs(30);
            let owned = async {
                while let Some(Ok(signal)) = self.stream.next().await {
                    let body = signal.body();
                    let (_, _, owner): (&str, &str, &str) = body.deserialize().unwrap();
                    if !owner.is_empty() {
                        return;
                    }
                }
                panic!("the bus went away");
            };
            tokio::time::timeout(limit, owned).await.expect("the name appears");
        });
    }
}

//! A daemon that has one device, and remembers what it was asked to do with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use mapdev::map::layout::E_LIVE;
use mapdev::map::{Kind, MapWriter, Node};
use tokio::sync::oneshot;
use zbus::message::{Flags, Header};
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedFd, OwnedObjectPath, OwnedVariant, fdo, interface};

pub(crate) const DEVICE: &str = "/org/mapdev1/device/c188_0";
const NODE: &str = "/dev/ttyUSB0";

type Options = HashMap<String, OwnedVariant>;
type Calls = Arc<Mutex<Vec<String>>>;

/// Runs in a thread of its own until it is dropped.
pub(crate) struct Fake {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    calls: Calls,
}

impl Fake {
    /// Returns when the name is the daemon's.
    pub(crate) fn start(address: &str) -> Self {
        let calls = Calls::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (address, seen) = (address.to_owned(), Arc::clone(&calls));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let connection = zbus::connection::Builder::address(address.as_str())
                    .serve_at("/org/mapdev1", fdo::ObjectManager)
                    .serve_at("/org/mapdev1", Manager(Mutex::new(sample_map())))
                    .serve_at(DEVICE, Device(seen))
                    .name("org.mapdev1")
                    .build()
                    .await
                    .unwrap();
                ready.send(()).unwrap();
                let _ = stopped.await;
                drop(connection);
            });
        });
        is_ready.recv().unwrap();
        Self { stop: Some(stop), thread: Some(thread), calls }
    }

    /// What the device was asked since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.mapdev1.Error")]
enum Error {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchDevice(String),
}

fn path() -> OwnedObjectPath {
    ObjectPath::try_from(DEVICE).unwrap().into()
}

struct Manager(Mutex<MapWriter>);

fn sample_map() -> MapWriter {
    let mut map = MapWriter::create(64).unwrap();
    let node = |kind| Node { kind, mode: 0o660, uid: 0, gid: 20, flags: E_LIVE };
    let tty = node(Kind::Char { major: 188, minor: 0 });
    map.upsert(b"ttyUSB0", &tty).unwrap();
    let link = node(Kind::Link { target: Box::from(*b"../ttyUSB0") });
    map.upsert(b"serial/\x1b[2J", &link).unwrap();
    map
}

#[interface(name = "org.mapdev1.Manager")]
impl Manager {
    fn resolve_device(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        match name {
            // the null device stands for the target of a link
            "ttyUSB0" | NODE | "c188:0" | "/dev/null" => Ok(path()),
            _ => Err(Error::NoSuchDevice(format!("there is no device '{name}'."))),
        }
    }

    fn list_devices(&self, filter: Options) -> Vec<(OwnedObjectPath, Vec<u8>, String, u32, u32)> {
        let wanted = filter.get("subsystem").and_then(|value| value.downcast_ref::<&str>().ok());
        let row = (path(), NODE.as_bytes().to_vec(), "tty".to_owned(), 188, 0);
        if wanted.is_none_or(|subsystem| subsystem == "tty") { vec![row] } else { Vec::new() }
    }

    fn settle(&self, timeout_usec: u64) -> bool {
        timeout_usec == 1_500_000
    }

    fn get_map(&self) -> (OwnedFd, u64) {
        let map = self.0.lock().unwrap();
        (map.read_only_fd().unwrap().into(), map.generation())
    }

    fn reload(&self, _options: Options) -> fdo::Result<u64> {
        Err(fdo::Error::AccessDenied("not authorized.".into()))
    }

    /// Signals come in the same breath as the answer.
    async fn subscribe(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<()> {
        for seqnum in 1..=200 {
            Self::event_processed(&emitter, seqnum, path(), "change", 250).await?;
        }
        Self::storm_started(&emitter, path(), 900).await?;
        Self::mismatch(&emitter, path(), "mode", "0660", "06\u{1b}44").await?;
        Self::event_processed(&emitter, 201, path(), "remove", 90).await?;
        Ok(())
    }

    #[zbus(signal)]
    async fn event_processed(
        emitter: &SignalEmitter<'_>,
        seqnum: u64,
        device: OwnedObjectPath,
        action: &str,
        usec: u64,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn storm_started(
        emitter: &SignalEmitter<'_>,
        device: OwnedObjectPath,
        rate: u32,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn mismatch(
        emitter: &SignalEmitter<'_>,
        device: OwnedObjectPath,
        attribute: &str,
        ours: &str,
        theirs: &str,
    ) -> zbus::Result<()>;

    #[zbus(property)]
    fn version(&self) -> String {
        "9.9".to_owned()
    }

    #[zbus(property)]
    fn mode(&self) -> String {
        "shadow".to_owned()
    }

    #[zbus(property)]
    fn queue_high_water(&self) -> u32 {
        17
    }

    #[zbus(property)]
    fn devices(&self) -> u64 {
        1
    }

    #[zbus(property)]
    fn refused(&self) -> u64 {
        3
    }

    fn list_mismatches(&self) -> Vec<(OwnedObjectPath, String, String, String)> {
        vec![(path(), "mode".to_owned(), "0660".to_owned(), "0600".to_owned())]
    }
}

struct Device(Calls);

impl Device {
    fn note(&self, header: &Header<'_>, call: &str, options: &Options) {
        let keys: BTreeSet<&str> = options.keys().map(String::as_str).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let prompt = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let prompt = if prompt { "" } else { " (no prompt)" };
        self.0.lock().unwrap().push(format!("{call} {}{prompt}", keys.join(",")));
    }
}

#[interface(name = "org.mapdev1.Device")]
impl Device {
    fn set_owner(&self, user: &str, options: Options, #[zbus(header)] header: Header<'_>) {
        self.note(&header, &format!("SetOwner {user}"), &options);
    }

    fn set_group(
        &self,
        group: &str,
        options: Options,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        self.note(&header, &format!("SetGroup {group}"), &options);
        if group == "nobodys" {
            return Err(fdo::Error::InvalidArgs("there is no group 'nobodys'.".into()));
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32, options: Options, #[zbus(header)] header: Header<'_>) {
        self.note(&header, &format!("SetMode {mode:o}"), &options);
    }

    fn reset(&self, options: Options, #[zbus(header)] header: Header<'_>) {
        self.note(&header, "Reset", &options);
    }

    fn get_properties(&self) -> HashMap<String, Vec<u8>> {
        let pairs: [(&str, &[u8]); 2] =
            [("ID_MODEL", b"Stick\x1b]0;owned\x07\xff"), ("DEVNAME", NODE.as_bytes())];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
    }

    #[expect(clippy::type_complexity, reason = "the signature of D-Bus")]
    fn explain(
        &self,
        attribute: &str,
    ) -> fdo::Result<Vec<(String, String, u32, u32, String, String, String)>> {
        match attribute {
            "group" => {}
            "links" => {
                return Err(fdo::Error::InvalidArgs("there is no attribute 'links'.".into()));
            }
            _ => return Ok(Vec::new()),
        }
        let step = |source: &str, file: &str, line, old: &str, new: &str| {
            (source.into(), file.into(), line, 5, "=".into(), old.into(), new.into())
        };
        Ok(vec![
            step("rule", "/a.rules", 3, "root", "tty"),
            step("rule", "/b.rules", 9, "tty", "dialout"),
        ])
    }

    #[zbus(property)]
    fn node(&self) -> Vec<u8> {
        NODE.as_bytes().to_vec()
    }

    #[zbus(property)]
    fn sys_path(&self) -> Vec<u8> {
        b"/sys/devices/usb1/1-1/ttyUSB0".to_vec()
    }

    #[zbus(property)]
    fn owner_name(&self) -> String {
        "root".to_owned()
    }

    #[zbus(property)]
    fn group(&self) -> u32 {
        20
    }

    #[zbus(property)]
    fn group_name(&self) -> String {
        "dialout".to_owned()
    }

    #[zbus(property)]
    fn mode(&self) -> u32 {
        0o20_640
    }
}

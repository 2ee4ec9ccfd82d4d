//! Walks the stages: hears, waits, decides, settles, publishes, tells. Read this first.
//!
//! One owner has queue, table, claims and map, and nobody else changes them: the thread that leads (`lead.rs`)
//! turns the loop (`turn.rs`). What concerns an event's device alone (`hands.rs`) is done in between, by that
//! thread or a worker; what devices share is done here, when that is over.

mod answer;
mod attach;
mod blocked;
mod busy;
mod closed;
pub mod command;
mod decide;
mod finish;
pub mod foreground;
mod hands;
mod hear;
mod inherit;
mod job;
mod kernel;
pub mod known;
pub mod lead;
mod load;
mod names;
mod number;
mod place;
mod publish;
mod reload;
mod rename;
mod rest;
mod served;
mod settle;
mod successor;
mod sweep;
mod table;
mod tell;
#[cfg(test)]
mod tests;
mod turn;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::announce::overhear::Overhear;
use crate::config::{Config, Mode};
use crate::device::record::Records;
use crate::device::{DeviceId, Sysfs};
use crate::map::MapWriter;
use crate::modules::ModuleDb;
use crate::nodes::instances::Instances;
use crate::nodes::links;
use crate::policy::grants::Grants;
use crate::queue::{Keys, Limits, Merge, Pushed, Queue};
use crate::uevent::socket::KernelSocket;
use crate::uevent::{Action, Origin, Uevent};
use attach::Attach;
use blocked::Blocked;
use busy::Busy;
use closed::Watching;
use command::{COMMANDS_MAX, ChangeError, Command};
pub use job::Book;
use job::{Answer, Job};
use kernel::KernelEvents;
pub use kernel::shim;
use known::Known;
use place::Place;
use publish::Publisher;
use rest::Rest;
use sweep::Sweep;
use table::Table;
use tell::Teller;
pub use tell::{OTHER_MANAGER, Rival};
use turn::Own;
use worker::Workers;

/// How long what came before the end is waited for: less than the service manager waits for us
/// (`TimeoutStopSec=` in `units/mapdevd.service`).
const STOP_TIME: Duration = Duration::from_secs(20);

/// An event in the queue.
#[derive(Debug)]
struct Pending {
    uevent: Arc<Uevent>,
    id: DeviceId,
    order: u64,
    heard: Instant,
}

/// What the initial walk through sysfs came to.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub devices: usize,
    pub nodes: usize,
    pub map_entries: usize,
    pub modules: usize,
    pub modules_with_devnames: usize,
    pub mismatches: usize,
    pub elapsed: Duration,
}

/// What dispatch is given to work with.
#[derive(Debug)]
pub struct Parts {
    pub config: Config,
    pub socket: KernelSocket,
    pub map: MapWriter,
    pub modules: Arc<ModuleDb>,
    pub commands: mpsc::Receiver<Command>,
    pub notices: Vec<mpsc::Sender<command::Notice>>,
    /// Told once, when every device of today's sysfs was handled.
    pub ready: oneshot::Sender<Ready>,
    /// Keeps the map's memory when it is another one than before.
    pub keep_map: fn(&MapWriter),
    /// Says when to end.
    pub stop: watch::Receiver<bool>,
}

/// The task.
#[derive(Debug)]
pub struct Dispatch {
    config: Config,
    sysfs: Sysfs,
    records: Records,
    /// In active mode.
    instances: Option<Instances>,
    socket: KernelSocket,
    queue: Queue<Pending>,
    workers: Workers,
    done: mpsc::Receiver<Answer>,
    /// Events of which only what is to be run is left; one a device at most.
    chores: VecDeque<Job>,
    table: Table,
    publisher: Publisher,
    watching: Watching,
    blocked: Blocked,
    busy: Busy,
    attach: Attach,
    kernel: KernelEvents,
    place: Place,
    teller: Teller,
    /// In shadow mode beside another manager: what that one has handled.
    rival: Option<Overhear>,
    /// Devpaths with which the other manager was done before us.
    compare_later: HashSet<Box<[u8]>>,
    grants: Grants,
    book: Arc<Book>,
    sweep: Option<Sweep>,
    /// Until then a device that a walk met may go without our hearing of it.
    doubt_until: Option<tokio::time::Instant>,
    ready: Option<oneshot::Sender<Ready>>,
    started: Instant,
    commands: mpsc::Receiver<Command>,
    keep_map: fn(&MapWriter),
    /// Events taken in so far; the next one's place in the order.
    taken: u64,
    /// Places in the order that are not handled yet.
    open: BTreeSet<u64>,
    /// The first of the events that gave way to one that is not handled yet.
    stands_for: HashMap<u64, u64>,
    settlers: Vec<(u64, oneshot::Sender<()>)>,
    awaiting: Vec<(Vec<u8>, oneshot::Sender<Arc<Known>>)>,
    changing: Vec<(u64, oneshot::Sender<Result<(), ChangeError>>)>,
    /// Devices that storm, and how many of their changes were merged.
    throttled: BTreeMap<DeviceId, u64>,
    handled: u64,
    resyncs: u64,
    loads: load::Loads,
    reloads: reload::Reloads,
    stop: watch::Receiver<bool>,
    stop_time: Duration,
    /// It was told to stop, and does so then, whatever is left.
    stop_by: Option<tokio::time::Instant>,
    watchdog: tell::Watchdog,
    own: Own,
    rest: Rest,
}

/// The way to ask dispatch, and the end that it listens at.
#[must_use]
pub fn commands() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(COMMANDS_MAX)
}

impl Dispatch {
    /// Loads policy and grants, starts the workers.
    ///
    /// # Errors
    /// When a folder of the runtime state or a thread cannot be made.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { config, socket, map, modules, commands, notices, ready, keep_map, stop } =
            parts;
        let (workers, done) = Workers::start(&config)?;
        let (grants, problem) = Grants::load(&config.runtime.join("policy.d"));
        if let Some(problem) = problem {
            warn!("{problem}");
        }
        let records = Records::open(&config.records_folder())?;
        records.tidy();
        if config.mode == Mode::Active
            && let Err(error) = links::tidy(&config.dev)
        {
            warn!("{}: {error}", config.dev.display());
        }
        let mut publisher = Publisher::new(&config, map);
        publisher.restore_claims(&records);
        Ok(Self {
            sysfs: Sysfs::new(&config.sysfs),
            records,
            instances: (config.mode == Mode::Active).then(|| Instances::new(&config.runtime)),
            socket,
            queue: Queue::new(Limits::default()),
            workers,
            done,
            chores: VecDeque::new(),
            table: Table::default(),
            publisher,
            watching: Watching::new(&config),
            blocked: Blocked::default(),
            busy: Busy::new(&config),
            attach: Attach::default(),
            kernel: None,
            place: Place::new(&config),
            teller: Teller::new(config.mode == Mode::Active, notices)?,
            rival: tell::rival(&config)?,
            compare_later: HashSet::new(),
            grants,
            book: Arc::new(answer::load_book(&config, 1, modules)),
            sweep: None,
            doubt_until: None,
            ready: Some(ready),
            started: Instant::now(),
            commands,
            keep_map,
            taken: 0,
            open: BTreeSet::new(),
            stands_for: HashMap::new(),
            settlers: Vec::new(),
            awaiting: Vec::new(),
            changing: Vec::new(),
            throttled: BTreeMap::new(),
            handled: 0,
            resyncs: 0,
            loads: load::Loads::default(),
            reloads: reload::Reloads::default(),
            stop,
            stop_time: STOP_TIME,
            stop_by: None,
            watchdog: tell::Watchdog::new(),
            own: Own::default(),
            rest: Rest::default(),
            config,
        })
    }

    /// Stage 2: the event waits for all that concerns its device. Returns its place in the order.
    fn take(&mut self, uevent: Uevent) -> u64 {
        let id = DeviceId::of(&uevent);
        self.blocked.heard(&uevent);
        self.number_heard(&uevent);
        let order = self.taken;
        self.taken += 1;
        self.open.insert(order);
        let uevent = Arc::new(uevent);
        let pending =
            Pending { uevent: uevent.clone(), id: id.clone(), order, heard: Instant::now() };
        let keys = Keys {
            devpath: uevent.devpath(),
            devpath_old: uevent.devpath_old(),
            id: Some(id.as_bytes()),
            devname: uevent.devname(),
        };
        let change = uevent.action() == Action::Change && uevent.origin == Origin::Kernel;
        let repeats = |known: &Arc<Known>| uevent.repeats(&known.uevent);
        let plain = change && self.table.get(&id).is_some_and(repeats);
        let merge = if plain { Merge::Allowed } else { Merge::Never };
        match self.queue.push(&keys, merge, pending) {
            Pushed::Runnable | Pushed::Waiting => {}
            Pushed::Merged(older) => {
                // who waits for the older one waits for this, which says the same
                let first = self.stands_for.remove(&older.order).unwrap_or(older.order);
                if first != older.order {
                    self.close(older.order);
                }
                self.stands_for.insert(order, first);
                let merged = self.throttled.entry(older.id.clone()).or_default();
                *merged += 1;
                if *merged == 1
                    && let Some(device) = self.table.get(&older.id)
                {
                    let device = device.clone();
                    let rate = u32::try_from(self.queue.waiting()).unwrap_or(u32::MAX);
                    warn!("{} storms: changes that wait are merged", device.id);
                    self.teller.notify(command::Notice::StormStarted { device, rate });
                }
            }
        }
        order
    }
}

/// Says what the socket was granted, once.
pub fn log_socket(socket: &KernelSocket, wanted: usize) {
    let granted = socket.granted();
    if granted < wanted {
        warn!("receive buffer: {granted} bytes granted, {wanted} wanted; storms may overrun it");
    } else {
        info!("receive buffer: {granted} bytes granted");
    }
}

//! What a worker does alone, for its own device: looks up, decides, settles the node, writes the
//! record. Workers are long-lived threads and share nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::known::Known;
use crate::config::{Config, Mode};
use crate::device::record::{Record, Records};
use crate::device::{Device, DeviceId, Sysfs};
use crate::modules::ModuleDb;
use crate::nodes::Permissions;
use crate::nodes::devtmpfs::{KERNEL_DEFAULT, Node, decided};
use crate::policy::Policy;
use crate::policy::apply;
use crate::policy::grants::DeviceGrants;
use crate::queue::Ticket;
use crate::rules;
use crate::rules::decision::{Attribute, Decision, Source};
use crate::rules::names::Names;
use crate::uevent::{Action, Origin, Uevent};

/// What every event is decided by; swapped as a whole on reload.
#[derive(Debug)]
pub struct Book {
    /// Counts the loadings, from 1.
    pub generation: u64,
    pub policy: Policy,
    pub names: Names,
    pub modules: Arc<ModuleDb>,
}

/// An event on its way to a worker.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) uevent: Arc<Uevent>,
    /// The count of events that dispatch took in before it.
    pub(super) order: u64,
    pub(super) heard: Instant,
    pub(super) known: Option<Arc<Known>>,
    pub(super) grants: Option<Arc<DeviceGrants>>,
    pub(super) book: Arc<Book>,
    /// Whether the node can be compared now: not before another manager is done with it.
    pub(super) compare: bool,
}

impl Job {
    /// The message to decide by. Our own event speaks of the device as it is known by now: what it
    /// was when the event was made may have moved since.
    fn subject(&self) -> &Arc<Uevent> {
        match &self.known {
            Some(known) if self.uevent.origin == Origin::Policy => &known.uevent,
            Some(_) | None => &self.uevent,
        }
    }
}

/// What became of the device.
#[derive(Debug)]
pub(super) enum Outcome {
    Settled(Box<Known>),
    Removed,
    /// The device that our own walk found, or a change was made for, is no longer there: its
    /// `remove` tells the rest.
    Gone,
}

/// A worker's answer.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) worker: usize,
    pub(super) id: DeviceId,
    pub(super) job: Job,
    pub(super) outcome: Outcome,
    /// What failed on the way; the event went on.
    pub(super) problems: Vec<String>,
}

/// The worker threads, and which of them have nothing to do.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Vec<SyncSender<Job>>,
    idle: Vec<usize>,
}

impl Workers {
    /// Starts the threads; answers come through the receiver.
    pub(super) fn start(config: &Config) -> io::Result<(Self, mpsc::Receiver<Done>)> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { processors.clamp(2, 16) } else { config.workers };
        // one answer a worker can be under way: nobody ever waits to be rid of one
        let (answers, done) = mpsc::channel(count);
        let mut jobs = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = sync_channel(1);
            let hands = Hands::new(config)?;
            let answers = answers.clone();
            let name = format!("worker-{number}");
            let work = move || hands.work(number, &receiver, &answers);
            thread::Builder::new().name(name).spawn(work)?;
            jobs.push(sender);
        }
        Ok((Self { idle: (0..count).rev().collect(), jobs }, done))
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Gives an idle worker something to do; without one, the job comes back.
    pub(super) fn give(&mut self, job: Job) -> Result<(), Box<Job>> {
        let Some(worker) = self.idle.pop() else { return Err(Box::new(job)) };
        match self.jobs.get(worker) {
            // an idle worker's channel is empty, and its thread ends with this sender only
            Some(sender) => sender.send(job).map_err(|error| Box::new(error.0)),
            None => Err(Box::new(job)),
        }
    }

    pub(super) fn is_idle_again(&mut self, worker: usize) {
        self.idle.push(worker);
    }
}

/// What a worker works with.
struct Hands {
    sysfs: Sysfs,
    dev: PathBuf,
    records: Records,
    active: bool,
}

impl Hands {
    fn new(config: &Config) -> io::Result<Self> {
        Ok(Self {
            sysfs: Sysfs::new(&config.sysfs),
            dev: config.dev.clone(),
            records: Records::open(&config.records_folder())?,
            active: config.mode == Mode::Active,
        })
    }

    fn work(&self, number: usize, jobs: &Receiver<Job>, answers: &mpsc::Sender<Done>) {
        while let Ok(job) = jobs.recv() {
            let mut problems = Vec::new();
            let device = Device::new(self.sysfs.clone(), job.subject().clone());
            let outcome = match job.uevent.action() {
                Action::Remove => self.remove(&device, &job),
                Action::Add
                | Action::Change
                | Action::Move
                | Action::Online
                | Action::Offline
                | Action::Bind
                | Action::Unbind => self.settle(&device, &job, &mut problems),
            };
            let id = device.id().clone();
            if answers.blocking_send(Done { worker: number, id, job, outcome, problems }).is_err() {
                return;
            }
        }
    }

    /// A successor may have the node already, and an event of this device that was handled late may
    /// have left it what was meant for this one.
    fn remove(&self, device: &Device, job: &Job) -> Outcome {
        let mut decision = Decision::default();
        take_back(job.known.as_deref(), &mut decision);
        let node = device.devname().zip(device.devnum()).filter(|_| self.active);
        let found = node.and_then(|(name, number)| Node::find(&self.dev, name, number).ok()?);
        if let Some(node) = found.filter(|_| !decision.steps.is_empty()) {
            // the successor's own event settles it, and tells what fails
            drop(node.settle(&decision));
        }
        Outcome::Removed
    }

    fn settle(&self, device: &Device, job: &Job, problems: &mut Vec<String>) -> Outcome {
        // sysfs may have a device for a moment longer than the kernel speaks of it
        if job.known.is_none() && job.uevent.origin == Origin::Policy {
            return Outcome::Gone;
        }
        let instance = self.sysfs.instance(device.uevent().devpath());
        // what the kernel says is handled even so, as udev does; what we only believe is not
        let was_there = job.known.as_deref().is_none_or(|known| known.instance != 0);
        if instance.is_none() && was_there && job.uevent.origin != Origin::Kernel {
            return Outcome::Gone;
        }
        let instance = instance.unwrap_or(0);
        let before = job.known.as_deref().filter(|known| known.instance == instance);
        let mut decision = rules::decide(device);
        apply::policy(&job.book.policy, device, &mut decision);
        if let Some(grants) = job.grants.as_deref().filter(|grants| grants.instance == instance) {
            apply::grant(&grants.grants, &mut decision);
        }
        decision.finish();
        let old = match before {
            Some(known) => Some(known.record.clone()),
            // another device of this id was known: what was remembered is not about this one
            None if job.known.is_some() => None,
            None => self.records.read(device.id()),
        };
        take_back(job.known.as_deref(), &mut decision);
        let (permissions, mut mismatches) = self.node(device, &decision, problems);
        if !job.compare {
            mismatches = before.map(|known| known.mismatches.clone()).unwrap_or_default();
        }
        let remembered = before.is_some();
        let record = self.record(device, old.as_ref(), remembered, &decision, problems);
        let module = device.module().map(|name| name.escape_ascii().to_string());
        Outcome::Settled(Box::new(Known {
            id: device.id().clone(),
            uevent: device.uevent().clone(),
            instance,
            module,
            decision,
            permissions,
            record,
            mismatches,
        }))
    }

    /// Settles the node in active mode; in shadow mode says where it differs.
    fn node(
        &self,
        device: &Device,
        decision: &Decision,
        problems: &mut Vec<String>,
    ) -> (Permissions, Vec<crate::nodes::Mismatch>) {
        let missing = decided(decision, KERNEL_DEFAULT);
        let (Some(name), Some(devnum)) = (device.devname(), device.devnum()) else {
            return (missing, Vec::new());
        };
        match Node::find(&self.dev, name, devnum) {
            Ok(None) => (missing, Vec::new()),
            Ok(Some(node)) if !self.active => {
                (decided(decision, node.permissions()), node.mismatches(decision))
            }
            Ok(Some(node)) => match node.settle(decision) {
                Ok(permissions) => (permissions, Vec::new()),
                Err(error) => {
                    problems.push(error.to_string());
                    (node.permissions(), Vec::new())
                }
            },
            Err(error) => {
                // in shadow mode /dev is another manager's: what it holds is no problem of ours
                if self.active {
                    problems.push(error.to_string());
                }
                (missing, Vec::new())
            }
        }
    }

    fn record(
        &self,
        device: &Device,
        old: Option<&Record>,
        remembered: bool,
        decision: &Decision,
        problems: &mut Vec<String>,
    ) -> Record {
        let numbered = device.devnum().is_some();
        let links = decision.links.iter().filter(|_| numbered);
        let record = Record {
            links: links.clone().map(|link| link.name.clone()).collect(),
            link_priority: links.map(|link| link.priority).max().unwrap_or(0),
            initialized_usec: old.and_then(|old| old.initialized_usec).or_else(|| Some(now_usec())),
            ..Record::default()
        };
        // what dispatch remembers was written by us: nobody need look at the file
        if remembered && old == Some(&record) {
            return record;
        }
        if let Err(error) = self.records.write(device.id(), &record, old) {
            problems.push(format!("cannot write the record: {error}"));
        }
        record
    }
}

/// What policy or a grant no longer sets goes back to what the kernel gives a node.
fn take_back(before: Option<&Known>, decision: &mut Decision) {
    let Some(before) = before else { return };
    let node = [
        (Attribute::Owner, decision.owner, KERNEL_DEFAULT.uid),
        (Attribute::Group, decision.group, KERNEL_DEFAULT.gid),
        (Attribute::Mode, decision.mode, KERNEL_DEFAULT.mode),
    ];
    for (attribute, now, default) in node {
        if now.is_none() && before.decision.source(attribute).is_some() {
            decision.set(attribute, default, Source::Kernel);
        }
    }
}

/// The monotonic clock in microseconds, as USEC_INITIALIZED counts.
fn now_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

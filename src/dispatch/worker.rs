//! What a worker does alone, for its own device: looks up, decides, settles the node, writes the
//! record. Workers are long-lived threads and share nothing but where they find their jobs.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

/// What became of the device.
#[derive(Debug)]
pub(super) enum Outcome {
    Settled(Box<Known>),
    Removed,
    /// Sysfs no longer has the device that our own walk found: its `remove` tells the rest.
    Gone,
}

/// A worker's answer.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: DeviceId,
    pub(super) job: Job,
    pub(super) outcome: Outcome,
    /// What failed on the way; the event went on.
    pub(super) problems: Vec<String>,
}

/// Jobs handed out for each worker beyond the one that it does: in a storm it goes on without
/// being woken for each event, and without waiting for dispatch.
const AHEAD: usize = 4;

/// The worker threads, and how many more jobs they may be given.
#[derive(Debug)]
pub(super) struct Workers {
    inbox: Arc<Inbox>,
    room: usize,
}

impl Workers {
    /// Starts the threads; answers come through the receiver.
    pub(super) fn start(config: &Config) -> io::Result<(Self, mpsc::Receiver<Done>)> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { processors.clamp(2, 16) } else { config.workers };
        let room = count * (1 + AHEAD);
        // as many answers as jobs can be under way: nobody ever waits to be rid of one
        let (answers, done) = mpsc::channel(room);
        let workers = Self { inbox: Arc::default(), room };
        for number in 0..count {
            let inbox = workers.inbox.clone();
            let hands = Hands::new(config)?;
            let answers = answers.clone();
            let work = move || hands.work(&inbox, &answers);
            thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
        }
        Ok((workers, done))
    }

    pub(super) fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Gives them something to do; whoever is free first does it.
    pub(super) fn give(&mut self, job: Job) {
        self.room = self.room.saturating_sub(1);
        self.inbox.put(job);
    }

    pub(super) fn one_is_done(&mut self) {
        self.room += 1;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

/// Jobs that no worker has taken yet. One for all, so that no job waits behind a slow one while
/// another worker is free.
#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Workers that sleep and that nobody has woken; at least so many.
    asleep: usize,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        if waiting.asleep > 0 {
            waiting.asleep -= 1;
            // a worker that is woken under the lock would only wait for it
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Waits for the oldest job; `None` when there will be no more.
    fn take(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting.asleep += 1;
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
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

    fn work(&self, inbox: &Inbox, answers: &mpsc::Sender<Done>) {
        while let Some(job) = inbox.take() {
            let mut problems = Vec::new();
            let device = Device::new(self.sysfs.clone(), job.uevent.clone());
            let outcome = match job.uevent.action() {
                Action::Remove => Outcome::Removed,
                Action::Add
                | Action::Change
                | Action::Move
                | Action::Online
                | Action::Offline
                | Action::Bind
                | Action::Unbind => self.settle(&device, &job, &mut problems),
            };
            let id = device.id().clone();
            if answers.blocking_send(Done { id, job, outcome, problems }).is_err() {
                return;
            }
        }
    }

    fn settle(&self, device: &Device, job: &Job, problems: &mut Vec<String>) -> Outcome {
        let instance = self.sysfs.instance(job.uevent.devpath());
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
        match before {
            Some(known) => take_back(Some(&known.decision), &mut decision),
            // its node may bear what an event of its predecessor said, if that one was handled late
            None if old.is_none() && self.active => take_back(None, &mut decision),
            None => {}
        }
        let (permissions, mut mismatches) = self.node(device, &decision, problems);
        if !job.compare {
            mismatches = before.map(|known| known.mismatches.clone()).unwrap_or_default();
        }
        let record = self.record(device, before, old.as_ref(), &decision, problems);
        let module = device.module().map(|name| name.escape_ascii().to_string());
        Outcome::Settled(Box::new(Known {
            id: device.id().clone(),
            uevent: match before {
                // our own event only repeats the device's last real one
                Some(known) if job.uevent.origin == Origin::Policy => known.uevent.clone(),
                Some(_) | None => job.uevent.clone(),
            },
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
        before: Option<&Known>,
        old: Option<&Record>,
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
        if before.is_some_and(|known| known.record == record) {
            return record;
        }
        if let Err(error) = self.records.write(device.id(), &record, old) {
            problems.push(format!("cannot write the record: {error}"));
        }
        record
    }
}

/// What policy or a grant no longer sets goes back to what the kernel gives a node; of a device
/// that nobody has handled before, whatever is not set.
fn take_back(before: Option<&Decision>, decision: &mut Decision) {
    let node = [
        (Attribute::Owner, decision.owner, KERNEL_DEFAULT.uid),
        (Attribute::Group, decision.group, KERNEL_DEFAULT.gid),
        (Attribute::Mode, decision.mode, KERNEL_DEFAULT.mode),
    ];
    for (attribute, now, default) in node {
        let was_set = before.is_none_or(|before| before.source(attribute).is_some());
        if now.is_none() && was_set {
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

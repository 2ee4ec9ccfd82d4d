//! What a worker does alone, for its own device: looks up, decides, settles the node, writes the
//! record. Workers are long-lived threads and share nothing but the channel of jobs.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tracing::debug;

use super::decide::{as_added, carry, spoken, take_back, to_apply};
use super::known::Known;
use crate::config::{Config, Mode};
use crate::device::record::{Record, Records};
use crate::device::{Device, DeviceId, Sysfs};
use crate::modules::ModuleDb;
use crate::net::LinkFiles;
use crate::nodes::devtmpfs::Node;
use crate::nodes::stack::Stack;
use crate::nodes::tmpfiles::Line;
use crate::policy::Policy;
use crate::policy::apply;
use crate::policy::grants::DeviceGrants;
use crate::probe::Probe;
use crate::queue::Ticket;
use crate::rules::decision::{Attribute, Decision};
use crate::rules::event::Event;
use crate::rules::machine::Machine;
use crate::rules::names::Names;
use crate::rules::plan::Plans;
use crate::rules::{self, Rules};
use crate::uevent::{Action, Origin, Uevent};

/// What every event is decided by; swapped as a whole on reload.
#[derive(Clone, Debug)]
pub struct Book {
    /// Counts the loadings, from 1.
    pub generation: u64,
    pub policy: Arc<Policy>,
    pub rules: Arc<Rules>,
    pub names: Arc<Names>,
    /// What tmpfiles.d says of nodes below /dev.
    pub tmpfiles: Arc<[Line]>,
    /// What the machine's `.link` files say of network interfaces.
    pub links: Arc<LinkFiles>,
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
///
/// One channel for all, so that no job waits behind a slow one while another worker is free.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<Job>,
    room: usize,
}

impl Workers {
    /// Starts the threads; answers come through the receiver. They end with `Workers`.
    pub(super) fn start(config: &Config) -> io::Result<(Self, mpsc::Receiver<Done>)> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { processors.clamp(2, 16) } else { config.workers };
        let room = count * (1 + AHEAD);
        let (jobs, inbox) = bounded(room);
        // as many answers as jobs can be under way: nobody ever waits to be rid of one
        let (answers, done) = mpsc::channel(room);
        for number in 0..count {
            let (inbox, answers) = (inbox.clone(), answers.clone());
            let hands = Hands::new(config)?;
            let work = move || hands.work(&inbox, &answers);
            thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
        }
        Ok((Self { jobs, room }, done))
    }

    pub(super) fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Gives them something to do; whoever is free first does it. Without room, the job comes back.
    pub(super) fn give(&mut self, job: Job) -> Result<(), Box<Job>> {
        self.jobs.try_send(job).map_err(|error| Box::new(error.into_inner()))?;
        self.room = self.room.saturating_sub(1);
        Ok(())
    }

    pub(super) fn one_is_done(&mut self) {
        self.room += 1;
    }
}

/// What a worker works with.
pub(super) struct Hands {
    pub(super) sysfs: Sysfs,
    pub(super) dev: PathBuf,
    pub(super) records: Records,
    /// Where claims on links are entered; not in shadow mode.
    pub(super) stack: Option<Stack>,
    /// What rules see beside the device.
    machine: Machine,
    /// Which rules matter to which events; of this worker alone.
    plans: RefCell<Plans>,
    pub(super) active: bool,
}

impl Hands {
    fn new(config: &Config) -> io::Result<Self> {
        let records = Records::open(&config.records_folder())?;
        let active = config.mode == Mode::Active;
        let links = config.udev_folder().join("links");
        Ok(Self {
            sysfs: Sysfs::new(&config.sysfs),
            dev: config.dev.clone(),
            machine: Machine::new(records.clone()).probing(Probe::of(config)),
            records,
            stack: active.then(|| Stack::new(&links, &config.dev)),
            plans: RefCell::default(),
            active,
        })
    }

    fn work(&self, inbox: &Receiver<Job>, answers: &mpsc::Sender<Done>) {
        while let Ok(job) = inbox.recv() {
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
            if answers.blocking_send(Done { id, job, outcome, problems }).is_err() {
                return;
            }
        }
    }

    /// A successor may have the node already, and an event of this device that was handled late may
    /// have left it what was meant for this one.
    fn remove(&self, device: &Device, job: &Job) -> Outcome {
        // our own walk missed it at its old path, and in the meantime it was heard of at another
        let moved = |known: &Known| known.uevent.devpath() != job.uevent.devpath();
        if job.uevent.origin == Origin::Coldplug && job.known.as_deref().is_some_and(moved) {
            return Outcome::Gone;
        }
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
        let old = match before {
            Some(known) => self.records.still(device.id(), &known.record),
            // another device of this id was known: what was remembered is not about this one
            None if job.known.is_some() => None,
            None => self.records.read(device.id()),
        };
        let (said, spoken) = self.said(device, job, before, old.as_ref(), problems);
        let mut decision = Decision::clone(&said);
        apply::policy(&job.book.policy, device, &mut decision);
        if let Some(grants) = job.grants.as_deref().filter(|grants| grants.instance == instance) {
            apply::grant(&grants.grants, &mut decision);
        }
        decision.finish();
        take_back(job.known.as_deref(), &mut decision);
        let known = job.known.as_deref().map(|known| &known.decision);
        let apply = to_apply(&decision, known, &spoken);
        let (permissions, mut mismatches) = self.node(device, &decision, &apply, problems);
        if !job.compare {
            mismatches = before.map(|known| known.mismatches.clone()).unwrap_or_default();
        }
        let record = self.record(device, before, old.as_ref(), &decision, problems);
        let module = device.module().map(|name| name.escape_ascii().to_string());
        Outcome::Settled(Box::new(Known {
            id: device.id().clone(),
            uevent: device.uevent().clone(),
            instance,
            module,
            generation: job.book.generation,
            said,
            decision,
            permissions,
            record,
            mismatches,
            by_kernel: None,
        }))
    }

    /// What kernel and rules say, now and before, and what of the node they speak of now.
    fn said(
        &self,
        device: &Device,
        job: &Job,
        before: Option<&Known>,
        old: Option<&Record>,
        problems: &mut Vec<String>,
    ) -> (Arc<Decision>, Vec<Attribute>) {
        let book = &job.book;
        if job.uevent.origin != Origin::Policy {
            let mut said = self.decide(device, old, book, problems);
            said.finish();
            // a node that was settled before, by us or an earlier run, may be somebody's by now
            let other = job.known.is_some() && before.is_none();
            let settled = job.uevent.origin == Origin::Coldplug && old.is_some() && !other;
            let ours = !settled || self.is_untouched(device);
            let spoken = if ours { spoken(&said) } else { Vec::new() };
            if let Some(before) = before {
                carry(&mut said, &before.said);
            }
            return (Arc::new(said), spoken);
        }
        // an event of our own: of the device, nothing is new
        if let Some(before) = before.filter(|known| known.generation == book.generation) {
            return (before.said.clone(), Vec::new());
        }
        let added = Device::new(self.sysfs.clone(), Arc::new(as_added(device.uevent())));
        let mut said = self.decide(&added, old, book, problems);
        said.finish();
        (Arc::new(said), Vec::new())
    }

    /// What kernel and rules say in this event.
    fn decide(
        &self,
        device: &Device,
        old: Option<&Record>,
        book: &Book,
        problems: &mut Vec<String>,
    ) -> Decision {
        let kernel = rules::decide(device);
        self.machine.set_links(&book.links);
        let mut event = Event::new(device, &self.machine, &book.names, old, kernel);
        let plan = self.plans.borrow_mut().of(book.generation, &book.rules, device);
        if let Err(failed) = book.rules.apply_plan(&plan, &mut event) {
            // as in udev, such an event changes nothing of the node
            problems.push(format!("the rules ended early: {failed}"));
            return rules::decide(device);
        }
        let decision = event.finish();
        for skipped in &decision.skipped {
            let devpath = device.uevent().devpath().escape_ascii();
            debug!(%devpath, "{}: skipped: {}", skipped.source, skipped.what.escape_ascii());
        }
        decision
    }
}

//! Stages 3 to 5 for one event: looks up, decides, settles the node, writes the record, and stage 7. What a
//! worker does alone, for its own device.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::decide::{adopted, carry, spoken, take_back, to_apply};
use super::job::{Book, Job, Outcome};
use super::known::{KernelHands, Known, Told};
use crate::builtin::Pair;
use crate::builtin::uaccess::SEATS;
use crate::config::{Config, Mode};
use crate::device::record::{Record, Records};
use crate::device::{Device, Sysfs};
use crate::exec::{self, Programs};
use crate::nodes::devtmpfs::Node;
use crate::nodes::instances::Instances;
use crate::nodes::stack::Stack;
use crate::policy::apply;
use crate::probe::Probe;
use crate::rules;
use crate::rules::decision::{Asked, Attribute, Decision, Run, Written};
use crate::rules::event::Event;
use crate::rules::machine::Machine;
use crate::rules::plan::Plans;
use crate::run::{self, Report};
use crate::uevent::{Action, Origin};

/// What a worker works with.
#[derive(Clone, Debug)]
pub(super) struct Hands {
    pub(super) sysfs: Sysfs,
    pub(super) dev: PathBuf,
    pub(super) records: Records,
    /// Whose nodes an earlier run has left; not in shadow mode.
    pub(super) instances: Option<Instances>,
    /// Where claims on links are entered; not in shadow mode.
    pub(super) stack: Option<Stack>,
    /// What rules see beside the device.
    machine: Machine,
    /// Which rules matter to which events; of this worker alone.
    plans: RefCell<Plans>,
    /// By which builtins last looked at what they read once.
    book: RefCell<Option<Arc<Book>>>,
    pub(super) active: bool,
    place: run::Place,
    exec_delay: Duration,
}

/// What rules and kernel say in an event.
struct Said {
    decision: Arc<Decision>,
    /// What of the node they speak of.
    spoken: Vec<Attribute>,
    /// The rules ended early; this is told in the place of what was decided.
    failed: Option<Box<Told>>,
}

impl Hands {
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let records = Records::open(&config.records_folder())?;
        let active = config.mode == Mode::Active;
        let links = config.udev_folder().join("links");
        let machine = Machine::new(records.clone()).below(&config.root, &config.dev);
        let machine = machine.probing(Probe::of(config));
        let machine =
            if active { machine.running(Programs::from(config)).writing() } else { machine };
        Ok(Self {
            sysfs: Sysfs::new(&config.sysfs),
            dev: config.dev.clone(),
            stack: active.then(|| Stack::new(&links, &config.dev)),
            records,
            instances: active.then(|| Instances::new(&config.runtime)),
            machine,
            plans: RefCell::default(),
            book: RefCell::default(),
            active,
            place: run::Place { dev: config.dev.clone(), seats: config.below_root(SEATS) },
            exec_delay: config.exec_delay,
        })
    }

    /// The same for another thread, which tells `pause` when it waits.
    pub(super) fn with_pause(self, pause: Arc<dyn exec::Pause>) -> Self {
        Self { machine: self.machine.with_pause(pause), ..self }
    }

    /// After a reload, and when modules came or went.
    fn learn(&self, book: &Arc<Book>) {
        let known = self.book.borrow().as_ref().is_some_and(|known| Arc::ptr_eq(known, book));
        if !known {
            self.machine.refresh(&book.modules);
            self.book.replace(Some(book.clone()));
        }
    }

    /// Does what an event wants done before others are concerned.
    pub(super) fn handle(&self, job: &Job, problems: &mut Vec<String>) -> Outcome {
        self.learn(&job.book);
        let device = Device::new(self.sysfs.clone(), job.subject().clone());
        match job.uevent.action() {
            Action::Remove => self.remove(&device, job, problems),
            Action::Add
            | Action::Change
            | Action::Move
            | Action::Online
            | Action::Offline
            | Action::Bind
            | Action::Unbind => self.settle(&device, job, problems),
        }
    }

    /// Stage 7: what of an event is run when all else is done.
    pub(super) fn run(&self, job: &Job, list: &[Run], properties: Vec<Pair>) -> Report {
        self.learn(&job.book);
        self.machine.set_links(&job.book.links);
        self.machine.begin(job.begun, false);
        let device = Device::new(self.sysfs.clone(), job.uevent.clone());
        run::run(list, &device, properties, &self.machine, &self.place, self.exec_delay)
    }

    /// A successor may have the node already, and an event of this device that was handled late may
    /// have left it what was meant for this one.
    fn remove(&self, device: &Device, job: &Job, problems: &mut Vec<String>) -> Outcome {
        // our own walk missed it at its old path, and in the meantime it was heard of at another
        let moved = |known: &Known| known.uevent.devpath() != job.uevent.devpath();
        if job.uevent.origin == Origin::Coldplug && job.known.as_deref().is_some_and(moved) {
            return Outcome::Gone;
        }
        let old = match job.known.as_deref() {
            Some(known) => Some(known.record.clone()),
            None => self.records.read(device.id()),
        };
        let (told, run) = match self.decide(device, job, old.as_ref(), false, problems) {
            Ok((decision, told)) => (told, decision.run),
            Err(told) => (*told, Vec::new()),
        };
        let mut decision = Decision::default();
        take_back(job.known.as_deref(), &mut decision);
        let node = device.devname().zip(device.devnum()).filter(|_| self.active);
        let found = node.and_then(|(name, number)| Node::find(&self.dev, name, number).ok()?);
        if let Some(node) = found.filter(|_| !decision.steps.is_empty()) {
            // the successor's own event settles it, and tells what fails
            drop(node.settle(&decision));
        }
        let run = if self.active { run } else { Vec::new() };
        Outcome::Removed { told: Box::new(told), run }
    }

    fn settle(&self, device: &Device, job: &Job, problems: &mut Vec<String>) -> Outcome {
        let instance = job.instance().or_else(|| self.sysfs.instance(device.uevent().devpath()));
        // what the kernel says is handled even so, as udev does; what we only believe is not
        let was_there = job.known.as_deref().is_none_or(|known| known.instance != 0);
        if instance.is_none() && was_there && job.uevent.origin != Origin::Kernel {
            return Outcome::Gone;
        }
        let instance = instance.unwrap_or(0);
        let before = job.known.as_deref().filter(|known| known.instance == instance);
        let same_place = |known: &&Known| known.uevent.devpath() == device.uevent().devpath();
        device.expect_parent_at(before.filter(same_place).and_then(|known| known.parent));
        // sysfs may have a device for a moment longer than the kernel speaks of it, or another one in its
        // place, of which the kernel will tell
        if before.is_none() && job.uevent.origin == Origin::Policy {
            return Outcome::Gone;
        }
        let (old, other) = self.remembered(device, job, before, instance);
        // what a walk meets and has a record was handled before
        let repeated = job.uevent.origin != Origin::Kernel && old.is_some();
        let said = self.said(device, job, before, old.as_ref(), repeated, problems);
        let mut decision = Decision::clone(&said.decision);
        apply::policy(&job.book.policy, device, &mut decision);
        if let Some(grants) = job.grants.as_deref().filter(|grants| grants.instance == instance) {
            apply::grant(&grants.grants, &mut decision);
        }
        decision.finish();
        take_back(job.known.as_deref(), &mut decision);
        let renamed = if self.active && !repeated && said.failed.is_none() {
            self.rename(device, &mut decision, old.as_ref(), problems)
        } else {
            Ok(None)
        };
        let known = job.known.as_deref().map(|known| &known.decision);
        let apply = to_apply(&decision, known, &said.spoken);
        let (permissions, mut mismatches) = self.node(device, &decision, &apply, problems);
        if !job.compare {
            mismatches = before.map(|known| known.mismatches.clone()).unwrap_or_default();
        }
        let record = match (&said.failed, &renamed) {
            (Some(_), _) | (_, Err(_)) => {
                let other = other.as_ref();
                problems.extend(other.and_then(|other| self.forget(device, other).err()));
                old.unwrap_or_default()
            }
            (None, Ok(_)) => {
                let left = old.as_ref().or(other.as_ref());
                self.record(device, before, old.as_ref(), left, &decision, problems)
            }
        };
        let module = device.module().map(|name| name.escape_ascii().to_string());
        let known = Known {
            id: device.id().clone(),
            uevent: match &renamed {
                Ok(Some(uevent)) => Arc::new(uevent.clone()),
                Ok(None) | Err(_) => device.uevent().clone(),
            },
            instance,
            parent: device.parent_at(),
            module,
            generation: job.book.generation,
            said: said.decision,
            decision,
            permissions,
            record,
            mismatches,
            by_kernel: KernelHands::default(),
        };
        let failed = said.failed.or_else(|| Some(Box::new(known.failed(renamed.err()?))));
        let run = self.active && !repeated && failed.is_none();
        let found = run.then(|| self.run_at_once(device, job, &known, problems)).flatten();
        let run = run && found.is_none();
        Outcome::Settled { known: Box::new(known), failed, run, found: found.unwrap_or_default() }
    }

    /// Builtins of a device without node want nothing that others do first: that saves a hand-over. What
    /// they found; `None` if something is left to run.
    fn run_at_once(
        &self,
        device: &Device,
        job: &Job,
        known: &Known,
        problems: &mut Vec<String>,
    ) -> Option<Vec<Pair>> {
        let list = &known.decision.run;
        let at_once = device.devnum().is_none() && list.iter().all(|run| run.builtin.is_some());
        if list.is_empty() || !at_once {
            return at_once.then(Vec::new);
        }
        let report = self.run(job, list, known.owned_properties());
        problems.extend(report.problems);
        Some(report.found)
    }

    /// What kernel and rules say, now and before.
    fn said(
        &self,
        device: &Device,
        job: &Job,
        before: Option<&Known>,
        old: Option<&Record>,
        repeated: bool,
        problems: &mut Vec<String>,
    ) -> Said {
        // an event of our own: of the device, nothing is new; and new rules hold for what comes, as in udev
        if let Some(before) = before.filter(|_| job.uevent.origin == Origin::Policy) {
            return Said { decision: before.said.clone(), spoken: Vec::new(), failed: None };
        }
        let decided = match job.leaves_it() {
            true => Err(Box::default()),
            false => self.decide(device, job, old, repeated, problems),
        };
        let mut said = match decided {
            Ok((said, _)) => said,
            Err(failed) => {
                let decision = match before {
                    Some(before) => before.said.clone(),
                    None => Arc::new(adopted(device, old)),
                };
                return Said { decision, spoken: Vec::new(), failed: Some(failed) };
            }
        };
        said.finish();
        // a node that was settled before, by us or an earlier run, may be somebody's by now
        let other = job.known.is_some() && before.is_none();
        let settled = job.uevent.origin == Origin::Coldplug && old.is_some() && !other;
        let ours = !settled || self.is_untouched(device);
        let spoken = if ours { spoken(&said) } else { Vec::new() };
        if let Some(before) = before {
            carry(&mut said, &before.said);
        }
        Said { decision: Arc::new(said), spoken, failed: None }
    }

    /// What kernel and rules say in this event; if the rules end early, how that is told. Such an event
    /// changes nothing, as in udev.
    fn decide(
        &self,
        device: &Device,
        job: &Job,
        old: Option<&Record>,
        repeated: bool,
        problems: &mut Vec<String>,
    ) -> Result<(Decision, Told), Box<Told>> {
        let book = &job.book;
        self.machine.set_links(&job.book.links);
        self.machine.begin(job.begun, repeated);
        let kernel = rules::decide(device);
        let old = old.map(Record::as_read);
        let mut event = Event::new(device, &self.machine, &book.names, old.as_deref(), kernel);
        let plan = self.plans.borrow_mut().of(book.generation, &book.rules, device);
        let ended = book.rules.apply_plan(&plan, &mut event);
        // most events are told by what is known of the device
        let removed = device.uevent().action() == Action::Remove;
        let properties = if removed || ended.is_err() { event.properties() } else { Vec::new() };
        let decision = event.finish();
        tell_what_ran(device, &decision, problems);
        let mut told = Told { properties, sticky_tags: decision.tags.sticky.clone() };
        let Err(failed) = ended else { return Ok((decision, told)) };
        problems.push(format!("the rules ended early: {failed}"));
        told.fail(failed.errno);
        Err(Box::new(told))
    }
}

/// Tells of programs and writes of an event.
fn tell_what_ran(device: &Device, decision: &Decision, problems: &mut Vec<String>) {
    let devpath = device.uevent().devpath().escape_ascii();
    for skipped in &decision.skipped {
        debug!(%devpath, "{}: skipped: {}", skipped.source, skipped.what.escape_ascii());
    }
    for Asked { command, outcome, source } in &decision.asked {
        let command = command.escape_ascii();
        match outcome {
            exec::Outcome::Exited(_) => debug!(%devpath, "{source}: `{command}`: {outcome}"),
            exec::Outcome::Killed(_) | exec::Outcome::TimeUp(_) | exec::Outcome::CannotRun(_) => {
                problems.push(format!("{source}: `{command}`: {outcome}"));
            }
        }
    }
    for write in &decision.writes {
        if let Written::Failed(why) = &write.outcome {
            let path = write.path.escape_ascii();
            problems.push(format!("{}: cannot write to {path}: {why}", write.source));
        }
    }
}

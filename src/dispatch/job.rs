//! What is done for one event: what it takes, and what came of it. `hands.rs` does it, on a worker or on the
//! thread that leads.

use std::sync::Arc;
use std::time::Instant;

use super::finish::End;
use super::hands::Hands;
use super::known::{Known, Told};
use crate::builtin::Pair;
use crate::device::DeviceId;
use crate::modules::ModuleDb;
use crate::net::LinkFiles;
use crate::nodes::disk::{DiskLock, Locking};
use crate::nodes::tmpfiles::Line;
use crate::policy::Policy;
use crate::policy::grants::DeviceGrants;
use crate::queue::Ticket;
use crate::rules::Rules;
use crate::rules::decision::Run;
use crate::rules::names::Names;
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

/// An event to be done, by whoever leads or by a worker.
#[derive(Debug)]
pub(super) struct Job {
    /// `None` for an event that no queue holds.
    pub(super) ticket: Option<Ticket>,
    pub(super) uevent: Arc<Uevent>,
    /// The count of events that dispatch took in before it.
    pub(super) order: u64,
    pub(super) heard: Instant,
    pub(super) known: Option<Arc<Known>>,
    pub(super) grants: Option<Arc<DeviceGrants>>,
    pub(super) book: Arc<Book>,
    /// Whether the node can be compared now: not before another manager is done with it.
    pub(super) compare: bool,
    /// Nothing was lost: a device that was not removed is the one that is known.
    pub(super) nothing_lost: bool,
    /// When somebody began with it: the event's time counts from there.
    pub(super) begun: Instant,
    /// What is left to be done, when others have heard of the rest.
    pub(super) chore: Option<Box<Chore>>,
    /// The lock of its disk, until the event is over.
    pub(super) lock: Option<DiskLock>,
    /// Since when it waits for that lock. Our own walk does not: it leaves such a device as it is.
    pub(super) blocked: Option<Instant>,
}

/// The RUN list of an event that is otherwise over, and how the event will be told.
#[derive(Debug)]
pub(super) struct Chore {
    pub(super) list: Vec<Run>,
    pub(super) properties: Vec<Pair>,
    pub(super) end: End,
}

impl Job {
    /// A walk met the device while its disk was locked.
    pub(super) fn leaves_it(&self) -> bool {
        self.blocked.is_some() && self.uevent.origin == Origin::Coldplug
    }

    /// The instance of the device, where the kernel would have told if it were another than the known one.
    pub(super) fn instance(&self) -> Option<u64> {
        // who was given rights to a device was not given them to its successor, whose node may be there before
        // the removal is handled
        let told = self.nothing_lost
            && self.grants.is_none()
            && self.uevent.origin == Origin::Kernel
            && self.uevent.action() != Action::Add;
        let same =
            |known: &&Known| known.instance != 0 && known.uevent.devpath() == self.uevent.devpath();
        self.known.as_deref().filter(same).filter(|_| told).map(|known| known.instance)
    }

    /// Does it; the caller's thread waits for whatever it takes.
    pub(super) fn done_by(mut self, hands: &Hands) -> Done {
        let mut problems = Vec::new();
        let outcome = match self.chore.take() {
            Some(chore) => {
                let Chore { list, properties, mut end } = *chore;
                let report = hands.run(&self, &list, properties);
                problems = report.problems;
                end.add(report.found);
                Outcome::Ran(end)
            }
            None => {
                self.begun = Instant::now();
                match hands.lock(&self, &mut problems) {
                    Locking::Busy if self.uevent.origin == Origin::Kernel => Outcome::Busy,
                    Locking::Busy => {
                        self.blocked = Some(self.begun);
                        hands.handle(&self, &mut problems)
                    }
                    Locking::None => hands.handle(&self, &mut problems),
                    Locking::Held(lock) => {
                        self.lock = Some(lock);
                        hands.handle(&self, &mut problems)
                    }
                }
            }
        };
        let id = DeviceId::of(self.subject());
        Done { id, job: self, outcome, problems, waited: false }
    }

    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of(&self.uevent)
    }

    /// The message to decide by. Our own event speaks of the device as it is known by now: what it
    /// was when the event was made may have moved since.
    pub(super) fn subject(&self) -> &Arc<Uevent> {
        match &self.known {
            Some(known) if self.uevent.origin == Origin::Policy => &known.uevent,
            Some(_) | None => &self.uevent,
        }
    }
}

/// What became of the device.
#[derive(Debug)]
pub(super) enum Outcome {
    Settled {
        known: Box<Known>,
        /// The rules ended early: the device is as it was, and this is told.
        failed: Option<Box<Told>>,
        /// Whether its RUN list is still to be done.
        run: bool,
        /// If not, what builtins of that list found.
        found: Vec<Pair>,
    },
    Removed {
        told: Box<Told>,
        run: Vec<Run>,
    },
    /// The device that our own walk found, or a change was made for, is no longer there: its
    /// `remove` tells the rest.
    Gone,
    /// The job's chore is done, and all of the event with it.
    Ran(End),
    /// Nothing was done: another program has the disk locked.
    Busy,
}

/// An event that was done, as far as one device alone is concerned.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: DeviceId,
    pub(super) job: Job,
    pub(super) outcome: Outcome,
    /// What failed on the way; the event went on.
    pub(super) problems: Vec<String>,
    /// Whether it was told before that the worker waits.
    pub(super) waited: bool,
}

/// What workers tell.
#[derive(Debug)]
pub(super) enum Answer {
    Done(Box<Done>),
    /// A worker waits for a program: its place is free until the job is done.
    Waits,
}

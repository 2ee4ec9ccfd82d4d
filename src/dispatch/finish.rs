//! Stages 6 to 9: a worker has answered; what it found is published, and everybody is told.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Dispatch;
use super::command::{ChangeError, Notice};
use super::job::{Answer, Chore, Done, Job, Outcome};
use super::known::{Known, Told};
use super::tell::Teller;
use crate::builtin::Pair;
use crate::device::DeviceId;
use crate::nodes::claims::Why;
use crate::queue::Ticket;
use crate::rules::decision::Run;
use crate::run::put;
use crate::uevent::{Origin, Uevent};

/// How an event is told, when all of it is done.
#[derive(Debug)]
pub(super) enum End {
    /// `found`: by builtins that were run.
    Settled {
        known: Arc<Known>,
        failed: Option<Box<Told>>,
        found: Vec<Pair>,
    },
    Removed {
        old: Option<Arc<Known>>,
        told: Box<Told>,
    },
}

impl End {
    /// What programs are told of the device.
    pub(super) fn properties(&self) -> Vec<Pair> {
        match self {
            Self::Settled { known, .. } => known.owned_properties(),
            Self::Removed { told, .. } => told.properties.clone(),
        }
    }

    /// What builtins have found since then is told, too.
    pub(super) fn add(&mut self, pairs: Vec<Pair>) {
        match self {
            Self::Settled { found, .. } => put(found, pairs),
            Self::Removed { told, .. } => put(&mut told.properties, pairs),
        }
    }

    /// Stage 8.
    pub(super) fn announce(
        &self,
        teller: &mut Teller,
        uevent: &Arc<Uevent>,
        usec: u64,
    ) -> Option<String> {
        match self {
            Self::Settled { known, failed, found } => {
                teller.handled(uevent, known, failed.as_deref(), found, usec)
            }
            Self::Removed { old, told } => teller.removed(uevent, old.clone(), told, usec),
        }
    }
}

impl Dispatch {
    pub(super) fn finish_batch(&mut self, answer: Answer) {
        self.finish(answer);
        while let Ok(answer) = self.done.try_recv() {
            self.finish(answer);
        }
    }

    fn finish(&mut self, answer: Answer) {
        match answer {
            Answer::Waits => self.workers.one_waits(),
            Answer::Done(done) => self.finish_job(*done),
        }
    }

    /// Stages 6 to 9: publishes what the worker found, has done what is to be run then, and tells everybody.
    pub(super) fn finish_job(&mut self, done: Done) {
        self.workers.one_is_done(&done);
        let Done { id, mut job, outcome, mut problems, .. } = done;
        if matches!(outcome, Outcome::Busy) {
            self.block(job);
            return;
        }
        let change = self.take_change(job.order);
        let effect = change.is_some().then(|| effect(&job, &outcome, &problems));
        let end = self.publish(&id, &job, outcome, &mut problems);
        if let (Some(reply), Some(effect)) = (change, effect) {
            // a caller that has gone is no error
            let _ = reply.send(effect);
        }
        // who is told of the event finds in the log what went wrong
        log(&job, problems);
        match end {
            Some((end, list)) if !list.is_empty() => {
                let properties = end.properties();
                job.chore = Some(Box::new(Chore { list, properties, end }));
                self.chores.push_back(job);
            }
            end => {
                self.watch_again(&id, &job, end.as_ref().map(|(end, _)| end));
                let problem = match job.leaves_it() {
                    true => {
                        self.meet_again(&job);
                        None
                    }
                    false => end.and_then(|(end, _)| self.tell(&job, &end)),
                };
                self.over_without(job, problem);
            }
        }
    }

    /// Stage 6; how the event will be told, and what is to be run before.
    fn publish(
        &mut self,
        id: &DeviceId,
        job: &Job,
        outcome: Outcome,
        problems: &mut Vec<String>,
    ) -> Option<(End, Vec<Run>)> {
        match outcome {
            Outcome::Settled { mut known, failed, run, found } => {
                if self.is_successor(&known) {
                    self.publisher.begin_anew(&mut known);
                } else {
                    self.as_in_kernel(&mut known);
                }
                let known = Arc::new(*known);
                self.end_stale_grants(&known, job.grants.as_deref(), problems);
                let old = self.table.insert(known.clone());
                problems.extend(self.remember(&known, old.as_deref()));
                self.forget_moved(&known, usec(job), problems);
                let why = match job.uevent.origin {
                    Origin::Kernel => Why::Event,
                    Origin::Coldplug | Origin::Policy => Why::Again,
                };
                problems.extend(self.publisher.publish(&known, old.as_deref(), why, &self.table));
                self.notice_module(&known);
                let list = if run { known.decision.run.clone() } else { Vec::new() };
                Some((End::Settled { known, failed, found }, list))
            }
            Outcome::Removed { told, run } => {
                let old = self.forget(id, problems);
                Some((End::Removed { old, told }, run))
            }
            Outcome::Ran(end) => Some((end, Vec::new())),
            Outcome::Gone | Outcome::Busy => {
                debug!("{id}: gone before it was looked at");
                problems.extend(self.publisher.number_is_void(&job.uevent, &self.table));
                None
            }
        }
    }

    /// Stages 8 and 9.
    fn tell(&mut self, job: &Job, end: &End) -> Option<String> {
        let problem = end.announce(&mut self.teller, &job.uevent, usec(job));
        if let End::Settled { known, .. } = end {
            self.tell_awaiting(known);
        }
        problem
    }

    /// What was done is done: from now on a writer's close counts again.
    fn watch_again(&mut self, id: &DeviceId, job: &Job, end: Option<&End>) {
        if job.leaves_it() {
            self.leave_watch(id);
            return;
        }
        self.met(id);
        match end {
            Some(End::Settled { known, failed: None, .. }) => {
                self.watch(&known.clone(), job.uevent.origin == Origin::Coldplug);
            }
            Some(End::Settled { failed: Some(_), .. } | End::Removed { .. }) => self.end_watch(id),
            // of a device that was not looked at, nothing is new
            None => match self.table.get(id).cloned() {
                Some(known) => self.watch(&known, false),
                None => self.end_watch(id),
            },
        }
    }

    /// All of the event is done, but for what is said here.
    pub(super) fn over_without(&mut self, job: Job, problems: impl IntoIterator<Item = String>) {
        log(&job, problems);
        self.over(job);
    }

    pub(super) fn over(&mut self, job: Job) {
        if job.uevent.origin == Origin::Kernel {
            self.handled += 1;
        }
        if let Some(ticket) = job.ticket {
            self.end(ticket, job.order);
        }
        let devpath = job.uevent.devpath();
        if self.compare_later.remove(devpath) {
            self.compare_at(devpath);
        }
    }

    /// Who waits for the change that this event makes.
    fn take_change(&mut self, order: u64) -> Option<oneshot::Sender<Result<(), ChangeError>>> {
        let at = self.changing.iter().position(|(mark, _)| *mark == order)?;
        Some(self.changing.swap_remove(at).1)
    }

    /// The event is over: what waited for it may go on.
    pub(super) fn end(&mut self, ticket: Ticket, order: u64) {
        self.queue.done(ticket);
        if let Some(first) = self.stands_for.remove(&order) {
            self.close(first);
        }
        self.close(order);
        if self.queue.is_idle() {
            self.end_storms();
            self.idle();
        }
        self.end_sweep_if_done();
    }

    pub(super) fn close(&mut self, order: u64) {
        self.open.remove(&order);
        // an event that nobody handled changed nothing: the caller is not told that it did
        drop(self.take_change(order));
        self.release();
    }

    /// The place in the order of the oldest event that is not handled; above all, if there is none.
    pub(super) fn oldest_open(&self) -> u64 {
        self.open.first().copied().unwrap_or(u64::MAX)
    }

    /// Answers those who wait until everything older than their question is over.
    pub(super) fn release(&mut self) {
        if self.settlers.is_empty() || self.sweep.is_some() {
            return;
        }
        let oldest = self.oldest_open();
        let (over, waiting): (Vec<_>, _) =
            self.settlers.drain(..).partition(|(mark, _)| *mark <= oldest);
        self.settlers = waiting;
        for (_, reply) in over {
            // a caller that no longer listens is no error
            let _ = reply.send(());
        }
    }

    fn end_storms(&mut self) {
        for (id, dropped) in std::mem::take(&mut self.throttled) {
            if let Some(device) = self.table.get(&id).cloned() {
                self.teller.notify(Notice::StormEnded { device, dropped });
            }
        }
    }

    fn tell_awaiting(&mut self, known: &Arc<Known>) {
        if self.awaiting.is_empty() {
            return;
        }
        let claims = &self.publisher.claims;
        let waiting = std::mem::take(&mut self.awaiting);
        for (name, reply) in waiting {
            match self.table.resolve(&name, claims).filter(|found| found.id == known.id) {
                Some(found) => drop(reply.send(found.clone())),
                None => self.awaiting.push((name, reply)),
            }
        }
        // a caller that gave up is forgotten
        self.awaiting.retain(|(_, reply)| !reply.is_closed());
    }
}

fn usec(job: &Job) -> u64 {
    u64::try_from(job.heard.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn log(job: &Job, problems: impl IntoIterator<Item = String>) {
    for problem in problems {
        let devpath = job.uevent.devpath().escape_ascii();
        warn!(seqnum = job.uevent.seqnum(), "{devpath}: {problem}");
    }
}

/// What became of a change: done, or why not. Its grant is kept and tried again at each event.
fn effect(job: &Job, outcome: &Outcome, problems: &[String]) -> Result<(), ChangeError> {
    let other = |known: &Known| {
        job.grants.as_deref().is_some_and(|grants| grants.instance != known.instance)
    };
    match outcome {
        Outcome::Removed { .. } | Outcome::Gone | Outcome::Ran(_) | Outcome::Busy => {
            Err(ChangeError::NoSuchDevice)
        }
        Outcome::Settled { known, .. } if other(known) => Err(ChangeError::NoSuchDevice),
        Outcome::Settled { .. } if problems.is_empty() => Ok(()),
        Outcome::Settled { .. } => Err(ChangeError::Failed(problems.join("; "))),
    }
}

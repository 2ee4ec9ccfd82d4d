//! Stages 6 to 9: a worker has answered; what it found is published, and everybody is told.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Dispatch;
use super::command::{ChangeError, Notice};
use super::known::Known;
use super::worker::{Done, Job, Outcome};
use crate::nodes::claims::Why;
use crate::queue::Ticket;
use crate::uevent::Origin;

impl Dispatch {
    pub(super) fn finish_batch(&mut self, done: Done) {
        self.finish(done);
        while let Ok(done) = self.done.try_recv() {
            self.finish(done);
        }
    }

    /// Stages 6 to 9: publishes what the worker found, and tells everybody.
    fn finish(&mut self, done: Done) {
        let Done { id, job, outcome, mut problems } = done;
        self.workers.one_is_done();
        let usec = || u64::try_from(job.heard.elapsed().as_micros()).unwrap_or(u64::MAX);
        let change = self.take_change(job.order);
        let effect = change.is_some().then(|| effect(&job, &outcome, &problems));
        match outcome {
            Outcome::Settled(known) => {
                let known = Arc::new(*known);
                self.end_stale_grants(&known, job.grants.as_deref(), &mut problems);
                let old = self.table.insert(known.clone());
                self.forget_moved(&known, usec(), &mut problems);
                let why = match job.uevent.origin {
                    Origin::Kernel => Why::Event,
                    Origin::Coldplug | Origin::Policy => Why::Again,
                };
                problems.extend(self.publisher.publish(&known, old.as_deref(), why, &self.table));
                problems.extend(self.teller.handled(&job.uevent, &known, usec()));
                self.tell_awaiting(&known);
                self.notice_module(&known);
            }
            Outcome::Removed => {
                let old = self.forget(&id, &mut problems);
                problems.extend(self.teller.removed(&job.uevent, old, usec()));
            }
            Outcome::Gone => debug!("{id}: gone before it was looked at"),
        }
        if job.uevent.origin == Origin::Kernel {
            self.handled += 1;
        }
        for problem in problems {
            let devpath = job.uevent.devpath().escape_ascii();
            warn!(seqnum = job.uevent.seqnum(), "{devpath}: {problem}");
        }
        if let (Some(reply), Some(effect)) = (change, effect) {
            // a caller that has gone is no error
            let _ = reply.send(effect);
        }
        self.end(job.ticket, job.order);
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

/// What became of a change: done, or why not. Its grant is kept and tried again at each event.
fn effect(job: &Job, outcome: &Outcome, problems: &[String]) -> Result<(), ChangeError> {
    let other = |known: &Known| {
        job.grants.as_deref().is_some_and(|grants| grants.instance != known.instance)
    };
    match outcome {
        Outcome::Removed | Outcome::Gone => Err(ChangeError::NoSuchDevice),
        Outcome::Settled(known) if other(known) => Err(ChangeError::NoSuchDevice),
        Outcome::Settled(_) if problems.is_empty() => Ok(()),
        Outcome::Settled(_) => Err(ChangeError::Failed(problems.join("; "))),
    }
}

//! The loop of dispatch, one turn after the other: what came is taken in, and what may run is done here or
//! handed to a worker.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Dispatch;
use super::job::{Done, Job};
use super::lead::PATIENCE;
use super::{Pending, kernel, place, sweep, tell};
use crate::uevent::Origin;

/// Whoever leads keeps as many runnable events for itself as it gets done in this time: to hand one over costs
/// more than most take. Where disks are read one after the other, that is few, and workers get the others.
const BACKLOG: Duration = Duration::from_millis(50);

/// What an event takes, before any was done.
const FIRST: Duration = Duration::from_millis(1);

/// Events done here before others than the kernel get a turn; and, of these turns, the time between two
/// looks at descriptors and timers.
const STREAK: u32 = 16;
const LOOK: u32 = 8;

/// What a turn came to.
#[derive(Debug)]
pub(super) enum Turn {
    /// An event for whoever leads to do.
    Own(Box<Job>),
    /// It was told to stop, and all is done, or does not end.
    Over,
}

/// How whoever leads gets on with its own events.
#[derive(Debug)]
pub(super) struct Own {
    /// Done since others than the kernel had a turn, and turns since somebody looked at descriptors.
    events: u32,
    turns: u32,
    /// What an event took lately.
    pace: Duration,
}

impl Default for Own {
    fn default() -> Self {
        Self { events: 0, turns: 0, pace: FIRST }
    }
}

impl Own {
    /// How many runnable events are kept.
    fn kept(&self) -> usize {
        let count = BACKLOG.as_nanos() / self.pace.as_nanos().max(1);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// The last ones count most; an event that others went on without counts for what it cost them.
    fn took(&mut self, time: Duration) {
        self.pace = (self.pace * 7 + time.min(PATIENCE)) / 8;
    }
}

/// Waits until that time; for ever, if there is none.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Dispatch {
    /// What comes before the first turn.
    pub(super) fn begin(&mut self) {
        self.load_shim();
        self.begin_to_attach();
        (self.keep_map)(self.publisher.map());
        // what a kept socket holds is older than what the walk will find
        self.hear_rest();
        self.start_sweep();
    }

    /// Goes on until there is an event to be done by the caller, as long as he does any (`keeps`); ends when
    /// `stop` says so and what was sent before that is handled, which is waited for for a limited time.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub(super) async fn turn(&mut self, keeps: &AtomicBool) -> io::Result<Turn> {
        loop {
            let keeps = keeps.load(Ordering::SeqCst);
            self.start_jobs(if keeps { self.own.kept() } else { 0 });
            let kept = keeps && !self.busy.held && self.queue.runnable() > 0;
            if kept
                && self.own.events < STREAK
                && let Some(job) = self.next_job()
            {
                self.own.events += 1;
                self.workers.one_is_kept();
                return Ok(Turn::Own(Box::new(job)));
            }
            self.show_queue();
            self.own.events = 0;
            self.own.turns += 1;
            if kept && self.own.turns >= LOOK {
                self.own.turns = 0;
                tokio::task::yield_now().await;
            }
            if self.stop_by.is_none() && *self.stop.borrow() {
                self.stop_by = Some(Instant::now() + self.stop_time);
                self.hold(false);
                self.hear_rest();
                self.end_blocked();
            }
            if self.stop_by.is_some() && self.queue.is_idle() {
                return Ok(Turn::Over);
            }
            if self.stop_by.is_some_and(|time| time <= Instant::now()) {
                warn!("{} events are left: programs or disks let wait", self.open.len());
                return Ok(Turn::Over);
            }
            if kept {
                if let Ok(answer) = self.done.try_recv() {
                    self.finish_batch(answer);
                }
                // whatever is there, and without waiting for it
                tokio::select! {
                    biased;
                    taken = self.take_in() => taken?,
                    () = std::future::ready(()) => {}
                }
            } else {
                self.take_in().await?;
            }
            self.keep_replaced();
        }
    }

    /// The map's memory may be another one than before.
    fn keep_replaced(&mut self) {
        if self.publisher.take_replaced() {
            (self.keep_map)(self.publisher.map());
        }
    }

    /// Waits for whatever comes first.
    async fn take_in(&mut self) -> io::Result<()> {
        let stopping = self.stop_by.is_some();
        let hearing = !stopping && !self.queue.is_full();
        let listening = hearing && !self.has_enough();
        // in no fixed order: events, answers and callers all get their turn
        tokio::select! {
            Some(answer) = self.done.recv() => self.finish_batch(answer),
            Some(command) = self.commands.recv() => self.answer(command),
            Some(book) = self.reloads.read.recv() => self.reloaded(book),
            () = self.watchdog.tick() => {}
            heard = self.socket.recv(), if listening => self.hear_batch(heard?)?,
            event = sweep::next(&mut self.sweep), if hearing => self.swept(event),
            () = at(self.doubt_until) => self.end_doubt(),
            devpath = tell::overheard(&mut self.rival), if hearing => self.compare_at(&devpath?),
            () = place::mounts_changed(&mut self.place) => self.look_at_place(),
            seen = self.watching.next() => self.seen(seen),
            () = at(self.blocked.again()) => self.try_blocked(),
            () = at(self.workers.time_to_look()) => self.workers.look(),
            () = at(self.attach.due) => self.attach_kernel(),
            () = at(self.rest.due) => self.take_rest(),
            // programs that run wake nobody until they end
            () = at(self.rest.hold), if hearing && !listening => {}
            told = kernel::told(&mut self.kernel) => self.kernel_told(told),
            _ = self.stop.changed(), if !stopping => {}
            () = at(self.stop_by) => {}
        }
        Ok(())
    }

    /// An event that somebody leads with takes so long that another goes on.
    pub(super) fn taken_over(&mut self) {
        self.own.took(PATIENCE);
    }

    /// What the caller has done of it is known from here on.
    pub(super) fn finish_own(&mut self, done: Done) {
        self.own.took(done.job.begun.elapsed());
        self.finish_job(done);
        self.keep_replaced();
    }

    /// Stages 3 to 5: hands what may run to the workers, but for the first `kept`.
    pub(super) fn start_jobs(&mut self, kept: usize) {
        while self.workers.has_room_for_chores()
            && let Some(job) = self.chores.pop_front()
        {
            self.give(job);
        }
        while !self.busy.held && self.workers.has_room() && self.queue.runnable() > kept {
            let Some(job) = self.next_job() else { return };
            self.give(job);
        }
    }

    pub(super) fn next_job(&mut self) -> Option<Job> {
        let (ticket, pending) = self.queue.next()?;
        self.pause_watch(&pending.id);
        // a removal before it may have taken the number away again
        self.number_heard(&pending.uevent);
        let known = self.table.get(&pending.id).cloned();
        let grants = self.grants.of(&pending.id).cloned();
        let Pending { uevent, order, heard, .. } = pending;
        let book = self.book.clone();
        let compare = self.rival.is_none() || uevent.origin != Origin::Kernel;
        let nothing_lost = self.sweep.is_none();
        Some(Job {
            ticket: Some(ticket),
            uevent,
            order,
            heard,
            known,
            grants,
            book,
            compare,
            nothing_lost,
            begun: heard,
            chore: None,
            lock: None,
            blocked: None,
        })
    }

    pub(super) fn give(&mut self, job: Job) {
        if let Err(job) = self.workers.give(job) {
            // no thread is left, and with panic = "abort" neither would we be
            warn!("no worker takes the event of {}", job.uevent.devpath().escape_ascii());
            self.over(*job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_events_are_the_fewer_are_kept() {
        let mut own = Own::default();
        assert_eq!(own.kept(), 50);
        (0..100).for_each(|_| own.took(Duration::from_micros(20)));
        assert!(own.kept() > 2000, "{own:?}");
        (0..100).for_each(|_| own.took(Duration::from_secs(5)));
        assert_eq!(own.kept(), 5);
    }
}

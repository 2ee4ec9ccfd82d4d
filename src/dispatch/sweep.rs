//! A walk through today's sysfs, at start and after loss: every device is handled anew, and what
//! is no longer there is removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::command::Notice;
use super::hear::BATCH;
use super::known::Known;
use super::{Dispatch, Ready};
use crate::coldplug;
use crate::device::DeviceId;
use crate::nodes::links;
use crate::uevent::{Action, Origin, Uevent};

/// The kernel tells a removal before sysfs shows it (`device_del()` in `drivers/base/core.c`). If that
/// event is lost, a walk may still meet the device, and nobody tells when its folder goes: this time
/// after a walk we look again, as does whoever settles before.
const DOUBT: Duration = Duration::from_secs(1);

/// One walk under way.
#[derive(Debug)]
pub(super) struct Sweep {
    /// `None` once everything was read.
    events: Option<mpsc::Receiver<Uevent>>,
    /// The walk ends when every event up to here was handled.
    last: u64,
    /// All was handled, and what sysfs no longer has is being removed.
    compared: bool,
    started: Instant,
    /// Loss was reported while it ran: another walk must follow.
    again: bool,
    /// Nothing is read: what is known is compared with sysfs once more.
    only_compares: bool,
}

/// The next event of the walk; `None` once, when all was read. Waits for ever without a walk.
pub(super) async fn next(sweep: &mut Option<Sweep>) -> Option<Uevent> {
    match sweep.as_mut().and_then(|sweep| sweep.events.as_mut()) {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Dispatch {
    pub(super) fn start_sweep(&mut self) {
        if let Some(sweep) = &mut self.sweep {
            sweep.again = true;
            return;
        }
        self.sweep = Some(Sweep {
            events: Some(coldplug::start(&self.sysfs)),
            last: self.taken,
            compared: false,
            started: Instant::now(),
            again: false,
            only_compares: false,
        });
    }

    /// Removes what went since the last walk met it, if nobody could have told us.
    pub(super) fn compare_in_doubt(&mut self) {
        if self.doubt_until.is_none() {
            return;
        }
        match &mut self.sweep {
            Some(sweep) => sweep.compared = false,
            None => {
                self.sweep = Some(Sweep {
                    events: None,
                    last: self.taken,
                    compared: false,
                    started: Instant::now(),
                    again: false,
                    only_compares: true,
                });
            }
        }
        self.end_sweep_if_done();
    }

    /// The last look at what a walk met.
    pub(super) fn end_doubt(&mut self) {
        self.compare_in_doubt();
        self.doubt_until = None;
    }

    /// Takes in what the walk has met, up to a batch.
    pub(super) fn swept(&mut self, event: Option<Uevent>) {
        match event {
            Some(event) => {
                self.take(event);
                for _ in 1..BATCH {
                    let events = self.sweep.as_mut().and_then(|sweep| sweep.events.as_mut());
                    let Some(Ok(event)) = events.map(mpsc::Receiver::try_recv) else { break };
                    self.take(event);
                }
            }
            None => {
                let taken = self.taken;
                if let Some(sweep) = &mut self.sweep {
                    sweep.events = None;
                    sweep.last = taken;
                }
                self.end_sweep_if_done();
            }
        }
    }

    /// Ends the walk when all was read and handled.
    pub(super) fn end_sweep_if_done(&mut self) {
        let oldest = self.oldest_open();
        let over = |sweep: &Sweep| sweep.events.is_none() && sweep.last <= oldest;
        if self.sweep.as_ref().is_some_and(|sweep| over(sweep) && !sweep.compared) {
            // what was told by now is missing for that reason
            self.hear_rest();
        }
        let Some(mut sweep) = self.sweep.take_if(|sweep| over(sweep)) else { return };
        if !sweep.compared {
            sweep.compared = true;
            if !sweep.only_compares {
                self.doubt_until = Some(Instant::now() + DOUBT);
            }
            let before = self.taken;
            self.remove_vanished();
            // whoever waits for the walk waits for these removals too
            if self.taken > before {
                sweep.last = self.taken;
                self.sweep = Some(sweep);
                return;
            }
        }
        if sweep.again {
            self.start_sweep();
            return;
        }
        if !sweep.only_compares {
            self.void_numbers();
        }
        if self.ready.is_some() {
            self.forget_leftovers();
            self.mount_dev();
        }
        if !sweep.only_compares {
            let elapsed = sweep.started.elapsed();
            info!("read sysfs in {} ms: {} devices", elapsed.as_millis(), self.table.len());
        }
        if let Some(ready) = self.ready.take() {
            let summary = self.summary();
            self.teller.notify(Notice::Ready(summary));
            // a daemon that is being stopped no longer waits for it
            let _ = ready.send(summary);
            self.started();
        }
        self.release();
    }

    /// A device that sysfs no longer has, or has as another one, is removed like any other, unless there are
    /// events of it that wait.
    pub(super) fn remove_vanished(&mut self) {
        let gone = |known: &&Arc<Known>| {
            let devpath = known.uevent.devpath();
            let gone = self.table.at(devpath).is_none_or(|there| there.id != known.id)
                || self.sysfs.instance(devpath).is_none();
            gone && !self.queue.concerns(known.id.as_bytes())
        };
        let gone: Vec<_> = self.table.iter().filter(gone).cloned().collect();
        let seqnum = self.sysfs.seqnum();
        for known in gone {
            let properties: Vec<_> = known.uevent.properties().collect();
            let devpath = known.uevent.devpath();
            let origin = Origin::Coldplug;
            self.take(Uevent::synthetic(origin, Action::Remove, devpath, seqnum, &properties));
        }
    }

    /// A move may change the name by which a device without number is known: the old one goes.
    pub(super) fn forget_moved(&mut self, known: &Known, usec: u64, problems: &mut Vec<String>) {
        let Some(devpath) = known.uevent.devpath_old() else { return };
        let Some(id) = self.table.at(devpath).map(|old| old.id.clone()) else { return };
        if id == known.id {
            return;
        }
        // a successor at the old path stays
        let now = coldplug::event(&self.sysfs, devpath, Action::Add, 0);
        if now.is_some_and(|now| DeviceId::of(&now) == id) {
            return;
        }
        if let Some(device) = self.forget(&id, problems) {
            let seqnum = known.uevent.seqnum();
            self.teller.notify(Notice::Removed { seqnum, usec, device });
        }
    }

    /// Takes back all that stands for a device that is gone, and returns what it was.
    pub(super) fn forget(
        &mut self,
        id: &DeviceId,
        problems: &mut Vec<String>,
    ) -> Option<Arc<Known>> {
        self.end_grants(id, problems);
        let old = self.table.remove(id);
        problems.extend(match &old {
            Some(old) => self.publisher.withdraw(old, &self.table),
            None => {
                let mut problems = self.publisher.never_met(id);
                problems.extend(self.drop_leftovers(id));
                problems
            }
        });
        problems.extend(self.forget_instance(id));
        // last: should we be killed here, it tells the next run what is left
        if let Err(error) = self.records.remove(id) {
            problems.push(format!("cannot remove the record: {error}"));
        }
        old
    }

    /// Removes the links that an earlier run made for a device which this one never met.
    fn drop_leftovers(&mut self, id: &DeviceId) -> Vec<String> {
        let mut links = self.records.read(id).unwrap_or_default().links;
        links.extend(id.devnum().map(links::by_number));
        self.publisher.drop_links(&links)
    }

    /// What an earlier run left of devices that went while no daemon ran.
    pub(super) fn forget_leftovers(&mut self) {
        for id in self.records.ids() {
            // one that is being handled may have its record already, and is not in the table yet
            if self.table.get(&id).is_some() || self.queue.concerns(id.as_bytes()) {
                continue;
            }
            let mut problems = self.drop_leftovers(&id);
            if let Err(error) = self.records.remove(&id) {
                problems.push(format!("cannot remove the record: {error}"));
            }
            problems.into_iter().for_each(|problem| warn!("{id}: {problem}"));
        }
        self.forget_instances();
        let there =
            |id: &DeviceId| self.table.get(id).is_some() || self.queue.concerns(id.as_bytes());
        let claimants = self.publisher.claims.claimants();
        let gone: Vec<_> = claimants.filter(|id| !there(id)).cloned().collect();
        for id in gone {
            let problems = self.publisher.give_up(&id, &self.table);
            problems.into_iter().for_each(|problem| warn!("{id}: {problem}"));
        }
        self.watching.forget_left();
        let problems = self.publisher.sweep(&self.table);
        problems.into_iter().for_each(|problem| warn!("{problem}"));
    }

    fn summary(&self) -> Ready {
        let modules = &self.book.modules;
        Ready {
            devices: self.table.len(),
            nodes: self.table.iter().filter(|known| known.devnum().is_some()).count(),
            map_entries: self.publisher.stats().entries,
            modules: modules.len(),
            modules_with_devnames: modules.devnames().len(),
            mismatches: self.table.iter().filter(|known| !known.mismatches.is_empty()).count(),
            elapsed: self.started.elapsed(),
        }
    }
}

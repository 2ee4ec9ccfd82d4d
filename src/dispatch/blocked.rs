//! Events of disks that another program has locked: tried again after a moment, or when the disk has news;
//! told as failed when that takes too long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;
use tracing::warn;

use super::Dispatch;
use super::job::Job;
use super::known::Told;
use crate::builtin::Pair;
use crate::device::DeviceId;
use crate::uevent::Uevent;

/// As long as systemd-udevd 252 waits for a lock, and between two tries.
const PATIENCE: Duration = Duration::from_secs(3 * 60);
const PAUSE: Duration = Duration::from_millis(200);

/// The events, in their order; as many as the queue lets run.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    jobs: Vec<Job>,
    /// What a walk met, and since when; one of each device.
    met: BTreeMap<DeviceId, (Arc<Uevent>, std::time::Instant)>,
    again: Option<Instant>,
    /// The daemon ends, and waits for no lock.
    ends: bool,
}

impl Blocked {
    /// When it is time to try again; `None` if nothing is blocked.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// An event came: if it is about a blocked disk, that may be free now.
    pub(super) fn heard(&mut self, uevent: &Uevent) {
        let related = |job: &Job| {
            let (one, other) = (job.uevent.devpath(), uevent.devpath());
            one.starts_with(other) || other.starts_with(one)
        };
        if self.jobs.iter().any(related) {
            self.again = Some(Instant::now());
        }
    }
}

impl Dispatch {
    /// The disk was locked: the event waits, with all that comes after it.
    pub(super) fn block(&mut self, mut job: Job) {
        if self.blocked.ends {
            self.leave(job);
            return;
        }
        let since = *job.blocked.get_or_insert_with(std::time::Instant::now);
        if since.elapsed() >= PATIENCE {
            self.give_up(job);
            return;
        }
        self.blocked.jobs.push(job);
        self.blocked.again.get_or_insert_with(|| Instant::now() + PAUSE);
    }

    /// Waits no longer: the next start meets these devices.
    pub(super) fn end_blocked(&mut self) {
        self.blocked.ends = true;
        self.blocked.again = None;
        for job in std::mem::take(&mut self.blocked.jobs) {
            self.leave(job);
        }
    }

    fn leave(&mut self, job: Job) {
        let what = "another program has its disk locked; left to the next start".to_owned();
        self.over_without(job, [what]);
    }

    /// A walk waits for no program that works on a disk: the device is as it was, and is met again.
    pub(super) fn meet_again(&mut self, job: &Job) {
        if self.blocked.ends {
            return;
        }
        let now = std::time::Instant::now();
        self.blocked.met.entry(job.id()).or_insert((job.uevent.clone(), now));
        self.blocked.again.get_or_insert_with(|| Instant::now() + PAUSE);
    }

    /// It was handled, or is gone.
    pub(super) fn met(&mut self, id: &DeviceId) {
        self.blocked.met.remove(id);
    }

    pub(super) fn try_blocked(&mut self) {
        self.blocked.again = None;
        let long = |since: &std::time::Instant| since.elapsed() >= PATIENCE;
        self.blocked.met.retain(|id, (_, since)| {
            if long(since) {
                warn!("{id}: another program has its disk locked; it was not looked at");
            }
            !long(since)
        });
        let met = self.blocked.met.values().map(|(uevent, _)| Uevent::clone(uevent));
        for uevent in met.collect::<Vec<_>>() {
            self.take(uevent);
        }
        for job in std::mem::take(&mut self.blocked.jobs) {
            match self.workers.has_room() {
                true => self.give(job),
                false => self.block(job),
            }
        }
    }

    /// The event is over, and nothing was done; its device is as it was.
    fn give_up(&mut self, job: Job) {
        let known = self.table.get(&job.id()).cloned();
        let record = known.as_ref().map(|known| &known.record);
        let properties = job.uevent.properties().map(|(key, value)| {
            let absolute = job.uevent.devname().filter(|_| key == b"DEVNAME");
            let value = absolute.map_or(value.to_vec(), |name| [b"/dev/", name].concat());
            (key.to_vec(), value)
        });
        let mut properties: Vec<Pair> = properties.collect();
        if let Some(usec) = record.and_then(|record| record.initialized_usec) {
            properties.push((b"USEC_INITIALIZED".to_vec(), usec.to_string().into_bytes()));
        }
        let mut told = Told { properties, sticky_tags: Vec::new() };
        told.fail(Errno::ETIMEDOUT as i32);
        let minutes = PATIENCE.as_secs() / 60;
        let what = format!("another program has its disk locked for {minutes} minutes; given up");
        let problem = self.teller.failed(&job.uevent, &told);
        self.over_without(job, [Some(what), problem].into_iter().flatten());
    }
}

//! Stage 5 in a worker: a decision becomes the node, the claims on links and the record of its device.

use std::io;

use rustix::time::{ClockId, clock_gettime};

use super::hands::Hands;
use super::job::Job;
use super::known::Known;
use crate::device::Device;
use crate::device::record::Record;
use crate::nodes::devtmpfs::{KERNEL_DEFAULT, Node, decided};
use crate::nodes::disk::{self, Locking};
use crate::nodes::{Mismatch, Permissions};
use crate::rules;
use crate::rules::decision::{Decision, Link};
use crate::uevent::{Action, Origin};

impl Hands {
    /// Whether the node is as the kernel made it.
    pub(super) fn is_untouched(&self, device: &Device) -> bool {
        let node = device.devname().zip(device.devnum());
        let node = node.and_then(|(name, number)| Node::find(&self.dev, name, number).ok()?);
        let made = decided(&rules::decide(device), KERNEL_DEFAULT);
        node.is_some_and(|node| node.permissions() == made)
    }

    /// What is remembered of the device, and what is still there of another one in whose place it came.
    pub(super) fn remembered(
        &self,
        device: &Device,
        job: &Job,
        before: Option<&Known>,
        instance: u64,
    ) -> (Option<Record>, Option<Record>) {
        let id = device.id();
        if let Some(known) = before {
            return (self.records.still(id, &known.record), None);
        }
        let kept = self.instances.as_ref().filter(|_| device.devnum().is_some());
        let anothers = kept.is_some_and(|kept| kept.is_anothers(id, instance));
        match (job.known.is_some() || anothers, self.records.read(id)) {
            (true, left) => (None, left),
            (false, own) => (own, None),
        }
    }

    /// Ends what is remembered of another device of this id.
    pub(super) fn forget(&self, device: &Device, other: &Record) -> Result<(), String> {
        let claims = self.stack.iter().flat_map(|stack| {
            other.links.iter().filter_map(|link| stack.leave(link, device.id()).err())
        });
        // all are tried, whatever fails
        let failed: Vec<_> = claims.chain(self.records.remove(device.id()).err()).collect();
        let told = |error: &io::Error| Err(format!("cannot forget the device before it: {error}"));
        failed.first().map_or(Ok(()), told)
    }

    /// Locks the disk of an event, so that nobody changes it while it is looked at. What the kernel has
    /// removed is not locked, nor is a disk whose owner alone is changed.
    pub(super) fn lock(&self, job: &Job, problems: &mut Vec<String>) -> Locking {
        let uevent = &job.uevent;
        let looked_at = uevent.action() != Action::Remove && uevent.origin != Origin::Policy;
        if !self.active || !looked_at || uevent.subsystem() != b"block" {
            return Locking::None;
        }
        let device = Device::new(self.sysfs.clone(), uevent.clone());
        disk::lock(&device, &self.dev).unwrap_or_else(|error| {
            problems.push(format!("cannot lock the disk: {error}"));
            Locking::None
        })
    }

    /// Settles the node in active mode; in shadow mode says where it differs.
    pub(super) fn node(
        &self,
        device: &Device,
        decision: &Decision,
        apply: &Decision,
        problems: &mut Vec<String>,
    ) -> (Permissions, Vec<Mismatch>) {
        let missing = decided(decision, KERNEL_DEFAULT);
        let (Some(name), Some(devnum)) = (device.devname(), device.devnum()) else {
            return (missing, Vec::new());
        };
        match Node::find(&self.dev, name, devnum) {
            Ok(None) => (missing, Vec::new()),
            Ok(Some(node)) if !self.active => {
                (decided(decision, node.permissions()), node.mismatches(decision))
            }
            Ok(Some(node)) => match node.settle(apply) {
                Ok(settled) => {
                    // others may have relabelled it since: as udev, only a node that is new or changed
                    if settled.changed || device.uevent().action() == Action::Add {
                        problems.extend(node.label(&decision.seclabels));
                    }
                    (settled.permissions, Vec::new())
                }
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

    /// Writes the record, and enters tags and claims. `old` is the device's own, `left` what is there.
    pub(super) fn record(
        &self,
        device: &Device,
        before: Option<&Known>,
        old: Option<&Record>,
        left: Option<&Record>,
        decision: &Decision,
        problems: &mut Vec<String>,
    ) -> Record {
        let numbered = device.devnum().is_some();
        let links = decision.links.iter().filter(|_| numbered);
        let record = Record {
            links: links.clone().map(|link| link.name.clone()).collect(),
            link_priority: links.map(|link| link.priority).max().unwrap_or(decision.link_priority),
            initialized_usec: old.and_then(|old| old.initialized_usec).or_else(|| Some(now_usec())),
            properties: decision.lasting_properties(),
            sticky_tags: decision.tags.sticky.clone(),
            current_tags: decision.tags.current.clone(),
            persist: decision.persist,
        };
        if numbered {
            problems.extend(self.claim(device, before, left, decision));
        }
        let foreign = before.is_none() && old.is_some();
        let index = match foreign {
            true => self.records.enter_tags(device.id(), &record),
            false => Ok(()),
        };
        if let Err(error) = index.and(self.records.write(device.id(), &record, left)) {
            problems.push(format!("cannot write the record: {error}"));
        }
        record
    }

    /// Enters what the device claims of links; who owns them is for dispatch to say.
    fn claim(
        &self,
        device: &Device,
        before: Option<&Known>,
        old: Option<&Record>,
        decision: &Decision,
    ) -> Vec<String> {
        let Some((stack, node)) = self.stack.as_ref().zip(device.devname()) else {
            return Vec::new();
        };
        // of what dispatch remembers, we know that it was entered
        let same = before.is_some_and(|known| known.devname() == Some(node));
        let ours = old.filter(|_| same);
        let entered = |link: &Link| {
            ours.is_some_and(|ours| {
                ours.link_priority == link.priority && ours.links.contains(&link.name)
            })
        };
        let before = old.map_or(&[][..], |old| &old.links);
        stack.update(device.id(), node, decision.links.iter(), before, entered)
    }
}

/// The monotonic clock in microseconds, as USEC_INITIALIZED counts.
fn now_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

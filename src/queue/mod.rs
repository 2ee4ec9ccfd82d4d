//! Stage 2: an event waits for every earlier one that concerns its device, its parents or its
//! children; everything else runs side by side.
//!
//! An event is *waiting* until [`Queue::next`] hands it out, *running* until [`Queue::done`]. Which
//! events hold it up is settled once, when it is pushed: it counts them, each of them knows whom
//! to tell, and nothing ever searches the queue.
#![forbid(unsafe_code)]

#[cfg(test)]
mod model;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use paths::{EventId, NodeId, Paths};

/// What an event concerns.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    pub devpath: &'a [u8],
    /// Where a moved device was.
    pub devpath_old: Option<&'a [u8]>,
    /// The device id of udev's records: `b8:1`, `c1:3`, `n5`.
    pub id: Option<&'a [u8]>,
    pub devname: Option<&'a [u8]>,
}

/// Whether a waiting event may give way to a newer one of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// A `change` that says no more than "look again": one of them says it all.
    Allowed,
    Never,
}

/// When the queue starts to save memory, in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From this many waiting events on, a device that storms is merged.
    pub merge_from: usize,
    /// A device storms when this many events of its devpath wait.
    pub storm: usize,
    /// From this many waiting events on the queue is full.
    pub full: usize,
}

impl Default for Limits {
    /// Coldplug of the largest machines (1,500 CPUs, 1,000 disks) stays below the first, so that
    /// no event is merged there; the second leaves a disk and its partitions their usual burst;
    /// the third is some 200 MB of events.
    fn default() -> Self {
        Self { merge_from: 32_768, storm: 4, full: 131_072 }
    }
}

/// The right, and the duty, to say that an event is done.
#[derive(Debug)]
#[must_use = "an event that is never done holds up its device for ever"]
pub struct Ticket(EventId);

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// Nothing holds it up.
    Runnable,
    Waiting,
    /// It took the place of this older one, which will not run.
    Merged(T),
}

#[derive(Debug)]
struct Event<T> {
    /// `None` while it runs.
    item: Option<T>,
    /// How many events it still waits for.
    blockers: usize,
    /// Who waits for it.
    dependents: Vec<EventId>,
    devpath: Arc<[u8]>,
    nodes: [Option<NodeId>; 2],
    id: Option<Arc<[u8]>>,
    devname: Option<Arc<[u8]>>,
    merge: Merge,
}

/// The pending events.
#[derive(Debug)]
pub struct Queue<T> {
    limits: Limits,
    events: Vec<Option<Event<T>>>,
    /// Places in `events` without event.
    free: Vec<EventId>,
    ready: VecDeque<EventId>,
    paths: Paths,
    /// The last pending event of each.
    ids: HashMap<Arc<[u8]>, EventId>,
    devnames: HashMap<Arc<[u8]>, EventId>,
    /// How many events of a devpath wait.
    devices: HashMap<Arc<[u8]>, usize>,
    waiting: usize,
    running: usize,
    high_water: usize,
    merged: u64,
    /// Scratch space of `push`.
    blockers: Vec<EventId>,
}

impl<T> Queue<T> {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            events: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            paths: Paths::new(),
            ids: HashMap::new(),
            devnames: HashMap::new(),
            devices: HashMap::new(),
            waiting: 0,
            running: 0,
            high_water: 0,
            merged: 0,
            blockers: Vec::new(),
        }
    }

    /// Adds an event behind all that are pending.
    ///
    /// A full queue takes it nevertheless: it is the caller who must stop reading.
    pub fn push(&mut self, keys: &Keys<'_>, merge: Merge, item: T) -> Pushed<T> {
        if merge == Merge::Allowed
            && let Some(place) = self.mergeable(keys)
        {
            let older = std::mem::replace(place, item);
            self.merged += 1;
            return Pushed::Merged(older);
        }
        let me = self.free.pop().unwrap_or(self.events.len());
        let mut found = std::mem::take(&mut self.blockers);
        let node = self.paths.claim(keys.devpath, me, &mut found);
        let old = keys.devpath_old.map(|path| self.paths.claim(path, me, &mut found));
        let id = claim(&mut self.ids, keys.id, me, &mut found);
        let devname = claim(&mut self.devnames, keys.devname, me, &mut found);
        let blockers = self.wait_for(me, found);

        let devpath: Arc<[u8]> = keys.devpath.into();
        *self.devices.entry(devpath.clone()).or_default() += 1;
        let event = Event {
            item: Some(item),
            blockers,
            dependents: Vec::new(),
            devpath,
            nodes: [Some(node), old],
            id,
            devname,
            merge,
        };
        match self.events.get_mut(me) {
            Some(place) => *place = Some(event),
            None => self.events.push(Some(event)),
        }
        self.waiting += 1;
        self.high_water = self.high_water.max(self.waiting);
        if blockers > 0 {
            return Pushed::Waiting;
        }
        self.ready.push_back(me);
        Pushed::Runnable
    }

    /// Hands out the event that has been runnable for longest.
    #[expect(clippy::should_implement_trait, reason = "an empty queue is not at its end")]
    pub fn next(&mut self) -> Option<(Ticket, T)> {
        let id = self.ready.pop_front()?;
        let event = self.events.get_mut(id)?.as_mut()?;
        let item = event.item.take()?;
        if let Some(count) = self.devices.get_mut(&event.devpath) {
            *count -= 1;
            if *count == 0 {
                self.devices.remove(&event.devpath);
            }
        }
        self.waiting -= 1;
        self.running += 1;
        Some((Ticket(id), item))
    }

    /// Lets those run that waited for this event alone.
    pub fn done(&mut self, ticket: Ticket) {
        let Ticket(me) = ticket;
        let Some(event) = self.events.get_mut(me).and_then(Option::take) else { return };
        for node in event.nodes.into_iter().flatten() {
            self.paths.release(node, me);
        }
        release(&mut self.ids, event.id, me);
        release(&mut self.devnames, event.devname, me);
        for dependent in event.dependents {
            let Some(Some(waiting)) = self.events.get_mut(dependent) else { continue };
            waiting.blockers -= 1;
            if waiting.blockers == 0 {
                self.ready.push_back(dependent);
            }
        }
        self.free.push(me);
        self.running -= 1;
        if self.is_idle() {
            self.shrink();
        }
    }

    /// Events that are waiting or running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting + self.running
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing waits and nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_empty()
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Events that [`Self::next`] has to give.
    #[must_use]
    pub fn runnable(&self) -> usize {
        self.ready.len()
    }

    /// The most events that ever waited at once.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Events that gave way to a newer one.
    #[must_use]
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// Time to stop reading the socket: the kernel's buffer holds what comes now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting >= self.limits.full
    }

    /// Whether an event of this device waits or runs.
    #[must_use]
    pub fn concerns(&self, id: &[u8]) -> bool {
        self.ids.contains_key(id)
    }

    /// Whether an event at this devpath waits or runs.
    #[must_use]
    pub fn concerns_path(&self, devpath: &[u8]) -> bool {
        self.paths.last_at(devpath).is_some()
    }

    /// The payload that a new event of `keys` may replace.
    ///
    /// Nothing of the same path, id or name may have come after it, so that a device's own events
    /// keep their order; only events of its children may lie between, and those wait for it.
    fn mergeable(&mut self, keys: &Keys<'_>) -> Option<&mut T> {
        if self.waiting < self.limits.merge_from || keys.devpath_old.is_some() {
            return None;
        }
        if self.devices.get(keys.devpath).is_none_or(|count| *count < self.limits.storm) {
            return None;
        }
        let last = self.paths.last_at(keys.devpath)?;
        let newest = |map: &HashMap<Arc<[u8]>, EventId>, key: Option<&[u8]>| {
            key.is_none_or(|key| map.get(key) == Some(&last))
        };
        if !newest(&self.ids, keys.id) || !newest(&self.devnames, keys.devname) {
            return None;
        }
        let event = self.events.get_mut(last)?.as_mut()?;
        let same = event.merge == Merge::Allowed
            && event.nodes[1].is_none()
            && *event.devpath == *keys.devpath
            && event.id.as_deref() == keys.id
            && event.devname.as_deref() == keys.devname;
        event.item.as_mut().filter(|_| same)
    }

    /// Tells every event in `found` once that `me` waits for it; how many there are.
    fn wait_for(&mut self, me: EventId, mut found: Vec<EventId>) -> usize {
        let mut count = 0;
        for blocker in found.drain(..) {
            // found again by its own second path
            if blocker == me {
                continue;
            }
            let Some(Some(event)) = self.events.get_mut(blocker) else { continue };
            // all edges to `me` are made here, so a repeated one is the last
            if event.dependents.last() != Some(&me) {
                event.dependents.push(me);
                count += 1;
            }
        }
        self.blockers = found;
        count
    }

    /// Gives back what a storm needed: an idle daemon is small.
    fn shrink(&mut self) {
        const KEPT: usize = 1024;
        if self.events.capacity() <= KEPT {
            return;
        }
        let (high_water, merged) = (self.high_water, self.merged);
        *self = Self { high_water, merged, ..Self::new(self.limits) };
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// Makes `me` the last event of `key`.
fn claim(
    map: &mut HashMap<Arc<[u8]>, EventId>,
    key: Option<&[u8]>,
    me: EventId,
    found: &mut Vec<EventId>,
) -> Option<Arc<[u8]>> {
    let key: Arc<[u8]> = key?.into();
    found.extend(map.insert(key.clone(), me));
    Some(key)
}

fn release(map: &mut HashMap<Arc<[u8]>, EventId>, key: Option<Arc<[u8]>>, me: EventId) {
    if let Some(key) = key
        && map.get(&key) == Some(&me)
    {
        map.remove(&key);
    }
}

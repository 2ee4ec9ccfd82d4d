//! Whose nodes are watched, between events only; and what follows when a writer has closed one.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Dispatch;
use super::known::Known;
use crate::config::{Config, Mode};
use crate::device::DeviceId;
use crate::nodes::disk::{self, Closed};
use crate::nodes::watch::Watch;

/// Disks whose partitions are read again at once; one that hangs holds a place for good.
const READERS_MAX: usize = 4;

/// The watch, and who is kept out of it for now.
#[derive(Debug)]
pub(super) struct Watching {
    /// `None` in shadow mode, and where the kernel has none to give.
    watch: Option<Watch>,
    /// Watched when the last run ended, and not met yet.
    left: HashSet<DeviceId>,
    /// Devices with an event under way: what is closed now was opened by it.
    off: HashSet<DeviceId>,
    /// Closed, and still to be seen to.
    closed: BTreeSet<DeviceId>,
    reading: HashSet<DeviceId>,
    read: (mpsc::Sender<DeviceId>, mpsc::Receiver<DeviceId>),
}

/// What there is to be seen to.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nodes were closed.
    Closed,
    /// What had to be done for this device is done.
    Done(DeviceId),
}

impl Watching {
    pub(super) fn new(config: &Config) -> Self {
        let folder = config.udev_folder().join("watch");
        let active = config.mode == Mode::Active;
        let opened = active.then(|| Watch::open(&folder)).transpose();
        let watch = opened.unwrap_or_else(|error| {
            warn!("no node can be watched: {error}");
            None
        });
        let left = if watch.is_some() { Watch::left(&folder) } else { Vec::new() };
        Self {
            watch,
            left: left.into_iter().collect(),
            off: HashSet::new(),
            closed: BTreeSet::new(),
            reading: HashSet::new(),
            read: mpsc::channel(READERS_MAX),
        }
    }

    /// Waits until there is something to be seen to; for ever, if nothing is watched.
    pub(super) async fn next(&mut self) -> Seen {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        tokio::select! {
            ready = watch.ready() => match ready {
                Ok(()) => Seen::Closed,
                Err(error) => {
                    warn!("nodes are no longer watched: {error}");
                    self.watch = None;
                    Seen::Closed
                }
            },
            Some(id) = self.read.1.recv() => Seen::Done(id),
        }
    }

    /// The event of a device is over, and its rules want it watched or not.
    fn resume(&mut self, id: &DeviceId, node: Option<&Path>) {
        self.take();
        self.off.remove(id);
        let Some(watch) = &mut self.watch else { return };
        let done = match node {
            Some(node) => watch.begin(id, node),
            None => {
                watch.end(id);
                Ok(())
            }
        };
        if let Err(error) = done {
            warn!("{id}: its node cannot be watched: {error}");
        }
    }

    fn has(&self, id: &DeviceId) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.has(id))
    }

    fn take(&mut self) {
        let taken = self.watch.as_mut().map(Watch::take).unwrap_or_default();
        self.closed.extend(taken.into_iter().filter(|id| !self.off.contains(id)));
    }

    /// Every device was met: who was not is gone.
    pub(super) fn forget_left(&mut self) {
        self.left.clear();
        if let Some(watch) = &self.watch {
            watch.tidy();
        }
    }
}

impl Dispatch {
    /// An event of a device begins.
    pub(super) fn pause_watch(&mut self, id: &DeviceId) {
        if self.watching.has(id) {
            // what was closed before the event counts
            self.watching.take();
            self.watching.off.insert(id.clone());
            self.see_to_closed();
        }
    }

    /// The event of a device is over; `met` by our own walk, it may have been watched by an earlier run.
    pub(super) fn watch(&mut self, known: &Known, met: bool) {
        let id = &known.id;
        let before = self.watching.left.remove(id) && met;
        let wanted = known.decision.watch.unwrap_or(before);
        if !wanted && !self.watching.has(id) {
            return;
        }
        let name = known.devname().filter(|_| wanted && known.devnum().is_some());
        let node = name.map(|name| self.config.dev.join(OsStr::from_bytes(name)));
        self.watching.resume(id, node.as_deref());
        self.see_to_closed();
    }

    /// What is watched is a node and not its name, and the nodes of `/dev` are others now.
    pub(super) fn renew_watches(&mut self) {
        let Watching { watch: Some(watch), off, .. } = &mut self.watching else { return };
        for known in self.table.iter() {
            // an event begins the watch anew when it ends
            if !watch.has(&known.id) || off.contains(&known.id) {
                continue;
            }
            let Some(name) = known.devname() else { continue };
            let node = self.config.dev.join(OsStr::from_bytes(name));
            if let Err(error) = watch.begin(&known.id, &node) {
                warn!("{}: its node cannot be watched: {error}", known.id);
            }
        }
    }

    /// The event did nothing: whoever was watched is.
    pub(super) fn leave_watch(&mut self, id: &DeviceId) {
        self.watching.off.remove(id);
    }

    /// A device is gone, or its event failed.
    pub(super) fn end_watch(&mut self, id: &DeviceId) {
        self.watching.left.remove(id);
        if self.watching.has(id) {
            self.watching.resume(id, None);
            self.see_to_closed();
        }
    }

    pub(super) fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Closed => self.watching.take(),
            Seen::Done(id) => drop(self.watching.reading.remove(&id)),
        }
        self.see_to_closed();
    }

    /// Has the partitions of closed disks read, as many at a time as there are places.
    fn see_to_closed(&mut self) {
        while self.watching.reading.len() < READERS_MAX {
            let Watching { closed, reading, .. } = &mut self.watching;
            // one that is closed once more is seen to once more, afterwards
            let Some(id) = closed.iter().find(|id| !reading.contains(*id)).cloned() else { return };
            closed.remove(&id);
            let Some(known) = self.table.get(&id) else { continue };
            let Some(name) = known.devname() else { continue };
            let device = Closed {
                devpath: known.uevent.devpath().to_vec(),
                devname: name.to_vec(),
                is_disk: known.subsystem() == b"block" && known.devtype() == b"disk",
            };
            let (sysfs, dev) = (self.sysfs.clone(), self.config.dev.clone());
            let done = self.watching.read.0.clone();
            let place = id.clone();
            let work = move || {
                debug!("{place}: closed by a writer");
                if let Err(error) = disk::closed(&device, &sysfs, &dev) {
                    warn!("{place}: closed by a writer, and the kernel cannot be asked: {error}");
                }
                // without dispatch nobody's place is wanted
                drop(done.blocking_send(place));
            };
            // not of the runtime's pool: a disk that hangs must not hold up the daemon's end
            match thread::Builder::new().name("closed".to_owned()).spawn(work) {
                Ok(_) => drop(self.watching.reading.insert(id)),
                Err(error) => warn!("{id}: closed by a writer, and not seen to: {error}"),
            }
        }
    }
}

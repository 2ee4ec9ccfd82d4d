//! Stage 6: the map's writer with a kernel that serves the map: who writes which attributes, and
//! that one map takes the place of another without losing a chmod.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::kernel::{Kernel, NameChange, Published, Since};
use super::object::base;
use super::protocol::{Attributes, CellState, Table};
use super::region::Region;
use super::shim::AttributeChange;
use super::writer::{MapError, MapWriter};
use super::{Kind, Node};

/// Publications that may be overtaken by a chmod before the kernel copies the attributes itself.
const ATTEMPTS: u32 = 3;

/// Looks at a cell that the kernel writes, which takes it a few instructions.
const TORN_LOOKS: u32 = 1000;

/// What the kernel changed, by path below /dev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelChange {
    pub path: Arc<[u8]>,
    pub node: Node,
    /// Who changed it, if that is known: process and user.
    pub by: Option<(u32, u32)>,
}

impl MapWriter {
    /// Publishes the map to a kernel, which from then on alone writes mode and owner.
    ///
    /// What the kernel knows better of an earlier writer's map stays as it is there.
    ///
    /// # Errors
    /// When the kernel refuses; the writer goes on without it.
    pub fn attach(&mut self, mut kernel: Box<dyn Kernel>) -> io::Result<()> {
        // another map's ids mean other objects
        let since = if self.adopted { Since::CarriedOver } else { Since::Lost };
        kernel.publish(self.table.memory.as_fd(), self.table.geometry.total_len, since)?;
        self.kernel = Some(kernel);
        if self.adopted {
            self.compare();
        }
        Ok(())
    }

    /// Goes on without the kernel, which keeps what it has.
    pub fn detach_kernel(&mut self) -> Option<Box<dyn Kernel>> {
        self.kernel.take()
    }

    /// Counts changes of mode and owner.
    #[must_use]
    pub fn attribute_changes(&self) -> u64 {
        self.table.attribute_changes()
    }

    #[must_use]
    pub fn is_served(&self) -> bool {
        self.kernel.is_some()
    }

    /// Takes in what the kernel tells of one object; `None` for one that is gone, or if nothing
    /// is new.
    pub fn changed_by_kernel(&mut self, change: &AttributeChange) -> Option<KernelChange> {
        let id = self.object(change.cell)?.id;
        if id != change.id {
            return None;
        }
        // later changes may be in the cell already
        let found = self.take_in(change.cell)?;
        Some(KernelChange { by: Some((change.pid, change.by)), ..found })
    }

    /// Takes in everything that the kernel changed, after it has dropped events.
    pub fn compare(&mut self) -> Vec<KernelChange> {
        let cells: Vec<u32> = self.objects.iter().flatten().map(|o| o.place.cell).collect();
        cells.into_iter().filter_map(|cell| self.take_in(cell)).collect()
    }

    fn take_in(&mut self, cell: u32) -> Option<KernelChange> {
        let id = self.object(cell)?.id;
        let now = self.settled_attributes(cell, id)?;
        let object = self.object_mut(cell)?;
        let node = object.node.as_mut()?;
        if matches!(node.kind, Kind::Link { .. }) {
            return None;
        }
        if (node.mode, node.uid, node.gid) == (now.mode, now.uid, now.gid) {
            return None;
        }
        (node.mode, node.uid, node.gid) = (now.mode, now.uid, now.gid);
        Some(KernelChange { path: Arc::clone(&object.path), node: node.clone(), by: None })
    }

    /// A cell's attributes when the kernel is not just writing them.
    fn settled_attributes(&self, cell: u32, id: u64) -> Option<Attributes> {
        for _ in 0..TORN_LOOKS {
            match self.table.attributes(cell, id) {
                CellState::Valid(attributes) => return Some(attributes),
                CellState::Unset => return None,
                CellState::Torn => std::thread::yield_now(),
            }
        }
        None
    }

    pub(super) fn set_attributes(
        &mut self,
        cell: u32,
        id: u64,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let Some(path) = self.object(cell).map(|object| Arc::clone(&object.path)) else {
            return Ok(());
        };
        match &mut self.kernel {
            Some(kernel) => kernel.set_attributes(&path, attributes)?,
            None => self.table.set_attributes(cell, id, attributes),
        }
        Ok(())
    }

    pub(super) fn notify(&mut self, parent: u32, path: &[u8], directory: bool, what: NameChange) {
        let Some(parent) = self.object(parent).map(|object| object.id) else { return };
        let Some(kernel) = &mut self.kernel else { return };
        match kernel.notify(parent, base(path), directory, what) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = path.escape_ascii();
                warn!("/dev/{path}: what userspace made there hides the device");
            }
            Err(error) => {
                warn!("the kernel tells no watchers of `{}`: {error}", path.escape_ascii())
            }
        }
    }

    /// Opens of a name without a number wait until it has one.
    pub(super) fn wake_opens(&mut self) {
        let woken = self.kernel.as_mut().map_or(Ok(()), |kernel| kernel.sync());
        if let Err(error) = woken {
            warn!("the kernel wakes no opens: {error}");
        }
    }

    /// Gives the kernel a new map in place of the current one; attributes that it changed while
    /// they were copied are copied again.
    pub(super) fn hand_over(&mut self, table: &Table<Region>) -> io::Result<()> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        let len = table.geometry.total_len;
        let mut give = |since| kernel.publish(table.memory.as_fd(), len, since);
        let mut ended = Ok(Published::OutOfDate);
        for _ in 0..ATTEMPTS {
            // before the copy: what changes after it makes the publication fail
            let since = Since::Unchanged(self.table.attribute_changes());
            self.copy_attributes(table);
            ended = give(since);
            if !matches!(ended, Ok(Published::OutOfDate)) {
                break;
            }
        }
        if matches!(ended, Ok(Published::OutOfDate)) {
            ended = give(Since::CarriedOver);
        }
        self.kernel = Some(kernel);
        ended.map(|_| info!(bytes = len, "the kernel serves a larger map"))
    }

    fn copy_attributes(&self, table: &Table<Region>) {
        for object in self.objects.iter().flatten() {
            let (cell, id) = (object.place.cell, object.id);
            if let Some(attributes) = self.settled_attributes(cell, id) {
                table.set_attributes(cell, id, attributes);
            }
        }
    }
}

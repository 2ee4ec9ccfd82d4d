//! Stage 6: what the kernel has made of mode and owner is taken into the map's book, and what nobody decided is not
//! written over it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::control::{EV_GID, EV_MODE, EV_UID};
use super::protocol::{Attributes, CellState};
use super::shim::AttributeChange;
use super::writer::{Change, MapError, MapWriter};
use super::{Kind, Node};

/// Looks at a cell that the kernel writes, which takes it a few instructions.
const TORN_LOOKS: u32 = 1000;

/// What the kernel changed, by path below /dev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelChange {
    pub path: Arc<[u8]>,
    /// As it is now.
    pub node: Node,
    /// Which of mode, owner and group were not known to be so: [`EV_MODE`], [`EV_UID`], [`EV_GID`].
    pub news: u32,
    /// Which of them are as `by` left them; where somebody changed them again, that is told later.
    pub stands: u32,
    /// Who changed it, if that is known: process and user.
    pub by: Option<(u32, u32)>,
}

/// Which of mode, owner and group differ.
fn differing(one: (u32, u32, u32), other: (u32, u32, u32)) -> u32 {
    let bit = |differs: bool, bit| if differs { bit } else { 0 };
    bit(one.0 != other.0, EV_MODE) | bit(one.1 != other.1, EV_UID) | bit(one.2 != other.2, EV_GID)
}

impl MapWriter {
    /// Takes in what the kernel tells of one object; `None` for one that is gone, or if nothing of it is
    /// so any more. Nobody did what the kernel did by itself.
    pub fn changed_by_kernel(&mut self, change: &AttributeChange) -> Option<KernelChange> {
        let id = self.object(change.cell)?.id;
        if id != change.id {
            return None;
        }
        // later changes may be in the cell already
        let found = self.take_in(change.cell)?;
        let (was, node) = (&change.attributes, &found.node);
        let undone = differing((was.mode, was.uid, was.gid), (node.mode, node.uid, node.gid));
        let stands = change.what & (EV_MODE | EV_UID | EV_GID) & !undone;
        let by = (change.pid != 0).then_some((change.pid, change.by));
        (found.news | stands != 0).then_some(KernelChange { stands, by, ..found })
    }

    /// Takes in everything that the kernel changed, after it has dropped events.
    pub fn compare(&mut self) -> Vec<KernelChange> {
        let cells: Vec<u32> = self.objects.iter().flatten().map(|o| o.place.cell).collect();
        let found = cells.into_iter().filter_map(|cell| self.take_in(cell));
        found.filter(|change| change.news != 0).collect()
    }

    fn take_in(&mut self, cell: u32) -> Option<KernelChange> {
        let id = self.object(cell)?.id;
        let now = self.settled_attributes(cell, id)?;
        let object = self.object_mut(cell)?;
        let node = object.node.as_mut()?;
        if matches!(node.kind, Kind::Link { .. }) {
            return None;
        }
        let now = (now.mode, now.uid, now.gid);
        let news = differing((node.mode, node.uid, node.gid), now);
        (node.mode, node.uid, node.gid) = now;
        let (path, node) = (Arc::clone(&object.path), node.clone());
        Some(KernelChange { path, node, news, stands: 0, by: None })
    }

    /// Mode, owner and group as they are: the kernel may be ahead of the book.
    pub(super) fn owner_now(&self, cell: u32, id: u64, known: &Node) -> (u32, u32, u32) {
        let ahead = self.kernel.as_ref().and_then(|_| self.settled_attributes(cell, id));
        ahead.map_or((known.mode, known.uid, known.gid), |now| (now.mode, now.uid, now.gid))
    }

    /// What the map says of a path, with what the kernel changed and has not told yet.
    #[must_use]
    pub fn now(&self, path: &[u8]) -> Option<Node> {
        let object = self.object(*self.names.get(path)?)?;
        let node = object.node.as_ref()?;
        let (mode, uid, gid) = self.owner_now(object.place.cell, object.id, node);
        Some(Node { mode, uid, gid, ..node.clone() })
    }

    /// A cell's attributes when the kernel is not just writing them.
    pub(super) fn settled_attributes(&self, cell: u32, id: u64) -> Option<Attributes> {
        for _ in 0..TORN_LOOKS {
            match self.table.attributes(cell, id) {
                CellState::Valid(attributes) => return Some(attributes),
                CellState::Unset => return None,
                CellState::Torn => std::thread::yield_now(),
            }
        }
        None
    }

    /// As `upsert`, but writes nothing where only what is `undecided` of mode, owner and group ([`EV_MODE`],
    /// [`EV_UID`], [`EV_GID`]) differs: somebody has changed that since it was looked at.
    ///
    /// # Errors
    /// As for `upsert`.
    pub fn upsert_keeping(
        &mut self,
        path: &[u8],
        node: &Node,
        undecided: u32,
    ) -> Result<Change, MapError> {
        let same = |now: &Node| {
            let (is, wanted) = ((now.mode, now.uid, now.gid), (node.mode, node.uid, node.gid));
            now.kind == node.kind
                && now.flags == node.flags
                && differing(is, wanted) & !undecided == 0
        };
        match self.now(path) {
            Some(now) if undecided != 0 && same(&now) => Ok(Change::Unchanged),
            Some(_) | None => self.upsert(path, node),
        }
    }
}

//! Stage 6: what the kernel has made of mode and owner is taken into the map's book, and what nobody decided is not
//! written over it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::control::{EV_ATTRIBUTES, EV_GID, EV_MODE, EV_UID};
use super::object::now;
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
        let stands = change.what & EV_ATTRIBUTES & !undone;
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

    /// As `upsert`, but leaves what is `undecided` of mode, owner and group ([`EV_MODE`], [`EV_UID`],
    /// [`EV_GID`]) of a name that is there as it is: somebody may have changed that since `node` was made.
    ///
    /// # Errors
    /// As for `upsert`.
    pub fn upsert_keeping(
        &mut self,
        path: &[u8],
        node: &Node,
        undecided: u32,
    ) -> Result<Change, MapError> {
        match self.names.get(path) {
            Some(cell) => self.change(*cell, node, undecided),
            None => self.upsert(path, node),
        }
    }

    pub(super) fn change(
        &mut self,
        cell: u32,
        node: &Node,
        undecided: u32,
    ) -> Result<Change, MapError> {
        node.check()?;
        let Some(object) = self.object(cell) else { return Err(MapError::BadPath) };
        let Some(old) = &object.node else { return Err(MapError::IsADirectory) };
        let id = object.id;
        let is = self.owner_now(cell, id, old);
        let node = keeping(node.normal(), is, undecided);
        let differs = differing(is, (node.mode, node.uid, node.gid));
        let same_body = old.kind == node.kind && old.flags == node.flags;
        if same_body && differs == 0 {
            return Ok(Change::Unchanged);
        }
        if !same_body {
            let is_link = |kind: &Kind| matches!(kind, Kind::Link { .. });
            let both_links = is_link(&old.kind) && is_link(&node.kind);
            let came_or_went = old.kind != node.kind && !both_links;
            self.with_room(|map| map.try_swap(cell, &node))?;
            // it is so from here on, even if owner and mode cannot be changed below
            if let Some(Some(body)) = self.object_mut(cell).map(|object| object.node.as_mut()) {
                (body.kind, body.flags) = (node.kind.clone(), node.flags);
            }
            if came_or_went {
                self.device_came_or_went();
            }
        }
        // an unset cell leaves the word to the entry, which has just been written
        let set = self.table.attributes(cell, id) != CellState::Unset;
        if differs != 0 && (same_body || set) {
            let (mode, uid, gid) = (node.mode, node.uid, node.gid);
            let attributes = Attributes { mode, uid, gid, stamp: now() };
            self.set_attributes(cell, id, attributes, differs)?;
        }
        if let Some(object) = self.object_mut(cell) {
            object.node = Some(node);
        }
        Ok(if same_body { Change::Attributes } else { Change::Replaced })
    }
}

/// What is `undecided` of mode, owner and group is as in `is`.
fn keeping(node: Node, is: (u32, u32, u32), undecided: u32) -> Node {
    let kept = |bit, is, wanted| if undecided & bit == 0 { wanted } else { is };
    Node {
        mode: kept(EV_MODE, is.0, node.mode),
        uid: kept(EV_UID, is.1, node.uid),
        gid: kept(EV_GID, is.2, node.gid),
        ..node
    }
}

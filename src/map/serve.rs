//! Stage 6: the map's writer with a kernel that serves the map: who writes which attributes, and
//! that one map takes the place of another without losing a chmod.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::control::{EV_GID, EV_MODE, EV_UID};
use super::kernel::{Kernel, NameChange, Published, Since};
use super::object::base;
use super::protocol::{Attributes, CellState, Table};
use super::region::Region;
use super::shim::AttributeChange;
use super::writer::{Change, MapError, MapWriter};
use super::{Kind, Node};

/// Publications that may be overtaken by a chmod before the kernel copies the attributes itself.
const ATTEMPTS: u32 = 3;

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

    /// Counts changes of mode and owner.
    #[must_use]
    pub fn attribute_changes(&self) -> u64 {
        self.table.attribute_changes()
    }

    #[must_use]
    pub fn is_served(&self) -> bool {
        self.kernel.is_some()
    }

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
            Some(kernel) => kernel.set_attributes(&path, id, attributes)?,
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

    /// Opens of a name without a number wait until it has one, and an ACL ends with its device.
    pub(super) fn device_came_or_went(&mut self) {
        let synced = self.kernel.as_mut().map_or(Ok(()), |kernel| kernel.sync());
        if let Err(error) = synced {
            warn!("the kernel wakes no opens and ends no ACL: {error}");
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

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;

    use super::super::kernel::Since;
    use super::super::layout::{E_LIVE, E_MODULE};
    use super::*;

    /// Remembers what it was asked, and refuses publications that are to be refused.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<(Vec<String>, u32)>>);

    impl Heard {
        fn say(&self, what: String) {
            self.0.lock().unwrap().0.push(what);
        }

        fn said(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap().0)
        }
    }

    impl Kernel for Heard {
        fn publish(&mut self, _: BorrowedFd<'_>, _: u64, since: Since) -> io::Result<Published> {
            let mut heard = self.0.lock().unwrap();
            if heard.1 > 0 && since != Since::CarriedOver {
                heard.1 -= 1;
                return Ok(Published::OutOfDate);
            }
            heard.0.push(format!("{since:?}"));
            Ok(Published::Done)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.say("sync".to_owned());
            Ok(())
        }

        fn notify(
            &mut self,
            parent: u64,
            name: &[u8],
            directory: bool,
            what: NameChange,
        ) -> io::Result<()> {
            let slash = if directory { "/" } else { "" };
            self.say(format!("{what:?} {}{slash} in {parent}", name.escape_ascii()));
            Ok(())
        }

        fn set_attributes(&mut self, path: &[u8], _: u64, to: Attributes) -> io::Result<()> {
            self.say(format!("{} {:o}", path.escape_ascii(), to.mode));
            Ok(())
        }
    }

    fn node(minor: u32, mode: u32) -> Node {
        Node { kind: Kind::Char { major: 10, minor }, mode, uid: 0, gid: 0, flags: E_LIVE }
    }

    fn served() -> (MapWriter, Heard) {
        let (mut map, heard) = (MapWriter::create(16).unwrap(), Heard::default());
        map.attach(Box::new(heard.clone())).unwrap();
        assert_eq!(heard.said(), ["Lost"]);
        (map, heard)
    }

    #[test]
    fn the_kernel_is_told_of_names_and_asked_for_attributes() {
        let (mut map, heard) = served();
        map.upsert(b"net/tun", &node(200, 0o600)).unwrap();
        assert_eq!(heard.said(), ["Came net/ in 1", "Came tun in 2"]);
        let before = map.attribute_changes();
        map.upsert(b"net/tun", &node(200, 0o666)).unwrap();
        assert_eq!(heard.said(), ["net/tun 666"]);
        assert_eq!(map.attribute_changes(), before, "the map's cells are the kernel's");
        map.upsert(b"net/tun", &node(200, 0o666)).unwrap();
        assert!(heard.said().is_empty());
        assert!(map.remove(b"net/tun"));
        assert_eq!(heard.said(), ["Went tun in 2", "Went net/ in 1"]);
    }

    #[test]
    fn an_owner_is_compared_with_what_the_kernel_has_and_has_not_told() {
        let (mut map, heard) = served();
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        let object = map.object(*map.names.get(&b"tty1"[..]).unwrap()).unwrap();
        let (id, cell) = (object.id, object.place.cell);
        map.table.set_attributes(cell, id, Attributes { mode: 0o620, ..Attributes::default() });
        heard.said();
        assert_eq!(map.now(b"tty1").unwrap().mode, 0o620);
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        assert_eq!(heard.said(), ["tty1 600"], "the book said so already, the kernel did not");
    }

    #[test]
    fn what_nobody_decided_is_not_written_back_over_what_somebody_made_of_it_meanwhile() {
        let (mut map, heard) = served();
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        let object = map.object(*map.names.get(&b"tty1"[..]).unwrap()).unwrap();
        let (id, cell) = (object.id, object.place.cell);
        // after somebody has looked
        map.table.set_attributes(cell, id, Attributes { mode: 0o620, ..Attributes::default() });
        heard.said();
        let kept = map.upsert_keeping(b"tty1", &node(1, 0o600), EV_MODE).unwrap();
        assert_eq!((kept, heard.said().len()), (Change::Unchanged, 0));
        map.upsert_keeping(b"tty1", &node(1, 0o600), EV_UID).unwrap();
        assert_eq!(heard.said(), ["tty1 600"], "it was decided");
    }

    #[test]
    fn opens_that_wait_are_woken_when_a_number_is_filled_in() {
        let (mut map, heard) = served();
        let kind = Kind::Pending { block: false, alias: b"devname:x".to_vec().into() };
        map.upsert(b"x", &Node { kind, flags: E_MODULE, ..node(0, 0o600) }).unwrap();
        assert_eq!(heard.said(), ["Came x in 1"]);
        map.upsert(b"x", &node(7, 0o600)).unwrap();
        assert_eq!(heard.said(), ["sync"]);
    }

    #[test]
    fn what_was_retired_is_used_again_only_when_the_kernel_has_no_reader_of_it() {
        let (mut map, heard) = served();
        for n in 0..100 {
            map.upsert(b"x", &node(n, 0o600)).unwrap();
            assert!(map.remove(b"x"));
        }
        assert_eq!(map.republished, 0, "all went into the first map");
        let said = heard.said();
        let entries = usize::try_from(map.table.geometry.n_entries).unwrap();
        for unread in said.split(|what| what == "sync") {
            let taken = unread.iter().filter(|what| *what == "Came x in 1").count();
            assert!(taken <= entries, "{taken} of {entries}");
        }
    }

    #[test]
    fn acls_are_ended_when_a_name_is_another_devices_or_waits_for_its_own_again() {
        let (mut map, heard) = served();
        map.upsert(b"x", &node(7, 0o600)).unwrap();
        heard.said();
        map.upsert(b"x", &node(8, 0o600)).unwrap();
        assert_eq!(heard.said(), ["sync"]);
        map.upsert(b"x", &Node { flags: E_MODULE, ..node(8, 0o600) }).unwrap();
        assert!(heard.said().is_empty(), "it is the same device");
        let kind = Kind::Pending { block: false, alias: b"devname:x".to_vec().into() };
        map.upsert(b"x", &Node { kind, ..node(0, 0o600) }).unwrap();
        assert_eq!(heard.said(), ["sync"]);
    }

    #[test]
    fn a_publication_that_is_overtaken_again_and_again_is_carried_over() {
        let (mut map, heard) = served();
        heard.0.lock().unwrap().1 = 2;
        map.republish(64, 4096).unwrap();
        assert_eq!(heard.said(), ["Unchanged(0)"], "the third try");
        heard.0.lock().unwrap().1 = 100;
        map.republish(64, 4096).unwrap();
        assert_eq!(heard.said(), ["CarriedOver"]);
    }

    #[test]
    fn what_the_kernel_wrote_is_taken_in_once() {
        let (mut map, _) = served();
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        let object = map.object(*map.names.get(&b"tty1"[..]).unwrap()).unwrap();
        let (id, cell) = (object.id, object.place.cell);
        let attributes = Attributes { mode: 0o620, uid: 1000, gid: 5, stamp: 1 };
        map.table.set_attributes(cell, id, attributes);
        let what = EV_MODE | EV_UID | EV_GID;
        let change = AttributeChange { id, cell, attributes, what, pid: 42, by: 1000 };
        let taken = map.changed_by_kernel(&change).unwrap();
        assert_eq!(
            (&*taken.path, taken.node.uid, taken.by),
            (&b"tty1"[..], 1000, Some((42, 1000)))
        );
        assert_eq!((taken.news, taken.stands), (what, what));
        assert_eq!(map.changed_by_kernel(&change).map(|taken| taken.news), Some(0));
        assert_eq!(map.get(b"tty1").unwrap().mode, 0o620);
        let other = AttributeChange { id: id + 1, ..change };
        assert_eq!(map.changed_by_kernel(&other), None, "another object has the cell");
        map.table.set_attributes(cell, id, Attributes { mode: 0o640, ..attributes });
        let by_itself = AttributeChange { pid: 0, by: 0, ..change };
        let taken = map.changed_by_kernel(&by_itself).unwrap();
        assert_eq!((taken.by, taken.news), (None, EV_MODE));
        assert_eq!(taken.stands, EV_UID | EV_GID, "another mode, so somebody else's");
        map.table.set_attributes(cell, id, Attributes { mode: 0o600, ..attributes });
        assert_eq!(map.compare().len(), 1);
    }
}

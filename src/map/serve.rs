//! Stage 6: the map's writer with a kernel that serves the map: who writes which attributes, and
//! that one map takes the place of another without losing a chmod.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::kernel::{Kernel, NameChange, Published, Since};
use super::object::base;
use super::protocol::{Attributes, Table};
use super::region::Region;
use super::writer::{MapError, MapWriter};

/// Publications that may be overtaken by a chmod before the kernel copies the attributes itself.
const ATTEMPTS: u32 = 3;

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

    pub(super) fn set_attributes(
        &mut self,
        cell: u32,
        id: u64,
        attributes: Attributes,
        what: u32,
    ) -> Result<(), MapError> {
        let Some(path) = self.object(cell).map(|object| Arc::clone(&object.path)) else {
            return Ok(());
        };
        match &mut self.kernel {
            Some(kernel) => kernel.set_attributes(&path, id, attributes, what)?,
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

    use super::super::control::{EV_GID, EV_MODE, EV_UID};
    use super::super::kernel::Since;
    use super::super::layout::{E_LIVE, E_MODULE};
    use super::super::shim::AttributeChange;
    use super::super::writer::Change;
    use super::super::{Kind, Node};
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

        fn set_attributes(
            &mut self,
            path: &[u8],
            _: u64,
            to: Attributes,
            what: u32,
        ) -> io::Result<()> {
            let said = |bit, value: String| if what & bit == 0 { String::new() } else { value };
            let mode = said(EV_MODE, format!(" {:o}", to.mode));
            let owner = said(EV_UID, format!(" uid {}", to.uid));
            let group = said(EV_GID, format!(" gid {}", to.gid));
            self.say(format!("{}{mode}{owner}{group}", path.escape_ascii()));
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

    /// Changes tty1 as the kernel does; its cell and id.
    fn in_kernel(map: &MapWriter, to: Attributes) -> (u32, u64) {
        let object = map.object(*map.names.get(&b"tty1"[..]).unwrap()).unwrap();
        let (cell, id) = (object.place.cell, object.id);
        map.table.set_attributes(cell, id, to);
        (cell, id)
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
        in_kernel(&map, Attributes { mode: 0o620, ..Attributes::default() });
        heard.said();
        assert_eq!(map.now(b"tty1").unwrap().mode, 0o620);
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        assert_eq!(heard.said(), ["tty1 600"], "the book said so already, the kernel did not");
    }

    #[test]
    fn what_nobody_decided_is_not_written_back_over_what_somebody_made_of_it_meanwhile() {
        let (mut map, heard) = served();
        map.upsert(b"tty1", &node(1, 0o600)).unwrap();
        // after somebody has looked
        in_kernel(&map, Attributes { mode: 0o620, ..Attributes::default() });
        heard.said();
        let kept = map.upsert_keeping(b"tty1", &node(1, 0o600), EV_MODE).unwrap();
        assert_eq!((kept, heard.said().len()), (Change::Unchanged, 0));
        let owned = Node { uid: 7, ..node(1, 0o600) };
        map.upsert_keeping(b"tty1", &owned, EV_MODE).unwrap();
        assert_eq!(heard.said(), ["tty1 uid 7"], "the owner alone");
        assert_eq!(map.get(b"tty1").unwrap().mode, 0o620);
        let moved = Node { uid: 0, ..node(2, 0o600) };
        map.upsert_keeping(b"tty1", &moved, EV_MODE | EV_UID).unwrap();
        assert_eq!(heard.said(), ["sync"], "another number, with nobody's owner");
        map.upsert_keeping(b"tty1", &node(2, 0o600), EV_UID).unwrap();
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
        let attributes = Attributes { mode: 0o620, uid: 1000, gid: 5, stamp: 1 };
        let (cell, id) = in_kernel(&map, attributes);
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
        in_kernel(&map, Attributes { mode: 0o640, ..attributes });
        let by_itself = AttributeChange { pid: 0, by: 0, ..change };
        let taken = map.changed_by_kernel(&by_itself).unwrap();
        assert_eq!((taken.by, taken.news), (None, EV_MODE));
        assert_eq!(taken.stands, EV_UID | EV_GID, "another mode, so somebody else's");
        in_kernel(&map, Attributes { mode: 0o600, ..attributes });
        assert_eq!(map.compare().len(), 1);
    }
}

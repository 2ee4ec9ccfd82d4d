//! Stage 6: names of /dev in, the shared map out; the map's one writer.
//!
//! The writer keeps its own book of every object and never decides by what it reads back, except
//! for attributes, which with the kernel shim are the kernel's. Node and attributes are two
//! writes: a reader may see the new number with the old owner for a moment.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::grow::fresh_table;
use super::kernel::{Kernel, NameChange};
use super::layout::{ID_ROOT, MAX_ENTRIES, ROOT_CELL, ROOT_ENTRY};
use super::object::{Object, base};
use super::protocol::Table;
use super::publish::{Before, Place};
use super::region::Region;
use super::space::{Pool, Short, Space, Strings, Text};
use super::{Node, is_path};

/// Why a name cannot be in the map.
#[derive(Debug)]
pub enum MapError {
    /// Wanted names of 1-255 bytes with single slashes between them, no `.`, `..` or NUL.
    BadPath,
    /// A link's target or an alias is empty, too long or holds NUL.
    BadTarget,
    /// The kernel has 12 bits for a major and 20 for a minor number.
    BadNumber,
    /// Part of the path is a name that is not a directory.
    NotADirectory,
    /// Other names lie below this one.
    IsADirectory,
    /// The map has its greatest size.
    Full,
    Io(io::Error),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadPath => "wanted a path below /dev of names with 1 to 255 bytes",
            Self::BadTarget => "wanted a target or alias of 1 to 4095 bytes without NUL",
            Self::BadNumber => "wanted a major number below 4096 and a minor below 1048576",
            Self::NotADirectory => "part of the path is not a directory",
            Self::IsADirectory => "the name is a directory",
            Self::Full => "the map is full",
            Self::Io(error) => return write!(f, "map memory: {error}"),
        })
    }
}

impl std::error::Error for MapError {}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing was written.
    Unchanged,
    Added,
    /// The object stays, with another number, target or origin.
    Replaced,
    /// Mode or owner only.
    Attributes,
}

/// What the writer knows of its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterStats {
    /// Names, directories not among them.
    pub entries: usize,
    pub directories: usize,
    /// Entries that fit before the map must be replaced by a larger one.
    pub capacity: u32,
    pub bytes: u64,
    /// How often a map was replaced by another.
    pub republished: u64,
}

/// The one writer of the map.
pub struct MapWriter {
    pub(super) table: Table<Region>,
    pub(super) space: Space,
    /// By cell.
    pub(super) objects: Vec<Option<Box<Object>>>,
    pub(super) names: HashMap<Arc<[u8]>, u32>,
    pub(super) last_id: u64,
    pub(super) replaced: bool,
    pub(super) republished: u64,
    /// Goes on with the objects of an earlier writer.
    pub(super) adopted: bool,
    /// Serves the map; without it the writer stands in for the kernel.
    pub(super) kernel: Option<Box<dyn Kernel>>,
}

impl fmt::Debug for MapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapWriter").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// String bytes planned for an entry; names below disk/by-id are the long ones.
const STRING_BYTES: u64 = 48;

impl MapWriter {
    /// Makes a map with room for about `capacity` names; it grows by itself.
    ///
    /// # Errors
    /// When the kernel gives no memory file.
    pub fn create(capacity: u32) -> io::Result<Self> {
        let n_entries = capacity.clamp(16, MAX_ENTRIES);
        let table = fresh_table(n_entries, u64::from(n_entries) * STRING_BYTES, None)?;
        table.set_counters(1, 0, ID_ROOT);
        let root = Object::root();
        table.plant_root(root.fields(0));
        let objects = std::iter::once(Some(Box::new(root)));
        let objects: Vec<_> = objects.chain((1..n_entries).map(|_| None)).collect();
        let space = Space {
            entries: Pool::new(n_entries, |n| n == ROOT_ENTRY),
            cells: Pool::new(n_entries, |n| n == ROOT_CELL),
            strings: Strings::new(table.geometry.strings_len, std::iter::empty()),
        };
        Ok(Self {
            table,
            space,
            objects,
            names: HashMap::new(),
            last_id: ID_ROOT,
            replaced: false,
            republished: 0,
            adopted: false,
            kernel: None,
        })
    }

    pub(super) fn object(&self, cell: u32) -> Option<&Object> {
        self.objects.get(usize::try_from(cell).ok()?)?.as_deref()
    }

    pub(super) fn object_mut(&mut self, cell: u32) -> Option<&mut Object> {
        self.objects.get_mut(usize::try_from(cell).ok()?)?.as_deref_mut()
    }

    /// Makes the map say `node` of `path` (below /dev, `net/tun`); makes directories as needed.
    ///
    /// # Errors
    /// Leaves the map as it was. See [`MapError`].
    pub fn upsert(&mut self, path: &[u8], node: &Node) -> Result<Change, MapError> {
        if let Some(cell) = self.names.get(path) {
            return self.change(*cell, node, 0);
        }
        if !is_path(path) {
            return Err(MapError::BadPath);
        }
        node.check()?;
        let parent = self.directory_of(path)?;
        match self.add(parent, path, Some(node.normal())) {
            Ok(_) => Ok(Change::Added),
            Err(error) => {
                self.prune(parent);
                Err(error)
            }
        }
    }

    fn directory_of(&mut self, path: &[u8]) -> Result<u32, MapError> {
        let Some(cut) = path.iter().rposition(|byte| *byte == b'/') else { return Ok(ROOT_CELL) };
        let dir = &path[..cut];
        if let Some(cell) = self.names.get(dir).copied() {
            let is_dir = self.object(cell).is_some_and(|object| object.node.is_none());
            return if is_dir { Ok(cell) } else { Err(MapError::NotADirectory) };
        }
        let above = self.directory_of(dir)?;
        self.add(above, dir, None).inspect_err(|_| self.prune(above))
    }

    fn add(&mut self, parent: u32, path: &[u8], node: Option<Node>) -> Result<u32, MapError> {
        let cell = self.with_room(|map| map.try_add(parent, path, node.as_ref()))?;
        self.notify(parent, path, node.is_none(), NameChange::Came);
        Ok(cell)
    }

    fn try_add(&mut self, parent: u32, path: &[u8], node: Option<&Node>) -> Result<u32, Short> {
        let parent_id = self.object(parent).map_or(ID_ROOT, |object| object.id);
        let bucket = self.table.free_bucket(parent_id, base(path)).ok_or(Short::Slots)?;
        let aux = node.map_or(&[][..], Node::aux);
        let (entry, cell, name, text) = self.take(base(path), aux)?;
        let place = Place { entry, cell, bucket };
        self.last_id = self.last_id.saturating_add(1);
        self.table.set_last_id(self.last_id);
        let mut object = Object::new(self.last_id, path.into(), parent, place, (name, text));
        object.node = node.cloned();
        self.table.write_string(name.offset, base(path));
        self.table.write_string(text.offset, aux);
        self.table.insert(place, parent, &object.fields(parent_id));
        self.enrol(object);
        Ok(cell)
    }

    fn take(&mut self, name: &[u8], aux: &[u8]) -> Result<(u32, u32, Text, Text), Short> {
        let Space { entries, cells, strings } = &mut self.space;
        let name = strings.take(name.len()).ok_or(Short::Strings)?;
        let Some(aux) = strings.take(aux.len()) else {
            strings.give_back(name);
            return Err(Short::Strings);
        };
        match (entries.take(), cells.take()) {
            (Some(entry), Some(cell)) => Ok((entry, cell, name, aux)),
            (entry, cell) => {
                entry.into_iter().for_each(|entry| entries.give_back(entry));
                cell.into_iter().for_each(|cell| cells.give_back(cell));
                strings.give_back(name);
                strings.give_back(aux);
                Err(Short::Entries)
            }
        }
    }

    /// Puts an object into the book, in front of its siblings.
    pub(super) fn enrol(&mut self, mut object: Object) {
        let cell = object.place.cell;
        if cell != ROOT_CELL {
            let front = self.object_mut(object.parent).and_then(|dir| dir.first.replace(cell));
            object.after = front;
            if let Some(sibling) = front.and_then(|front| self.object_mut(front)) {
                sibling.before = Some(cell);
            }
            self.names.insert(Arc::clone(&object.path), cell);
        }
        let slot = usize::try_from(cell).ok().and_then(|at| self.objects.get_mut(at));
        if let Some(slot) = slot {
            *slot = Some(Box::new(object));
        }
    }

    pub(super) fn try_swap(&mut self, cell: u32, node: &Node) -> Result<(), Short> {
        let entry = self.space.entries.take().ok_or(Short::Entries)?;
        let Some(aux) = self.space.strings.take(node.aux().len()) else {
            self.space.entries.give_back(entry);
            return Err(Short::Strings);
        };
        self.table.write_string(aux.offset, node.aux());
        let parent = self.object(cell).and_then(|object| self.object(object.parent));
        let parent_id = parent.map_or(ID_ROOT, |parent| parent.id);
        let Some(object) = self.object_mut(cell) else { return Err(Short::Entries) };
        let old = std::mem::replace(&mut object.place.entry, entry);
        let old_aux = std::mem::replace(&mut object.aux, aux);
        let kept = object.node.replace(node.clone());
        let (place, fields) = (object.place, object.fields(parent_id));
        object.node = kept;
        self.table.replace(place, old, &fields);
        self.space.entries.retire(old);
        self.space.strings.retire(old_aux);
        Ok(())
    }

    /// Takes a name out of the map, and the directories that it leaves empty.
    ///
    /// False when there is no such name, or it is a directory.
    pub fn remove(&mut self, path: &[u8]) -> bool {
        let Some(cell) = self.names.get(path).copied() else { return false };
        if self.object(cell).is_none_or(|object| object.node.is_none()) {
            return false;
        }
        if let Some(parent) = self.detach(cell) {
            self.prune(parent);
        }
        true
    }

    /// Removes a directory and those above it while they are empty.
    pub(super) fn prune(&mut self, mut cell: u32) {
        while cell != ROOT_CELL {
            let empty = |dir: &Object| dir.node.is_none() && dir.first.is_none();
            if !self.object(cell).is_some_and(empty) {
                return;
            }
            let Some(parent) = self.detach(cell) else { return };
            cell = parent;
        }
    }

    fn detach(&mut self, cell: u32) -> Option<u32> {
        let object = self.objects.get_mut(usize::try_from(cell).ok()?)?.take()?;
        let before = object.before.map_or(Before::Directory(object.parent), Before::Sibling);
        self.table.remove(object.place, before);
        match object.before {
            Some(sibling) => self.object_mut(sibling)?.after = object.after,
            None => self.object_mut(object.parent)?.first = object.after,
        }
        if let Some(sibling) = object.after.and_then(|after| self.object_mut(after)) {
            sibling.before = object.before;
        }
        self.names.remove(&object.path);
        self.notify(object.parent, &object.path, object.node.is_none(), NameChange::Went);
        self.space.entries.retire(object.place.entry);
        self.space.cells.retire(cell);
        self.space.strings.retire(object.name);
        self.space.strings.retire(object.aux);
        Some(object.parent)
    }

    /// Whether the memory is another since the last call; it must then be stored and given anew.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    /// All names in no order; directories are implied.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        let named = self.objects.iter().flatten();
        named.filter_map(|object| Some((&*object.path, object.node.as_ref()?)))
    }

    /// What the map says of a path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.object(*self.names.get(path)?)?.node.as_ref()
    }

    /// Counts changes of names; changes of mode and owner alone count elsewhere.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// A fresh read-only opening of the memory, to be given to anybody.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn read_only_fd(&self) -> io::Result<OwnedFd> {
        self.table.memory.read_only_fd()
    }

    #[must_use]
    pub fn stats(&self) -> WriterStats {
        let entries = self.objects.iter().flatten().filter(|object| object.node.is_some()).count();
        WriterStats {
            entries,
            directories: self.names.len() - entries,
            capacity: self.table.geometry.n_entries,
            bytes: self.table.geometry.total_len,
            republished: self.republished,
        }
    }
}

impl AsFd for MapWriter {
    /// The writable descriptor, for the service manager's store only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.table.memory.as_fd()
    }
}

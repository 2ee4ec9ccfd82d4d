//! Stage 6: the map as any process reads it: through a descriptor, without locks or trust.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::OwnedFd;

use super::layout::{
    E_PENDING, GEN_REPLACED, ID_FREE, ID_ROOT, MINOR_BITS, PERMISSIONS, ROOT_CELL, ROOT_ENTRY,
    S_IFDIR, S_IFLNK, S_IFMT, SLOT_EMPTY, SLOT_TOMBSTONE,
};
use super::protocol::{Entry, Glance, Listed, Memory, Search, Table, Wanted};
use super::region::{Region, RegionError};
use super::{PATH_MAX, verify};

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Entry),
    Absent,
    /// The daemon has another map by now: ask for it.
    Replaced,
    /// The entry changed at every look; try again.
    Busy,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Newest first.
    Found(Vec<Entry>),
    Absent,
    NotADirectory,
    Replaced,
    Busy,
}

/// All that the map holds, directories before what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Paths below /dev.
    Found(Vec<(Vec<u8>, Entry)>),
    Replaced,
    Busy,
}

/// Figures of a map, counted by looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub generation: u64,
    pub attribute_changes: u64,
    pub capacity: u32,
    /// Live entries, directories and the root among them.
    pub entries: u32,
    pub directories: u32,
    pub links: u32,
    pub pending: u32,
    pub buckets: u32,
    pub tombstones: u32,
    pub strings_len: u64,
    pub total_len: u64,
}

/// Rounds of [`super::layout::RETRIES`] looks, with a yield between them, before [`Lookup::Busy`].
const ROUNDS: u32 = 32;

impl Entry {
    #[must_use]
    pub fn major(&self) -> u32 {
        self.fields.rdev >> MINOR_BITS
    }

    #[must_use]
    pub fn minor(&self) -> u32 {
        self.fields.rdev & ((1 << MINOR_BITS) - 1)
    }

    #[must_use]
    pub fn permissions(&self) -> u32 {
        self.fields.mode & PERMISSIONS
    }

    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.fields.mode & S_IFMT == S_IFDIR
    }

    #[must_use]
    pub fn is_link(&self) -> bool {
        self.fields.mode & S_IFMT == S_IFLNK
    }
}

/// A map opened for reading.
pub struct MapReader {
    table: Table<Region>,
}

impl fmt::Debug for MapReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapReader").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl MapReader {
    /// Maps what `GetMap` gave.
    ///
    /// # Errors
    /// When it is not a sealed memory file with the header of a map.
    pub fn open(fd: OwnedFd) -> Result<Self, RegionError> {
        let (memory, geometry) = Region::open(fd)?;
        Ok(Self { table: Table { memory, geometry } })
    }

    /// The daemon's count of changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// The count of changes of mode and owner.
    #[must_use]
    pub fn attribute_changes(&self) -> u64 {
        self.table.attribute_changes()
    }

    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.generation() == GEN_REPLACED
    }

    /// Finds a path below /dev; the empty path is the root.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Lookup {
        for _ in 0..ROUNDS {
            if self.is_replaced() {
                return Lookup::Replaced;
            }
            match self.descend(path) {
                Search::Found(entry, _) => return Lookup::Found(entry),
                Search::Absent => return Lookup::Absent,
                Search::Busy => std::thread::yield_now(),
            }
        }
        Lookup::Busy
    }

    fn descend(&self, path: &[u8]) -> Search {
        if path.is_empty() {
            let wanted = Wanted::Object { id: ID_ROOT, cell: ROOT_CELL };
            return match self.table.glance(ROOT_ENTRY, wanted) {
                Glance::Is(root) => Search::Found(root, 0),
                Glance::Other(_) => Search::Absent,
                Glance::Torn => Search::Busy,
            };
        }
        if path.len() > PATH_MAX {
            return Search::Absent;
        }
        let mut names = path.split(|byte| *byte == b'/').peekable();
        let mut parent = ID_ROOT;
        while let Some(name) = names.next() {
            let (mut entry, bucket) = match self.table.find(parent, name) {
                Search::Found(entry, bucket) => (entry, bucket),
                end @ (Search::Absent | Search::Busy) => return end,
            };
            if names.peek().is_none() {
                entry.name = name.to_vec();
                return Search::Found(entry, bucket);
            }
            if !entry.is_dir() {
                return Search::Absent;
            }
            parent = entry.fields.id;
        }
        Search::Absent
    }

    /// Lists a directory: each child once, and all that were there the whole time.
    #[must_use]
    pub fn list(&self, path: &[u8]) -> Listing {
        for _ in 0..ROUNDS {
            let dir = match self.lookup(path) {
                Lookup::Found(dir) if dir.is_dir() => dir,
                Lookup::Found(_) => return Listing::NotADirectory,
                Lookup::Absent => return Listing::Absent,
                Lookup::Replaced => return Listing::Replaced,
                Lookup::Busy => return Listing::Busy,
            };
            let mut children = Vec::new();
            let push = |entry| children.push(entry);
            match self.table.list(dir.fields.id, dir.fields.cell, push) {
                Listed::Done => return Listing::Found(children),
                // replaced by another directory of this name, perhaps
                Listed::Gone | Listed::Busy => std::thread::yield_now(),
            }
        }
        Listing::Busy
    }

    /// Lists everything; each entry existed at some moment of the walk.
    #[must_use]
    pub fn walk(&self) -> Walk {
        let mut all: Vec<(Vec<u8>, Entry)> = Vec::new();
        let mut waiting = vec![(Vec::new(), ID_ROOT, ROOT_CELL)];
        let limit = usize::try_from(self.table.geometry.n_entries).unwrap_or(0);
        // ids rise on the way down, so that this ends on any map; hostile ones may repeat cells
        while let Some((path, id, cell)) = waiting.pop() {
            if self.is_replaced() {
                return Walk::Replaced;
            }
            let before = all.len();
            let listed = self.table.list(id, cell, |entry| {
                let mut below: Vec<u8> = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&entry.name);
                if below.len() <= PATH_MAX && all.len() <= limit {
                    all.push((below, entry));
                }
            });
            if listed == Listed::Busy || all.len() > limit {
                return Walk::Busy;
            }
            let dirs = all[before..].iter().filter(|(_, entry)| entry.is_dir());
            waiting.extend(dirs.map(|(path, e)| (path.clone(), e.fields.id, e.fields.cell)));
        }
        Walk::Found(all)
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let geometry = &self.table.geometry;
        let mut stats = Stats {
            generation: self.generation(),
            attribute_changes: self.attribute_changes(),
            capacity: geometry.n_entries,
            buckets: geometry.n_buckets,
            strings_len: geometry.strings_len,
            total_len: geometry.total_len,
            ..Stats::default()
        };
        for number in 0..geometry.n_entries {
            let Glance::Is(entry) = self.table.glance(number, Wanted::Any) else { continue };
            debug_assert_ne!(entry.fields.id, ID_FREE);
            stats.entries += 1;
            stats.directories += u32::from(entry.is_dir());
            stats.links += u32::from(entry.is_link());
            stats.pending += u32::from(entry.fields.flags & E_PENDING != 0);
        }
        for at in (0..geometry.n_buckets).filter_map(|bucket| geometry.slot(bucket)) {
            let slot = self.table.memory.load32(at, std::sync::atomic::Ordering::Relaxed);
            stats.tombstones += u32::from(slot == SLOT_TOMBSTONE && slot != SLOT_EMPTY);
        }
        stats
    }

    /// Names every problem of the map; a change in the middle of it is looked at again.
    #[must_use]
    pub fn verify(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for _ in 0..super::layout::RETRIES {
            problems = verify::problems(&self.table);
            if problems.is_empty() {
                break;
            }
            std::thread::yield_now();
        }
        problems
    }
}

//! Stage 6: how a reader gets a true copy out of a map that changes under it.
//!
//! Generic over the memory, so that loom runs this very code (`tests/map_model.rs`). The order
//! of stores that it relies on is in `publish`; `kmod-shim/mapdev_abi.h` has the reasons.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{self, Acquire, Relaxed};

use super::layout::{
    self, AUX_MAX, Geometry, ID_FREE, NAME_MAX, RETRIES, SLOT_EMPTY, SLOT_TOMBSTONE, attr, chain,
    entry, header,
};

/// Words that several threads or processes touch at once.
pub trait Memory {
    fn load32(&self, at: usize, order: Ordering) -> u32;
    fn load64(&self, at: usize, order: Ordering) -> u64;
    fn store32(&self, at: usize, value: u32, order: Ordering);
    fn store64(&self, at: usize, value: u64, order: Ordering);
    fn fence(&self, order: Ordering);
    /// Lets the writer get on before the next look.
    fn pause(&self);
}

/// The words of an entry, without `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub flags: u32,
    pub id: u64,
    pub parent: u64,
    pub name_off: u32,
    pub name_len: u16,
    pub aux_len: u16,
    pub aux_off: u32,
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub cell: u32,
    /// Nanoseconds since 1970.
    pub stamp: u64,
}

/// Mode (permission bits) and owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub stamp: u64,
}

/// A consistent copy of an entry, its attributes already those of its cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub number: u32,
    pub fields: Fields,
    /// Empty when the caller named it.
    pub name: Vec<u8>,
    /// A link's target, or the alias of the module to load.
    pub aux: Vec<u8>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// The entry and the bucket of its slot.
    Found(Entry, u32),
    Absent,
    /// It changed at each of [`RETRIES`] looks.
    Busy,
}

/// How a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Done,
    /// The directory went away.
    Gone,
    /// The chain changed under the reader too often, or is broken.
    Busy,
}

/// What an attribute cell says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    Valid(Attributes),
    /// Never written for this object: the entry's own mode and owner hold.
    Unset,
    Torn,
}

/// Which entry a reader wants to copy.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    Named { parent: u64, name: &'a [u8] },
    Object { id: u64, cell: u32 },
    Any,
}

/// What one look at an entry gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    Is(Entry),
    /// Not the wanted one, at this `seq`.
    Other(u32),
    Torn,
}

enum Step {
    Next(Entry, u32),
    LastThenLost(Entry),
    Lost,
}

/// How often a listing starts again at the head.
const RESTARTS: u32 = 64;

/// A map in some memory.
#[derive(Debug)]
pub struct Table<M> {
    pub memory: M,
    pub geometry: Geometry,
}

impl<M: Memory> Table<M> {
    /// Counts the daemon's changes; [`layout::GEN_REPLACED`] means: ask for the new map.
    pub fn generation(&self) -> u64 {
        self.memory.load64(header::GEN, Acquire)
    }

    /// Counts changes of mode and owner.
    pub fn attribute_changes(&self) -> u64 {
        self.memory.load64(header::CHG, Acquire)
    }

    fn seq(&self, number: u32) -> u32 {
        let at = self.geometry.entry(number);
        at.map_or(0, |at| self.memory.load32(at + entry::SEQ, Relaxed))
    }

    fn fields(&self, at: usize) -> Fields {
        let word = |offset| self.memory.load32(at + offset, Relaxed);
        let wide = |offset| self.memory.load64(at + offset, Relaxed);
        let [a, b, c, d] = word(entry::LENS).to_ne_bytes();
        Fields {
            flags: word(entry::FLAGS),
            id: wide(entry::ID),
            parent: wide(entry::PARENT),
            name_off: word(entry::NAME_OFF),
            name_len: u16::from_ne_bytes([a, b]),
            aux_len: u16::from_ne_bytes([c, d]),
            aux_off: word(entry::AUX_OFF),
            mode: word(entry::MODE),
            uid: word(entry::UID),
            gid: word(entry::GID),
            rdev: word(entry::RDEV),
            cell: word(entry::CELL),
            stamp: wide(entry::STAMP),
        }
    }

    fn string_is(&self, offset: u32, wanted: &[u8]) -> bool {
        let Some(at) = self.geometry.string(offset, wanted.len()) else { return false };
        wanted.chunks(8).enumerate().all(|(n, chunk)| {
            let word = self.memory.load64(at + n * 8, Relaxed).to_ne_bytes();
            word.get(..chunk.len()) == Some(chunk)
        })
    }

    fn string(&self, offset: u32, len: u16, limit: u32) -> Option<Vec<u8>> {
        if len == 0 {
            return Some(Vec::new());
        }
        if u32::from(len) > limit {
            return None;
        }
        let at = self.geometry.string(offset, len.into())?;
        let mut bytes = Vec::with_capacity(usize::from(len) + 8);
        for n in 0..usize::from(len).div_ceil(8) {
            bytes.extend_from_slice(&self.memory.load64(at + n * 8, Relaxed).to_ne_bytes());
        }
        bytes.truncate(len.into());
        Some(bytes)
    }

    /// Reads the attribute cell of an object, once.
    pub fn attributes(&self, cell: u32, id: u64) -> CellState {
        let Some(at) = self.geometry.attr(cell) else { return CellState::Unset };
        let seq = self.memory.load32(at + attr::SEQ, Acquire);
        if seq & 1 == 1 {
            return CellState::Torn;
        }
        let owner = self.memory.load64(at + attr::ID, Relaxed);
        let attributes = Attributes {
            mode: self.memory.load32(at + attr::MODE, Relaxed) & layout::PERMISSIONS,
            uid: self.memory.load32(at + attr::UID, Relaxed),
            gid: self.memory.load32(at + attr::GID, Relaxed),
            stamp: self.memory.load64(at + attr::STAMP, Relaxed),
        };
        self.memory.fence(Acquire);
        if self.memory.load32(at + attr::SEQ, Relaxed) != seq {
            return CellState::Torn;
        }
        if owner == id { CellState::Valid(attributes) } else { CellState::Unset }
    }

    /// Copies an entry if it is the wanted one and held still.
    pub fn glance(&self, number: u32, wanted: Wanted<'_>) -> Glance {
        let Some(at) = self.geometry.entry(number) else { return Glance::Other(0) };
        let seq = self.memory.load32(at + entry::SEQ, Acquire);
        if seq & 1 == 1 {
            return Glance::Torn;
        }
        let fields = self.fields(at);
        let copied = self.complete(number, fields, wanted, seq);
        // the cell and the strings are this object's as long as the entry stands, so the check
        // comes after all of them
        self.memory.fence(Acquire);
        if self.memory.load32(at + entry::SEQ, Relaxed) == seq { copied } else { Glance::Torn }
    }

    fn complete(&self, number: u32, mut fields: Fields, wanted: Wanted<'_>, seq: u32) -> Glance {
        let named = |parent, name: &[u8]| {
            fields.parent == parent
                && usize::from(fields.name_len) == name.len()
                && self.string_is(fields.name_off, name)
        };
        let matches = match wanted {
            Wanted::Named { parent, name } => named(parent, name),
            Wanted::Object { id, cell } => fields.id == id && fields.cell == cell,
            Wanted::Any => true,
        };
        if !matches || fields.id == ID_FREE {
            return Glance::Other(seq);
        }
        let name = match wanted {
            Wanted::Named { .. } => Some(Vec::new()),
            Wanted::Object { .. } | Wanted::Any => {
                self.string(fields.name_off, fields.name_len, NAME_MAX)
            }
        };
        let aux = self.string(fields.aux_off, fields.aux_len, AUX_MAX);
        let (Some(name), Some(aux)) = (name, aux) else { return Glance::Other(seq) };
        match self.attributes(fields.cell, fields.id) {
            CellState::Torn => return Glance::Torn,
            CellState::Unset => {}
            CellState::Valid(now) => {
                fields.mode = fields.mode & layout::S_IFMT | now.mode;
                (fields.uid, fields.gid, fields.stamp) = (now.uid, now.gid, now.stamp);
            }
        }
        Glance::Is(Entry { number, fields, name, aux })
    }

    /// Finds the child `name` of the directory with id `parent`.
    pub fn find(&self, parent: u64, name: &[u8]) -> Search {
        for bucket in self.geometry.probe(parent, name) {
            let Some(at) = self.geometry.slot(bucket) else { return Search::Absent };
            let mut tries = 0..RETRIES;
            loop {
                if tries.next().is_none() {
                    return Search::Busy;
                }
                let slot = self.memory.load32(at, Acquire);
                if slot == SLOT_EMPTY {
                    return Search::Absent;
                }
                if slot == SLOT_TOMBSTONE {
                    break;
                }
                match self.glance(slot - 1, Wanted::Named { parent, name }) {
                    Glance::Is(copied) => return Search::Found(copied, bucket),
                    // the entry may have been freed since the slot was read, and even used anew
                    // for this very name: neither slot nor seq may have moved, in this order
                    Glance::Other(seq)
                        if self.memory.load32(at, Acquire) == slot && self.seq(slot - 1) == seq =>
                    {
                        break;
                    }
                    Glance::Other(_) | Glance::Torn => self.memory.pause(),
                }
            }
        }
        Search::Absent
    }

    fn chained(&self, cell: u32, id: u64, above: u64) -> Option<Entry> {
        let at = self.geometry.chain(cell)?;
        for _ in 0..RETRIES {
            let entry = self.memory.load32(at + chain::ENTRY, Acquire);
            match self.glance(entry.checked_sub(1)?, Wanted::Object { id, cell }) {
                Glance::Is(copied) => return (copied.fields.parent == above).then_some(copied),
                Glance::Other(_) | Glance::Torn => self.memory.pause(),
            }
        }
        None
    }

    /// One child at `cell` of the directory `above`, with an id below `bound`.
    fn step(&self, cell: u32, above: u64, bound: u64) -> Step {
        let Some(at) = self.geometry.chain(cell) else { return Step::Lost };
        let id = self.memory.load64(at + chain::ID, Acquire);
        if id >= bound || id <= above {
            return Step::Lost;
        }
        let Some(copied) = self.chained(cell, id, above) else { return Step::Lost };
        let next = self.memory.load32(at + chain::NEXT, Acquire);
        self.memory.fence(Acquire);
        if self.memory.load64(at + chain::ID, Relaxed) == id {
            Step::Next(copied, next)
        } else {
            Step::LastThenLost(copied)
        }
    }

    fn head(&self, dir: u64, cell: u32) -> Option<u32> {
        let at = self.geometry.chain(cell)?;
        let head = self.memory.load32(at + chain::HEAD, Acquire);
        self.memory.fence(Acquire);
        (self.memory.load64(at + chain::ID, Relaxed) == dir).then_some(head)
    }

    /// Delivers the children of a directory, each once, newest first.
    ///
    /// Every child that existed all the while is among them.
    pub fn list(&self, dir: u64, cell: u32, mut deliver: impl FnMut(Entry)) -> Listed {
        let mut cursor = u64::MAX;
        for _ in 0..RESTARTS {
            let Some(mut next) = self.head(dir, cell) else { return Listed::Gone };
            let mut bound = u64::MAX;
            for _ in 0..=self.geometry.n_entries {
                let Some(child) = next.checked_sub(1) else { return Listed::Done };
                let (copied, after) = match self.step(child, dir, bound) {
                    Step::Next(copied, after) => (copied, Some(after)),
                    Step::LastThenLost(copied) => (copied, None),
                    Step::Lost => break,
                };
                bound = copied.fields.id;
                if bound < cursor {
                    cursor = bound;
                    deliver(copied);
                }
                let Some(after) = after else { break };
                next = after;
            }
            self.memory.pause();
        }
        Listed::Busy
    }
}

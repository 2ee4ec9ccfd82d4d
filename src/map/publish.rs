//! Stage 6: the order of stores by which the one writer changes a map under its readers.
//!
//! Generic over the memory like `protocol`. Numbers (entry, cell, slot, strings) are the
//! caller's choice: they must be free, and what was given back may be given out again at once,
//! since every reader copies first and then checks `seq` or a chain cell's id.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::layout::{
    GEN_REPLACED, ID_FREE, ID_ROOT, ROOT_CELL, ROOT_ENTRY, SLOT_EMPTY, SLOT_TOMBSTONE, attr, chain,
    entry, header,
};
use super::protocol::{Attributes, Fields, Memory, Table};

/// The numbers of a name in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub entry: u32,
    pub cell: u32,
    pub bucket: u32,
}

/// What stands before a cell in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing: it is the first child of the directory with this cell.
    Directory(u32),
    Sibling(u32),
}

impl<M: Memory> Table<M> {
    fn fill(&self, number: u32, fields: &Fields) {
        let Some(at) = self.geometry.entry(number) else { return };
        let word = |offset, value| self.memory.store32(at + offset, value, Relaxed);
        let wide = |offset, value| self.memory.store64(at + offset, value, Relaxed);
        let seq = self.memory.load32(at + entry::SEQ, Relaxed) | 1;
        word(entry::SEQ, seq);
        // whoever sees one of the stores below sees the odd number too
        self.memory.fence(Release);
        let ([a, b], [c, d]) = (fields.name_len.to_ne_bytes(), fields.aux_len.to_ne_bytes());
        word(entry::FLAGS, fields.flags);
        wide(entry::ID, fields.id);
        wide(entry::PARENT, fields.parent);
        word(entry::NAME_OFF, fields.name_off);
        word(entry::LENS, u32::from_ne_bytes([a, b, c, d]));
        word(entry::AUX_OFF, fields.aux_off);
        word(entry::MODE, fields.mode);
        word(entry::UID, fields.uid);
        word(entry::GID, fields.gid);
        word(entry::RDEV, fields.rdev);
        word(entry::CELL, fields.cell);
        wide(entry::STAMP, fields.stamp);
        self.memory.store32(at + entry::SEQ, seq.wrapping_add(1), Release);
    }

    /// Frees an entry: id 0 is enough, the rest is overwritten by the next one.
    fn clear(&self, number: u32) {
        let Some(at) = self.geometry.entry(number) else { return };
        let seq = self.memory.load32(at + entry::SEQ, Relaxed) | 1;
        self.memory.store32(at + entry::SEQ, seq, Relaxed);
        self.memory.fence(Release);
        self.memory.store64(at + entry::ID, ID_FREE, Relaxed);
        self.memory.store32(at + entry::SEQ, seq.wrapping_add(1), Release);
    }

    /// Writes a string to free room; callers do so before the entry that names it.
    pub fn write_string(&self, offset: u32, bytes: &[u8]) {
        let Some(at) = self.geometry.string(offset, bytes.len()) else { return };
        for (n, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.memory.store64(at + n * 8, u64::from_ne_bytes(word), Relaxed);
        }
    }

    /// The first bucket where a name that is not in the map can go.
    #[must_use]
    pub fn free_bucket(&self, parent: u64, name: &[u8]) -> Option<u32> {
        self.geometry.probe(parent, name).find(|bucket| {
            let slot = self.geometry.slot(*bucket).map(|at| self.memory.load32(at, Relaxed));
            matches!(slot, Some(SLOT_EMPTY | SLOT_TOMBSTONE))
        })
    }

    fn store_slot(&self, bucket: u32, value: u32) {
        if let Some(at) = self.geometry.slot(bucket) {
            self.memory.store32(at, value, Release);
        }
    }

    fn store_chain(&self, cell: u32, offset: usize, value: u32) {
        if let Some(at) = self.geometry.chain(cell) {
            self.memory.store32(at + offset, value, Release);
        }
    }

    fn start_chain(&self, cell: u32, id: u64, number: u32, next: u32) {
        let Some(at) = self.geometry.chain(cell) else { return };
        // whoever sees one of the stores below sees that the cell was freed
        self.memory.fence(Release);
        self.memory.store32(at + chain::ENTRY, number + 1, Relaxed);
        self.memory.store32(at + chain::NEXT, next, Relaxed);
        self.memory.store32(at + chain::HEAD, 0, Relaxed);
        self.memory.store64(at + chain::ID, id, Release);
    }

    /// Counts one change.
    pub fn advance(&self) {
        let generation = self.memory.load64(header::GEN, Relaxed);
        self.memory.store64(header::GEN, generation.wrapping_add(1), Release);
    }

    /// Sets the counters of a map that nobody sees yet.
    pub fn set_counters(&self, generation: u64, attribute_changes: u64, last_id: u64) {
        self.memory.store64(header::LAST_ID, last_id, Relaxed);
        self.memory.store64(header::CHG, attribute_changes, Relaxed);
        self.memory.store64(header::GEN, generation, Release);
    }

    /// Remembers the highest id given out; comes before the entry that has it.
    pub fn set_last_id(&self, id: u64) {
        self.memory.store64(header::LAST_ID, id, Release);
    }

    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.memory.load64(header::LAST_ID, Relaxed)
    }

    /// Tells every reader that another map has taken this one's place.
    pub fn mark_replaced(&self) {
        self.memory.store64(header::GEN, GEN_REPLACED, Release);
    }

    /// Writes the root directory, which has no name and no slot.
    pub fn plant_root(&self, fields: Fields) {
        self.fill(ROOT_ENTRY, &Fields { id: ID_ROOT, parent: 0, cell: ROOT_CELL, ..fields });
        self.start_chain(ROOT_CELL, ID_ROOT, ROOT_ENTRY, 0);
    }

    /// Adds an object in front of its siblings; its id must be the highest so far.
    pub fn insert(&self, place: Place, parent_cell: u32, fields: &Fields) {
        let head = self.geometry.chain(parent_cell);
        let first = head.map_or(0, |at| self.memory.load32(at + chain::HEAD, Relaxed));
        self.fill(place.entry, fields);
        self.start_chain(place.cell, fields.id, place.entry, first);
        self.store_slot(place.bucket, place.entry + 1);
        self.store_chain(parent_cell, chain::HEAD, place.cell + 1);
        self.advance();
    }

    /// Puts the new entry `place.entry` of an object where `old` was; id and cell stay.
    pub fn replace(&self, place: Place, old: u32, fields: &Fields) {
        self.fill(place.entry, fields);
        self.store_slot(place.bucket, place.entry + 1);
        self.store_chain(place.cell, chain::ENTRY, place.entry + 1);
        self.clear(old);
        self.advance();
    }

    /// Takes an object out of the index, the chain and the entries, in this order.
    pub fn remove(&self, place: Place, before: Before) {
        self.store_slot(place.bucket, SLOT_TOMBSTONE);
        if let Some(at) = self.geometry.chain(place.cell) {
            let next = self.memory.load32(at + chain::NEXT, Relaxed);
            match before {
                Before::Directory(cell) => self.store_chain(cell, chain::HEAD, next),
                Before::Sibling(cell) => self.store_chain(cell, chain::NEXT, next),
            }
            self.memory.store64(at + chain::ID, ID_FREE, Release);
        }
        self.clear(place.entry);
        self.sweep(place.bucket);
        self.advance();
    }

    /// Empties tombstones that no search needs to pass: those before an empty slot.
    fn sweep(&self, bucket: u32) {
        let mask = self.geometry.n_buckets - 1;
        let value = |bucket| {
            self.geometry.slot(bucket).map_or(SLOT_EMPTY, |at| self.memory.load32(at, Relaxed))
        };
        if value(bucket.wrapping_add(1) & mask) != SLOT_EMPTY {
            return;
        }
        let mut here = bucket;
        for _ in 0..self.geometry.n_buckets {
            if value(here) != SLOT_TOMBSTONE {
                return;
            }
            self.store_slot(here, SLOT_EMPTY);
            here = here.wrapping_sub(1) & mask;
        }
    }

    /// Writes an object's mode and owner in the kernel's stead, and counts the change.
    pub fn set_attributes(&self, cell: u32, id: u64, attributes: Attributes) {
        let Some(at) = self.geometry.attr(cell) else { return };
        let seq = self.memory.load32(at + attr::SEQ, Relaxed) | 1;
        self.memory.store32(at + attr::SEQ, seq, Relaxed);
        self.memory.fence(Release);
        self.memory.store32(at + attr::MODE, attributes.mode, Relaxed);
        self.memory.store64(at + attr::ID, id, Relaxed);
        self.memory.store32(at + attr::UID, attributes.uid, Relaxed);
        self.memory.store32(at + attr::GID, attributes.gid, Relaxed);
        self.memory.store64(at + attr::STAMP, attributes.stamp, Relaxed);
        self.memory.store32(at + attr::SEQ, seq.wrapping_add(1), Release);
        let changes = self.memory.load64(header::CHG, Relaxed);
        self.memory.store64(header::CHG, changes.wrapping_add(1), Release);
    }
}

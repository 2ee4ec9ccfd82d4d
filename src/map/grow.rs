//! Stage 6: when a map runs short: first what was retired, then another, larger map.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io;

use super::Node;
use super::layout::{AUX_MAX, GEN_REPLACED, Geometry, MAX_ENTRIES, ROOT_CELL};
use super::object::Object;
use super::protocol::{CellState, Table};
use super::publish::Place;
use super::region::Region;
use super::space::{Pool, Short, Space, Strings, Text};
use super::writer::{MapError, MapWriter};

/// Tries with another seed or size before the map counts as full.
const ATTEMPTS: u32 = 6;

/// An object's cell with its bucket, name and aux in the new map.
type Moved = (u32, u32, Text, Text);

impl MapWriter {
    /// Tries, reclaims what was retired, then replaces the map by larger ones.
    pub(super) fn with_room<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Short>,
    ) -> Result<T, MapError> {
        for _ in 0..ATTEMPTS {
            let short = match attempt(self) {
                Ok(done) => return Ok(done),
                Err(short) => short,
            };
            if short != Short::Slots && self.reclaim() {
                continue;
            }
            let Geometry { n_entries, strings_len, .. } = self.table.geometry;
            let entries = if short == Short::Entries { n_entries * 2 } else { n_entries };
            // holes between live strings close by themselves in the new map
            let strings = (self.live_text() + u64::from(AUX_MAX) + 1) * 2;
            self.republish(entries, strings.max(strings_len))?;
        }
        Err(MapError::Full)
    }

    fn reclaim(&mut self) -> bool {
        if !self.space.has_retired() {
            return false;
        }
        let synced = self.kernel.as_mut().is_none_or(|kernel| kernel.sync().is_ok());
        if synced {
            self.space.reclaim();
        }
        synced
    }

    fn live_text(&self) -> u64 {
        let texts = self.objects.iter().flatten().flat_map(|object| [object.name, object.aux]);
        texts.map(|text| u64::from(text.len).next_multiple_of(8)).sum()
    }

    /// Replaces the map by a new one with all its objects; numbers of entries and cells stay.
    pub(super) fn republish(&mut self, entries: u32, strings: u64) -> Result<(), MapError> {
        if entries > MAX_ENTRIES {
            return Err(MapError::Full);
        }
        let mut order: Vec<u32> =
            self.objects.iter().flatten().map(|object| object.place.cell).collect();
        order.sort_unstable_by_key(|cell| self.object(*cell).map(|object| object.id));
        for attempt in 0..ATTEMPTS {
            // names that crowd one bucket need another seed first, then more buckets
            let entries = entries.saturating_mul(1 << (attempt / 2)).min(MAX_ENTRIES);
            let table = fresh_table(entries, strings, Some(self.table.geometry.id_space))?;
            let mut texts = Strings::new(table.geometry.strings_len, std::iter::empty());
            let Some(moved) = self.copy_into(&table, &order, &mut texts) else { continue };
            self.set_counters(&table);
            // before anything of ours changes: if the kernel refuses, the old map stands
            self.hand_over(&table)?;
            self.settle_into(table, texts, moved);
            return Ok(());
        }
        Err(MapError::Full)
    }

    fn copy_into(
        &self,
        table: &Table<Region>,
        order: &[u32],
        texts: &mut Strings,
    ) -> Option<Vec<Moved>> {
        let mut moved = Vec::with_capacity(order.len());
        table.plant_root(Object::root().fields(0));
        for object in order.iter().filter_map(|cell| self.object(*cell)) {
            let cell = object.place.cell;
            if let CellState::Valid(attributes) = self.table.attributes(cell, object.id) {
                table.set_attributes(cell, object.id, attributes);
            }
            if cell == ROOT_CELL {
                continue;
            }
            let parent = self.object(object.parent)?;
            let aux = object.node.as_ref().map_or(&[][..], Node::aux);
            let (name, text) = (texts.take(object.base().len())?, texts.take(aux.len())?);
            let bucket = table.free_bucket(parent.id, object.base())?;
            table.write_string(name.offset, object.base());
            table.write_string(text.offset, aux);
            let mut fields = object.fields(parent.id);
            (fields.name_off, fields.aux_off) = (name.offset, text.offset);
            table.insert(Place { bucket, ..object.place }, object.parent, &fields);
            moved.push((cell, bucket, name, text));
        }
        Some(moved)
    }

    fn set_counters(&self, table: &Table<Region>) {
        let generation = match self.table.generation() {
            GEN_REPLACED => 0,
            generation => generation,
        };
        table.set_counters(generation + 1, self.table.attribute_changes(), self.last_id);
    }

    fn settle_into(&mut self, table: Table<Region>, strings: Strings, moved: Vec<Moved>) {
        for (cell, bucket, name, aux) in moved {
            if let Some(object) = self.object_mut(cell) {
                object.place.bucket = bucket;
                (object.name, object.aux) = (name, aux);
            }
        }
        let entries = table.geometry.n_entries;
        self.objects.resize_with(usize::try_from(entries).unwrap_or(0), || None);
        let used: HashSet<u32> =
            self.objects.iter().flatten().map(|object| object.place.entry).collect();
        self.space = Space {
            entries: Pool::new(entries, |n| used.contains(&n)),
            cells: Pool::new(entries, |n| self.object(n).is_some()),
            strings,
        };
        let old = std::mem::replace(&mut self.table, table);
        old.mark_replaced();
        self.replaced = true;
        self.republished += 1;
    }
}

/// An empty map; one without an id space gets a new one.
pub(super) fn fresh_table(
    entries: u32,
    strings: u64,
    id_space: Option<u64>,
) -> io::Result<Table<Region>> {
    let mut bytes = [0_u8; 24];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let mut words = [0; 3];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let geometry = Geometry::plan(
        entries,
        strings,
        page,
        [words[0], words[1]],
        id_space.unwrap_or(words[2] | 1),
    )
    .ok_or_else(|| io::Error::other("the map would pass its limits"))?;
    Ok(Table { memory: Region::create(&geometry)?, geometry })
}

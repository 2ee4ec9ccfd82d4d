//! Stage 6: everything that can be wrong with a map, by name.
//!
//! Works on a copy of all entries; under a writer it may name what is only in the middle of a
//! change, so callers look again.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::Ordering::Acquire;

use super::layout::{
    E_PENDING, ID_FREE, ID_ROOT, ROOT_CELL, ROOT_ENTRY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT,
    SLOT_EMPTY, SLOT_TOMBSTONE, chain, entry,
};
use super::protocol::{Entry, Glance, Listed, Memory, Search, Table, Wanted};

/// Problems after this many are not named: a hostile map has no end of them.
const MOST: usize = 1000;

/// Every problem that the map has now.
#[must_use]
pub fn problems<M: Memory>(table: &Table<M>) -> Vec<String> {
    let mut found = Findings { table, problems: Vec::new() };
    let live = found.entries();
    let by_id = found.identities(&live);
    for object in &live {
        found.object(object, &by_id);
    }
    found.index();
    found.chains(&live);
    found.cells(&live);
    found.problems.truncate(MOST);
    found.problems
}

struct Findings<'a, M> {
    table: &'a Table<M>,
    problems: Vec<String>,
}

fn called(object: &Entry) -> String {
    let name = object.name.escape_ascii();
    format!("entry {} (id {}, \"{name}\")", object.number, object.fields.id)
}

impl<M: Memory> Findings<'_, M> {
    fn say(&mut self, problem: String) {
        if self.problems.len() < MOST {
            self.problems.push(problem);
        }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let mut live = Vec::new();
        for number in 0..self.table.geometry.n_entries {
            let Some(at) = self.table.geometry.entry(number) else { break };
            let seq = self.table.memory.load32(at + entry::SEQ, Acquire);
            let id = self.table.memory.load64(at + entry::ID, Acquire);
            match self.table.glance(number, Wanted::Any) {
                Glance::Is(object) => live.push(object),
                Glance::Torn if seq & 1 == 1 => {
                    self.say(format!("entry {number}: half written"));
                }
                Glance::Torn => self.say(format!("entry {number}: attributes half written")),
                Glance::Other(_) if id == ID_FREE => {}
                Glance::Other(_) => self.say(format!("entry {number}: a string is out of range")),
            }
        }
        live
    }

    fn identities<'e>(&mut self, live: &'e [Entry]) -> HashMap<u64, &'e Entry> {
        let mut by_id: HashMap<u64, &Entry> = HashMap::new();
        let mut cells = HashMap::new();
        for object in live {
            if let Some(other) = by_id.insert(object.fields.id, object) {
                self.say(format!("{}: same id as entry {}", called(object), other.number));
            }
            if let Some(other) = cells.insert(object.fields.cell, object.number) {
                self.say(format!("{}: same cell as entry {other}", called(object)));
            }
        }
        let last_id = self.table.last_id();
        if let Some(id) = by_id.keys().copied().max().filter(|id| *id > last_id) {
            self.say(format!("id {id} is above the highest given out, {last_id}"));
        }
        let root = by_id.get(&ID_ROOT).filter(|root| root.is_dir() && root.number == ROOT_ENTRY);
        if root.is_none_or(|root| root.fields.cell != ROOT_CELL) {
            self.say("no root directory in entry 0, cell 0".to_owned());
        }
        by_id
    }

    fn object(&mut self, object: &Entry, by_id: &HashMap<u64, &Entry>) {
        let fields = &object.fields;
        let aux = !object.aux.is_empty();
        let pending = fields.flags & E_PENDING != 0;
        let typed = match fields.mode & S_IFMT {
            S_IFDIR => !aux && fields.rdev == 0,
            S_IFLNK => aux && !object.aux.contains(&0) && fields.rdev == 0,
            S_IFCHR | S_IFBLK => aux == pending,
            _ => false,
        };
        if !typed {
            self.say(format!("{}: mode {:o} does not fit", called(object), fields.mode));
        }
        if fields.id == ID_ROOT {
            return;
        }
        if !super::is_name(&object.name) {
            self.say(format!("{}: not a name", called(object)));
        }
        match by_id.get(&fields.parent) {
            Some(parent) if parent.is_dir() && parent.fields.id < fields.id => {}
            Some(_) => self.say(format!("{}: parent is no older directory", called(object))),
            None => self.say(format!("{}: no parent {}", called(object), fields.parent)),
        }
        match self.table.find(fields.parent, &object.name) {
            Search::Found(other, _) if other.number == object.number => {}
            Search::Found(other, _) => {
                self.say(format!("{}: same name as entry {}", called(object), other.number));
            }
            Search::Absent => {
                let probe = self.table.geometry.max_probe;
                self.say(format!("{}: not in the index within {probe} slots", called(object)));
            }
            Search::Busy => self.say(format!("{}: never at rest", called(object))),
        }
    }

    fn index(&mut self) {
        let mut seen: HashMap<u32, u32> = HashMap::new();
        for bucket in 0..self.table.geometry.n_buckets {
            let Some(at) = self.table.geometry.slot(bucket) else { break };
            let slot = self.table.memory.load32(at, Acquire);
            if matches!(slot, SLOT_EMPTY | SLOT_TOMBSTONE) {
                continue;
            }
            if !matches!(self.table.glance(slot - 1, Wanted::Any), Glance::Is(_)) {
                self.say(format!("slot {bucket}: entry {} is not a live one", slot - 1));
            }
            if let Some(other) = seen.insert(slot, bucket) {
                self.say(format!("slot {bucket}: same entry as slot {other}"));
            }
        }
    }

    fn chains(&mut self, live: &[Entry]) {
        let mut listed = 0;
        for dir in live.iter().filter(|object| object.is_dir()) {
            let mut children = 0;
            let end = self.table.list(dir.fields.id, dir.fields.cell, |_| children += 1);
            listed += children;
            if end != Listed::Done {
                self.say(format!("{}: its chain is broken", called(dir)));
            }
        }
        if listed + 1 != live.len() {
            self.say(format!(
                "{listed} entries are in chains, of {}",
                live.len().saturating_sub(1)
            ));
        }
    }

    fn cells(&mut self, live: &[Entry]) {
        let owners: HashMap<u32, &Entry> = live.iter().map(|e| (e.fields.cell, e)).collect();
        for cell in 0..self.table.geometry.n_entries {
            let Some(at) = self.table.geometry.chain(cell) else { break };
            let id = self.table.memory.load64(at + chain::ID, Acquire);
            let number = self.table.memory.load32(at + chain::ENTRY, Acquire);
            match owners.get(&cell) {
                Some(owner) if owner.fields.id == id && owner.number + 1 == number => {}
                Some(owner) => self.say(format!("{}: cell {cell} is not its own", called(owner))),
                None if id == ID_FREE => {}
                None => self.say(format!("cell {cell}: id {id} is nobody's")),
            }
        }
    }
}

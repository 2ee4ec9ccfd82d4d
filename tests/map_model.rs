//! The writer-reader protocol under loom: the very code of the library, on modelled atomics.
//!
//! Entries' seq, id, parent and rdev, names, slots, chains and attribute cells are loom's, so that
//! every allowed order of their loads and stores is tried. The other words are plain memory, which
//! is sound only because the models never change the value of one that a reader can see.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

use loom::sync::Arc;
use mapdev::map::layout::{Geometry, ID_ROOT, ROOT_CELL, S_IFCHR, S_IFDIR, attr, chain, entry};
use mapdev::map::protocol::{
    Attributes, Entry, Fields, Glance, Listed, Memory, Search, Table, Wanted,
};
use mapdev::map::publish::{Before, Place};

/// What a deliberately broken memory does otherwise than it is told.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Stores with release become relaxed.
    Stores,
    /// Loads with acquire become relaxed.
    Loads,
    /// Writers' fences do nothing.
    ReleaseFences,
    /// Readers' fences do nothing.
    AcquireFences,
}

enum Word {
    Model32(loom::sync::atomic::AtomicU32),
    Model64(loom::sync::atomic::AtomicU64),
    Plain(std::sync::atomic::AtomicU64),
}

struct Modelled {
    words: HashMap<usize, Word>,
    fault: Fault,
}

const ENTRIES: u32 = 4;

impl Modelled {
    fn new(geometry: &Geometry, fault: Fault) -> Self {
        let mut words = HashMap::new();
        let m32 = || Word::Model32(loom::sync::atomic::AtomicU32::new(0));
        let m64 = || Word::Model64(loom::sync::atomic::AtomicU64::new(0));
        for number in 0..ENTRIES {
            let at = geometry.entry(number).unwrap();
            words.insert(at + entry::SEQ, m32());
            words.insert(at + entry::ID, m64());
            words.insert(at + entry::PARENT, m64());
            words.insert(at + entry::RDEV, m32());
            let at = geometry.chain(number).unwrap();
            words.insert(at + chain::ID, m64());
            for offset in [chain::ENTRY, chain::NEXT, chain::HEAD] {
                words.insert(at + offset, m32());
            }
            let at = geometry.attr(number).unwrap();
            words.insert(at + attr::ID, m64());
            for offset in [attr::SEQ, attr::UID, attr::GID] {
                words.insert(at + offset, m32());
            }
            words.insert(geometry.string(number * 8, 8).unwrap(), m64());
        }
        for bucket in 0..geometry.n_buckets {
            words.insert(geometry.slot(bucket).unwrap(), m32());
        }
        for at in (0..usize::try_from(geometry.total_len).unwrap()).step_by(4) {
            words.entry(at).or_insert_with(|| Word::Plain(0.into()));
        }
        Self { words, fault }
    }

    fn loads(&self, order: Ordering) -> Ordering {
        if self.fault == Fault::Loads { Relaxed } else { order }
    }

    fn stores(&self, order: Ordering) -> Ordering {
        if self.fault == Fault::Stores { Relaxed } else { order }
    }
}

impl Memory for Modelled {
    fn load32(&self, at: usize, order: Ordering) -> u32 {
        match &self.words[&at] {
            Word::Model32(word) => word.load(self.loads(order)),
            Word::Model64(_) => panic!("a word of another width at {at}"),
            Word::Plain(word) => u32::try_from(word.load(SeqCst)).unwrap(),
        }
    }

    fn load64(&self, at: usize, order: Ordering) -> u64 {
        match &self.words[&at] {
            Word::Model64(word) => word.load(self.loads(order)),
            Word::Model32(_) => panic!("a word of another width at {at}"),
            Word::Plain(word) => word.load(SeqCst),
        }
    }

    fn store32(&self, at: usize, value: u32, order: Ordering) {
        match &self.words[&at] {
            Word::Model32(word) => word.store(value, self.stores(order)),
            Word::Model64(_) => panic!("a word of another width at {at}"),
            Word::Plain(word) => word.store(value.into(), SeqCst),
        }
    }

    fn store64(&self, at: usize, value: u64, order: Ordering) {
        match &self.words[&at] {
            Word::Model64(word) => word.store(value, self.stores(order)),
            Word::Model32(_) => panic!("a word of another width at {at}"),
            Word::Plain(word) => word.store(value, SeqCst),
        }
    }

    fn fence(&self, order: Ordering) {
        let skipped = match self.fault {
            Fault::ReleaseFences => order == Release,
            Fault::AcquireFences => order == Acquire,
            Fault::None | Fault::Stores | Fault::Loads => false,
        };
        if !skipped {
            loom::sync::atomic::fence(order);
        }
    }

    fn pause(&self) {
        loom::thread::yield_now();
    }
}

type Map = Table<Modelled>;

/// Each object's number is in all its words, so that a mixture shows.
fn fields(id: u64, parent: u64, cell: u32, rdev: u32, name_off: u32) -> Fields {
    let mode = if rdev == 0 { S_IFDIR } else { S_IFCHR };
    Fields { id, parent, cell, rdev, name_off, name_len: 1, mode, ..Fields::default() }
}

fn place(map: &Map, entry: u32, cell: u32, parent: u64, name: &[u8]) -> Place {
    Place { entry, cell, bucket: map.free_bucket(parent, name).unwrap() }
}

/// A map with a root, where `names` are children: entry, cell and string n, id n + 1, rdev id.
fn map(fault: Fault, names: &[&[u8]]) -> Arc<Map> {
    let geometry = Geometry::plan(ENTRIES, 64, 64, [1, 2], 3).unwrap();
    let map = Map { memory: Modelled::new(&geometry, fault), geometry };
    map.plant_root(Fields { mode: S_IFDIR, ..Fields::default() });
    for (n, name) in (1_u32..).zip(names) {
        map.write_string(n * 8, name);
        let place = place(&map, n, n, ID_ROOT, name);
        map.insert(place, ROOT_CELL, &fields(u64::from(n) + 1, ID_ROOT, n, n + 1, n * 8));
    }
    Arc::new(map)
}

fn bucket(map: &Map, name: &[u8]) -> u32 {
    let search = map.find(ID_ROOT, name);
    let Search::Found(_, bucket) = search else { panic!("{search:?}") };
    bucket
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(test);
}

fn replace_while_read(fault: Fault) {
    model(move || {
        let map = map(fault, &[b"a"]);
        let (old, writer) = (bucket(&map, b"a"), Arc::clone(&map));
        let thread = loom::thread::spawn(move || {
            let switch = |entry, old_entry, rdev| {
                let place = Place { entry, cell: 1, bucket: old };
                writer.replace(place, old_entry, &fields(2, ID_ROOT, 1, rdev, 8));
            };
            switch(2, 1, 12);
            // the freed entry is used anew at once
            switch(1, 2, 22);
        });
        match map.find(ID_ROOT, b"a") {
            Search::Found(Entry { fields, .. }, _) => {
                assert_eq!((fields.id, fields.parent), (2, ID_ROOT), "torn");
                assert!([2, 12, 22].contains(&fields.rdev), "torn");
            }
            Search::Absent => panic!("a false absence"),
            Search::Busy => {}
        }
        thread.join().unwrap();
    });
}

/// The entry, cell, slot and string of one name go to another at once.
fn reuse_while_read(fault: Fault) {
    model(move || {
        let map = map(fault, &[b"a"]);
        let (old, writer) = (bucket(&map, b"a"), Arc::clone(&map));
        let thread = loom::thread::spawn(move || {
            let gone = Place { entry: 1, cell: 1, bucket: old };
            writer.remove(gone, Before::Directory(ROOT_CELL));
            writer.write_string(8, b"b");
            let place = place(&writer, 1, 1, ID_ROOT, b"b");
            writer.insert(place, ROOT_CELL, &fields(3, ID_ROOT, 1, 3, 8));
        });
        for (name, id, rdev) in [(b"a", 2, 2), (b"b", 3, 3)] {
            if let Search::Found(Entry { fields, .. }, _) = map.find(ID_ROOT, name) {
                assert_eq!((fields.id, fields.rdev), (id, rdev), "torn");
            }
        }
        thread.join().unwrap();
        assert_eq!(map.find(ID_ROOT, b"a"), Search::Absent);
        assert!(matches!(map.find(ID_ROOT, b"b"), Search::Found(..)));
    });
}

/// A whole copy, its string among it, is of one object only.
fn reuse_while_copied(fault: Fault) {
    model(move || {
        let map = map(fault, &[b"a"]);
        let (old, writer) = (bucket(&map, b"a"), Arc::clone(&map));
        let thread = loom::thread::spawn(move || {
            let gone = Place { entry: 1, cell: 1, bucket: old };
            writer.remove(gone, Before::Directory(ROOT_CELL));
            writer.write_string(8, b"b");
            let place = place(&writer, 2, 1, ID_ROOT, b"b");
            writer.insert(place, ROOT_CELL, &fields(3, ID_ROOT, 1, 3, 8));
        });
        if let Glance::Is(copy) = map.glance(1, Wanted::Any) {
            assert_eq!((copy.fields.id, &copy.name[..]), (2, &b"a"[..]), "torn");
        }
        thread.join().unwrap();
    });
}

fn listed(map: &Map, dir: u64, cell: u32) -> (Listed, Vec<u64>) {
    let mut ids = Vec::new();
    let end = map.list(dir, cell, |entry| {
        assert_eq!((entry.fields.parent, u64::from(entry.fields.rdev)), (dir, entry.fields.id));
        ids.push(entry.fields.id);
    });
    (end, ids)
}

/// While one child goes and its cell becomes the last child of another directory, the older
/// sibling is listed.
fn insert_while_listed(fault: Fault) {
    model(move || {
        // root holds a (id 2) and b (id 3); b is in front
        let map = map(fault, &[b"a", b"b"]);
        let (old, writer) = (bucket(&map, b"b"), Arc::clone(&map));
        let thread = loom::thread::spawn(move || {
            let gone = Place { entry: 2, cell: 2, bucket: old };
            writer.remove(gone, Before::Directory(ROOT_CELL));
            // cell 2 starts anew below a, where it is the last of its chain
            let place = place(&writer, 3, 2, 2, b"c");
            writer.insert(place, 1, &fields(4, 2, 2, 4, 24));
        });
        let (end, ids) = listed(&map, ID_ROOT, ROOT_CELL);
        if end == Listed::Done {
            assert!(ids == [3, 2] || ids == [2], "{ids:?}");
        }
        thread.join().unwrap();
        assert_eq!(listed(&map, ID_ROOT, ROOT_CELL), (Listed::Done, vec![2]));
        assert_eq!(listed(&map, 2, 1), (Listed::Done, vec![4]));
    });
}

fn chown_while_read(fault: Fault) {
    model(move || {
        let map = map(fault, &[b"a"]);
        let writer = Arc::clone(&map);
        let thread = loom::thread::spawn(move || {
            for id in [100, 200] {
                let owner = Attributes { mode: 0, uid: id, gid: id, stamp: 0 };
                writer.set_attributes(1, 2, owner);
            }
        });
        match map.find(ID_ROOT, b"a") {
            Search::Found(Entry { fields, .. }, _) => {
                assert_eq!(fields.uid, fields.gid, "torn");
                assert!([0, 100, 200].contains(&fields.uid), "torn");
            }
            Search::Absent => panic!("a false absence"),
            Search::Busy => {}
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_name_that_is_replaced_is_never_torn_nor_absent() {
    replace_while_read(Fault::None);
}

#[test]
fn what_was_a_name_can_be_another_at_once() {
    reuse_while_read(Fault::None);
}

#[test]
fn a_copy_with_its_string_is_of_one_object() {
    reuse_while_copied(Fault::None);
}

#[test]
fn a_listing_misses_nothing_while_a_cell_goes_to_another_directory() {
    insert_while_listed(Fault::None);
}

#[test]
fn an_owner_is_never_half_of_two() {
    chown_while_read(Fault::None);
}

type Named = (&'static str, fn(Fault));

/// Whether the model finds what is wrong: the proof that the tests above can fail.
fn is_found(fault: Fault) -> Vec<&'static str> {
    let tests: [Named; 5] = [
        ("replace", replace_while_read),
        ("reuse", reuse_while_read),
        ("copy", reuse_while_copied),
        ("list", insert_while_listed),
        ("chown", chown_while_read),
    ];
    let fails = |test: fn(Fault)| std::panic::catch_unwind(|| test(fault)).is_err();
    tests.into_iter().filter(|(_, test)| fails(*test)).map(|(name, _)| name).collect()
}

#[test]
fn a_weak_order_of_stores_is_found() {
    assert_eq!(is_found(Fault::Stores), ["replace", "chown"]);
}

#[test]
fn a_weak_order_of_loads_is_found() {
    assert_eq!(is_found(Fault::Loads), ["replace", "reuse", "chown"]);
}

#[test]
fn a_missing_fence_of_the_writer_is_found() {
    assert_eq!(is_found(Fault::ReleaseFences), ["replace", "reuse", "copy", "list", "chown"]);
}

#[test]
fn a_missing_fence_of_the_reader_is_found() {
    assert_eq!(is_found(Fault::AcquireFences), ["replace", "reuse", "copy", "chown"]);
}

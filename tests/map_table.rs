//! The map as a table: what the writer was told is what a reader in another mapping finds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use mapdev::map::layout::{E_BUILTIN, E_LIVE, E_MODULE};
use mapdev::map::{Change, Kind, Listing, Lookup, MapError, MapReader, MapWriter, Node, Walk};
use proptest::prelude::*;

fn char_node(minor: u32) -> Node {
    let kind = Kind::Char { major: 4, minor };
    Node { kind, mode: 0o620, uid: 0, gid: 5, flags: E_LIVE }
}

fn reader(map: &MapWriter) -> MapReader {
    MapReader::open(map.read_only_fd().unwrap()).unwrap()
}

fn found(reader: &MapReader, path: &[u8]) -> mapdev::map::Entry {
    let lookup = reader.lookup(path);
    let Lookup::Found(entry) = lookup else { panic!("{}: {lookup:?}", path.escape_ascii()) };
    entry
}

#[test]
fn an_identical_upsert_writes_nothing() {
    let mut map = MapWriter::create(16).unwrap();
    assert_eq!(map.upsert(b"tty1", &char_node(1)).unwrap(), Change::Added);
    let (reader, generation) = (reader(&map), map.generation());
    assert_eq!(map.upsert(b"tty1", &char_node(1)).unwrap(), Change::Unchanged);
    assert_eq!((reader.generation(), reader.attribute_changes()), (generation, 0));
}

#[test]
fn a_change_of_owner_keeps_the_entry_and_goes_to_its_cell() {
    let mut map = MapWriter::create(16).unwrap();
    map.upsert(b"tty1", &char_node(1)).unwrap();
    let reader = reader(&map);
    let before = found(&reader, b"tty1");
    let mine = Node { uid: 1000, ..char_node(1) };
    assert_eq!(map.upsert(b"tty1", &mine).unwrap(), Change::Attributes);
    let after = found(&reader, b"tty1");
    assert_eq!((after.number, after.fields.id), (before.number, before.fields.id));
    assert_eq!((before.fields.uid, after.fields.uid), (0, 1000));
    assert_eq!(reader.attribute_changes(), 1);
    let other = Node { kind: Kind::Char { major: 4, minor: 2 }, ..mine };
    assert_eq!(map.upsert(b"tty1", &other).unwrap(), Change::Replaced);
    let moved = found(&reader, b"tty1");
    assert_eq!((moved.fields.id, moved.fields.cell), (before.fields.id, before.fields.cell));
    assert_eq!((moved.minor(), moved.fields.uid), (2, 1000));
    assert_ne!(moved.number, before.number);
}

#[test]
fn directories_come_and_go_with_what_is_in_them() {
    let mut map = MapWriter::create(16).unwrap();
    map.upsert(b"bus/usb/001/002", &char_node(2)).unwrap();
    map.upsert(b"bus/usb/003", &char_node(3)).unwrap();
    let reader = reader(&map);
    let dir = found(&reader, b"bus/usb");
    assert!(dir.is_dir() && dir.permissions() == 0o755 && dir.fields.uid == 0);
    assert!(!map.remove(b"bus/usb"), "a directory is not removed by name");
    assert!(map.remove(b"bus/usb/001/002"));
    assert_eq!(reader.lookup(b"bus/usb/001"), Lookup::Absent);
    assert!(map.remove(b"bus/usb/003"));
    assert_eq!(reader.lookup(b"bus"), Lookup::Absent);
    assert_eq!(reader.list(b""), Listing::Found(Vec::new()));
    assert!(!map.remove(b"bus/usb/003"));
    assert_eq!(reader.verify(), Vec::<String>::new());
}

#[test]
fn a_listing_gives_each_child_once_newest_first() {
    let mut map = MapWriter::create(16).unwrap();
    for n in 0..300 {
        map.upsert(format!("input/event{n}").as_bytes(), &char_node(n)).unwrap();
    }
    map.upsert(b"null", &char_node(3)).unwrap();
    map.remove(b"input/event7");
    let Listing::Found(children) = reader(&map).list(b"input") else { panic!("it is there") };
    assert_eq!(children.len(), 299);
    assert!(children.is_sorted_by(|a, b| a.fields.id > b.fields.id));
    assert_eq!(children[0].name, b"event299");
    assert_eq!(reader(&map).list(b"null"), Listing::NotADirectory);
    assert_eq!(reader(&map).list(b"nowhere"), Listing::Absent);
}

#[test]
fn bad_paths_and_nodes_are_errors_and_change_nothing() {
    let mut map = MapWriter::create(16).unwrap();
    map.upsert(b"null", &char_node(3)).unwrap();
    map.upsert(b"net/tun", &char_node(200)).unwrap();
    let before = map.generation();
    let long = [b'a'; 256];
    let deep = b"a/".repeat(600);
    let bad: [&[u8]; 10] =
        [b"", b"/", b"/null", b"a//b", b"a/", b"./a", b"a/../b", b"a\0b", &long, &deep];
    for path in bad {
        let result = map.upsert(path, &char_node(1));
        assert!(matches!(result, Err(MapError::BadPath)), "{}", path.escape_ascii());
    }
    assert!(matches!(map.upsert(b"null/x/y", &char_node(1)), Err(MapError::NotADirectory)));
    assert!(matches!(map.upsert(b"net", &char_node(1)), Err(MapError::IsADirectory)));
    let link = |target: &[u8]| Node { kind: Kind::Link { target: target.into() }, ..char_node(0) };
    assert!(matches!(map.upsert(b"l", &link(b"")), Err(MapError::BadTarget)));
    assert!(matches!(map.upsert(b"l", &link(&[b'a'; 4096])), Err(MapError::BadTarget)));
    let number = Node { kind: Kind::Char { major: 1, minor: 1 << 20 }, ..char_node(0) };
    assert!(matches!(map.upsert(b"new/d", &number), Err(MapError::BadNumber)));
    assert_eq!(map.generation(), before);
    assert_eq!(map.upsert(b"l", &link(&[b'a'; 4095])).unwrap(), Change::Added);
    assert_eq!(found(&reader(&map), b"l").aux, [b'a'; 4095]);
}

#[test]
fn a_grown_map_keeps_numbers_and_tells_readers_of_the_old() {
    let mut map = MapWriter::create(16).unwrap();
    map.upsert(b"first", &char_node(1)).unwrap();
    map.upsert(b"first", &Node { uid: 7, ..char_node(1) }).unwrap();
    let old = reader(&map);
    let before = found(&old, b"first");
    assert!(!map.take_replaced());
    for n in 0..100 {
        map.upsert(format!("n{n}").as_bytes(), &char_node(n)).unwrap();
    }
    assert!(map.take_replaced() && !map.take_replaced());
    assert_eq!(old.lookup(b"first"), Lookup::Replaced);
    assert_eq!(old.list(b""), Listing::Replaced);
    assert_eq!(old.walk(), Walk::Replaced);
    let new = reader(&map);
    let after = found(&new, b"first");
    assert_eq!((after.number, after.fields.id), (before.number, before.fields.id));
    assert_eq!((after.fields.cell, after.fields.uid), (before.fields.cell, 7));
    assert_eq!(new.stats().entries, 102);
    assert_eq!(map.stats().entries, 101);
}

#[test]
fn a_small_map_that_only_churns_does_not_grow() {
    let mut map = MapWriter::create(16).unwrap();
    for n in 0..20_000_u32 {
        let name = format!("{}{}", "x".repeat((n % 37 + 1) as usize), n % 9);
        map.upsert(name.as_bytes(), &char_node(n)).unwrap();
        let link = Kind::Link { target: vec![b't'; (n % 61 + 1) as usize].into() };
        map.upsert(b"link", &Node { kind: link, ..char_node(0) }).unwrap();
        assert!(map.remove(name.as_bytes()));
    }
    let stats = map.stats();
    assert_eq!((stats.entries, stats.capacity), (1, 16));
    assert!(stats.bytes <= 32 * 1024, "{stats:?}");
    assert_eq!(reader(&map).verify(), Vec::<String>::new());
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(Vec<u8>, Node),
    Remove(Vec<u8>),
    Restart,
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        6 => (0..6_u8).prop_map(|n| vec![b'a' + n]),
        1 => prop::collection::vec(1..=255_u8, 1..40),
    ];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

fn node() -> impl Strategy<Value = Node> {
    let text = || prop::collection::vec(1..=255_u8, 1..80).prop_map(Vec::into_boxed_slice);
    let kind = prop_oneof![
        (0..4096_u32, 0..4_u32).prop_map(|(major, minor)| Kind::Char { major, minor }),
        (0..4_u32, 0..(1_u32 << 20)).prop_map(|(major, minor)| Kind::Block { major, minor }),
        text().prop_map(|target| Kind::Link { target }),
        (any::<bool>(), text()).prop_map(|(block, alias)| Kind::Pending { block, alias }),
    ];
    let flags = prop::sample::select(vec![0, E_BUILTIN, E_MODULE, E_LIVE]);
    let owner = (0..0o10_000_u32, any::<u32>(), 0..3_u32);
    (kind, owner, flags).prop_map(|(kind, (mode, uid, gid), flags)| {
        let mode = if matches!(kind, Kind::Link { .. }) { 0o777 } else { mode };
        Node { kind, mode, uid, gid, flags }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (path(), node()).prop_map(|(path, node)| Step::Upsert(path, node)),
        4 => path().prop_map(Step::Remove),
        1 => Just(Step::Restart),
    ]
}

fn is_path(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').all(|name| !name.is_empty() && name != b"." && name != b"..")
}

/// What the writer ought to say, of a plain table of paths.
fn allowed(model: &BTreeMap<Vec<u8>, Node>, path: &[u8]) -> bool {
    let mut cuts = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let mut below = path.to_vec();
    below.push(b'/');
    is_path(path)
        && cuts.all(|cut| !model.contains_key(&path[..cut]))
        && !model.keys().any(|other| other.starts_with(&below))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_reader_finds_just_what_was_written(steps in prop::collection::vec(step(), 1..150)) {
        let mut map = MapWriter::create(16).unwrap();
        let mut model: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
        let mut view = reader(&map);
        let mut ids = std::collections::HashMap::new();
        for step in steps {
            match step {
                Step::Upsert(path, node) => {
                    let result = map.upsert(&path, &node);
                    prop_assert_eq!(result.is_ok(), allowed(&model, &path));
                    if let Ok(change) = result {
                        let old = model.insert(path, node.clone());
                        prop_assert_eq!(change == Change::Added, old.is_none());
                        prop_assert_eq!(change == Change::Unchanged, old == Some(node));
                    }
                }
                Step::Remove(path) => {
                    let expected = model.remove(&path).is_some();
                    prop_assert_eq!(map.remove(&path), expected);
                }
                Step::Restart => {
                    let fd = map.as_fd().try_clone_to_owned().unwrap();
                    map = MapWriter::adopt(fd).unwrap();
                    prop_assert!(!map.take_replaced());
                }
            }
            if map.take_replaced() {
                prop_assert!(view.is_replaced());
                view = reader(&map);
            }
            let Walk::Found(all) = view.walk() else { panic!("nobody writes") };
            let nodes = all.iter().filter_map(|(path, e)| Some((path.clone(), Node::of(e)?)));
            prop_assert_eq!(nodes.collect::<BTreeMap<_, _>>(), model.clone());
            for (path, entry) in &all {
                prop_assert_eq!(&view.lookup(path), &Lookup::Found(entry.clone()));
                prop_assert!(entry.is_dir() || model.contains_key(path));
                let first = ids.entry(entry.fields.id).or_insert_with(|| path.clone());
                prop_assert_eq!(&*first, path, "an id is never used twice");
            }
            prop_assert_eq!(view.verify(), Vec::<String>::new());
        }
    }
}

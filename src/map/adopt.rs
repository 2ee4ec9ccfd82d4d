//! Stage 6: a restarted daemon takes its map back from the service manager's store.
//!
//! The index is the truth: what has no slot was not yet there or no longer. A map that its
//! writer left in the middle of a change is replaced by a sound one with the same objects, under
//! the same ids, entry and cell numbers. An object whose attributes were half written is left out:
//! absent until it is heard of again is better than somebody else's.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::layout::{
    GEN_REPLACED, ID_ROOT, ROOT_CELL, ROOT_ENTRY, S_IFDIR, S_IFMT, SLOT_EMPTY, SLOT_TOMBSTONE,
};
use super::object::Object;
use super::protocol::{Entry, Glance, Memory, Table, Wanted};
use super::publish::Place;
use super::region::{Region, RegionError};
use super::space::{Pool, Space, Strings, Text};
use super::writer::{MapError, MapWriter};
use super::{Node, is_name, is_path, verify};

/// Why a map cannot be taken back; the daemon makes a fresh one.
#[derive(Debug)]
pub enum AdoptError {
    Region(RegionError),
    /// Another map has taken its place.
    Replaced,
    /// It has no root directory.
    NoRoot,
    /// It needed repair, which failed.
    Repair(MapError),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(error) => error.fmt(f),
            Self::Replaced => f.write_str("wanted the current map, this one was replaced"),
            Self::NoRoot => f.write_str("wanted a map with a root directory"),
            Self::Repair(error) => write!(f, "map repair: {error}"),
        }
    }
}

impl std::error::Error for AdoptError {}

impl MapWriter {
    /// Goes on with the map of an earlier daemon: same objects, ids and attributes.
    ///
    /// After a repair the memory is another, see [`MapWriter::take_replaced`].
    ///
    /// # Errors
    /// When it is not this user's own sealed memory, or there is nothing sound in it.
    pub fn adopt(fd: OwnedFd) -> Result<Self, AdoptError> {
        let (memory, geometry) = Region::adopt(fd).map_err(AdoptError::Region)?;
        let table = Table { memory, geometry };
        if table.generation() == GEN_REPLACED {
            return Err(AdoptError::Replaced);
        }
        match table.glance(ROOT_ENTRY, Wanted::Object { id: ID_ROOT, cell: ROOT_CELL }) {
            Glance::Is(root) if root.fields.mode & S_IFMT == S_IFDIR => {}
            Glance::Is(_) | Glance::Other(_) | Glance::Torn => {
                table.mark_replaced();
                return Err(AdoptError::NoRoot);
            }
        }
        let (found, mut sound) = survey(&table);
        sound &= verify::problems(&table).is_empty();
        let entries = table.geometry.n_entries;
        let mut map = Self {
            last_id: table.last_id().max(ID_ROOT),
            objects: (0..entries).map(|_| None).collect(),
            table,
            space: Space::default(),
            names: HashMap::new(),
            replaced: false,
            republished: 0,
            adopted: true,
            kernel: None,
        };
        map.enrol(Object::root());
        sound &= map.enrol_found(found);
        if sound {
            map.count_space();
        } else {
            let geometry = map.table.geometry.clone();
            map.republish(entries, geometry.strings_len).map_err(AdoptError::Repair)?;
        }
        map.prune_all();
        Ok(map)
    }

    /// Whether it is an earlier run's, and not a new one.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// False when an object had to be left out.
    fn enrol_found(&mut self, found: Vec<(u32, Entry)>) -> bool {
        let mut directories = HashMap::from([(ID_ROOT, ROOT_CELL)]);
        let mut numbers = HashSet::from([ROOT_ENTRY]);
        let mut sound = true;
        for (bucket, entry) in found {
            let object = directories
                .get(&entry.fields.parent)
                .and_then(|parent| self.describe(*parent, bucket, &entry))
                .filter(|object| numbers.insert(object.place.entry));
            let Some(object) = object else {
                sound = false;
                continue;
            };
            if object.node.is_none() {
                directories.insert(object.id, object.place.cell);
            }
            self.enrol(object);
        }
        sound
    }

    fn describe(&self, parent: u32, bucket: u32, entry: &Entry) -> Option<Object> {
        let fields = &entry.fields;
        let above = self.object(parent)?;
        let mut path = above.path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        let free = usize::try_from(fields.cell).ok().and_then(|at| self.objects.get(at))?;
        let taken = free.is_some() || self.names.contains_key(&path[..]);
        let ids = above.id..=self.last_id;
        if taken
            || above.id == fields.id
            || !ids.contains(&fields.id)
            || !is_name(&entry.name)
            || !is_path(&path)
        {
            return None;
        }
        let name = Text { offset: fields.name_off, len: fields.name_len };
        let aux = Text { offset: fields.aux_off, len: fields.aux_len };
        let place = Place { entry: entry.number, cell: fields.cell, bucket };
        let mut object = Object::new(fields.id, Arc::from(path), parent, place, (name, aux));
        if fields.mode & S_IFMT != S_IFDIR {
            object.node = Some(Node::of(entry).filter(|node| node.check().is_ok())?);
        }
        Some(object)
    }

    fn count_space(&mut self) {
        let entries = self.table.geometry.n_entries;
        let used: HashSet<u32> = self.objects.iter().flatten().map(|o| o.place.entry).collect();
        let texts = self.objects.iter().flatten().flat_map(|object| [object.name, object.aux]);
        self.space = Space {
            entries: Pool::new(entries, |n| used.contains(&n)),
            cells: Pool::new(entries, |n| self.object(n).is_some()),
            strings: Strings::new(self.table.geometry.strings_len, texts),
        };
    }

    fn prune_all(&mut self) {
        let empty = |object: &Object| object.node.is_none() && object.first.is_none();
        let cells: Vec<u32> = (self.objects.iter().flatten())
            .filter_map(|object| empty(object).then_some(object.place.cell))
            .collect();
        cells.into_iter().for_each(|cell| self.prune(cell));
    }
}

/// What the index leads to, by id and with its bucket; false when some of it could not be read.
fn survey(table: &Table<Region>) -> (Vec<(u32, Entry)>, bool) {
    let mut found = Vec::new();
    let mut sound = true;
    for bucket in 0..table.geometry.n_buckets {
        let Some(at) = table.geometry.slot(bucket) else { break };
        let slot = table.memory.load32(at, std::sync::atomic::Ordering::Acquire);
        if matches!(slot, SLOT_EMPTY | SLOT_TOMBSTONE) {
            continue;
        }
        match table.glance(slot - 1, Wanted::Any) {
            Glance::Is(entry) => found.push((bucket, entry)),
            Glance::Other(_) | Glance::Torn => sound = false,
        }
    }
    found.sort_unstable_by_key(|(_, entry)| entry.fields.id);
    (found, sound)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;

    use super::super::region::killed;
    use super::super::{Kind, MapReader, Walk};
    use super::*;

    type Model = BTreeMap<Vec<u8>, Node>;

    fn node(minor: u32, mode: u32) -> Node {
        Node { kind: Kind::Char { major: 10, minor }, mode, uid: mode, gid: minor, flags: 0 }
    }

    fn link(target: &[u8]) -> Node {
        let kind = Kind::Link { target: target.into() };
        Node { kind, mode: 0o777, uid: 0, gid: 0, flags: 0 }
    }

    fn model(map: &MapWriter) -> Model {
        map.entries().map(|(path, node)| (path.to_vec(), node.clone())).collect()
    }

    fn as_read(map: &MapWriter) -> Model {
        let reader = MapReader::open(map.read_only_fd().unwrap()).unwrap();
        assert_eq!(reader.verify(), Vec::<String>::new());
        let Walk::Found(all) = reader.walk() else { panic!("nobody writes") };
        all.into_iter().filter_map(|(path, entry)| Some((path, Node::of(&entry)?))).collect()
    }

    fn start() -> MapWriter {
        let mut map = MapWriter::create(16).unwrap();
        for (n, path) in ["null", "net/tun", "input/event0", "snd/by-id/a"].iter().enumerate() {
            map.upsert(path.as_bytes(), &node(u32::try_from(n).unwrap(), 0o600)).unwrap();
        }
        map.upsert(b"fd", &link(b"/proc/self/fd")).unwrap();
        map.upsert(b"null", &node(0, 0o666)).unwrap();
        map
    }

    fn again(map: &MapWriter) -> Result<MapWriter, AdoptError> {
        MapWriter::adopt(map.as_fd().try_clone_to_owned().unwrap())
    }

    #[test]
    fn a_restarted_writer_goes_on_where_the_old_one_stopped() {
        let mut old = start();
        assert!(old.remove(b"net/tun"));
        let mut new = again(&old).unwrap();
        assert!(!new.take_replaced(), "a sound map is kept");
        assert_eq!(model(&new), model(&old));
        assert_eq!(new.last_id, old.last_id);
        drop(old);
        new.upsert(b"net/tun", &node(200, 0o666)).unwrap();
        for n in 0..100 {
            new.upsert(format!("tty{n}").as_bytes(), &node(n, 0o620)).unwrap();
        }
        assert!(new.take_replaced());
        assert_eq!(as_read(&new), model(&new));
    }

    #[test]
    fn a_replaced_map_is_not_taken_back() {
        let mut map = start();
        let old = map.as_fd().try_clone_to_owned().unwrap();
        map.republish(64, 4096).unwrap();
        assert!(matches!(MapWriter::adopt(old), Err(AdoptError::Replaced)));
    }

    /// Stops the writer at each store of `act`; all but `path` must be as before.
    fn kill_everywhere(path: &[u8], act: impl Fn(&mut MapWriter)) -> u64 {
        let mut repairs = 0;
        for stores in 0.. {
            let mut map = start();
            let before = model(&map);
            // the store of the service manager has the memory from before
            let stored = map.as_fd().try_clone_to_owned().unwrap();
            killed::after(Some(stores));
            act(&mut map);
            let finished = killed::stores_left() != Some(0);
            killed::after(None);
            let after = model(&map);
            drop(map);
            let mut adopted = match MapWriter::adopt(stored) {
                Ok(adopted) => adopted,
                Err(AdoptError::Replaced) => {
                    assert!(stores > 100, "the new map was complete: {stores}");
                    return repairs;
                }
                Err(error) => panic!("after {stores} stores: {error}"),
            };
            repairs += u64::from(adopted.take_replaced());
            let mut found = as_read(&adopted);
            assert_eq!(found, model(&adopted));
            let one = found.remove(path);
            let without = |model: &Model| {
                let mut model = model.clone();
                (model.remove(path), model)
            };
            let ((old, others), (new, _)) = (without(&before), without(&after));
            assert_eq!(found, others, "after {stores} stores");
            if let Some(one) = one {
                let known = |part: fn(&Node) -> (u32, u32, u32)| {
                    old.iter().chain(&new).any(|node| part(node) == part(&one))
                };
                assert!(known(|n| (n.mode, n.uid, n.gid)), "{one:?} after {stores}");
                assert!(old.iter().chain(&new).any(|node| node.kind == one.kind), "{one:?}");
            }
            // it works on
            adopted.upsert(path, &node(77, 0o640)).unwrap();
            adopted.upsert(b"later/one", &node(78, 0o640)).unwrap();
            assert_eq!(as_read(&adopted), model(&adopted));
            if finished {
                return repairs;
            }
        }
        repairs
    }

    #[test]
    fn a_writer_killed_at_any_store_leaves_no_wrong_entry() {
        let add = kill_everywhere(b"bus/usb/001", |map| {
            map.upsert(b"bus/usb/001", &node(9, 0o664)).unwrap();
        });
        let replace = kill_everywhere(b"null", |map| {
            map.upsert(b"null", &node(5, 0o600)).unwrap();
        });
        let relink = kill_everywhere(b"fd", |map| {
            map.upsert(b"fd", &link(b"/proc/thread-self/fd")).unwrap();
        });
        let chown = kill_everywhere(b"null", |map| {
            map.upsert(b"null", &node(0, 0o640)).unwrap();
        });
        let remove = kill_everywhere(b"snd/by-id/a", |map| {
            assert!(map.remove(b"snd/by-id/a"));
        });
        for repairs in [add, replace, relink, chown, remove] {
            assert!(repairs > 3, "kills in the middle were seen: {repairs}");
        }
        kill_everywhere(b"other", |map| map.republish(64, 4096).unwrap());
    }
}

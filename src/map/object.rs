//! Stage 6: what the writer remembers of one name of its map.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Node;
use super::layout::{ID_ROOT, ROOT_CELL, ROOT_ENTRY, S_IFDIR};
use super::protocol::Fields;
use super::publish::Place;
use super::space::Text;

#[derive(Debug)]
pub(super) struct Object {
    pub id: u64,
    /// Below /dev; empty for the root.
    pub path: Arc<[u8]>,
    /// The directory's cell.
    pub parent: u32,
    pub place: Place,
    pub name: Text,
    pub aux: Text,
    /// `None` for a directory.
    pub node: Option<Node>,
    pub first: Option<u32>,
    pub before: Option<u32>,
    pub after: Option<u32>,
}

impl Object {
    pub(super) fn root() -> Self {
        let place = Place { entry: ROOT_ENTRY, cell: ROOT_CELL, bucket: 0 };
        Self::new(ID_ROOT, Arc::default(), ROOT_CELL, place, (Text::default(), Text::default()))
    }

    pub(super) fn new(
        id: u64,
        path: Arc<[u8]>,
        parent: u32,
        place: Place,
        (name, aux): (Text, Text),
    ) -> Self {
        let (first, before, after) = (None, None, None);
        Self { id, path, parent, place, name, aux, node: None, first, before, after }
    }

    pub(super) fn base(&self) -> &[u8] {
        base(&self.path)
    }

    pub(super) fn fields(&self, parent: u64) -> Fields {
        let shared = Fields {
            id: self.id,
            parent,
            name_off: self.name.offset,
            name_len: self.name.len,
            aux_len: self.aux.len,
            aux_off: self.aux.offset,
            cell: self.place.cell,
            stamp: now(),
            ..Fields::default()
        };
        match &self.node {
            None => Fields { mode: S_IFDIR | 0o755, ..shared },
            Some(node) => Fields {
                flags: node.flag_bits(),
                mode: node.type_bits() | node.permissions(),
                uid: node.uid,
                gid: node.gid,
                rdev: node.rdev().unwrap_or(0),
                ..shared
            },
        }
    }
}

pub(super) fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

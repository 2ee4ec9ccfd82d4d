//! Stage 6: what is known of /dev, as a shared map that answers without the daemon.
//!
//! [`MapWriter`] is the daemon's, alone; [`MapReader`] works in any process that holds the
//! descriptor from D-Bus, without locks and without trust. `kmod-shim/mapdev_abi.h` defines the
//! bytes, `protocol` and `publish` the order of loads and stores, and `region` is the memory.

mod adopt;
pub mod change;
pub mod control;
mod grow;
pub mod kernel;
pub mod layout;
mod object;
pub mod protocol;
pub mod publish;
pub mod reader;
mod region;
pub mod serve;
pub mod shim;
mod space;
pub mod verify;
pub mod writer;

use layout::{
    AUX_MAX, E_BUILTIN, E_LIVE, E_MODULE, E_PENDING, MINOR_BITS, NAME_MAX, PERMISSIONS, S_IFBLK,
    S_IFCHR, S_IFLNK, S_IFMT,
};

use crate::uevent::Devnum;

pub use adopt::AdoptError;
pub use protocol::Entry;
pub use reader::{Listing, Lookup, MapReader, Stats, Walk};
pub use region::RegionError;
pub use writer::{Change, MapError, MapWriter, WriterStats};

/// Longest path below /dev; the kernel's `PATH_MAX` without the mount point is about four times
/// that, and no name of a device comes near.
pub const PATH_MAX: usize = 1024;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Char {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Link {
        target: Box<[u8]>,
    },
    /// A module that is not loaded will say the number; opening the name loads `alias`.
    Pending {
        block: bool,
        alias: Box<[u8]>,
    },
}

/// A name of the map, apart from its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub kind: Kind,
    /// Permission bits; a link has 0777 whatever stands here.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Where the name comes from: [`layout::E_BUILTIN`], [`layout::E_MODULE`], [`layout::E_LIVE`].
    pub flags: u32,
}

impl Kind {
    /// A node with this number.
    #[must_use]
    pub fn of(number: Devnum) -> Self {
        let Devnum { block, major, minor } = number;
        if block { Self::Block { major, minor } } else { Self::Char { major, minor } }
    }

    /// The number of a node that has one.
    #[must_use]
    pub fn devnum(&self) -> Option<Devnum> {
        match *self {
            Self::Char { major, minor } => Some(Devnum { block: false, major, minor }),
            Self::Block { major, minor } => Some(Devnum { block: true, major, minor }),
            Self::Link { .. } | Self::Pending { .. } => None,
        }
    }
}

const ORIGINS: u32 = E_BUILTIN | E_MODULE | E_LIVE;

impl Node {
    fn type_bits(&self) -> u32 {
        match self.kind {
            Kind::Char { .. } | Kind::Pending { block: false, .. } => S_IFCHR,
            Kind::Block { .. } | Kind::Pending { block: true, .. } => S_IFBLK,
            Kind::Link { .. } => S_IFLNK,
        }
    }

    fn permissions(&self) -> u32 {
        if matches!(self.kind, Kind::Link { .. }) { 0o777 } else { self.mode & PERMISSIONS }
    }

    fn flag_bits(&self) -> u32 {
        let pending = matches!(self.kind, Kind::Pending { .. });
        self.flags & ORIGINS | if pending { E_PENDING } else { 0 }
    }

    /// As the kernel's `MKDEV`; `None` when the kernel could not express the number.
    fn rdev(&self) -> Option<u32> {
        match self.kind {
            Kind::Char { major, minor } | Kind::Block { major, minor } => {
                (major < 1 << 12 && minor < 1 << MINOR_BITS).then_some(major << MINOR_BITS | minor)
            }
            Kind::Link { .. } | Kind::Pending { .. } => Some(0),
        }
    }

    fn aux(&self) -> &[u8] {
        match &self.kind {
            Kind::Char { .. } | Kind::Block { .. } => &[],
            Kind::Link { target } => target,
            Kind::Pending { alias, .. } => alias,
        }
    }

    fn check(&self) -> Result<(), MapError> {
        let aux = self.aux();
        let wants_aux = matches!(self.kind, Kind::Link { .. } | Kind::Pending { .. });
        let fits = u32::try_from(aux.len()).is_ok_and(|len| len <= AUX_MAX);
        if !fits || aux.contains(&0) || wants_aux == aux.is_empty() {
            return Err(MapError::BadTarget);
        }
        self.rdev().map(|_| ()).ok_or(MapError::BadNumber)
    }

    /// As it will read back from the map.
    fn normal(&self) -> Self {
        let flags = self.flags & ORIGINS;
        Self { mode: self.permissions(), flags, ..self.clone() }
    }

    /// The node that an entry describes; `None` for directories and what the daemon never writes.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        let fields = &entry.fields;
        let aux = || entry.aux.clone().into_boxed_slice();
        let (major, minor) = (entry.major(), entry.minor());
        let pending = fields.flags & E_PENDING != 0;
        let kind = match fields.mode & S_IFMT {
            S_IFCHR if pending => Kind::Pending { block: false, alias: aux() },
            S_IFBLK if pending => Kind::Pending { block: true, alias: aux() },
            S_IFCHR => Kind::Char { major, minor },
            S_IFBLK => Kind::Block { major, minor },
            S_IFLNK => Kind::Link { target: aux() },
            _ => return None,
        };
        let (uid, gid) = (fields.uid, fields.gid);
        let mode = fields.mode & PERMISSIONS;
        Some(Self { kind, mode, uid, gid, flags: fields.flags & ORIGINS })
    }
}

/// Whether a directory can have an entry of this name.
fn is_name(name: &[u8]) -> bool {
    let fits = u32::try_from(name.len()).is_ok_and(|len| (1..=NAME_MAX).contains(&len));
    fits && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// Whether this is a path below /dev: names with single slashes between them.
fn is_path(path: &[u8]) -> bool {
    path.len() <= PATH_MAX && path.split(|byte| *byte == b'/').all(is_name)
}

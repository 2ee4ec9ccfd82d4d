//! Stage 5: a decision becomes the owner, mode and links of a node in devtmpfs.

pub mod acl;
pub mod claims;
pub mod contest;
pub mod devtmpfs;
pub mod disk;
pub mod fixed;
pub mod instances;
pub mod links;
pub mod stack;
pub mod statics;
pub mod tmpfiles;
pub mod watch;

use crate::rules::decision::Attribute;

/// Owner, group and permission bits of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub uid: u32,
    pub gid: u32,
    /// `0o7777`.
    pub mode: u32,
}

/// Where a node differs from what was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub attribute: Attribute,
    pub ours: String,
    pub theirs: String,
}

//! Stage 3: a node's path in, what can be said of it without opening it.

use std::path::Path;

use rustix::fs::{FileType, lstat};

/// Whether the node is a name of the kernel module's that waits for its number. That comes with the event
/// of its device: who handles the event must not open the node, for the open would wait for him.
#[must_use]
pub fn awaits_its_number(node: &Path) -> bool {
    lstat(node).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) && stat.st_rdev == 0
    })
}

//! Stage 5b: network interfaces: `.link` files, what they set, and renaming, through rtnetlink and
//! ethtool.
//!
//! A builtin that a rule calls reads and sets an interface where the rule stands, as udev does: this
//! stands above builtins and rules, though an event is renamed after them.

mod address;
mod apply;
mod condition;
mod ethtool;
mod files;
mod hardware;
mod ini;
mod interface;
mod keys;
mod link_file;
mod matching;
mod naming;
mod netlink;
pub mod rename;
mod scheme;
mod setup;
mod sriov;
mod values;
mod words;

pub use condition::Machine;
pub use files::{FOLDERS, LinkFiles, Texts, texts};
pub use interface::{Interface, Interfaces};
pub use link_file::{LinkFile, Text};
pub use scheme::{Naming, Scheme};
pub use setup::{Outcome, Setup, Sockets};
pub use values::{ALTERNATIVE_LIMIT, NAME_LIMIT, is_interface_name};

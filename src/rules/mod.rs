//! Stage 4: [`Device`] in, [`Decision`] out.
//!
//! What the kernel says of a node is where every decision begins. Rules are read by udev's rules:
//! `files` finds them, `cursor` joins lines, `token` splits them into pairs, `grammar` knows the keys,
//! `parse` and `settings` understand them, `resolve` puts them together. Globs, names and the way in
//! which a mistake is shown are shared with policy.

mod assign;
pub mod cursor;
pub mod decision;
pub mod eval;
pub mod event;
pub mod files;
pub mod grammar;
pub mod import;
pub mod lint;
pub mod machine;
mod matching;
pub mod names;
pub mod parse;
pub mod plan;
pub mod resolve;
pub mod rule;
pub mod settings;
mod source;
pub mod static_node;
mod subst;
pub mod template;
pub mod token;
pub mod world;

use crate::device::Device;
pub use crate::{glob, problem};
use decision::{Attribute, Decision, Source};
pub use resolve::Rules;

/// Decides from what the kernel says: DEVUID, DEVGID and DEVMODE of its message.
#[must_use]
pub fn decide(device: &Device) -> Decision {
    let mut decision = Decision::default();
    if device.devnum().is_none() {
        return decision;
    }
    let said = |key: &[u8], radix: u32| {
        let text = std::str::from_utf8(device.uevent().get(key)?).ok()?;
        u32::from_str_radix(text, radix).ok()
    };
    if let Some(uid) = said(b"DEVUID", 10) {
        decision.set(Attribute::Owner, uid, Source::Kernel);
    }
    if let Some(gid) = said(b"DEVGID", 10) {
        decision.set(Attribute::Group, gid, Source::Kernel);
    }
    if let Some(mode) = said(b"DEVMODE", 8) {
        decision.set(Attribute::Mode, mode & 0o7777, Source::Kernel);
    }
    decision
}

//! Builtins, asked by us and by the installed udevadm on devices of other machines.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was found, and has failed when it cannot go on"
)]

mod ask;
mod complete;
mod generate;
mod keymaps;
#[path = "../namespaces/mod.rs"]
mod namespaces;
#[path = "../rules/peer.rs"]
#[expect(dead_code, reason = "its daemon is for rules")]
mod peer;
#[path = "../live/random.rs"]
mod random;
mod random_trees;
mod recording;
mod recordings;
mod schemes;
mod test_builtin;

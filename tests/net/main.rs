//! Network interfaces, set by us and by the installed systemd-udevd in namespaces of their own.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was found, and has failed when it cannot go on"
)]

mod damaged;
mod interface;
#[path = "../link_text/mod.rs"]
#[expect(unreachable_pub, reason = "the fuzzer uses it as well")]
mod link_text;
#[path = "../live/listen.rs"]
#[expect(dead_code, reason = "events are not counted here")]
mod listen;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod peer;
#[path = "../live/random.rs"]
mod random;
mod random_files;
mod renames;
mod table;

//! Network interfaces, set by us and by the installed systemd-udevd in namespaces of their own.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was found, and has failed when it cannot go on"
)]

mod interface;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod peer;
#[path = "../live/random.rs"]
mod random;
mod random_files;
mod table;

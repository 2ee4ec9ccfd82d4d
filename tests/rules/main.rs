//! udev's rules, read and decided by us and by the installed systemd-udevd in namespaces of its own.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was found, and has failed when it cannot go on"
)]

mod answer;
mod installed;
mod peer;
mod static_nodes;
mod table;
mod tree;
mod verify;
mod world;

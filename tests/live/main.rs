//! The real daemon in namespaces of its own, with uevents injected through the kernel.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints its seed and figures, and has failed when it cannot go on"
)]

mod bus;
mod changes;
mod control;
mod daemon;
mod disks;
mod end;
mod hostile;
mod inject;
mod kills;
mod links;
mod listen;
mod locks;
mod machine;
mod managers;
mod modules;
mod names;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod peers;
mod policy;
mod programs;
mod random;
mod rules;
mod shadow;
mod state;
mod storm;
mod storms;
mod stuck;
mod sysfs;
mod takeover;
mod witness;

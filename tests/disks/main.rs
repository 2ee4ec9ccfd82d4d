//! What disks say of themselves, beside `udevadm test-builtin blkid` of the machine.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot prepare fails")]

mod attached;
mod boot;
mod contents;
mod damaged;
mod images;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod sandbox;
mod stuck;

use std::time::Duration;

use mapdev::builtin::Kit;
use mapdev::probe::Probe;

/// With the probe that was built with this test.
pub(crate) fn kit(limit: Duration) -> Kit {
    Kit::default().probing(Probe::new(env!("CARGO_BIN_EXE_mapdev-probe"), "/dev", limit))
}

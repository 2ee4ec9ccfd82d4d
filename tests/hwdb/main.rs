//! The hardware database beside systemd's: what is compiled, and what is answered.
//!
//! Without systemd-hwdb there is nobody to compare with: these tests say so, and fail where
//! `MAPDEV_REQUIRE_UDEV` is set.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was compared, and has failed when it cannot go on"
)]

mod answers;
mod builtin;
mod hostile;
#[path = "../hwdb_bytes/mod.rs"]
#[expect(unreachable_pub, reason = "the fuzzer uses it as well")]
mod hwdb_bytes;
mod modaliases;
#[path = "../namespaces/mod.rs"]
mod namespaces;
#[path = "../rules/peer.rs"]
#[expect(dead_code, reason = "its daemon is for rules")]
mod peer;
#[path = "../live/random.rs"]
mod random;
mod sources;

use std::path::Path;
use std::process::Command;

/// Whether systemd's tool is there.
fn is_there() -> bool {
    let there = Command::new("systemd-hwdb").arg("--version").output();
    let there = there.is_ok_and(|output| output.stdout.starts_with(b"systemd 25"));
    if !there {
        assert!(std::env::var_os("MAPDEV_REQUIRE_UDEV").is_none(), "systemd-hwdb 252 wanted");
        println!("skipped: there is no systemd-hwdb to compare with");
    }
    there
}

/// What systemd's tool says of a modalias, as it prints it.
fn query(root: &Path, modalias: &[u8]) -> Vec<u8> {
    let mut command = Command::new("systemd-hwdb");
    command.arg("query").arg("--root").arg(root).arg("--");
    command.arg(std::os::unix::ffi::OsStrExt::from_bytes(modalias) as &std::ffi::OsStr);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What we say, in the same form.
fn ours(hwdb: &mapdev::device::hwdb::Hwdb, modalias: &[u8]) -> Vec<u8> {
    let found = hwdb.look_up(modalias).unwrap();
    found.iter().flat_map(|(key, value)| [key, &b"="[..], value, b"\n"].concat()).collect()
}

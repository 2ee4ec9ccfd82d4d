//! Writes the packets of `tests/fixtures/uevents` as files, for the fuzzer to begin with.

#[path = "../tests/uevent_packets/mod.rs"]
#[allow(dead_code, reason = "packets are checked by the target")]
mod uevent_packets;

use std::fs;
use std::path::PathBuf;

use uevent_packets::{hostile, packets};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or("corpus/uevent".into()));
    fs::create_dir_all(&folder)?;
    let good = [
        packets(include_str!("../tests/fixtures/uevents/sysfs.txt")),
        packets(include_str!("../tests/fixtures/uevents/typical.txt")),
    ];
    let hostile = hostile(include_str!("../tests/fixtures/uevents/hostile.txt"));
    let all = good.concat().into_iter().chain(hostile.into_iter().map(|(_, _, packet)| packet));
    for (index, packet) in all.enumerate() {
        fs::write(folder.join(format!("seed-{index:03}")), packet)?;
    }
    Ok(())
}

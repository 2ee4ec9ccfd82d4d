//! Any bytes: no panic, every range inside the packet, the same again when written out, and
//! agreement with `kobject-uevent` where both accept.
#![no_main]

#[path = "../../tests/uevent_packets/mod.rs"]
#[allow(dead_code, reason = "the fixtures are read by `seed`")]
mod uevent_packets;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    uevent_packets::check(bytes);
});

//! Any bytes as a `hwdb.bin` and as its source: no panic, nothing is said that the file does not hold, and
//! what is compiled says the same as a reader that tries one pattern after the other.
#![no_main]

#[path = "../../tests/hwdb_bytes/mod.rs"]
mod hwdb_bytes;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    hwdb_bytes::check(bytes);
});

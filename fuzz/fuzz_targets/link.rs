//! Any text of a `.link` file and a drop-in: no panic, each mistake has a place in it, and names are
//! such that an interface can have them.
#![no_main]

#[path = "../../tests/link_text/mod.rs"]
mod link_text;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    link_text::check(bytes);
});

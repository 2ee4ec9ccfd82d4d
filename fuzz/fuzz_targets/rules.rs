//! Any text of rules: no panic, each mistake has a place in it, a rule behind it is still read, GOTO
//! leads forward, and what is decided keeps to `/dev` and to valid tags.
#![no_main]

#[path = "../../tests/rules_text/mod.rs"]
mod rules_text;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    rules_text::check(bytes);
});

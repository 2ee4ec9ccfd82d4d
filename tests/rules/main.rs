//! udev's rules, read and decided by us and by the installed systemd-udevd in namespaces of its own.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints what was found, and has failed when it cannot go on"
)]

mod answer;
mod damaged;
mod dry_run;
mod generate;
#[path = "../live/inject.rs"]
#[expect(dead_code, reason = "the daemon's tests forge messages as well")]
mod inject;
mod installed;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod packages;
mod peer;
#[path = "../live/random.rs"]
mod random;
mod random_rules;
#[path = "../rules_text/mod.rs"]
#[expect(unreachable_pub, reason = "the fuzzer uses it as well")]
mod rules_text;
mod static_nodes;
mod table;
mod tree;
mod verify;
mod whole;
mod world;

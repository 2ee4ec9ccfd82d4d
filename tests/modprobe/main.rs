//! What mapdev would load for a name is what kmod's modprobe would, on Debian's complete kernels.
//!
//! `scripts/kernels.sh` unpacks them; `MAPDEV_KERNEL_ROOTS=a:b` names others. Without any, these tests
//! say that they are skipped, and fail where `MAPDEV_REQUIRE_KERNELS` is set.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files fails")]

mod kernels;
mod random;

use std::fs;
use std::time::Instant;

use kernels::{Question, each, kernels, ours, same, theirs};
use mapdev::modules::modprobe::Config;

fn machine_cmdline() -> Vec<u8> {
    fs::read("/proc/cmdline").unwrap_or_default()
}

#[test]
fn every_module_is_loaded_with_what_it_needs_in_modprobes_order() {
    let empty = tempfile::tempdir().unwrap();
    let config = Config::of_folders(&[], &machine_cmdline());
    for kernel in kernels() {
        let begun = Instant::now();
        let questions: Vec<_> = kernel.db.modules().map(|m| Question::of(m.name())).collect();
        let compared = each(&questions, |asked| {
            let name = String::from_utf8_lossy(&asked.name).into_owned();
            (name, ours(&kernel, &config, asked), theirs(&kernel, empty.path(), None, asked))
        });
        let what = format!("{}, every module", kernel.db.release());
        println!("{what}: {:?}", begun.elapsed());
        same(&what, &compared);
    }
}

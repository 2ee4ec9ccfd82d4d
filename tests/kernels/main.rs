//! On Debian's complete kernels the database says what depmod(8) and modprobe(8) say.
//!
//! `scripts/kernels.sh` unpacks them; `MAPDEV_KERNEL_ROOTS=a:b` names others. Without any, these tests
//! say that they are skipped, and fail where `MAPDEV_REQUIRE_KERNELS` is set.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files fails")]
#![expect(clippy::print_stdout, reason = "a comparison says what it compared")]

mod depmod;
mod modprobe;
#[path = "../modules/random.rs"]
mod random;
mod resolve;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mapdev::modules::ModuleDb;
use mapdev::modules::scan::scan;

struct Kernel {
    root: PathBuf,
    folder: PathBuf,
    db: ModuleDb,
}

/// Read once for all tests.
fn kernels() -> &'static [Kernel] {
    static KERNELS: OnceLock<Vec<Kernel>> = OnceLock::new();
    KERNELS.get_or_init(read_kernels)
}

fn read_kernels() -> Vec<Kernel> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels");
    let roots: Vec<PathBuf> = match std::env::var("MAPDEV_KERNEL_ROOTS") {
        Ok(roots) => roots.split(':').map(PathBuf::from).collect(),
        Err(_) => ["bookworm", "bookworm-backports"].map(|suite| unpacked.join(suite)).into(),
    };
    let mut found = Vec::new();
    for root in roots {
        for entry in fs::read_dir(root.join("lib/modules")).into_iter().flatten().flatten() {
            if entry.path().join("modules.dep").is_file() {
                let release = entry.file_name().into_string().unwrap();
                let db = scan(&root, &release);
                found.push(Kernel { root: root.clone(), folder: entry.path(), db });
            }
        }
    }
    if found.is_empty() {
        assert!(std::env::var_os("MAPDEV_REQUIRE_KERNELS").is_none(), "no kernel is unpacked");
        println!("skipped: no kernel is unpacked (scripts/kernels.sh)");
    }
    found
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

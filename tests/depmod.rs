//! On Debian's complete kernels the database says what depmod(8) says.
//!
//! `scripts/kernels.sh` unpacks them; `MAPDEV_KERNEL_ROOTS=a:b` names others. Without any, these tests
//! say that they are skipped, and fail where `MAPDEV_REQUIRE_KERNELS` is set.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files fails")]

use std::fs;
use std::path::{Path, PathBuf};

use mapdev::modules::ModuleDb;
use mapdev::modules::scan::scan;

struct Kernel {
    folder: PathBuf,
    db: ModuleDb,
}

fn kernels() -> Vec<Kernel> {
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
                found.push(Kernel { folder: entry.path(), db: scan(&root, &release) });
            }
        }
    }
    if found.is_empty() {
        assert!(std::env::var_os("MAPDEV_REQUIRE_KERNELS").is_none(), "no kernel is unpacked");
        println!("skipped: no kernel is unpacked (scripts/kernels.sh)");
    }
    found
}

/// The lines of one of depmod's files, without its comments.
fn lines(kernel: &Kernel, file: &str) -> Vec<String> {
    let text = fs::read_to_string(kernel.folder.join(file)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

/// Fails with the first lines that differ.
fn same(kernel: &Kernel, file: &str, mut ours: Vec<String>) {
    let mut theirs = lines(kernel, file);
    theirs.sort_unstable();
    ours.sort_unstable();
    let only = |a: &[String], b: &[String]| {
        let missing = a.iter().filter(|line| b.binary_search(line).is_err());
        (missing.clone().count(), missing.take(5).cloned().collect::<Vec<_>>())
    };
    let (extra, missing) = (only(&ours, &theirs), only(&theirs, &ours));
    let release = kernel.db.release();
    println!("{release} {file}: {} lines, {} and {} differ", theirs.len(), extra.0, missing.0);
    assert!(ours == theirs, "{release} {file}: only ours {extra:#?}, only depmod's {missing:#?}");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn all_that_depmod_finds_is_found() {
    for kernel in kernels() {
        let loadable = || kernel.db.modules().filter(|module| !module.is_builtin());
        assert!(kernel.db.problems().is_empty(), "{:?}", kernel.db.problems());

        let aliases = loadable().flat_map(|module| {
            module.aliases().map(move |alias| format!("alias {} {}", text(alias), module.name()))
        });
        same(&kernel, "modules.alias", aliases.collect());

        let soft = loadable().flat_map(|module| {
            module.softdeps().map(move |deps| format!("softdep {} {}", module.name(), text(deps)))
        });
        same(&kernel, "modules.softdep", soft.collect());

        let names = kernel.db.devnames().filter(|devname| !devname.builtin);
        let names = names.filter_map(|devname| {
            Some(format!("{} {} {}", devname.module, text(devname.name), devname.number?))
        });
        same(&kernel, "modules.devname", names.collect());

        let needs = loadable().map(|module| {
            let mut all: Vec<_> = module.load_order().collect();
            all.reverse();
            let paths = all.into_iter().map(|m| format!(" {}", m.file().unwrap().display()));
            format!("{}:{}", module.file().unwrap().display(), paths.collect::<String>())
        });
        same(&kernel, "modules.dep", needs.collect());

        let builtin = kernel.db.modules().filter(|module| module.is_builtin());
        let mut wanted: Vec<String> = lines(&kernel, "modules.builtin")
            .iter()
            .filter_map(|line| {
                Some(line.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"))
            })
            .collect();
        wanted.sort_unstable();
        let said: Vec<&str> = builtin.map(|module| module.name()).collect();
        assert!(wanted.iter().all(|name| said.contains(&name.as_str())));
    }
}

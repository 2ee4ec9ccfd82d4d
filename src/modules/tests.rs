//! A store whose checksum is right but whose words are not.

use super::*;
use std::fs;

/// Small, and the same in every run.
fn random(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap() % limit
}

/// Asks everything that can be asked.
fn use_all(db: &ModuleDb) -> usize {
    let mut seen = db.devnames().map(|devname| devname.name.len()).sum::<usize>();
    for module in db.modules().take(64) {
        seen += module.aliases().count() + module.depends().count() + module.devnames().count();
        seen += module.load_order().take(64).map(|needed| needed.name().len()).sum::<usize>();
        seen += module.path().map_or(0, |path| path.as_os_str().len());
    }
    for alias in [&b"pci:v00008086d00001533sv1sd2bc02sc00i00"[..], b"a-b", b"", b"block-major-7-1"]
    {
        seen += db.by_modalias(alias).len();
    }
    seen += db.module(b"in_kernel").map_or(0, |module| module.name().len());
    seen + db.devname(b"loop-control").map_or(0, |devname| devname.name.len())
}

#[test]
fn words_that_make_no_sense_end_what_they_are_part_of_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let list: String = (0..40)
        .map(|i| {
            format!("m{i}.alias=pci:v0000808{i}d*sv?sd[0-9]bc*sc*i*\0m{i}.alias=devname:n{i}\0")
        })
        .collect();
    fs::create_dir_all(folder.path().join("lib/modules/r")).unwrap();
    fs::write(folder.path().join("lib/modules/r/modules.builtin.modinfo"), list).unwrap();
    let db = scan::scan(folder.path(), "r");
    assert!(db.len() == 40 && use_all(&db) > 100);
    let whole = db.store.bytes().to_vec();
    let mut state = 1;
    let mut opened = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(&mut state, 4) {
            // the tree and the records are words, and the first of them mean most
            let at = 16 + random(&mut state, bytes.len() - 16);
            bytes[at] = match random(&mut state, 3) {
                0 => 0xff,
                1 => 0,
                _ => bytes[at] ^ (1 << random(&mut state, 8)),
            };
        }
        let Ok(store) = Store::open_unchecked(bytes) else { continue };
        opened += 1;
        use_all(&ModuleDb::of(Path::new("/"), "r", store));
    }
    assert!(opened > 5000, "{opened} stores could be opened at all");
}

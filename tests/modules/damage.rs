//! Damaged modules: an error that says what, and the rest of the tree as it was.

use std::fs;
use std::path::{Path, PathBuf};

use mapdev::modules::modinfo;
use mapdev::modules::scan::{scan, update};

use super::elf::KINDS;
use super::random::Random;
use super::{TUN, module, tree};

#[test]
fn ten_thousand_damaged_modules_neither_panic_nor_grow() {
    let (mut good, mut bad) = (0, 0);
    let mut random = Random(42);
    for round in 0..10_000_usize {
        let mut file = KINDS[round % 4].write(&TUN);
        let whole = file.len();
        if round % 3 == 0 {
            file.truncate(random.below(whole));
        }
        for _ in 0..round % 9 {
            if !file.is_empty() {
                // headers are at both ends, and there a bit means most
                let at = match random.below(3) {
                    0 => random.below(file.len()),
                    1 => random.below(file.len().min(64)),
                    _ => file.len() - 1 - random.below(file.len().min(256)),
                };
                file[at] ^= 1 << random.below(8);
            }
        }
        match modinfo::parse(&file) {
            Ok(info) => {
                good += 1;
                assert!(info.entries().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= whole);
                assert!(info.devnames().len() <= whole);
            }
            Err(error) => {
                bad += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad: the mutations show nothing");
}

/// Real modules of the unpacked kernels, of each packing.
fn real_modules() -> Vec<PathBuf> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels");
    let mut found = Vec::new();
    for (suite, ending) in [("bookworm", ""), ("bookworm-backports", ".xz")] {
        let Ok(releases) = fs::read_dir(kernels.join(suite).join("lib/modules")) else { continue };
        for release in releases.flatten() {
            let net = release.path().join("kernel/drivers/net");
            let names = ["tun.ko", "dummy.ko", "veth.ko", "ppp/ppp_generic.ko", "nlmon.ko"];
            found.extend(names.map(|name| net.join(format!("{name}{ending}"))));
        }
    }
    found.retain(|path| path.is_file());
    if found.is_empty() {
        assert!(std::env::var_os("MAPDEV_REQUIRE_KERNELS").is_none(), "no kernel is unpacked");
        println!("skipped: no kernel is unpacked (scripts/kernels.sh)");
    }
    found
}

/// Bits flipped where a bit means most: in the head, and in the table of sections at the end.
fn damaged(mut file: Vec<u8>, random: &mut Random) -> Vec<u8> {
    if random.below(4) == 0 {
        file.truncate(random.below(file.len()));
    }
    for _ in 0..=random.below(6) {
        if !file.is_empty() {
            let at = match random.below(3) {
                0 => random.below(file.len()),
                1 => random.below(file.len().min(64)),
                _ => file.len() - 1 - random.below(file.len().min(4096)),
            };
            file[at] ^= 1 << random.below(8);
        }
    }
    file
}

/// Each damaged file lies in a tree between two good ones, and is found by a scan of what changed.
#[test]
fn ten_thousand_damaged_real_modules_cost_themselves_alone() {
    let originals: Vec<Vec<u8>> =
        real_modules().iter().map(|path| fs::read(path).unwrap()).collect();
    let (root, folder) = tree();
    for name in ["before", "zlast"] {
        fs::write(folder.join(format!("kernel/net/{name}.ko")), module(name, 1)).unwrap();
    }
    let place = folder.join("kernel/net/damaged.ko");
    let mut random = Random(7);
    let mut db = scan(root.path(), "6.1");
    let (mut good, mut bad) = (0, 0);
    for round in 0..if originals.is_empty() { 0 } else { 10_000 } {
        let file = damaged(originals[round % originals.len()].clone(), &mut random);
        fs::write(&place, &file).unwrap();
        if let Some(new) = update(root.path(), "6.1", Some(&db), &|_, _| ()) {
            db = new;
        }
        for name in [&b"before"[..], b"zlast"] {
            assert!(db.devname(name).is_some() && db.module(name).is_some(), "round {round}");
        }
        match db.problems() {
            [] => good += 1,
            problems => {
                bad += 1;
                let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let named = |line: &String| line.contains("damaged");
                assert!(shown.iter().all(named), "round {round}: {shown:?}");
            }
        }
    }
    println!("{good} files still say what they are, {bad} are named as damaged");
    assert!(originals.is_empty() || (good > 1000 && bad > 1000), "{good} good, {bad} bad");
    let peak = fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // what unpacking one file may take, twice, and the rest of the tests
    assert!(peak < 1 << 20, "{peak} KiB at most");
}

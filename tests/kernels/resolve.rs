//! `modprobe -R` finds the same modules for a modalias.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::random::Random;
use super::{Kernel, kernels, text};

/// For each kernel; more are taken evenly from what there is.
const FROM_MODULES: usize = 4000;
const FROM_HWDB: usize = 1500;

/// A string that a pattern stands for, or nearly so: its wildcards filled.
fn filled(pattern: &str, random: &mut Random) -> String {
    const FILL: &[u8] = b"0123456789ABCDEFabcdef-_:vdp";
    let mut out = String::new();
    let mut rest = pattern.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'*' => {
                for _ in 0..random.below(5) {
                    out.push(char::from(FILL[random.below(FILL.len())]));
                }
            }
            b'?' => out.push(char::from(FILL[random.below(FILL.len())])),
            b'[' => {
                let set: Vec<u8> = rest.by_ref().take_while(|byte| *byte != b']').collect();
                // the end of a range is in it, and so is a member
                out.push(char::from(set[set.len() - 1 - random.below(set.len().min(2)) / 2 * 2]));
            }
            other => out.push(char::from(other)),
        }
    }
    // now and then one that is a little different
    if random.below(8) == 0 && out.is_ascii() && !out.is_empty() {
        let at = random.below(out.len());
        out.replace_range(at..=at, ["0", "-", "_", "Z", ""][random.below(5)]);
    }
    out
}

fn every<T>(all: Vec<T>, wanted: usize) -> impl Iterator<Item = T> {
    let step = (all.len() / wanted).max(1);
    all.into_iter().step_by(step)
}

/// Of devices of this machine.
fn from_sysfs(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if let Ok(alias) = fs::read_to_string(folder.join("modalias")) {
        found.insert(alias.trim_end().to_owned());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            from_sysfs(&entry.path(), depth - 1, found);
        }
    }
}

fn modaliases(kernel: &Kernel) -> Vec<String> {
    let mut random = Random(0x6d61_7064_6576);
    let mut found = BTreeSet::new();
    let aliases = kernel.db.modules().flat_map(|module| module.aliases().map(text));
    // a name of a device is looked up as such
    let aliases: Vec<&str> = aliases.filter(|alias| !alias.contains(char::is_whitespace)).collect();
    found.extend(every(aliases, FROM_MODULES).map(|alias| filled(alias, &mut random)));

    let hwdb = fs::read_dir("/usr/lib/udev/hwdb.d").into_iter().flatten().flatten();
    let mut patterns = Vec::new();
    for file in hwdb {
        let lines = fs::read_to_string(file.path()).unwrap_or_default();
        let known =
            |line: &&str| ["usb:", "pci:", "acpi:", "sdio:"].iter().any(|p| line.starts_with(p));
        patterns.extend(lines.lines().filter(known).map(ToOwned::to_owned));
    }
    patterns.retain(|pattern| !pattern.contains(char::is_whitespace));
    found.extend(every(patterns, FROM_HWDB).map(|pattern| filled(&pattern, &mut random)));
    from_sysfs(Path::new("/sys/devices"), 8, &mut found);
    found.into_iter().filter(|alias| !alias.is_empty() && !alias.starts_with('-')).collect()
}

/// What modprobe prints, with no configuration: an empty folder.
fn resolved(kernel: &Kernel, empty: &Path, alias: &str) -> Vec<String> {
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["-q", "-S", kernel.db.release(), "-R", alias]);
    let output = modprobe.arg("-C").arg(empty).arg("-d").arg(&kernel.root).output().unwrap();
    let mut found: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect();
    // it names a module once for each of its patterns that match
    let mut seen = BTreeSet::new();
    found.retain(|module| seen.insert(module.clone()));
    found
}

/// modprobe takes the name of a file, then an alias of one, then the same of the kernel's own parts.
fn ours(kernel: &Kernel, alias: &str) -> Vec<String> {
    let named = kernel.db.module(alias.as_bytes());
    let found = kernel.db.by_modalias(alias.as_bytes());
    for builtin in [false, true] {
        let names = |modules: &[mapdev::modules::Module<'_>]| {
            let kind = modules.iter().filter(|module| module.is_builtin() == builtin);
            kind.map(|module| module.name().to_owned()).collect::<Vec<_>>()
        };
        for names in [names(named.as_slice()), names(&found)] {
            if !names.is_empty() {
                return names;
            }
        }
    }
    Vec::new()
}

#[test]
fn modprobe_finds_the_same_modules() {
    let empty = tempfile::tempdir().unwrap();
    for kernel in kernels() {
        let all = modaliases(kernel);
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut matched, mut wrong) = (0, Vec::new());
            while let Some(alias) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (ours, theirs) = (ours(kernel, alias), resolved(kernel, empty.path(), alias));
                matched += usize::from(!theirs.is_empty());
                if ours != theirs {
                    wrong.push((alias, ours, theirs));
                }
            }
            (matched, wrong)
        };
        let parts = std::thread::scope(|scope| {
            let other = scope.spawn(work);
            [work(), other.join().unwrap()]
        });
        let matched: usize = parts.iter().map(|(matched, _)| matched).sum();
        let wrong: Vec<_> = parts.iter().flat_map(|(_, wrong)| wrong).collect();
        let release = kernel.db.release();
        println!(
            "{release} modprobe -R: {} modaliases, {matched} found, {} differ",
            all.len(),
            wrong.len()
        );
        assert!(all.len() >= 5000 && matched >= 3000, "too few to say anything");
        assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(20)]);
    }
}

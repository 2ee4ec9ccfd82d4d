//! Modules, side by side with kmod in one run: the index beside `depmod`, process against process, and
//! look-ups beside libkmod's, in one process each.
//!
//! Medians of alternating runs, as ratios. Kernels: `scripts/kernels.sh`; libkmod: `libkmod-dev`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on says where")]
#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mapdev::modules::{ModuleDb, cache, scan};

const RUNS: usize = 7;
const LOOK_UP_ROUNDS: u32 = 20;

fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    match &args[..] {
        // a process of its own, as depmod is one
        [_, verb, root, release, file] if verb == "open" => {
            let (db, problem) = cache::open(
                Path::new(root),
                release.to_str().unwrap(),
                Path::new(file),
                &|_, _| (),
            );
            assert!(!db.is_empty() && problem.is_none(), "{problem:?}");
        }
        _ => compare(),
    }
}

struct Kernel {
    root: PathBuf,
    folder: PathBuf,
    release: String,
}

fn compare() {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels");
    let scratch = tempfile::tempdir().unwrap();
    for suite in ["bookworm", "bookworm-backports"] {
        let root = unpacked.join(suite);
        for entry in fs::read_dir(root.join("lib/modules")).into_iter().flatten().flatten() {
            let release = entry.file_name().into_string().unwrap();
            let kernel = Kernel { root: root.clone(), folder: entry.path(), release };
            if kernel.folder.join("modules.dep").is_file() {
                trees(&kernel, scratch.path());
                look_ups(&kernel, scratch.path());
            }
        }
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
    start.elapsed()
}

/// Takes the contents of the tree's files out of the page cache.
fn chill(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => chill(&entry.path()),
            kind if kind.is_file() => {
                let file = File::open(entry.path()).unwrap();
                rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
            _ => (),
        }
    }
}

/// As it is run when a kernel is installed; what it writes is what is there already.
fn depmod(kernel: &Kernel) -> Command {
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(&kernel.root).arg(&kernel.release);
    depmod
}

fn ours(kernel: &Kernel, cache: &Path) -> Command {
    let mut ours = Command::new(std::env::current_exe().unwrap());
    ours.arg("open").args([
        kernel.root.as_os_str(),
        OsStr::new(&kernel.release),
        cache.as_os_str(),
    ]);
    ours
}

fn trees(kernel: &Kernel, scratch: &Path) {
    let cache = scratch.join("cache");
    let one = one_module(&kernel.folder);
    let (mut theirs, mut first, mut again, mut one_changed) = (vec![], vec![], vec![], vec![]);
    let (mut theirs_cold, mut cold) = (vec![], vec![]);
    for run in 0..RUNS {
        theirs.push(timed(&mut depmod(kernel)));
        drop(fs::remove_file(&cache));
        first.push(timed(&mut ours(kernel, &cache)));
        again.push(timed(&mut ours(kernel, &cache)));
        // a time that it did not have, long ago
        let file = File::options().append(true).open(&one).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1000 + run as u64)).unwrap();
        one_changed.push(timed(&mut ours(kernel, &cache)));
        chill(&kernel.folder);
        theirs_cold.push(timed(&mut depmod(kernel)));
        chill(&kernel.folder);
        drop(fs::remove_file(&cache));
        cold.push(timed(&mut ours(kernel, &cache)));
    }
    let size = fs::metadata(&cache).unwrap().len();
    println!(
        "\n{}: medians of {RUNS} alternating runs; cache of {} KiB",
        kernel.release,
        size >> 10
    );
    let (theirs, theirs_cold) = (median(theirs), median(theirs_cold));
    for (what, ours, theirs) in [
        ("first scan, warm", median(first), theirs),
        ("first scan, cold", median(cold), theirs_cold),
        ("one module changed", median(one_changed), theirs),
        ("unchanged tree", median(again), theirs),
    ] {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!(
            "  {what:<20} {ours:>9.1?}  depmod {theirs:>9.1?}  ratio {ratio:.3} (1/{:.0})",
            1.0 / ratio
        );
    }
}

fn one_module(folder: &Path) -> PathBuf {
    let net = folder.join("kernel/drivers/net");
    let names = ["dummy.ko", "dummy.ko.xz"].map(|name| net.join(name));
    names.into_iter().find(|path| path.is_file()).unwrap()
}

/// What devices ask for: the patterns of all modules with their wildcards filled.
fn modaliases(db: &ModuleDb) -> Vec<String> {
    let aliases = db.modules().filter(|module| !module.is_builtin());
    let aliases: BTreeSet<&[u8]> = aliases.flat_map(mapdev::modules::Module::aliases).collect();
    let step = aliases.len() / 2000;
    let filled = aliases.into_iter().step_by(step).map(|alias| {
        let text = std::str::from_utf8(alias).unwrap();
        text.replace('*', "0000").replace('?', "1").replace("[0-9]", "5")
    });
    filled.filter(|alias| !alias.contains('[')).collect()
}

fn look_ups(kernel: &Kernel, scratch: &Path) {
    let program = scratch.join("kmod_lookup");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/modules/kmod_lookup.c");
    let cc =
        Command::new("cc").arg("-O2").arg(source).arg("-o").arg(&program).arg("-lkmod").status();
    if !cc.is_ok_and(|status| status.success()) {
        println!("  look-ups not compared: libkmod-dev and a C compiler are wanted");
        return;
    }
    let db = scan::scan(&kernel.root, &kernel.release);
    let all = modaliases(&db);
    let list = scratch.join("modaliases");
    fs::write(&list, all.join("\n") + "\n").unwrap();
    let empty = scratch.join("empty");
    fs::create_dir_all(&empty).unwrap();
    let (mut ours, mut theirs) = (vec![], vec![]);
    let mut found = (0, 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        found.0 = 0;
        for _ in 0..LOOK_UP_ROUNDS {
            for alias in &all {
                found.0 += db.by_modalias(alias.as_bytes()).len();
            }
        }
        let looked_up = u32::try_from(all.len()).unwrap() * LOOK_UP_ROUNDS;
        ours.push(start.elapsed() / looked_up);
        let mut kmod = Command::new(&program);
        kmod.args([kernel.folder.as_path(), &empty, &list]).arg("2");
        let output = kmod.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (nanoseconds, modules) = text.trim_end().split_once(' ').unwrap();
        theirs.push(Duration::from_secs_f64(nanoseconds.parse::<f64>().unwrap() / 1e9));
        found.1 = modules.parse().unwrap();
    }
    let rounds = usize::try_from(LOOK_UP_ROUNDS).unwrap();
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "  look-up of a modalias {ours:>7.1?}  libkmod {theirs:>8.1?}  {ratio:.0} times as fast \
         ({} modaliases, {} modules found, libkmod {} with repetitions)",
        all.len(),
        found.0 / rounds,
        found.1
    );
}

//! Stage 3b: all modules of a kernel, read in parallel, and its list of built-in ones.
//!
//! Files are read and never mapped: a module may be replaced or cut off while it is looked at. One bad
//! file is a [`ScanProblem`], and the rest stays.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::modinfo::{self, ModInfo};
use super::{Devname, Module, ModuleDb, ScanProblem};

/// A module is read and unpacked into memory; the largest of Debian is below 32 MiB.
const FILE_LIMIT: u64 = 128 << 20;
/// What unpacking itself may take; a preset of xz needs at most 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// Window of zstd as a power of two; the kernel's build uses at most 2^27.
const ZSTD_WINDOW: u32 = 27;
/// Beyond these the disk is the limit.
const THREADS_LIMIT: usize = 16;

/// Of the running kernel.
///
/// # Errors
/// When /proc is not there.
pub fn running_release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// Reads every module of `release` below `root`; takes time and blocks.
///
/// A kernel without modules gives an empty database with a problem that says so.
#[must_use]
pub fn scan(root: &Path, release: &str) -> ModuleDb {
    scan_with(root, release, thread::available_parallelism().map_or(1, usize::from))
}

/// As [`scan`], with a given number of threads.
#[must_use]
pub fn scan_with(root: &Path, release: &str, threads: usize) -> ModuleDb {
    let mut problems = Vec::new();
    let Some(folder) = folder(root, release) else {
        let file = root.join("lib/modules").join(release);
        let what = "no folder of modules for this kernel".to_owned();
        return ModuleDb::new(Vec::new(), Vec::new(), vec![ScanProblem { file, what }]);
    };
    let files = preferred(find(&folder, &mut problems), &folder, &mut problems);
    let mut modules = Vec::with_capacity(files.len());
    let mut devnames = Vec::new();
    for (module, result) in read_all(files, threads) {
        match result {
            Ok(names) => {
                devnames.extend(names.into_iter().map(|(name, number)| Devname {
                    name,
                    module: module.name.clone(),
                    builtin: false,
                    number,
                }));
                modules.push(module);
            }
            Err(what) => {
                problems.push(ScanProblem { file: module.file.unwrap_or_default(), what });
            }
        }
    }
    builtins(&folder, &mut modules, &mut devnames, &mut problems);
    ModuleDb::new(modules, devnames, problems)
}

/// Where the modules of `release` are, which must be one plain component.
fn folder(root: &Path, release: &str) -> Option<PathBuf> {
    if matches!(release, "" | "." | "..") || release.contains(['/', '\0']) {
        return None;
    }
    let places = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(release));
    places.into_iter().find(|place| place.is_dir())
}

/// All files that are called as modules are, in the order of their paths.
fn find(folder: &Path, problems: &mut Vec<ScanProblem>) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    // links may lead in a circle, so each folder is looked into once
    let mut seen = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        let entries = fs::metadata(&inner).and_then(|meta| {
            let new = seen.insert((meta.dev(), meta.ino()));
            if new { fs::read_dir(&inner).map(Some) } else { Ok(None) }
        });
        let entries = match entries {
            Ok(entries) => entries.into_iter().flatten().flatten(),
            Err(error) => {
                problems.push(ScanProblem { file: inner, what: error.to_string() });
                continue;
            }
        };
        let top = inner == folder;
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.as_encoded_bytes();
            // `build` and `source` lead to the kernel's sources
            if name.starts_with(b".") || (top && matches!(name, b"build" | b"source")) {
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                folders.push(path);
            } else if stem(name).is_some() {
                files.insert(path);
            }
        }
    }
    files
}

/// The name of a module's file without its ending.
fn stem(file: &[u8]) -> Option<&[u8]> {
    let endings: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.zst", b".ko.gz"];
    endings.iter().find_map(|ending| file.strip_suffix(*ending)).filter(|stem| !stem.is_empty())
}

/// Of several files of one module that in `updates` holds, then the first; as depmod.d(5) by default.
fn preferred(
    files: BTreeSet<PathBuf>,
    folder: &Path,
    problems: &mut Vec<ScanProblem>,
) -> Vec<Module> {
    let updates = folder.join("updates");
    let mut chosen: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        let name = file.file_name().map(|name| name.as_encoded_bytes()).and_then(stem);
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
            let what = "a module's name in UTF-8 wanted".to_owned();
            problems.push(ScanProblem { file, what });
            continue;
        };
        let name = name.replace('-', "_");
        let better = |old: &PathBuf| file.starts_with(&updates) && !old.starts_with(&updates);
        if chosen.get(&name).is_none_or(better) {
            chosen.insert(name, file);
        }
    }
    let module = |(name, file): (String, PathBuf)| Module { name: name.into(), file: Some(file) };
    chosen.into_iter().map(module).collect()
}

type Names = Vec<(Box<[u8]>, Option<crate::uevent::Devnum>)>;

/// Reads each file, on several threads that each take the next one.
fn read_all(files: Vec<Module>, threads: usize) -> Vec<(Module, Result<Names, String>)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        // one file's bytes at a time, in memory that is used again
        let mut buffers = (Vec::new(), Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index).and_then(|module| module.file.as_deref()) else {
                return done;
            };
            done.push((index, read(file, &mut buffers).map(|info| info.devnames())));
        }
    };
    let mut results: Vec<(usize, Result<Names, String>)> = thread::scope(|scope| {
        let count = threads.clamp(1, THREADS_LIMIT).min(files.len().max(1));
        let others: Vec<_> = (1..count).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            // a thread that died left its files to be missed below
            results.extend(other.join().unwrap_or_default());
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    let mut results = results.into_iter().peekable();
    let mut all = Vec::with_capacity(files.len());
    for (index, module) in files.into_iter().enumerate() {
        let result = results.next_if(|(number, _)| *number == index);
        all.push((module, result.map_or(Err("could not be read".to_owned()), |(_, r)| r)));
    }
    all
}

/// What a module's file declares; `buffers` are the file's bytes and the unpacked ones.
fn read(path: &Path, (file, unpacked): &mut (Vec<u8>, Vec<u8>)) -> Result<ModInfo, String> {
    let failed = |error: io::Error| error.to_string();
    // asked before the file is opened: opening a FIFO would wait
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("a regular file wanted".to_owned());
    }
    file.clear();
    let reader = File::open(path).map_err(failed)?;
    if limited(reader, file).map_err(failed)? {
        return Err(too_large());
    }
    unpacked.clear();
    let bytes = if unpack(file, unpacked)? { &*unpacked } else { &*file };
    modinfo::parse(bytes).map_err(|error| error.to_string())
}

/// Unpacks a module by its magic bytes, whatever it is called; false if it is not packed.
fn unpack(packed: &[u8], into: &mut Vec<u8>) -> Result<bool, String> {
    let over = if packed.starts_with(b"\xfd7zXZ\0") {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)
            .map_err(|error| format!("xz: {error}"))?;
        limited(liblzma::read::XzDecoder::new_stream(packed, stream), into)
            .map_err(|error| format!("xz: {error}"))
    } else if packed.starts_with(b"\x28\xb5\x2f\xfd") {
        zstd::stream::read::Decoder::with_buffer(packed)
            .and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW)?;
                limited(decoder, into)
            })
            .map_err(|error| format!("zstd: {error}"))
    } else if packed.starts_with(b"\x1f\x8b") {
        limited(flate2::read::GzDecoder::new(packed), into)
            .map_err(|error| format!("gzip: {error}"))
    } else {
        return Ok(false);
    };
    if over? { Err(too_large()) } else { Ok(true) }
}

/// Reads to the end, or a little beyond the limit: then true.
fn limited(reader: impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let read = reader.take(FILE_LIMIT + 1).read_to_end(into)?;
    Ok(read as u64 > FILE_LIMIT)
}

fn too_large() -> String {
    format!("larger than {} MiB", FILE_LIMIT >> 20)
}

/// The modules that are part of the kernel, as far as they say anything of themselves.
fn builtins(
    folder: &Path,
    modules: &mut Vec<Module>,
    devnames: &mut Vec<Devname>,
    problems: &mut Vec<ScanProblem>,
) {
    let file = folder.join("modules.builtin.modinfo");
    let mut bytes = Vec::new();
    match File::open(&file).and_then(|reader| limited(reader, &mut bytes)) {
        Ok(false) => {}
        Ok(true) => {
            problems.push(ScanProblem { file, what: too_large() });
            return;
        }
        // kernels before 5.2 have no such list
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            problems.push(ScanProblem { file, what: error.to_string() });
            return;
        }
    }
    let mut order: Vec<&[u8]> = Vec::new();
    let mut aliases: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    for (name, key, value) in modinfo::builtin(&bytes) {
        let list = aliases.entry(name).or_insert_with(|| {
            order.push(name);
            Vec::new()
        });
        if key == b"alias" {
            list.push(value);
        }
    }
    for name in order {
        let module: Arc<str> = String::from_utf8_lossy(name).replace('-', "_").into();
        let list = aliases.remove(name).unwrap_or_default();
        devnames.extend(
            modinfo::devnames(list.into_iter()).into_iter().map(|(name, number)| Devname {
                name,
                module: module.clone(),
                builtin: true,
                number,
            }),
        );
        modules.push(Module { name: module, file: None });
    }
}

//! Stage 3b: a kernel's folder of modules in, its database out; only what changed is read again.
//!
//! One bad file is a [`ScanProblem`], and the rest stays.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::build::{self, Contents, Source};
use super::lease::BEING_WRITTEN;
use super::links::{self, Linked, Symbols};
use super::tree::{self, Found, Key};
use super::unpack::Buffers;
use super::{ModuleDb, ScanProblem};

/// Beyond these the disk is the limit.
const THREADS_LIMIT: usize = 16;
/// A file that changed this short a time ago may change again within one tick of the file system's
/// clock, and look the same after that: it is read again next time. In milliseconds.
const SETTLED_AFTER: u64 = 100;

/// Told how many files were read, and of how many.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

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
    update(root, release, None, &|_, _| ()).unwrap_or_default()
}

/// Reads what changed since `old` was made; `None`: nothing did.
#[must_use]
pub fn update(
    root: &Path,
    release: &str,
    old: Option<&ModuleDb>,
    progress: Progress<'_>,
) -> Option<ModuleDb> {
    let Some(folder) = tree::folder(root, release) else {
        let file = root.join("lib/modules").join(release);
        let what = "no folder of modules for this kernel".to_owned();
        let missing = ModuleDb::missing(release, ScanProblem { file, what });
        return old.is_none_or(|old| !old.is_empty()).then_some(missing);
    };
    let mut problems = Vec::new();
    let files = tree::walk(&folder, &mut problems);
    let old = old.filter(|old| old.folder() == folder && old.release() == release);
    if let Some(old) = old
        && problems.is_empty()
        && old.has_files(&files)
        // a list that was left out looks the same when its writer has closed it
        && !old.problems().iter().any(|problem| problem.what == BEING_WRITTEN)
    {
        return None;
    }
    let chosen = preferred(&files, &folder, &mut problems);
    let known = |found: &Found| old.and_then(|old| old.contents_of(found));
    let mut sources: Vec<Source<'_>> = Vec::with_capacity(files.len());
    let mut unread = Vec::new();
    for (index, found) in files.iter().enumerate() {
        let contents = if !chosen.get(index).copied().unwrap_or(false) {
            Contents::Unused
        } else if let Some(contents) = known(found) {
            contents
        } else if !found.regular {
            Contents::Bad("a regular file wanted".as_bytes().into())
        } else {
            unread.push(index);
            Contents::Unused
        };
        sources.push(Source { path: &found.path, key: found.key, contents });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let read = read_all(&folder, &files, &unread, progress);
    for (index, contents) in in_order_of_use(read, &folder, &files, &chosen) {
        let source = &mut sources[index];
        let (seconds, nanoseconds) = source.key.mtime;
        let changed = seconds.saturating_mul(1000).saturating_add((nanoseconds / 1_000_000).into());
        let busy = matches!(&contents, Contents::Bad(what) if **what == *BEING_WRITTEN.as_bytes());
        if busy || changed.saturating_add(SETTLED_AFTER) > now {
            source.key = Key::default();
        }
        source.contents = contents;
    }
    Some(build::database(&folder, release, sources, problems))
}

/// Of several files of one module, that in `updates` holds, then the first; as depmod.d(5) by default.
fn preferred(files: &[Found], folder: &Path, problems: &mut Vec<ScanProblem>) -> Vec<bool> {
    let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = vec![false; files.len()];
    for (index, found) in files.iter().enumerate() {
        // the lists are read by `build`
        let Some(name) = found.name() else { continue };
        let Ok(name) = String::from_utf8(name) else {
            let what = "a module's name in UTF-8 wanted".to_owned();
            problems.push(ScanProblem { file: found.full(folder), what });
            continue;
        };
        let updated = |found: &Found| found.path.starts_with(b"updates");
        if chosen.get(&name).is_none_or(|old| updated(found) && !updated(&files[*old])) {
            chosen.insert(name, index);
        }
    }
    chosen.values().for_each(|index| all[*index] = true);
    all
}

/// Puts what each file needs in the order in which it uses it.
fn in_order_of_use(
    read: Vec<(usize, Result<Linked, String>)>,
    folder: &Path,
    files: &[Found],
    chosen: &[bool],
) -> Vec<(usize, Contents<'static>)> {
    let good = read
        .iter()
        .filter_map(|(index, linked)| Some((files.get(*index)?.name()?, linked.as_ref().ok()?)));
    let find = |name: &[u8]| {
        let mut files = files.iter().zip(chosen).filter(|(_, chosen)| **chosen);
        let (found, _) = files.find(|(found, _)| found.name().is_some_and(|own| own == name))?;
        Some(found.full(folder))
    };
    let symbols = Symbols::of(good, find);
    let contents = read.into_iter().map(|(index, linked)| match linked {
        Ok(linked) => (index, Contents::Info(symbols.kept(linked).into())),
        Err(what) => (index, Contents::Bad(what.into_bytes().into())),
    });
    contents.collect()
}

/// Reads the files of these numbers, on several threads that each take the next one.
fn read_all(
    folder: &Path,
    files: &[Found],
    numbers: &[usize],
    progress: Progress<'_>,
) -> Vec<(usize, Result<Linked, String>)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut buffers = Buffers::default();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(&number) = numbers.get(turn) else { return done };
            done.push((number, links::read(&files[number].full(folder), &mut buffers)));
            progress(turn + 1, numbers.len());
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.clamp(1, THREADS_LIMIT).min(numbers.len());
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            // a thread cannot panic and leave the others alive: panic = "abort"
            results.extend(other.join().unwrap_or_default());
        }
        results
    })
}

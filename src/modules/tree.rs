//! Stage 3b: which files a kernel's folder of modules holds, and by what each is known again.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::ScanProblem;

/// The lists that the kernel's build leaves beside the modules.
pub(super) const ORDER: &[u8] = b"modules.order";
pub(super) const BUILTIN: &[u8] = b"modules.builtin";
pub(super) const BUILTIN_INFO: &[u8] = b"modules.builtin.modinfo";

/// More do not make the kernel faster.
const THREADS_LIMIT: usize = 4;
/// So many folders that wait are worth another thread.
const THREADS_FROM: usize = 32;

/// By what a file is known again without opening it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (u64, u32),
    /// 0 is nobody's: such a key never matches.
    pub(super) inode: u64,
}

impl Key {
    fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: (meta.mtime().cast_unsigned(), u32::try_from(meta.mtime_nsec()).unwrap_or(0)),
            inode: meta.ino(),
        }
    }
}

/// A module's file, or one of the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Below the folder of modules.
    pub(super) path: Box<[u8]>,
    pub(super) key: Key,
    /// Not a FIFO or the like.
    pub(super) regular: bool,
}

impl Found {
    /// The module's name, with underscores; `None` for the lists.
    pub(super) fn name(&self) -> Option<Vec<u8>> {
        let name = self.path.rsplit(|byte| *byte == b'/').next()?;
        Some(stem(name)?.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect())
    }

    pub(super) fn full(&self, folder: &Path) -> PathBuf {
        folder.join(std::ffi::OsStr::from_bytes(&self.path))
    }
}

/// The name of a module's file without its ending.
pub(super) fn stem(file: &[u8]) -> Option<&[u8]> {
    let endings: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.zst", b".ko.gz"];
    endings.iter().find_map(|ending| file.strip_suffix(*ending)).filter(|stem| !stem.is_empty())
}

/// Where the modules of `release` are, which must be one plain component.
pub(super) fn folder(root: &Path, release: &str) -> Option<PathBuf> {
    if matches!(release, "" | "." | "..") || release.contains(['/', '\0']) {
        return None;
    }
    let places = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(release));
    places.into_iter().find(|place| place.is_dir())
}

/// All modules' files and the lists, sorted by path.
pub(super) fn walk(folder: &Path, problems: &mut Vec<ScanProblem>) -> Vec<Found> {
    let mut part = real_folders(folder);
    follow_links(folder, &mut part);
    problems.append(&mut part.problems);
    part.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    part.found
}

/// What was found so far.
#[derive(Default)]
struct Part {
    found: Vec<Found>,
    /// Below the folder of modules, as the links.
    folders: Vec<PathBuf>,
    /// Links that lead to folders.
    links: Vec<PathBuf>,
    problems: Vec<ScanProblem>,
}

/// Folders that wait for a thread, and how many are being looked into.
#[derive(Default)]
struct Open {
    folders: Vec<PathBuf>,
    busy: usize,
}

/// Looks into all folders, without following links; in a large tree on a few threads.
fn real_folders(folder: &Path) -> Part {
    let mut part = Part::default();
    let mut open = vec![PathBuf::new()];
    while open.len() < THREADS_FROM {
        let Some(inner) = open.pop() else { return part };
        open.extend(look_into(folder, &inner, &mut part));
        part.folders.push(inner);
    }
    for mut other in on_threads(folder, open) {
        part.found.append(&mut other.found);
        part.folders.append(&mut other.folders);
        part.links.append(&mut other.links);
        part.problems.append(&mut other.problems);
    }
    part
}

fn on_threads(folder: &Path, folders: Vec<PathBuf>) -> Vec<Part> {
    let open = Mutex::new(Open { folders, busy: 0 });
    let more = Condvar::new();
    let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let mut part = Part::default();
        // its own folders, the last found first; what others may take is in `open`
        let mut own: Vec<PathBuf> = Vec::new();
        loop {
            let inner = match own.pop() {
                Some(inner) => inner,
                None => {
                    let mut open = lock();
                    loop {
                        if let Some(inner) = open.folders.pop() {
                            open.busy += 1;
                            break inner;
                        }
                        if open.busy == 0 {
                            return part;
                        }
                        open = more.wait(open).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            own.extend(look_into(folder, &inner, &mut part));
            part.folders.push(inner);
            let mut open = lock();
            if own.len() > 1 && open.folders.is_empty() {
                let half = own.len() / 2;
                open.folders.extend(own.drain(..half));
                more.notify_all();
            }
            if own.is_empty() {
                open.busy -= 1;
                if open.busy == 0 {
                    more.notify_all();
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_LIMIT);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        // a thread cannot panic and leave the others alive: panic = "abort"
        parts.extend(others.into_iter().filter_map(|other| other.join().ok()));
        parts
    })
}

/// Looks into the folders that links lead to, each once: links may lead in a circle.
fn follow_links(folder: &Path, part: &mut Part) {
    if part.links.is_empty() {
        return;
    }
    let id = |inner: &PathBuf| {
        let meta = fs::metadata(folder.join(inner)).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let mut seen: HashSet<_> = part.folders.iter().filter_map(id).collect();
    // in one order, so that of two ways to a folder it is always the same one
    let mut open = std::mem::take(&mut part.links);
    open.sort_unstable_by(|a, b| b.cmp(a));
    while let Some(inner) = open.pop() {
        if id(&inner).is_some_and(|id| seen.insert(id)) {
            let mut more = look_into(folder, &inner, part);
            more.append(&mut part.links);
            more.sort_unstable_by(|a, b| b.cmp(a));
            open.append(&mut more);
        }
    }
}

/// Notes what a folder holds, and returns the folders in it.
fn look_into(folder: &Path, inner: &Path, part: &mut Part) -> Vec<PathBuf> {
    let full = folder.join(inner);
    let mut folders = Vec::new();
    let entries = match fs::read_dir(&full) {
        Ok(entries) => entries,
        Err(error) => {
            part.problems.push(ScanProblem { file: full, what: error.to_string() });
            return folders;
        }
    };
    let top = inner.as_os_str().is_empty();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_bytes();
        // `build` and `source` lead to the kernel's sources
        if bytes.starts_with(b".") || (top && matches!(bytes, b"build" | b"source")) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            folders.push(inner.join(name));
        } else if kind.is_symlink() && entry.path().is_dir() {
            part.links.push(inner.join(name));
        } else if (top && [ORDER, BUILTIN, BUILTIN_INFO].contains(&bytes)) || stem(bytes).is_some()
        {
            let meta =
                if kind.is_symlink() { fs::metadata(entry.path()) } else { entry.metadata() };
            match meta {
                Ok(meta) => part.found.push(Found {
                    path: inner.join(name).into_os_string().into_vec().into(),
                    key: Key::of(&meta),
                    regular: meta.is_file(),
                }),
                Err(error) => {
                    let what = error.to_string();
                    part.problems.push(ScanProblem { file: entry.path(), what });
                }
            }
        }
    }
    folders
}

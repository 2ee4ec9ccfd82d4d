//! Stage 3b: which files a kernel's folder of modules holds, and by what each is known again.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ScanProblem;

/// The lists that the kernel's build leaves beside the modules.
pub(super) const ORDER: &[u8] = b"modules.order";
pub(super) const BUILTIN: &[u8] = b"modules.builtin";
pub(super) const BUILTIN_INFO: &[u8] = b"modules.builtin.modinfo";

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
    let mut found = Vec::new();
    // links may lead in a circle, so each folder is looked into once
    let mut seen = HashSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        let full = folder.join(&inner);
        let entries = fs::metadata(&full).and_then(|meta| {
            let new = seen.insert((meta.dev(), meta.ino()));
            if new { fs::read_dir(&full).map(Some) } else { Ok(None) }
        });
        let entries = match entries {
            Ok(entries) => entries.into_iter().flatten().flatten(),
            Err(error) => {
                problems.push(ScanProblem { file: full, what: error.to_string() });
                continue;
            }
        };
        let top = inner.as_os_str().is_empty();
        for entry in entries {
            let name = entry.file_name();
            let name = name.as_bytes();
            // `build` and `source` lead to the kernel's sources
            if name.starts_with(b".") || (top && matches!(name, b"build" | b"source")) {
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let path = inner.join(entry.file_name());
            let list = top && [ORDER, BUILTIN, BUILTIN_INFO].contains(&name);
            if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
                folders.push(path);
            } else if list || stem(name).is_some() {
                let meta =
                    if kind.is_symlink() { fs::metadata(entry.path()) } else { entry.metadata() };
                match meta {
                    Ok(meta) => found.push(Found {
                        path: path.as_os_str().as_bytes().into(),
                        key: Key::of(&meta),
                        regular: meta.is_file(),
                    }),
                    Err(error) => {
                        problems.push(ScanProblem { file: entry.path(), what: error.to_string() });
                    }
                }
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found
}

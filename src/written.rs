//! Folders in, the files that somebody wrote by hand and that count out, and their texts: rules, `.link` files,
//! sources of the hardware database, policy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::problem::{Problem, Severity};

/// The number of `/dev/null`, as `makedev(3)` packs it.
const NULL: u64 = 1 << 8 | 3;

/// Who has more files of one kind than this has no more of them.
const FILES_LIMIT: usize = 10_000;

/// The files of all folders that count, in the order of their names; of files of one name, the first
/// folder's. A folder that is missing is as an empty one.
pub fn files(
    folders: impl IntoIterator<Item = PathBuf>,
    counts: impl Fn(&DirEntry) -> bool,
    problems: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        let mut whole = |what| problems.push(Problem::whole(&folder, Severity::Error, what));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                whole(format!("cannot be read: {error}"));
                continue;
            }
        };
        for entry in entries.flatten().filter(&counts) {
            if found.len() == FILES_LIMIT && !found.contains_key(&entry.file_name()) {
                whole(format!("at most {FILES_LIMIT} files wanted; the rest is not read"));
                break;
            }
            // the folder that is also called by another name is looked at once
            found.entry(entry.file_name()).or_insert_with(|| entry.path());
        }
    }
    found.into_values().collect()
}

/// Whether the name ends so and is not hidden.
#[must_use]
pub fn ends(entry: &DirEntry, end: &str) -> bool {
    let name = entry.file_name();
    name.as_bytes().ends_with(end.as_bytes()) && !name.as_bytes().starts_with(b".")
}

/// The text of one file of at most `limit` bytes; an empty one for `/dev/null`, which masks others.
///
/// # Errors
/// With what was wrong, when it cannot be read, is no file, or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Box<Problem>> {
    let whole = |what: String| Box::new(Problem::whole(path, Severity::Error, what));
    let unreadable = |error: io::Error| whole(format!("cannot be read: {error}"));
    // a fifo would wait for a writer
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.file_type().is_char_device() && meta.rdev() == NULL {
        return Ok(Vec::new());
    }
    if !meta.is_file() {
        return Err(whole("a regular file wanted".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(whole(format!("file is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

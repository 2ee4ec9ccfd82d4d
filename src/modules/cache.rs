//! Stage 3b: keeps the database in a file, so that an unchanged tree is not read again.
//!
//! The file is mapped and read in place. It is replaced as a whole, never written to, and not synced:
//! its checksum finds what a crash left of it, and it is made anew then.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::scan::{self, Progress};
use super::store::Store;
use super::{ModuleDb, ScanProblem};

/// The database of `release` below `root`, and what could not be done for the cache.
///
/// What the file holds is used as far as the tree is the same, and the file is replaced if it is not.
/// Blocks for as long as reading what changed takes.
#[must_use]
pub fn open(
    root: &Path,
    release: &str,
    file: &Path,
    progress: Progress<'_>,
) -> (ModuleDb, Option<ScanProblem>) {
    let problem = |what: String| ScanProblem { file: file.to_owned(), what };
    let (old, unread) = match read(file) {
        Ok(old) => (old, None),
        Err(error) => (None, Some(problem(format!("the cache is made anew: {error}")))),
    };
    match scan::update(root, release, old.as_ref(), progress) {
        None => (old.unwrap_or_default(), None),
        // a tree that comes later is read then; what is kept of another kernel stays
        Some(db) if db.folder().as_os_str().is_empty() => (db, unread),
        Some(db) => {
            let kept = write(&db, file);
            let unkept = kept.err().map(|error| problem(format!("cannot keep the cache: {error}")));
            (db, unkept.or(unread))
        }
    }
}

/// Replaces the file.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write(db: &ModuleDb, file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = folder.join(name);
    // one that a killed process of this number left
    drop(fs::remove_file(&new));
    let options = File::options().write(true).create_new(true).mode(0o644).open(&new);
    let written = options.and_then(|mut out| out.write_all(db.store.bytes()));
    let written = written.and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        drop(fs::remove_file(&new));
    }
    written
}

/// Whether the file holds this database, by length and checksum.
#[must_use]
pub fn holds(db: &ModuleDb, file: &Path) -> bool {
    let mut head = [0; 16];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && db.store.bytes().starts_with(&head)
}

/// What a file holds; `None` if there is none.
fn read(file: &Path) -> io::Result<Option<ModuleDb>> {
    // opening a FIFO would wait
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = match File::options().read(true).custom_flags(flags).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = opened.metadata()?;
    let own = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    // whoever else could write to it could cut it off while it is mapped
    if !meta.is_file() || !own || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("it is not ours alone to write"));
    }
    #[expect(unsafe_code, reason = "mapping a file that only we write")]
    // SAFETY: the file is never written to after it was renamed to its name, and nobody else may.
    let map = unsafe { memmap2::Mmap::map(&opened)? };
    let store = Store::open(Box::new(map)).map_err(io::Error::other)?;
    let release = String::from_utf8_lossy(store.release()).into_owned();
    let folder = std::ffi::OsStr::from_bytes(store.folder()).to_owned();
    Ok(Some(ModuleDb::of(Path::new(&folder), &release, store)))
}

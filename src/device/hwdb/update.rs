//! Stage 3: all `.hwdb` sources below a root in, one `hwdb.bin` out; folders and their precedence are udev's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::device::hwdb::compile::Compiler;
use crate::device::hwdb::source;
use crate::problem::{Problem, Severity};

/// Where sources are below the root; of files of one name, the first folder's counts.
pub const FOLDERS: [&str; 3] = ["etc/udev/hwdb.d", "usr/lib/udev/hwdb.d", "lib/udev/hwdb.d"];

/// The largest source that is shipped has 4 MB.
const FILE_LIMIT: u64 = 64 << 20;

/// A source and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// The sources that count, in the order of their names. An empty file hides those of its name.
#[must_use]
pub fn texts(root: &Path) -> (Vec<Text>, Vec<Problem>) {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in paths(root, &mut problems) {
        // it has its place among the files even so
        let bytes = read(&path).unwrap_or_else(|error| {
            let what = format!("cannot be read: {error}");
            problems.push(Problem::whole(&path, Severity::Error, what));
            Vec::new()
        });
        texts.push(Text { path, bytes });
    }
    (texts, problems)
}

/// The compiled file, and what is wrong in its sources.
#[must_use]
pub fn compile(texts: &[Text]) -> (Vec<u8>, Vec<Problem>) {
    let (mut compiler, mut problems) = (Compiler::default(), Vec::new());
    for text in texts {
        let (properties, wrong) = source::parse(&text.path, &text.bytes);
        compiler.add(text.path.as_os_str().as_bytes(), &properties);
        problems.extend(wrong);
    }
    (compiler.finish(), problems)
}

/// Puts the compiled file at its place, readable for all; who reads the old one goes on with it.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = OsString::from(".#");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = folder.join(name);
    // one that a killed process of this number left
    drop(fs::remove_file(&new));
    let written = File::options().write(true).create_new(true).mode(0o444).open(&new);
    let written = written.and_then(|mut out| {
        out.write_all(bytes)?;
        // after a crash there is to be the old one or the new one, and not an empty one
        out.sync_all()
    });
    let written = written.and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        drop(fs::remove_file(&new));
    }
    written
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // a FIFO would wait for a writer
    let meta = fs::metadata(path)?;
    if meta.file_type().is_char_device() {
        return Ok(Vec::new());
    }
    if !meta.is_file() {
        return Err(io::Error::other("a regular file wanted"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other(format!("at most {} MiB wanted", FILE_LIMIT >> 20)));
    }
    Ok(bytes)
}

fn paths(root: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        let entries = fs::canonicalize(&folder).and_then(|real| Ok((fs::read_dir(&real)?, real)));
        let (entries, real) = match entries {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let what = format!("cannot be read: {error}");
                problems.push(Problem::whole(&folder, Severity::Error, what));
                continue;
            }
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            if name.as_bytes().ends_with(b".hwdb") && !name.as_bytes().starts_with(b".") {
                found.entry(name.clone()).or_insert_with(|| real.join(name));
            }
        }
    }
    found.into_values().collect()
}

/// Removes a compiled file that has no sources any more.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

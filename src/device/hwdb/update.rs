//! Stage 3: all `.hwdb` sources below a root in, one `hwdb.bin` out; folders and their precedence are udev's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::device::hwdb::compile::Compiler;
use crate::device::hwdb::source;
use crate::problem::Problem;
use crate::written;

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
    let folders = FOLDERS.map(|folder| root.join(folder));
    // the compiled file speaks of each source by its real path
    let folders = folders.map(|folder| fs::canonicalize(&folder).unwrap_or(folder));
    for path in written::files(folders, |entry| written::ends(entry, ".hwdb"), &mut problems) {
        // it has its place among the files even so
        let bytes = written::read(&path, FILE_LIMIT).unwrap_or_else(|problem| {
            problems.push(*problem);
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

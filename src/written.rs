//! A path in, the text of a file that somebody wrote by hand out: rules, `.link` files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::problem::{Problem, Severity};

/// The text of one file of at most `limit` bytes; an empty one for `/dev/null`, which masks others.
///
/// # Errors
/// With what was wrong, when it cannot be read, is no file, or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Box<Problem>> {
    let whole = |what: String| Box::new(Problem::whole(path, Severity::Error, what));
    let unreadable = |error: io::Error| whole(format!("cannot be read: {error}"));
    // a fifo would wait for a writer
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.file_type().is_char_device() {
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

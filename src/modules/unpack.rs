//! Stage 3b: a module's file in, its bytes out, unpacked by what they begin with.
//!
//! Files are read and never mapped: a module may be replaced or cut off while it is looked at.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::lease::{self, BEING_WRITTEN};

/// A module is read and unpacked into memory; the largest of Debian is below 32 MiB.
const FILE_LIMIT: u64 = 128 << 20;
/// What unpacking itself may take; a preset of xz needs at most 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// Window of zstd as a power of two; the kernel's build uses at most 2^27.
const ZSTD_WINDOW: u32 = 27;

/// Memory for one file at a time, used again for the next.
#[derive(Debug, Default)]
pub struct Buffers {
    file: Vec<u8>,
    unpacked: Vec<u8>,
}

/// Reads a module and unpacks it, whatever it is called.
///
/// # Errors
/// When it is no regular file, cannot be read or unpacked, or is larger than any module.
pub fn read<'b>(path: &Path, buffers: &'b mut Buffers) -> Result<&'b [u8], String> {
    let failed = |error: io::Error| error.to_string();
    // asked before the file is opened: opening a FIFO would wait
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("a regular file wanted".to_owned());
    }
    let Buffers { file, unpacked } = buffers;
    file.clear();
    if whole(&File::open(path).map_err(failed)?, file).map_err(failed)? {
        return Err(too_large());
    }
    unpacked.clear();
    Ok(if unpack(file, unpacked)? { unpacked } else { file })
}

/// Reads a list of the kernel's build; `None` if there is none.
///
/// # Errors
/// When it cannot be read or is larger than any.
pub(super) fn read_list(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| whole(&file, &mut bytes)) {
        Ok(false) => Ok(Some(bytes)),
        Ok(true) => Err(too_large()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a file that nobody writes, or a little beyond the limit: then true.
fn whole(file: &File, into: &mut Vec<u8>) -> io::Result<bool> {
    let written = || io::Error::other(BEING_WRITTEN);
    let stamp = || file.metadata().map(|meta| (meta.size(), meta.mtime(), meta.mtime_nsec()));
    let before = stamp()?;
    if lease::is_being_written(file) == Some(true) {
        return Err(written());
    }
    let over = limited(file, into)?;
    // also one that came and went meanwhile
    if lease::is_being_written(file) == Some(true) || stamp()? != before {
        Err(written())
    } else {
        Ok(over)
    }
}

/// Unpacks by the magic bytes; false if it is not packed.
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

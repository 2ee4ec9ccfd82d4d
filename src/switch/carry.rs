//! Stage 6b: does the steps of a plan in a file system that nobody uses yet.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::plan::Step;
use super::survey::{Found, What, below, magic};
use super::xattrs;
use crate::modules::lease;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    Done,
    /// The name has a place now, and what was there has to be mounted on it.
    Mount,
}

/// Folder and last part of a name.
fn parent<'a>(root: BorrowedFd<'_>, path: &'a [u8]) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (folder, name) = at.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]));
    Ok((below(root, folder, OFlags::PATH | OFlags::DIRECTORY)?, OsStr::from_bytes(name)))
}

/// Does one step below `to`; `from` is where contents are.
pub(super) fn step(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &[u8],
    step: &Step,
) -> io::Result<Carried> {
    match step {
        Step::Remove { folder } => remove(to, path, *folder)?,
        Step::Make(found) => make(from, to, path, found)?,
        Step::Copy(found) => {
            if !copy(from, to, path, found)? {
                place(to, path, false)?;
                return Ok(Carried::Mount);
            }
        }
        Step::Mount => {
            place(to, path, false)?;
            return Ok(Carried::Mount);
        }
        Step::Place { folder } => place(to, path, *folder)?,
        Step::Attributes(found) => attributes(from, to, path, found)?,
    }
    Ok(Carried::Done)
}

fn remove(to: BorrowedFd<'_>, path: &[u8], folder: bool) -> io::Result<()> {
    let (above, name) = match parent(to, path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match fs::unlinkat(above, name, flags) {
        // a folder with a device's node in it is the kernel's
        Err(Errno::NOTEMPTY) if folder => Ok(()),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => Err(io::Error::other("a device has the name there")),
        Err(error) => Err(error.into()),
    }
}

fn make(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8], found: &Found) -> io::Result<()> {
    let (above, name) = parent(to, path)?;
    // nobody but root sees it before it has its owner
    match &found.what {
        What::Folder => fs::mkdirat(&above, name, Mode::RWXU)?,
        What::Link(target) => fs::symlinkat(OsStr::from_bytes(target), &above, name)?,
        What::Node { block, number } => {
            let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
            fs::mknodat(&above, name, kind, Mode::empty(), *number)?;
        }
        What::Fifo | What::Socket | What::File { .. } => return place(to, path, false),
    }
    attributes(from, to, path, found)
}

fn attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &[u8],
    found: &Found,
) -> io::Result<()> {
    let fd = below(to, path, OFlags::PATH)?;
    let (uid, gid) = (Uid::from_raw(found.uid), Gid::from_raw(found.gid));
    fs::chownat(&fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    if !matches!(found.what, What::Link(_)) {
        // chmod takes no O_PATH descriptor; its name in /proc does. After chown, which clears set-id bits
        fs::chmod(magic(fd.as_fd()), Mode::from_raw_mode(found.mode))?;
    }
    // after both: chown takes a file's capabilities away
    xattrs::give(from, fd.as_fd(), path, &found.xattrs)
}

fn place(to: BorrowedFd<'_>, path: &[u8], folder: bool) -> io::Result<()> {
    let (above, name) = parent(to, path)?;
    let made = match folder {
        true => fs::mkdirat(above, name, Mode::from_raw_mode(0o755)),
        false => fs::mknodat(above, name, FileType::RegularFile, Mode::empty(), 0),
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        done => Ok(done?),
    }
}

/// Copies a file that nobody has open; whoever has it open would go on with the old one.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8], found: &Found) -> io::Result<bool> {
    let mut source = File::from(below(from, path, OFlags::RDWR | OFlags::NONBLOCK)?);
    let stat = fs::fstat(&source)?;
    if (stat.st_dev, stat.st_ino) != found.object {
        return Err(io::Error::other("it is another file by now"));
    }
    if lease::is_open_elsewhere(&source) != Some(false) {
        return Ok(false);
    }
    let (above, name) = parent(to, path)?;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(fs::openat(above, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut source, &mut copy)?;
    attributes(from, to, path, found)?;
    Ok(true)
}

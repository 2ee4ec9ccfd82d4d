//! Stage 6b: a file system in, what is at each of its names out; nothing that is mounted on it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::xattrs::{ACL, Xattrs, listed};

/// Names that one file system of devices may have; a map has at most as many.
const NAMES_MAX: usize = 1 << 20;

/// What there is at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Folder,
    Link(Vec<u8>),
    Node { block: bool, number: u64 },
    Fifo,
    Socket,
    File { size: u64, links: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: Xattrs,
    /// File system and inode.
    pub(super) object: (u64, u64),
}

impl Found {
    pub(super) fn has_acl(&self) -> bool {
        self.xattrs.contains_key(ACL)
    }
}

/// By path below the root, which is the empty path; a folder comes before what is in it.
pub(super) type Survey = BTreeMap<Vec<u8>, Found>;

/// Looks at every name, without opening a device.
pub(super) fn survey(root: BorrowedFd<'_>) -> io::Result<Survey> {
    let mut all = Survey::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let Some(folder) = gone(below(root, &path, OFlags::RDONLY | OFlags::DIRECTORY))? else {
            continue;
        };
        if path.is_empty() {
            all.insert(Vec::new(), found(&folder, &fs::fstat(&folder)?, What::Folder)?);
        }
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let full = if path.is_empty() { name.to_vec() } else { [&path, name].join(&b'/') };
            let here = gone(at(&folder, name));
            let here = here
                .map_err(|error| io::Error::other(format!("`{}`: {error}", full.escape_ascii())))?;
            let Some(here) = here else { continue };
            if here.what == What::Folder {
                open.push(full.clone());
            }
            all.insert(full, here);
            if all.len() > NAMES_MAX {
                return Err(io::Error::other("it has more names than a map can have"));
            }
        }
    }
    Ok(all)
}

/// A name may go while we look.
fn gone<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens what is below a root and behind no link.
pub(super) fn below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), stay)
}

fn at(folder: &OwnedFd, name: &[u8]) -> Result<Found, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(folder, OsStr::from_bytes(name), flags, Mode::empty())?;
    let stat = fs::fstat(&fd)?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => What::Folder,
        FileType::Symlink => What::Link(fs::readlinkat(&fd, "", Vec::new())?.into_bytes()),
        FileType::CharacterDevice => What::Node { block: false, number: stat.st_rdev },
        FileType::BlockDevice => What::Node { block: true, number: stat.st_rdev },
        FileType::Fifo => What::Fifo,
        FileType::Socket => What::Socket,
        FileType::RegularFile | FileType::Unknown => {
            What::File { size: u64::try_from(stat.st_size).unwrap_or(0), links: stat.st_nlink }
        }
    };
    found(&fd, &stat, what)
}

fn found(fd: &OwnedFd, stat: &Stat, what: What) -> Result<Found, Errno> {
    Ok(Found {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        xattrs: listed(fd.as_fd())?,
        object: (stat.st_dev, stat.st_ino),
        what,
    })
}

/// Its name in /proc, for calls that take no descriptor that is only a place.
pub(super) fn magic(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

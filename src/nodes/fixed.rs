//! Makes nodes that stand in `/dev` before their devices, as kmod-static-nodes.service has them made,
//! and removes them again.
//!
//! A node appears whole: it is made under another name, and renamed when owner and mode are right.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::Permissions;
use super::links::{UNFINISHED, is_safe};
use crate::uevent::Devnum;

/// What there is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    Nothing,
    /// A node of this kind and number.
    Same,
    /// Another node, or no node at all.
    Other,
}

/// Looks without opening the device.
#[must_use]
pub fn look(dev: &Path, name: &[u8], number: Devnum) -> There {
    let path = dev.join(OsStr::from_bytes(name));
    match fs::statat(fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let same = kind == kind_of(number) && stat.st_rdev == raw(number);
            if same { There::Same } else { There::Other }
        }
        Err(Errno::NOENT) => There::Nothing,
        Err(_) => There::Other,
    }
}

fn kind_of(number: Devnum) -> FileType {
    if number.block { FileType::BlockDevice } else { FileType::CharacterDevice }
}

fn raw(number: Devnum) -> u64 {
    fs::makedev(number.major, number.minor)
}

/// Makes a node where nothing is, with its final owner and mode, and the folders above it.
///
/// # Errors
/// When something is at the name already, or the system refuses.
pub fn make(dev: &Path, name: &[u8], number: Devnum, shall: Permissions) -> io::Result<()> {
    if !is_safe(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name leads out of /dev"));
    }
    let mut parts = name.split(|byte| *byte == b'/');
    let base = parts.next_back().unwrap_or_default();
    let folder = parts.try_fold(open(fs::CWD, dev.as_os_str())?, |above, part| {
        let part = OsStr::from_bytes(part);
        match fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => open(&above, part),
            Err(error) => Err(error.into()),
        }
    })?;
    let new = [base, UNFINISHED.as_bytes()].concat();
    let (new, base) = (OsStr::from_bytes(&new), OsStr::from_bytes(base));
    // one that a killed daemon left
    let _ = fs::unlinkat(&folder, new, AtFlags::empty());
    fs::mknodat(&folder, new, kind_of(number), Mode::empty(), raw(number))?;
    let finish = || {
        let (uid, gid) = (Uid::from_raw(shall.uid), Gid::from_raw(shall.gid));
        fs::chownat(&folder, new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        fs::chmodat(&folder, new, Mode::from_raw_mode(shall.mode), AtFlags::empty())?;
        fs::renameat_with(&folder, new, &folder, base, RenameFlags::NOREPLACE)
    };
    finish().map_err(|error: Errno| {
        let _ = fs::unlinkat(&folder, new, AtFlags::empty());
        error.into()
    })
}

fn open(above: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(above, name, flags, Mode::empty())?)
}

/// Removes the node if it is this one, and the folders that it leaves empty.
///
/// # Errors
/// When the system refuses.
pub fn remove(dev: &Path, name: &[u8], number: Devnum) -> io::Result<()> {
    if !is_safe(name) || look(dev, name, number) != There::Same {
        return Ok(());
    }
    let path = dev.join(OsStr::from_bytes(name));
    std::fs::remove_file(&path)?;
    let above = path.ancestors().skip(1).take_while(|folder| *folder != dev);
    // the first that is not empty ends it
    above.map(std::fs::remove_dir).take_while(Result::is_ok).for_each(drop);
    Ok(())
}

/// Makes the links below `folder`, in folders of their own, just these, and no others.
///
/// # Errors
/// When the system refuses.
pub fn links(folder: &Path, wanted: &BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    for tag in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        for link in std::fs::read_dir(tag.path()).into_iter().flatten().flatten() {
            if !wanted.contains_key(&link.path()) {
                std::fs::remove_file(link.path())?;
            }
        }
        // goes if it is empty
        drop(std::fs::remove_dir(tag.path()));
    }
    for (link, target) in wanted {
        if std::fs::read_link(link).is_ok_and(|now| now == *target) {
            continue;
        }
        link.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        drop(std::fs::remove_file(link));
        std::os::unix::fs::symlink(target, link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const TUN: Devnum = Devnum { block: false, major: 10, minor: 200 };
    const GROUP: Permissions = Permissions { uid: 0, gid: 7, mode: 0o660 };

    #[test]
    fn a_node_is_made_whole_and_goes_with_its_empty_folders() {
        let dev = tempfile::tempdir().unwrap();
        let made = make(dev.path(), b"net/tun", TUN, GROUP);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            println!("skipped: no right to make nodes");
            return;
        }
        made.unwrap();
        let stat = std::fs::symlink_metadata(dev.path().join("net/tun")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.gid(), stat.rdev()), (0o660, 7, raw(TUN)));
        assert_eq!(std::fs::read_dir(dev.path().join("net")).unwrap().count(), 1);
        assert_eq!(look(dev.path(), b"net/tun", TUN), There::Same);
        remove(dev.path(), b"net/tun", Devnum { minor: 201, ..TUN }).unwrap();
        assert_eq!(look(dev.path(), b"net/tun", TUN), There::Same, "another number, another node");
        remove(dev.path(), b"net/tun", TUN).unwrap();
        assert!(!dev.path().join("net").exists());
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let dev = tempfile::tempdir().unwrap();
        std::fs::write(dev.path().join("tun"), "content").unwrap();
        make(dev.path(), b"tun", TUN, GROUP).unwrap_err();
        std::os::unix::fs::symlink("/tmp", dev.path().join("net")).unwrap();
        make(dev.path(), b"net/tun", TUN, GROUP).unwrap_err();
        make(dev.path(), b"../tun", TUN, GROUP).unwrap_err();
        assert_eq!(look(dev.path(), b"tun", TUN), There::Other);
        assert_eq!(std::fs::read_dir(dev.path()).unwrap().count(), 2);
    }
}

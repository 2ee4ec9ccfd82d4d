//! Makes and removes the links of `/dev`: replaced atomically, empty folders go with them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::siphash;
use crate::uevent::Devnum;

/// How the name of a link or node ends that is not at its place yet.
pub(super) const UNFINISHED: &str = ".#new";

/// Removes what a run that was killed had not put at its place; the nodes of `dev` are looked at, and
/// nothing that is mounted below.
///
/// # Errors
/// When `dev` cannot be looked at.
pub fn tidy(dev: &Path) -> io::Result<()> {
    let here = fs::metadata(dev)?.dev();
    let mut open = vec![dev.to_owned()];
    while let Some(folder) = open.pop() {
        // a folder may go while we look
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && meta.dev() == here {
                open.push(entry.path());
            } else if entry.file_name().as_bytes().ends_with(UNFINISHED.as_bytes()) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }
    Ok(())
}

/// The link that every node has beside its name: `char/10:200`, `block/8:1`.
#[must_use]
pub fn by_number(devnum: Devnum) -> Vec<u8> {
    let kind = if devnum.block { "block" } else { "char" };
    format!("{kind}/{}:{}", devnum.major, devnum.minor).into_bytes()
}

/// The text of a link at `name` to the node `target`, both below `/dev`: `../../sda1`.
#[must_use]
pub fn relative(name: &[u8], target: &[u8]) -> Vec<u8> {
    let mut from: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    let mut to: Vec<&[u8]> = target.split(|byte| *byte == b'/').collect();
    from.pop();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let common = common.min(to.len().saturating_sub(1));
    let mut parts: Vec<&[u8]> = vec![b".."; from.len() - common];
    parts.extend(to.drain(common..));
    parts.join(&b'/')
}

/// The node that a link leads to, below `/dev`; `None` if it is no link of ours.
#[must_use]
pub fn target(dev: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let text = fs::read_link(place(dev, name).ok()?).ok()?;
    let mut parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in text.components() {
        match part {
            Component::Normal(part) => parts.push(part.as_bytes()),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join(&b'/'))
}

/// Whether a name stays below `/dev`: no empty part, no `.`, no `..`, not absolute.
#[must_use]
pub fn is_safe(name: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(name));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    plain && !name.is_empty() && !name.contains(&0)
}

/// Points the link at a node, whatever it was before.
///
/// # Errors
/// When the place is taken by something that is no link (it is left alone), or the system refuses.
pub fn point(dev: &Path, name: &[u8], target: &[u8]) -> io::Result<()> {
    let link = place(dev, name)?;
    let text = relative(name, target);
    let text = OsStr::from_bytes(&text);
    match fs::symlink_metadata(&link) {
        Ok(there) if !there.is_symlink() => {
            let what = format!("{} is no link; left alone", link.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) if fs::read_link(&link).is_ok_and(|now| now.as_os_str() == text) => return Ok(()),
        Ok(_) | Err(_) => {}
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    // the link's own name may be as long as a name can be
    let temporary = format!("{:016x}{UNFINISHED}", siphash::hash([0; 2], name));
    let temporary = link.with_file_name(temporary);
    drop(fs::remove_file(&temporary));
    symlink(text, &temporary)?;
    fs::rename(&temporary, &link).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Removes a link and the folders that it leaves empty, up to `/dev`.
///
/// # Errors
/// When the system refuses; no link is no error, and what is no link is left alone.
pub fn remove(dev: &Path, name: &[u8]) -> io::Result<()> {
    let Some(link) = unlink(dev, name)? else { return Ok(()) };
    let mut folder = link.parent();
    while let Some(path) = folder.filter(|path| *path != dev) {
        if fs::remove_dir(path).is_err() {
            break;
        }
        folder = path.parent();
    }
    Ok(())
}

/// Removes a link and leaves its folders; where it was, if it was there.
///
/// # Errors
/// As [`remove`].
pub fn unlink(dev: &Path, name: &[u8]) -> io::Result<Option<PathBuf>> {
    let link = place(dev, name)?;
    match fs::symlink_metadata(&link) {
        Ok(there) if there.is_symlink() => fs::remove_file(&link)?,
        Ok(_) | Err(_) => return Ok(None),
    }
    Ok(Some(link))
}

fn place(dev: &Path, name: &[u8]) -> io::Result<PathBuf> {
    if is_safe(name) {
        return Ok(dev.join(OsStr::from_bytes(name)));
    }
    let what = format!("link name `{}` does not stay below /dev", name.escape_ascii());
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let dev = tempfile::tempdir().unwrap();
        point(dev.path(), b"disk/by-id/x", b"sda").unwrap();
        symlink("../sda", dev.path().join("disk/y.#new")).unwrap();
        fs::write(dev.path().join("net.#new"), "").unwrap();
        tidy(dev.path()).unwrap();
        let names = |folder: &str| {
            let entries = fs::read_dir(dev.path().join(folder)).unwrap().flatten();
            entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        assert_eq!((names(""), names("disk")), (vec!["disk".into()], vec!["by-id".into()]));
        assert_eq!(names("disk/by-id"), ["x"]);
    }

    #[test]
    fn links_are_relative() {
        let text = |name: &str, target: &str| {
            String::from_utf8(relative(name.as_bytes(), target.as_bytes())).unwrap()
        };
        assert_eq!(text("disk/by-id/x", "sda1"), "../../sda1");
        assert_eq!(text("char/10:200", "net/tun"), "../net/tun");
        assert_eq!(text("net/other", "net/tun"), "tun");
        assert_eq!(text("rtc", "rtc0"), "rtc0");
        assert_eq!(text("a/a", "a"), "../a");
    }

    #[test]
    fn a_link_is_replaced_and_goes_with_its_empty_folders() {
        let dev = tempfile::tempdir().unwrap();
        point(dev.path(), b"disk/by-id/x", b"sda").unwrap();
        point(dev.path(), b"disk/by-id/x", b"sdb").unwrap();
        point(dev.path(), b"disk/by-path/y", b"sdb").unwrap();
        let link = fs::read_link(dev.path().join("disk/by-id/x")).unwrap();
        assert_eq!(link, Path::new("../../sdb"));
        assert_eq!(target(dev.path(), b"disk/by-id/x").as_deref(), Some(b"sdb".as_slice()));
        remove(dev.path(), b"disk/by-id/x").unwrap();
        assert!(!dev.path().join("disk/by-id").exists());
        assert!(dev.path().join("disk/by-path/y").is_symlink());
    }

    #[test]
    fn a_name_may_be_as_long_as_the_kernel_allows() {
        let dev = tempfile::tempdir().unwrap();
        let name = [b"disk/".as_slice(), &[b'x'; 255]].concat();
        for node in ["sda", "sdb"] {
            point(dev.path(), &name, node.as_bytes()).unwrap();
            assert_eq!(target(dev.path(), &name).as_deref(), Some(node.as_bytes()));
        }
        assert_eq!(fs::read_dir(dev.path().join("disk")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_link_is_left_alone() {
        let dev = tempfile::tempdir().unwrap();
        fs::write(dev.path().join("x"), "content").unwrap();
        assert!(point(dev.path(), b"x", b"sda").is_err());
        remove(dev.path(), b"x").unwrap();
        assert_eq!(fs::read_to_string(dev.path().join("x")).unwrap(), "content");
    }

    #[test]
    fn names_that_leave_dev_are_refused() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["../x", "/etc/x", "a/../../x", ""] {
            assert!(point(dev.path(), name.as_bytes(), b"sda").is_err(), "{name}");
        }
    }
}

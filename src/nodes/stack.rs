//! Stage 5: the claims on links as udev keeps them on disk, `/run/udev/links/ESC/ID -> PRIORITY:NODE`.
//!
//! An entry appears and goes in one step, so whoever knows all claims by itself (the daemon) needs no
//! lock. Who has only the folder to decide by (`contest.rs`, systemd-udevd) holds the folder's lock.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;

use crate::device::DeviceId;
use crate::rules::decision::Link;
use crate::siphash;

/// A folder may go between two of our steps; after so many times somebody plays with us.
const TRIES: usize = 64;

/// The lock in a folder, as systemd-udevd 252 names it.
const LOCK: &str = ".lock";

/// Names a link's folder if the escaped link is longer than [`WHOLE`].
const KEY: [u64; 2] = [0x1a44_3140_cef1_6ab9, 0x2fe3_f3ae_8bec_199e];

/// What of an escaped link stands in the name of its folder: with the hash, 255 bytes.
const WHOLE: usize = 244;

/// One device's claim on one link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub id: DeviceId,
    pub priority: i32,
    /// Below `/dev`.
    pub node: Vec<u8>,
}

/// All folders of links.
#[derive(Clone, Debug)]
pub struct Stack {
    folder: PathBuf,
    dev: PathBuf,
}

impl Stack {
    /// `folder` is `/run/udev/links`; `dev` is where the nodes are.
    #[must_use]
    pub fn new(folder: &Path, dev: &Path) -> Self {
        Self { folder: folder.to_owned(), dev: dev.to_owned() }
    }

    /// The folder of a link's claims.
    #[must_use]
    pub fn of(&self, link: &[u8]) -> PathBuf {
        self.folder.join(OsStr::from_bytes(&escape(link)))
    }

    #[must_use]
    pub fn dev(&self) -> &Path {
        &self.dev
    }

    /// Enters a claim, or changes it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self, link: &[u8], claim: &Entry) -> io::Result<()> {
        let folder = self.of(link);
        let entry = folder.join(OsStr::from_bytes(claim.id.as_bytes()));
        let node = self.dev.join(OsStr::from_bytes(&claim.node));
        let mut text = format!("{}:", claim.priority).into_bytes();
        text.extend_from_slice(node.as_os_str().as_bytes());
        let text = OsStr::from_bytes(&text);
        for _ in 0..TRIES {
            match symlink(text, &entry) {
                Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(&folder)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return replace(&entry, text);
                }
                entered => return entered,
            }
        }
        Err(io::Error::other(format!("{} goes again and again", folder.display())))
    }

    /// Enters what a device claims now, and takes back what it claimed before and no longer does. `before`
    /// are links; those of them that `entered` says are not entered again. A failure costs its link only.
    pub fn update<'a>(
        &self,
        id: &DeviceId,
        node: &[u8],
        links: impl Iterator<Item = &'a Link> + Clone,
        before: &[Vec<u8>],
        entered: impl Fn(&Link) -> bool,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let mut keep = |link: &[u8], done: io::Result<()>| {
            let failed = |error| format!("claim on link `{}`: {error}", link.escape_ascii());
            problems.extend(done.err().map(failed));
        };
        for gone in before.iter().filter(|name| links.clone().all(|link| link.name != **name)) {
            keep(gone, self.leave(gone, id));
        }
        for link in links.filter(|link| !entered(link)) {
            let (id, priority, node) = (id.clone(), link.priority, node.to_vec());
            keep(&link.name, self.enter(&link.name, &Entry { id, priority, node }));
        }
        problems
    }

    /// Takes a claim back; none is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn leave(&self, link: &[u8], id: &DeviceId) -> io::Result<()> {
        match fs::remove_file(self.of(link).join(OsStr::from_bytes(id.as_bytes()))) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the folder of a link that nobody claims any longer.
    pub fn clear(&self, link: &[u8]) {
        tidy(&self.of(link));
    }

    /// Everything that is entered: links, and their claims in the order in which they were made.
    ///
    /// `names` gives the links that a device's record has: a folder's name may be cut short. Folders
    /// without a claim go.
    #[must_use]
    pub fn load(&self, names: impl Fn(&DeviceId) -> Vec<Vec<u8>>) -> Vec<(Vec<u8>, Vec<Entry>)> {
        let mut all = Vec::new();
        for folder in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let (path, name) = (folder.path(), folder.file_name());
            let claims = self.claims(&path);
            if claims.is_empty() {
                tidy(&path);
                continue;
            }
            let name = name.as_bytes();
            let link = match name.len() {
                ..=WHOLE => Some(unescape(name)),
                _ => {
                    let mut links = claims.iter().flat_map(|claim| names(&claim.id));
                    links.find(|link| escape(link) == name)
                }
            };
            all.extend(link.map(|link| (link, claims)));
        }
        all
    }

    fn claims(&self, folder: &Path) -> Vec<Entry> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let claim = self.read(&entry.path())?;
                let stat = entry.metadata().ok()?;
                Some(((stat.ctime(), stat.ctime_nsec()), claim))
            })
            .collect();
        // tmpfs lists what is new first, and its clock may tick slower than claims are made
        found.reverse();
        found.sort_by_key(|(made, _)| *made);
        found.into_iter().map(|(_, claim)| claim).collect()
    }

    /// Reads an entry; `None` if it is none.
    pub(super) fn read(&self, path: &Path) -> Option<Entry> {
        let id = DeviceId::from_bytes(path.file_name()?.as_bytes())?;
        let text = fs::read_link(path).ok()?;
        let text = text.as_os_str().as_bytes();
        let at = text.iter().position(|byte| *byte == b':')?;
        let priority = str::from_utf8(&text[..at]).ok()?.parse().ok()?;
        let node = Path::new(OsStr::from_bytes(&text[at + 1..])).strip_prefix(&self.dev).ok()?;
        Some(Entry { id, priority, node: node.as_os_str().as_bytes().to_vec() })
    }
}

/// Replaces an entry in one step, if it says something else.
pub(super) fn replace(entry: &Path, text: &OsStr) -> io::Result<()> {
    if fs::read_link(entry).is_ok_and(|now| now.as_os_str() == text) {
        return Ok(());
    }
    let mut name = b".#".to_vec();
    name.extend_from_slice(entry.file_name().unwrap_or_default().as_bytes());
    let new = entry.with_file_name(OsStr::from_bytes(&name));
    drop(fs::remove_file(&new));
    symlink(text, &new)?;
    fs::rename(&new, entry).inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Removes a folder without claims. One in which somebody is at work stays: he tidies up himself.
fn tidy(folder: &Path) {
    if fs::remove_dir(folder).is_err()
        && let Ok(Some(lock)) = Lock::take(folder, Wait::No)
    {
        lock.clear();
    }
}

/// What to do about a lock that another has, or that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It is made, and waited for.
    Yes,
    No,
}

/// The right to decide by what a folder holds.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    /// Gives the lock back when it is closed.
    _held: OwnedFd,
}

impl Lock {
    /// Takes the lock of a folder; `None` if that was not to be had without waiting.
    pub(super) fn take(folder: &Path, wait: Wait) -> io::Result<Option<Self>> {
        let path = folder.join(LOCK);
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (flags, how) = match wait {
            Wait::Yes => (flags | OFlags::CREATE, FlockOperation::LockExclusive),
            Wait::No => (flags, FlockOperation::NonBlockingLockExclusive),
        };
        for _ in 0..TRIES {
            let held = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::NOENT) if wait == Wait::No => return Ok(None),
                Err(Errno::NOENT) => {
                    fs::create_dir_all(folder)?;
                    continue;
                }
                held => held?,
            };
            match flock(&held, how) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                taken => taken?,
            }
            // who had it before may have removed it with the folder
            let same = |now: &fs::Metadata| fstat(&held).is_ok_and(|own| own.st_ino == now.ino());
            if fs::symlink_metadata(&path).is_ok_and(|now| same(&now)) {
                return Ok(Some(Self { folder: folder.to_owned(), _held: held }));
            }
        }
        Err(io::Error::other(format!("{} goes again and again", folder.display())))
    }

    /// Removes the folder, if only the lock is in it.
    pub(super) fn clear(&self) {
        let empty = fs::read_dir(&self.folder).is_ok_and(|entries| entries.take(2).count() < 2);
        if empty && fs::remove_file(self.folder.join(LOCK)).is_ok() {
            // somebody may have entered a claim in this moment: then it stays
            drop(fs::remove_dir(&self.folder));
        }
    }
}

/// The name of a link's folder.
#[must_use]
pub fn escape(link: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(link.len() + 16);
    for byte in link {
        match byte {
            b'/' => name.extend_from_slice(br"\x2f"),
            b'\\' => name.extend_from_slice(br"\x5c"),
            _ => name.push(*byte),
        }
    }
    if name.len() > WHOLE {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let hash = siphash::hash(KEY, &[link, b"\0"].concat());
        name.truncate(WHOLE);
        for shift in (0..=60).rev().step_by(6) {
            let digit = usize::try_from(hash >> shift & 63).unwrap_or(0);
            name.push(DIGITS[digit]);
        }
    }
    name
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut link = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'\\', b'x', b'2', b'f', tail @ ..] => (b'/', tail),
            [b'\\', b'x', b'5', b'c', tail @ ..] => (b'\\', tail),
            _ => (*first, tail),
        };
        link.push(byte);
        rest = tail;
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(minor: u32, priority: i32) -> Entry {
        let id = DeviceId::from_bytes(format!("b8:{minor}").as_bytes()).unwrap();
        Entry { id, priority, node: format!("sd{minor}").into_bytes() }
    }

    #[test]
    fn folders_are_named_as_udev_names_them() {
        assert_eq!(escape(br"disk/by-id/a\b"), br"disk\x2fby-id\x2fa\x5cb");
        assert_eq!(unescape(br"disk\x2fby-id\x2fa\x5cb\x41"), br"disk/by-id/a\b\x41");
        let link = ["a".repeat(100), "b".repeat(100), "c".repeat(100)].join("/");
        let name = escape(link.as_bytes());
        assert!(name.len() == 255 && name.ends_with(b"ccccP7rDPW32Drt"));
        assert_eq!(escape(&[b'x'; 244]), [b'x'; 244], "the longest that stands whole");
    }

    #[test]
    fn claims_are_entered_changed_and_read_back() {
        let top = tempfile::tempdir().unwrap();
        let stack = Stack::new(&top.path().join("links"), Path::new("/dev"));
        let long = [b"x/".as_slice(), &[b'y'; 250]].concat();
        for (minor, priority) in [(1, 0), (2, -5), (3, 0), (2, 7)] {
            stack.enter(b"disk/x", &claim(minor, priority)).unwrap();
        }
        stack.enter(&long, &claim(1, 0)).unwrap();
        let text = fs::read_link(stack.of(b"disk/x").join("b8:2")).unwrap();
        assert_eq!(text.to_str(), Some("7:/dev/sd2"));
        fs::create_dir(top.path().join("links/left")).unwrap();
        fs::write(top.path().join("links/left/.lock"), "").unwrap();
        let mut all = stack.load(|_| vec![b"y".to_vec(), long.clone()]);
        all.sort();
        // their order is tmpfs's to tell
        all.iter_mut().for_each(|(_, claims)| claims.sort());
        let disk = vec![claim(1, 0), claim(2, 7), claim(3, 0)];
        assert_eq!(all, [(b"disk/x".to_vec(), disk), (long, vec![claim(1, 0)])]);
        assert!(!top.path().join("links/left").exists(), "a folder without claims stays");
    }

    #[test]
    fn a_folder_goes_with_its_last_claim_and_not_before() {
        let top = tempfile::tempdir().unwrap();
        let stack = Stack::new(top.path(), Path::new("/dev"));
        [1, 2].into_iter().for_each(|minor| stack.enter(b"x", &claim(minor, 0)).unwrap());
        fs::write(top.path().join("x/.lock"), "").unwrap();
        stack.leave(b"x", &claim(1, 0).id).unwrap();
        stack.leave(b"x", &claim(1, 0).id).unwrap();
        stack.clear(b"x");
        assert!(top.path().join("x/.lock").exists(), "who holds the lock would have lost it");
        stack.leave(b"x", &claim(2, 0).id).unwrap();
        let lock = Lock::take(&stack.of(b"x"), Wait::Yes).unwrap();
        stack.clear(b"x");
        assert!(top.path().join("x/.lock").exists(), "somebody is at work there");
        drop(lock);
        stack.clear(b"x");
        assert!(!top.path().join("x").exists());
    }
}

//! Applies owner and mode to a node of devtmpfs, and only if they differ.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{Mismatch, Permissions};
use crate::rules::decision::{Attribute, Decision};
use crate::uevent::Devnum;

/// Why a node was left alone.
#[derive(Debug)]
pub enum NodeError {
    /// What lies at the name is another device, or no device.
    Other { node: PathBuf, wanted: Devnum },
    /// The system refused.
    Failed { node: PathBuf, what: &'static str, error: io::Error },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { node, wanted } => {
                write!(f, "{} is not the device {wanted}; left alone", node.display())
            }
            Self::Failed { node, what, error } => {
                write!(f, "{}: cannot {what}: {error}", node.display())
            }
        }
    }
}

impl std::error::Error for NodeError {}

/// The kernel's permissions for a node that says nothing of them (`drivers/base/devtmpfs.c`).
pub const KERNEL_DEFAULT: Permissions = Permissions { uid: 0, gid: 0, mode: 0o600 };

/// What settling a node came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub permissions: Permissions,
    /// It was otherwise before.
    pub changed: bool,
}

/// A node that was found and is the device that it should be.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    /// Opened when something is to be changed: most events change nothing.
    fd: OnceCell<OwnedFd>,
    stat: Stat,
}

impl Node {
    /// Finds the node without opening the device; `None` if there is none.
    ///
    /// # Errors
    /// [`NodeError::Other`] if the name belongs to something else.
    pub fn find(dev: &Path, devname: &[u8], devnum: Devnum) -> Result<Option<Self>, NodeError> {
        let node = dev.join(OsStr::from_bytes(devname));
        let failed = |what, error: Errno| NodeError::Failed {
            node: node.clone(),
            what,
            error: error.into(),
        };
        let stat = match fs::lstat(&node) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed("stat", error)),
        };
        // the kernel module's name for a device that has no number yet; no device has number 0
        if stat.st_rdev == 0 {
            return Ok(None);
        }
        let kind = if devnum.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let number = fs::makedev(devnum.major, devnum.minor);
        if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
            return Err(NodeError::Other { node, wanted: devnum });
        }
        Ok(Some(Self { path: node, fd: OnceCell::new(), stat }))
    }

    #[must_use]
    pub fn permissions(&self) -> Permissions {
        let Stat { st_uid: uid, st_gid: gid, st_mode, .. } = self.stat;
        Permissions { uid, gid, mode: st_mode & 0o7777 }
    }

    /// The node itself: what was found, and nothing that has its name by now.
    fn fd(&self) -> Result<&OwnedFd, Errno> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(&self.path, flags, Mode::empty())?;
        let stat = fs::fstat(&fd)?;
        let identity = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
        if identity(&stat) != identity(&self.stat) {
            return Err(Errno::STALE);
        }
        Ok(self.fd.get_or_init(|| fd))
    }

    /// A name for those calls that take no `O_PATH` descriptor; it leads to this node and no other.
    ///
    /// # Errors
    /// When the node is gone, or another one is in its place.
    pub(super) fn handle(&self) -> Result<String, Errno> {
        Ok(format!("/proc/self/fd/{}", self.fd()?.as_raw_fd()))
    }

    /// Makes the node what was decided, and tells what it is then.
    ///
    /// # Errors
    /// [`NodeError::Failed`] if the system refuses.
    pub fn settle(&self, decision: &Decision) -> Result<Settled, NodeError> {
        self.give(decided(decision, self.permissions()))
    }

    /// Gives the node owner and mode, and tells what it has then.
    ///
    /// # Errors
    /// [`NodeError::Failed`] if the system refuses.
    pub fn give(&self, shall: Permissions) -> Result<Settled, NodeError> {
        let is = self.permissions();
        let failed = |what, error: Errno| NodeError::Failed {
            node: self.path.clone(),
            what,
            error: error.into(),
        };
        let same_mode = is.mode & 0o777 == shall.mode & 0o777;
        let same_owner = (is.uid, is.gid) == (shall.uid, shall.gid);
        let changed = !(same_mode && same_owner);
        let chmod = |mode| {
            let changed =
                self.handle().and_then(|handle| fs::chmod(handle, Mode::from_raw_mode(mode)));
            changed.map_err(|error| failed("change the mode", error))
        };
        if changed && self.fd().is_err_and(is_gone) {
            // its successor's own event settles that
            return Ok(Settled { permissions: shall, changed });
        }
        // rights are taken away first and given last: no moment is too open
        let narrower = shall.mode & is.mode & 0o777;
        if narrower != is.mode & 0o777 {
            chmod(narrower)?;
        }
        if !same_owner {
            let (uid, gid) = (Uid::from_raw(shall.uid), Gid::from_raw(shall.gid));
            self.fd()
                .and_then(|fd| fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH))
                .map_err(|error| failed("change the owner", error))?;
        }
        // a new owner has taken the upper bits away
        let upper = !same_owner && (is.mode | shall.mode) & 0o7000 != 0;
        if changed && (narrower != shall.mode || upper) {
            chmod(shall.mode)?;
        }
        let mode = if changed { shall.mode } else { is.mode };
        self.touch();
        let permissions = Permissions { mode, ..shall };
        Ok(Settled { permissions, changed })
    }

    /// Gives the node the labels of security modules, `selinux` or `smack`, where the kernel keeps them.
    /// Returns what failed.
    pub fn label(&self, labels: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
        let failed = |module: &[u8], what: &dyn fmt::Display| {
            let (node, module) = (self.path.display(), module.escape_ascii());
            format!("{node}: cannot set the label of `{module}`: {what}")
        };
        let set = |(module, label): &(Vec<u8>, Vec<u8>)| {
            let (name, value) = match module.as_slice() {
                // SELinux counts the NUL to the label (setfilecon(3))
                b"selinux" => ("security.selinux", [label, b"\0".as_slice()].concat()),
                b"smack" => ("security.SMACK64", label.clone()),
                _ => return Some(failed(module, &"selinux or smack wanted")),
            };
            let set = self
                .handle()
                .and_then(|handle| fs::setxattr(handle, name, &value, XattrFlags::empty()));
            set.err().filter(|error| !is_gone(*error)).map(|error| failed(module, &error))
        };
        labels.iter().filter_map(set).collect()
    }

    /// udev's users watch the time stamp of a node for events; a failure matters to nobody.
    fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = fs::utimensat(fs::CWD, &self.path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// What the node has and the decision has not.
    #[must_use]
    pub fn mismatches(&self, decision: &Decision) -> Vec<Mismatch> {
        let is = self.permissions();
        let mut found = Vec::new();
        let mut compare = |attribute, ours: Option<u32>, theirs: u32, octal: bool| {
            let Some(ours) = ours.filter(|ours| *ours != theirs) else { return };
            let text = |n: u32| if octal { format!("{n:04o}") } else { n.to_string() };
            found.push(Mismatch { attribute, ours: text(ours), theirs: text(theirs) });
        };
        compare(Attribute::Owner, decision.owner, is.uid, false);
        compare(Attribute::Group, decision.group, is.gid, false);
        let mode = decision.mode.map(|mode| mode & 0o777);
        compare(Attribute::Mode, mode, is.mode & 0o777, true);
        found
    }
}

/// Whether the node went, or another came in its place, since it was found.
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::STALE)
}

/// What a decision makes of what is there: undecided attributes stay.
#[must_use]
pub fn decided(decision: &Decision, is: Permissions) -> Permissions {
    Permissions {
        uid: decision.owner.unwrap_or(is.uid),
        gid: decision.group.unwrap_or(is.gid),
        mode: decision.mode.unwrap_or(is.mode),
    }
}

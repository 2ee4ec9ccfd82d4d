//! Stage 6b: the place where a /dev is made ready before it takes the other one's place in one step.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, StatVfsMountFlags, statvfs};
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
    MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

/// Only root's; a mount that shares nothing, since what stands on a shared one cannot be moved.
const FOLDER: &str = "/run/mapdev-switch";

/// Locked by who makes a switch.
pub(super) const LOCK: &str = "/run/mapdev-switch.lock";

/// One switch at a time, whoever makes it.
#[derive(Debug)]
pub(super) struct Turn {
    lock: File,
}

impl Turn {
    pub(super) fn ask() -> io::Result<Self> {
        // root's alone, since who can open it can lock it
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(LOCK)?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Self { lock })
    }

    /// False while another one has it; it is ours until this is dropped.
    pub(super) fn has_come(&self) -> io::Result<bool> {
        match self.lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A mounted file system in a place of its own.
#[derive(Debug)]
pub(super) struct Stage {
    place: PathBuf,
    _turn: Turn,
}

impl Stage {
    /// Mounts a new instance of a kind of file system, with the flags of the mount at `like`.
    pub(super) fn new(turn: Turn, kind: &str, like: &Path) -> io::Result<Self> {
        let folder = Path::new(FOLDER);
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // of a switch that was killed
        while mount::unmount(folder, UnmountFlags::DETACH).is_ok() {}
        let stage = Self { place: folder.join("dev"), _turn: turn };
        mount::mount("mapdev-switch", folder, "tmpfs", MountFlags::NOSUID, c"mode=0700")?;
        mount::mount_change(folder, MountPropagationFlags::PRIVATE)?;
        fs::create_dir(&stage.place)?;
        let tree = new_mount(kind, flags_of(like)?)?;
        mount::move_mount(&tree, "", CWD, &stage.place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(stage)
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Shows what is at a path, with all that is mounted on it, at a name of the stage as well.
    pub(super) fn show(&self, path: &Path, name: &Path) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = mount::open_tree(CWD, path, flags)?;
        let to = self.place.join(name);
        Ok(mount::move_mount(&tree, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Puts what is mounted here over a folder, in one step.
    pub(super) fn take_place(&self, dev: &Path) -> io::Result<()> {
        Ok(mount::move_mount(CWD, &self.place, CWD, dev, MoveMountFlags::empty())?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        while mount::unmount(FOLDER, UnmountFlags::DETACH).is_ok() {}
        // what remains is an empty folder of root's
        drop(fs::remove_dir(FOLDER));
    }
}

/// The file system at a path alone, as a mount outside every namespace: nothing hides what is in it.
pub(super) fn bare(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(mount::open_tree(CWD, path, flags)?)
}

/// Takes off the mount that is seen at a folder; whoever uses it goes on.
pub(super) fn take_off(dev: &Path) -> io::Result<()> {
    Ok(mount::unmount(dev, UnmountFlags::DETACH)?)
}

fn new_mount(kind: &str, flags: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_create(context.as_fd())?;
    Ok(mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

fn flags_of(path: &Path) -> io::Result<MountAttrFlags> {
    let is = statvfs(path)?.f_flag;
    let flags = [
        (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (StatVfsMountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ];
    let set = flags.into_iter().filter(|(flag, _)| is.contains(*flag));
    Ok(set.fold(MountAttrFlags::empty(), |all, (_, flag)| all | flag))
}

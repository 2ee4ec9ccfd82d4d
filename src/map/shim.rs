//! Stage 6: the kernel module that serves the map as a file system (`kmod-shim/`).
//!
//! Mode and owner are changed by ordinary chmod and chown, through a mount that nobody else sees;
//! what others change is read from the control device.
#![expect(unsafe_code, reason = "ioctls of this repository's own driver")]

use std::ffi::{OsStr, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use super::control::{self, EV_GID, EV_MODE, EV_UID, Notify, Publish, ShimStats, event};
use super::kernel::{Kernel, NameChange, Published, Since};
use super::protocol::Attributes;

/// Where the control device is.
pub const DEVICE: &str = "/dev/mapdev";

/// The file system's name.
pub const FILE_SYSTEM: &str = "mapdevfs";

/// `f_type` of the file system ("mapd").
const MAGIC: i64 = 0x6d61_7064;

/// Events taken in one read.
const BATCH: usize = 64;

/// Mode or owner of an object, changed in the kernel by somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeChange {
    pub id: u64,
    pub cell: u32,
    pub attributes: Attributes,
    /// Which of them differ: [`control::EV_MODE`], [`control::EV_UID`], [`control::EV_GID`].
    pub what: u32,
    pub pid: u32,
    pub by: u32,
}

/// What the kernel says of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Changed(AttributeChange),
    /// Some were dropped: compare everything.
    CompareAll,
}

/// The open control device.
#[derive(Debug)]
pub struct Shim {
    device: OwnedFd,
    /// A mount of the file system outside every namespace.
    tree: Option<OwnedFd>,
}

impl Shim {
    /// Opens the control device; `None` when the module is not loaded.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub fn open(device: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match fs::open(device, flags, Mode::empty()) {
            Ok(device) => Ok(Some(Self { device, tree: None })),
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same device for reading events, while a writer has this one.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn events(&self) -> io::Result<Events> {
        Ok(Events { device: self.device.try_clone()? })
    }

    /// The memory of the published map, for a daemon that has lost it.
    ///
    /// # Errors
    /// When another publisher is there.
    pub fn memory(&self) -> io::Result<Option<OwnedFd>> {
        // SAFETY: `GetFd` describes MAPDEV_GETFD, which takes nothing and returns a descriptor.
        match unsafe { ioctl(&self.device, GetFd) } {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the map away from the kernel.
    ///
    /// # Errors
    /// When another publisher is there.
    pub fn withdraw(&self) -> io::Result<()> {
        // SAFETY: MAPDEV_UNPUBLISH takes no argument.
        unsafe { ioctl(&self.device, NoArg::<{ control::UNPUBLISH }>::new()) }.map_err(Into::into)
    }

    /// What the module has counted.
    ///
    /// # Errors
    /// When the device is not the module's.
    pub fn stats(&self) -> io::Result<ShimStats> {
        // SAFETY: MAPDEV_STATS fills a `ShimStats`: integers, for which all bytes are valid.
        unsafe { ioctl(&self.device, Getter::<{ control::STATS }, ShimStats>::new()) }
            .map_err(Into::into)
    }

    fn tree(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.tree.is_none() {
            self.tree = Some(detached_mount()?);
        }
        let tree = self.tree.as_ref().map(AsFd::as_fd);
        tree.ok_or_else(|| io::Error::other("no mount of the file system"))
    }
}

/// A mount of the file system that has no place yet.
///
/// # Errors
/// Without the module, or CAP_SYS_ADMIN.
pub fn detached_mount() -> io::Result<OwnedFd> {
    let context = mount::fsopen(FILE_SYSTEM, FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_create(&context)?;
    Ok(mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Mounts the file system on a directory.
///
/// # Errors
/// Without the module, or CAP_SYS_ADMIN.
pub fn mount_at(place: &Path) -> io::Result<()> {
    let tree = detached_mount()?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(mount::move_mount(&tree, "", fs::CWD, place, flags)?)
}

/// Whether a directory is the map, and not devtmpfs or another file system.
#[must_use]
pub fn is_mounted_on(place: &Path) -> bool {
    fs::statfs(place).is_ok_and(|stat| stat.f_type == MAGIC)
}

impl Kernel for Shim {
    fn publish(&mut self, memory: BorrowedFd<'_>, len: u64, since: Since) -> io::Result<Published> {
        let (flags, expect_chg) = match since {
            Since::Unchanged(changes) => (0, changes),
            Since::CarriedOver => (control::PUB_CARRY, control::CHG_ANY),
            Since::Lost => (0, control::CHG_ANY),
        };
        let what = Publish { fd: memory.as_raw_fd(), flags, len, expect_chg };
        // SAFETY: MAPDEV_PUBLISH reads a `Publish` and keeps no pointer to it.
        let done =
            unsafe { ioctl(&self.device, Setter::<{ control::PUBLISH }, Publish>::new(what)) };
        match done {
            Ok(()) => Ok(Published::Done),
            Err(Errno::AGAIN) => Ok(Published::OutOfDate),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        // SAFETY: MAPDEV_SYNC takes no argument.
        unsafe { ioctl(&self.device, NoArg::<{ control::SYNC }>::new()) }.map_err(Into::into)
    }

    fn notify(
        &mut self,
        parent: u64,
        name: &[u8],
        directory: bool,
        what: NameChange,
    ) -> io::Result<()> {
        let mut bytes = [0; control::NAME_ROOM];
        bytes.get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
        let mask = match what {
            NameChange::Came => control::N_CREATE,
            NameChange::Went => control::N_DELETE,
        };
        let mask = if directory { mask | control::N_ISDIR } else { mask };
        let name_len = u32::try_from(name.len()).map_err(io::Error::other)?;
        let what = Notify { parent, mask, name_len, name: bytes };
        // SAFETY: MAPDEV_NOTIFY reads a `Notify` and keeps no pointer to it.
        unsafe { ioctl(&self.device, Setter::<{ control::NOTIFY }, Notify>::new(what)) }
            .map_err(Into::into)
    }

    fn set_attributes(
        &mut self,
        path: &[u8],
        id: u64,
        attributes: Attributes,
        what: u32,
    ) -> io::Result<()> {
        let Attributes { mode, uid, gid, .. } = attributes;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // what userspace made on the way, a link or a mount, leads elsewhere
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = OsStr::from_bytes(path);
        let node = fs::openat2(self.tree()?, path, flags, Mode::empty(), within)?;
        let stat = fs::fstat(&node)?;
        if stat.st_ino != inode_of(id) {
            return Err(Errno::STALE.into());
        }
        // chmod takes no O_PATH descriptor; its name in /proc does
        let place = format!("/proc/self/fd/{}", node.as_raw_fd());
        let chmod = || match what & EV_MODE == 0 || stat.st_mode & 0o7777 == mode {
            true => Ok(()),
            false => fs::chmod(&place, Mode::from_raw_mode(mode)),
        };
        // what takes rights away comes first: no moment is too open
        let narrower = mode & !stat.st_mode == 0;
        if narrower {
            chmod()?;
        }
        let owner = (what & EV_UID != 0 && stat.st_uid != uid).then(|| Uid::from_raw(uid));
        let group = (what & EV_GID != 0 && stat.st_gid != gid).then(|| Gid::from_raw(gid));
        if owner.is_some() || group.is_some() {
            fs::chownat(&node, "", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if !narrower {
            chmod()?;
        }
        Ok(())
    }
}

/// The changes that the kernel tells of; readable when there are any.
#[derive(Debug)]
pub struct Events {
    device: OwnedFd,
}

impl Events {
    /// What was changed since the last call, at most a batch of it; empty when nothing was.
    ///
    /// # Errors
    /// When another publisher has taken over.
    pub fn take(&self) -> io::Result<Vec<Told>> {
        let mut bytes = [0; BATCH * event::SIZE];
        match rustix::io::read(&self.device, &mut bytes) {
            Ok(len) => Ok(bytes[..len].chunks_exact(event::SIZE).filter_map(told).collect()),
            Err(Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// The inode number of an object; those of what userspace made are odd.
fn inode_of(id: u64) -> u64 {
    id << 1
}

fn told(bytes: &[u8]) -> Option<Told> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let wide = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let what = word(event::WHAT)?;
    if what & control::EV_OVERFLOW != 0 {
        return Some(Told::CompareAll);
    }
    Some(Told::Changed(AttributeChange {
        id: wide(event::ID)?,
        cell: word(event::CELL)?,
        attributes: Attributes {
            mode: word(event::MODE)?,
            uid: word(event::UID)?,
            gid: word(event::GID)?,
            stamp: wide(event::STAMP)?,
        },
        what,
        pid: word(event::PID)?,
        by: word(event::BY)?,
    }))
}

struct GetFd;

// SAFETY: MAPDEV_GETFD takes no argument, and what it returns when it does not fail is a new
// descriptor of this process that nobody else owns.
unsafe impl Ioctl for GetFd {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        control::GETFD
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: see above.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_it_was_written() {
        let mut bytes = [0; event::SIZE];
        bytes[event::ID..][..8].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[event::CELL..][..4].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[event::WHAT..][..4].copy_from_slice(&EV_UID.to_ne_bytes());
        bytes[event::UID..][..4].copy_from_slice(&1000_u32.to_ne_bytes());
        let Some(Told::Changed(change)) = told(&bytes) else { panic!("a change") };
        assert_eq!((change.id, change.cell, change.attributes.uid), (77, 3, 1000));
        bytes[event::WHAT..][..4].copy_from_slice(&control::EV_OVERFLOW.to_ne_bytes());
        assert_eq!(told(&bytes), Some(Told::CompareAll));
        assert_eq!(told(&bytes[..20]), None, "half an event is none");
    }

    #[test]
    fn without_the_module_there_is_no_shim() {
        assert!(Shim::open(Path::new("/nonexistent/mapdev")).unwrap().is_none());
    }
}

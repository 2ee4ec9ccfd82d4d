//! Stage 6: what the map's writer asks of the kernel, when a module of the kernel serves the map.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use super::protocol::Attributes;

/// What happened to a name, for those who watch its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameChange {
    Came,
    Went,
}

/// What is to become of attributes that the kernel changed since they were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Refuse the map if the count of changes is no longer this.
    Unchanged(u64),
    /// The kernel copies them into the map itself; that takes it time in which none can change.
    CarriedOver,
    /// The map that the kernel has is none of ours.
    Lost,
}

/// How a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    Done,
    /// The kernel has changed attributes since they were copied: copy them again.
    OutOfDate,
}

/// The kernel's side of a published map; `shim` is the real one.
pub trait Kernel: Send {
    /// Gives the kernel a map in place of the one it has.
    ///
    /// # Errors
    /// When the memory is refused, or another publisher is there.
    fn publish(&mut self, memory: BorrowedFd<'_>, len: u64, since: Since) -> io::Result<Published>;

    /// Waits until no reader holds what was replaced, and wakes opens that wait for a number.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn sync(&mut self) -> io::Result<()>;

    /// Tells watchers of the directory with id `parent`.
    ///
    /// # Errors
    /// `AlreadyExists` when what userspace made hides the name.
    fn notify(
        &mut self,
        parent: u64,
        name: &[u8],
        directory: bool,
        what: NameChange,
    ) -> io::Result<()>;

    /// Changes mode, owner and group of the object at a path below /dev, as chmod and chown do; only `what` of
    /// them ([`EV_MODE`], [`EV_UID`], [`EV_GID`]), since somebody else may change the others just now.
    ///
    /// [`EV_MODE`]: super::control::EV_MODE
    /// [`EV_UID`]: super::control::EV_UID
    /// [`EV_GID`]: super::control::EV_GID
    ///
    /// # Errors
    /// When the object is not there, or hidden by what userspace made.
    fn set_attributes(
        &mut self,
        path: &[u8],
        id: u64,
        attributes: Attributes,
        what: u32,
    ) -> io::Result<()>;
}

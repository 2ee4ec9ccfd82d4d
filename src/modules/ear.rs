//! Stage 3b: one inotify object, and what each of its folders is watched for.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ready;

/// What a folder is watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A folder above the tree: the next folder on the way may come or go.
    Above(OsString),
    /// A folder of the tree, below its top.
    Tree(PathBuf),
}

#[derive(Debug)]
pub(super) struct Ear {
    fd: AsyncFd<OwnedFd>,
    /// A folder may have several names, by links, and so several roles.
    folders: HashMap<i32, Vec<Role>>,
}

const ABOVE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

const TREE: WatchFlags = ABOVE.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::MODIFY);

impl Ear {
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let fd = ready::watched(fd, Interest::READABLE)?;
        Ok(Self { fd, folders: HashMap::new() })
    }

    /// Watches a folder, and says its number; `None` if it is not there.
    pub(super) fn add(&mut self, folder: &Path, role: Role) -> io::Result<Option<i32>> {
        let flags = if matches!(role, Role::Tree(_)) { TREE } else { ABOVE };
        let flags = flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        match inotify::add_watch(&self.fd, folder, flags) {
            Ok(number) => {
                let roles = self.folders.entry(number).or_default();
                if let Role::Tree(_) = role {
                    // it may have been moved within the tree
                    roles.retain(|role| matches!(role, Role::Above(_)));
                }
                if !roles.contains(&role) {
                    roles.push(role);
                }
                Ok(Some(number))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a folder of the tree is watched under this name.
    pub(super) fn is_in_tree(&self, path: &Path) -> bool {
        let mut roles = self.folders.values().flatten();
        roles.any(|role| matches!(role, Role::Tree(own) if own == path))
    }

    /// What an event's folder is watched for.
    pub(super) fn roles(&mut self, event: &Event) -> Vec<Role> {
        if event.flags.contains(ReadFlags::IGNORED) {
            // the folder is gone, and its number with it
            self.folders.remove(&event.folder);
        }
        self.folders.get(&event.folder).cloned().unwrap_or_default()
    }

    /// Waits for events.
    pub(super) async fn next(&self) -> io::Result<Vec<Event>> {
        self.fd.async_io(Interest::READABLE, read).await
    }

    /// The events that wait; `WouldBlock` if there are none.
    pub(super) fn waiting(&self) -> io::Result<Vec<Event>> {
        read(self.fd.get_ref())
    }
}

/// What the kernel told.
#[derive(Debug)]
pub(super) struct Event {
    folder: i32,
    pub(super) flags: ReadFlags,
    /// Within the folder; empty if it is about the folder itself.
    pub(super) name: OsString,
}

fn read(fd: &OwnedFd) -> io::Result<Vec<Event>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                let (folder, flags) = (event.wd(), event.events());
                events.push(Event { folder, flags, name: name.unwrap_or_default().to_owned() });
            }
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if !events.is_empty() => return Ok(events),
            Err(error) => return Err(error.into()),
        }
    }
}

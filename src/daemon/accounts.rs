//! Names of users and groups for the bus: from the files, read anew when these change.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bus::Accounts;
use crate::rules::names::Names;

/// The passwd and group files below a root.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    names: Mutex<Names>,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), names: Mutex::new(Names::load(root)) }
    }

    // the bus thread alone takes this lock
    fn names(&self) -> MutexGuard<'_, Names> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.changed() {
            *names = Names::load(&self.root);
        }
        names
    }
}

impl Accounts for Files {
    fn uid(&self, name: &str) -> Option<u32> {
        self.names().uid(name)
    }

    fn gid(&self, name: &str) -> Option<u32> {
        self.names().gid(name)
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        self.names().user_name(uid).map(ToOwned::to_owned)
    }

    fn group_name(&self, gid: u32) -> Option<String> {
        self.names().group_name(gid).map(ToOwned::to_owned)
    }
}

//! Stage 9: users and groups by name, as the files have them now.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::rules::names::Names;

/// How long what was read is believed before the files are looked at again.
const FRESH: Duration = Duration::from_secs(1);

/// How users and groups are called.
pub trait Accounts: fmt::Debug + Send + Sync {
    /// A number stands for itself.
    fn uid(&self, name: &str) -> Option<u32>;
    /// A number stands for itself.
    fn gid(&self, name: &str) -> Option<u32>;
    fn user_name(&self, uid: u32) -> Option<String>;
    fn group_name(&self, gid: u32) -> Option<String>;
}

/// The accounts of the files below a root; read again when these change.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    read: Mutex<(Names, Instant)>,
}

impl Files {
    #[must_use]
    pub fn load(root: PathBuf) -> Self {
        let read = Mutex::new((Names::load(&root), Instant::now()));
        Self { root, read }
    }

    fn with<T>(&self, look: impl FnOnce(&Names) -> T) -> Option<T> {
        // only the thread of the bus comes here
        let mut read = self.read.lock().ok()?;
        if read.1.elapsed() >= FRESH {
            if read.0.changed() {
                read.0 = Names::load(&self.root);
            }
            read.1 = Instant::now();
        }
        Some(look(&read.0))
    }
}

impl Accounts for Files {
    fn uid(&self, name: &str) -> Option<u32> {
        self.with(|names| names.uid(name))?
    }

    fn gid(&self, name: &str) -> Option<u32> {
        self.with(|names| names.gid(name))?
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        self.with(|names| names.user_name(uid).map(str::to_owned))?
    }

    fn group_name(&self, gid: u32) -> Option<String> {
        self.with(|names| names.group_name(gid).map(str::to_owned))?
    }
}

//! Stage 3b: whether a module is in the kernel, from sysfs.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::modules::ModuleDb;

/// What the kernel has of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is part of the kernel.
    Builtin,
    NotLoaded,
    /// Its start has not ended yet.
    Loading,
    Live,
    /// It is being removed.
    Unloading,
}

impl State {
    /// Of a module by its name with underscores; `sysfs` is /sys.
    #[must_use]
    pub fn of(db: &ModuleDb, sysfs: &Path, module: &[u8]) -> Self {
        let folder = sysfs.join("module").join(OsStr::from_bytes(module));
        let builtin = db.module(module).is_some_and(|module| module.is_builtin());
        let loadable = db.loadable(module).is_some();
        match fs::read(folder.join("initstate")).as_deref().map(<[u8]>::trim_ascii) {
            Ok(b"live") => Self::Live,
            Ok(b"going") => Self::Unloading,
            Ok(_) => Self::Loading,
            // parts of the kernel have no initstate, and most have no folder either
            Err(_) if builtin && (!loadable || folder.is_dir()) => Self::Builtin,
            // a folder is there a moment before its initstate
            Err(_) if folder.is_dir() => Self::Loading,
            Err(_) => Self::NotLoaded,
        }
    }

    /// Nothing is left to be done for it.
    #[must_use]
    pub fn is_there(self) -> bool {
        matches!(self, Self::Builtin | Self::Live)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::NotLoaded => "not loaded",
            Self::Loading => "loading",
            Self::Live => "live",
            Self::Unloading => "unloading",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

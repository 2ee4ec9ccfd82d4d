//! Stage 6: which device each node of the map was made for. The kernel serves the map on when the daemon is
//! gone, and what comes in a device's place meanwhile must not have its node.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::stack::replace;
use crate::device::DeviceId;
use crate::device::record::absent_is_fine;

/// A folder of links, `ID -> INSTANCE`: each is made in one step, and read in one. See `Sysfs::instance`.
#[derive(Clone, Debug)]
pub struct Instances {
    folder: PathBuf,
    /// Without any, no file is asked for: that is so wherever the map is not served.
    any: Cell<bool>,
}

impl Instances {
    /// In the daemon's runtime folder; made when there is something to remember.
    #[must_use]
    pub fn new(runtime: &Path) -> Self {
        let folder = runtime.join("instances");
        Self { any: Cell::new(folder.exists()), folder }
    }

    fn path(&self, id: &DeviceId) -> PathBuf {
        self.folder.join(OsStr::from_bytes(id.as_bytes()))
    }

    /// The device whose node was published last under this id.
    #[must_use]
    pub fn of(&self, id: &DeviceId) -> Option<u64> {
        let kept = self.any.get().then(|| fs::read_link(self.path(id)))?;
        kept.ok()?.to_str()?.parse().ok()
    }

    /// Whether it was another device than this one, as far as is known.
    #[must_use]
    pub fn is_anothers(&self, id: &DeviceId, instance: u64) -> bool {
        instance != 0 && self.of(id).is_some_and(|kept| kept != instance)
    }

    /// Remembers it from now on.
    ///
    /// # Errors
    /// When it cannot be written: what was remembered before still is.
    pub fn keep(&self, id: &DeviceId, instance: u64) -> io::Result<()> {
        let (path, text) = (self.path(id), OsString::from(instance.to_string()));
        self.any.set(true);
        match replace(&path, &text) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder)?;
                replace(&path, &text)
            }
            kept => kept,
        }
    }

    /// There is no such node any more; none remembered is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, id: &DeviceId) -> io::Result<()> {
        if self.any.get() { absent_is_fine(fs::remove_file(self.path(id))) } else { Ok(()) }
    }

    /// All that are remembered.
    #[must_use]
    pub fn ids(&self) -> Vec<DeviceId> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| DeviceId::from_bytes(entry.file_name().as_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_device_is_told_from_its_successor_until_it_is_forgotten() {
        let top = tempfile::tempdir().unwrap();
        let instances = Instances::new(top.path());
        let disk = id("b8:0");
        assert!(!instances.is_anothers(&disk, 5), "of nothing, nothing is known");
        instances.forget(&disk).unwrap();
        instances.keep(&disk, 5).unwrap();
        assert!(!instances.is_anothers(&disk, 5));
        assert!(instances.is_anothers(&disk, 6));
        assert!(!instances.is_anothers(&disk, 0), "which it is nobody knows");
        instances.keep(&disk, 6).unwrap();
        instances.keep(&disk, 6).unwrap();
        assert_eq!(instances.of(&disk), Some(6));
        instances.keep(&id("c1:3"), 7).unwrap();
        let mut ids = instances.ids();
        ids.sort();
        assert_eq!(ids, [disk.clone(), id("c1:3")]);
        instances.forget(&disk).unwrap();
        assert_eq!((instances.of(&disk), instances.of(&id("c1:3"))), (None, Some(7)));
    }

    #[test]
    fn what_a_killed_run_left_half_done_is_in_nobodys_way() {
        let top = tempfile::tempdir().unwrap();
        let instances = Instances::new(top.path());
        let disk = id("b8:0");
        instances.keep(&disk, 5).unwrap();
        symlink("6", top.path().join("instances/.#b8:0")).unwrap();
        assert_eq!((instances.of(&disk), instances.ids()), (Some(5), vec![disk.clone()]));
        instances.keep(&disk, 7).unwrap();
        assert_eq!(instances.of(&disk), Some(7));
    }
}

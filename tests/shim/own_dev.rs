//! The machine's own /dev, which is after a test as it was before, whether it failed or not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mapdev::map::shim;
use mapdev::switch::mounts::{self, Mount};
use rustix::mount::{UnmountFlags, unmount};

const DEV: &str = "/dev";

/// Who makes a switch has it locked.
pub(crate) const LOCK: &str = "/run/mapdev-switch.lock";

/// What was there before.
pub(crate) struct OwnDev {
    names: BTreeSet<PathBuf>,
}

impl OwnDev {
    pub(crate) fn look() -> Self {
        let mut names = BTreeSet::new();
        walk(Path::new(DEV), &mut names);
        Self { names }
    }
}

impl Drop for OwnDev {
    fn drop(&mut self) {
        // a switch that the test began ends first
        drop(File::create(LOCK).map(|lock| lock.lock()));
        end_maps();
        take_off(|mount| mount.place != Path::new(DEV) && mount.place.starts_with(DEV));
        let mut names = BTreeSet::new();
        walk(Path::new(DEV), &mut names);
        // backwards: what is in a folder goes before it
        for name in
            names.iter().rev().filter(|name| !self.names.contains(*name) && !is_device(name))
        {
            // a folder with a device's node in it is the kernel's
            drop(fs::remove_file(name).or_else(|_| fs::remove_dir(name)));
        }
    }
}

/// Every mount on /dev, seen or beneath.
pub(crate) fn depth() -> usize {
    let all = mounts::read().unwrap();
    all.iter().filter(|mount| mount.place == Path::new(DEV)).count()
}

/// Takes off what lies over the first /dev, and every map elsewhere.
pub(crate) fn end_maps() {
    while depth() > 1 {
        unmount(DEV, UnmountFlags::DETACH).unwrap();
    }
    take_off(|mount| mount.kind == shim::FILE_SYSTEM.as_bytes());
}

/// Takes off such mounts; who uses one goes on.
fn take_off(such: impl Fn(&Mount) -> bool) {
    while let Some(mount) = mounts::read().unwrap().iter().rev().find(|mount| such(mount)) {
        unmount(&mount.place, UnmountFlags::DETACH).unwrap();
    }
}

fn walk(folder: &Path, names: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir()) {
            walk(&path, names);
        }
        names.insert(path);
    }
}

/// Whether it is the kernel's node of a device that exists.
fn is_device(path: &Path) -> bool {
    let Ok(stat) = fs::symlink_metadata(path) else { return false };
    let kind = if stat.file_type().is_block_device() { "block" } else { "char" };
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    let said = fs::read_to_string(format!("/sys/dev/{kind}/{major}:{minor}/uevent"));
    let name = path.strip_prefix(DEV).unwrap();
    said.is_ok_and(|said| {
        said.lines().any(|line| line.strip_prefix("DEVNAME=").map(Path::new) == Some(name))
    })
}

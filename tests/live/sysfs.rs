//! A folder that looks like sysfs, with verbs; each of them is one step to whoever looks on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A device as the kernel would have it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) devpath: String,
    pub(crate) subsystem: String,
    /// What its `uevent` file says, in order.
    pub(crate) pairs: Vec<(String, String)>,
}

impl Device {
    pub(crate) fn new(devpath: &str, subsystem: &str, pairs: &[(&str, &str)]) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let pairs = pairs.iter().map(own).collect();
        Self { devpath: devpath.to_owned(), subsystem: subsystem.to_owned(), pairs }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn sysname(&self) -> &str {
        self.devpath.rsplit('/').next().unwrap()
    }

    /// What the kernel puts into an event of it.
    pub(crate) fn event_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = vec![("SUBSYSTEM".to_owned(), self.subsystem.clone())];
        pairs.extend(self.pairs.iter().cloned());
        pairs
    }
}

#[derive(Debug)]
pub(crate) struct FakeSysfs {
    root: PathBuf,
    /// Where folders are made before they appear, and go before they are emptied.
    aside: PathBuf,
}

impl FakeSysfs {
    pub(crate) fn new(root: PathBuf) -> Self {
        let aside = root.with_extension("aside");
        fs::create_dir_all(root.join("class")).unwrap();
        fs::create_dir_all(&aside).unwrap();
        Self { root, aside }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, devpath: &str) -> PathBuf {
        self.root.join(&devpath[1..])
    }

    pub(crate) fn add_device(&self, device: &Device) {
        let Device { devpath, subsystem, .. } = device;
        let new = self.aside.join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("uevent"), text(device)).unwrap();
        let up = "../".repeat(devpath.matches('/').count());
        symlink(format!("{up}class/{subsystem}"), new.join("subsystem")).unwrap();
        let folder = self.folder(devpath);
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        fs::create_dir_all(self.root.join("class").join(subsystem)).unwrap();
        fs::rename(&new, &folder).unwrap();
        self.enter(device);
    }

    pub(crate) fn remove_device(&self, device: &Device) {
        self.leave(device);
        let gone = self.aside.join("gone");
        fs::rename(self.folder(&device.devpath), &gone).unwrap();
        fs::remove_dir_all(&gone).unwrap();
    }

    /// The device keeps its folder, as sysfs does (`kernfs_rename_ns()`).
    pub(crate) fn rename(&self, old: &Device, new: &Device) {
        self.leave(old);
        let folder = self.folder(&new.devpath);
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        fs::rename(self.folder(&old.devpath), &folder).unwrap();
        self.enter(new);
        self.change(new);
    }

    /// The `uevent` file says something else.
    pub(crate) fn change(&self, device: &Device) {
        let new = self.aside.join("uevent");
        fs::write(&new, text(device)).unwrap();
        fs::rename(&new, self.folder(&device.devpath).join("uevent")).unwrap();
    }

    /// Where a device is found by its number.
    fn number(&self, device: &Device) -> Option<PathBuf> {
        let kind = if device.subsystem == "block" { "block" } else { "char" };
        let number = format!("{}:{}", device.get("MAJOR")?, device.get("MINOR")?);
        Some(self.root.join("dev").join(kind).join(number))
    }

    fn entry(&self, device: &Device) -> PathBuf {
        self.root.join("class").join(&device.subsystem).join(device.sysname())
    }

    fn enter(&self, device: &Device) {
        symlink(format!("../..{}", device.devpath), self.entry(device)).unwrap();
        if let Some(number) = self.number(device) {
            fs::create_dir_all(number.parent().unwrap()).unwrap();
            symlink(format!("../..{}", device.devpath), number).unwrap();
        }
    }

    fn leave(&self, device: &Device) {
        fs::remove_file(self.entry(device)).unwrap();
        self.number(device).into_iter().for_each(|number| fs::remove_file(number).unwrap());
    }
}

fn text(device: &Device) -> String {
    device.pairs.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

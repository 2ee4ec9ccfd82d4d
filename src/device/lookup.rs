//! Finds a device by subsystem and name or by its id, and what `[subsystem/name]attribute` speaks of.

use crate::device::{Device, DeviceId, Sysfs};

impl Sysfs {
    /// The devpath of a device by its subsystem and kernel name; `/` in the name stands for `!`.
    #[must_use]
    pub fn find(&self, subsystem: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        if subsystem.is_empty() || name.is_empty() || matches!(name, b"." | b"..") {
            return None;
        }
        let name: Vec<u8> =
            name.iter().map(|byte| if *byte == b'/' { b'!' } else { *byte }).collect();
        let below = |folder: &[u8]| [folder, name.as_slice()].concat();
        let special = match subsystem {
            b"subsystem" => vec![below(b"/bus/"), below(b"/class/")],
            b"module" => vec![below(b"/module/")],
            _ => Vec::new(),
        };
        let driver = (subsystem == b"drivers").then(|| driver(&name)).flatten();
        let usual = [
            [b"/bus/", subsystem, b"/devices/", &name].concat(),
            [b"/class/", subsystem, b"/", &name].concat(),
            [b"/firmware/", subsystem, b"/", &name].concat(),
        ];
        special.into_iter().chain(driver).chain(usual).find_map(|path| {
            let found = self.follow(&path)?;
            self.syspath(&found).is_dir().then_some(found)
        })
    }

    /// Takes `[subsystem/name]attribute` apart: the device's devpath, and the attribute, which may be
    /// empty. `None` if the text has another form or there is no such device.
    #[must_use]
    pub fn elsewhere<'a>(&self, text: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let inner = text.strip_prefix(b"[")?;
        let slash = inner.iter().position(|byte| *byte == b'/')?;
        let (subsystem, rest) = (&inner[..slash], &inner[slash + 1..]);
        let end = rest.iter().position(|byte| *byte == b']')?;
        let (name, attribute) = (&rest[..end], &rest[end + 1..]);
        let attribute = attribute.strip_prefix(b"/").unwrap_or(attribute);
        Some((self.find(subsystem, name)?, attribute))
    }
}

impl Device {
    /// The device of an id such as `c10:200`, `n2` or `+usb:1-1`; `None` if there is none.
    #[must_use]
    pub fn by_id(sysfs: &Sysfs, id: &[u8]) -> Option<Self> {
        let number = DeviceId::from_bytes(id)?.devnum();
        if let Some(number) = number {
            let kind = if number.block { "block" } else { "char" };
            let link = format!("/dev/{kind}/{}:{}", number.major, number.minor);
            let found = Self::at(sysfs, &sysfs.follow(link.as_bytes())?)?;
            return (found.devnum() == Some(number)).then_some(found);
        }
        let (kind, name) = id.split_first()?;
        match kind {
            b'n' => {
                let has =
                    |path: &[u8]| sysfs.attribute(path, b"ifindex").is_some_and(|at| *at == *name);
                let paths = sysfs.names(b"/class/net").into_iter();
                let mut paths = paths
                    .filter_map(|each| sysfs.follow(&[b"/class/net/", each.as_slice()].concat()));
                Self::at(sysfs, &paths.find(|path| has(path))?)
            }
            b'+' => {
                let colon = name.iter().position(|byte| *byte == b':')?;
                Self::at(sysfs, &sysfs.find(&name[..colon], &name[colon + 1..])?)
            }
            _ => None,
        }
    }
}

/// `usb:hub` is `/bus/usb/drivers/hub`.
fn driver(name: &[u8]) -> Option<Vec<u8>> {
    let colon = name.iter().position(|byte| *byte == b':')?;
    Some([b"/bus/", &name[..colon], b"/drivers/", &name[colon + 1..]].concat())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_device_is_found_by_bus_class_module_and_driver() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(dir.path().join(path)).unwrap();
        for folder in ["devices/virtual/dmi/id", "class/dmi", "module/loop", "bus/usb/drivers/hub"]
        {
            make(folder);
        }
        make("devices/x/block/c!d0");
        make("class/block");
        symlink("../../devices/virtual/dmi/id", dir.path().join("class/dmi/id")).unwrap();
        symlink("../../devices/x/block/c!d0", dir.path().join("class/block/c!d0")).unwrap();
        let sysfs = Sysfs::new(dir.path());
        let found = |text: &str| {
            let (path, attribute) = sysfs.elsewhere(text.as_bytes())?;
            Some(format!("{} {}", path.escape_ascii(), attribute.escape_ascii()))
        };
        assert_eq!(found("[dmi/id]a/b").unwrap(), "/devices/virtual/dmi/id a/b");
        assert_eq!(found("[dmi/id]/a").unwrap(), "/devices/virtual/dmi/id a");
        assert_eq!(found("[block/c/d0]").unwrap(), "/devices/x/block/c!d0 ");
        assert_eq!(found("[module/loop]p").unwrap(), "/module/loop p");
        assert_eq!(found("[drivers/usb:hub]p").unwrap(), "/bus/usb/drivers/hub p");
        assert_eq!(found("[subsystem/usb]p").unwrap(), "/bus/usb p");
        for none in ["[dmi/ix]a", "[dmi]a", "dmi/id", "[dmi/id", "[class/..]a", "[/x]a"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}

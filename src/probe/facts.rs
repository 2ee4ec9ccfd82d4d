//! Stage 3d: what libblkid wants to know of sysfs beside a disk's contents: a [`Device`] in, paths and
//! what is behind them out.
//!
//! libblkid looks for the whole disk of a partition, for the partition's place in it, and for what
//! device-mapper says of a device (seen with strace on libblkid 2.38).

use std::path::PathBuf;

use super::protocol::Fact;
use crate::device::{Device, Sysfs, last_element};

/// The paths, and which nodes and folders are to be opened for them, in the order of the descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) facts: Vec<(Vec<u8>, Fact)>,
    /// The node of the whole disk, below /dev, if the device is a part of one.
    pub(super) disk: Option<Disk>,
    /// A folder of links to the devices below a mapped one.
    pub(super) slaves: Option<PathBuf>,
}

/// The disk that a device is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Below /dev.
    pub(super) name: Vec<u8>,
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// Where the whole disk stands among a question's descriptors, and the folder behind it.
const DISK: u8 = 1;
const SLAVES: u8 = 2;

impl Facts {
    pub(super) fn of(device: &Device) -> Self {
        let mut known = Self::default();
        let Some(number) = device.devnum() else { return known };
        let sysfs = device.sysfs();
        let devpath = device.uevent().devpath();
        let own = format!("/sys/dev/block/{}:{}", number.major, number.minor).into_bytes();
        let uuid = known.device(&own, sysfs, devpath);
        if device.devtype() == b"partition" {
            for name in ["partition", "start", "size"] {
                if let Some(value) = device.attribute(name.as_bytes()) {
                    known.file(&own, name.as_bytes(), value.into());
                }
            }
            let end = devpath.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            known.whole(sysfs, &devpath[..end]);
        } else if uuid.is_some_and(|uuid| uuid.get(..4).is_some_and(is_part)) {
            let mut slaves = sysfs.names(&[devpath, b"/slaves"].concat());
            if let (Some(slave), true) = (slaves.pop(), slaves.is_empty()) {
                let link = [devpath, b"/slaves/", slave.as_slice()].concat();
                if let Some(path) = sysfs.follow(&link) {
                    known.whole(sysfs, &path);
                }
            }
            if known.disk.is_some() {
                known.slaves = Some(sysfs.syspath(devpath).join("slaves"));
                known
                    .facts
                    .push(([&own, b"/slaves".as_slice()].concat(), Fact::Descriptor(SLAVES)));
            }
        }
        known
    }

    /// A device's folder, and what device-mapper says of it; gives its mapped uuid.
    fn device(&mut self, own: &[u8], sysfs: &Sysfs, devpath: &[u8]) -> Option<Vec<u8>> {
        self.facts.push((own.to_vec(), Fact::Folder));
        self.facts.push((own.to_vec(), Fact::Link([b"../..", devpath].concat())));
        if !last_element(devpath).starts_with(b"dm-") {
            return None;
        }
        let uuid = sysfs.attribute(devpath, b"dm/uuid")?.into_vec();
        self.file(own, b"dm/uuid", uuid.clone());
        Some(uuid)
    }

    fn file(&mut self, folder: &[u8], name: &[u8], mut content: Vec<u8>) {
        content.push(b'\n');
        self.facts.push(([folder, b"/", name].concat(), Fact::File(content)));
    }

    /// The disk around the device, which libblkid opens by the name of its node.
    fn whole(&mut self, sysfs: &Sysfs, devpath: &[u8]) {
        let Some(number) = sysfs.attribute(devpath, b"dev") else { return };
        let text = String::from_utf8_lossy(&number).into_owned();
        let parsed = text.split_once(':').and_then(|(major, minor)| {
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        let Some((major, minor)) = parsed else { return };
        let sysname = last_element(devpath);
        self.file(&[b"/sys/block/", sysname].concat(), b"dev", number.into());
        let own = format!("/sys/dev/block/{major}:{minor}").into_bytes();
        self.device(&own, sysfs, devpath);
        let slash = |byte: &u8| if *byte == b'!' { b'/' } else { *byte };
        let name: Vec<u8> = sysname.iter().map(slash).collect();
        self.facts.push(([b"/dev/", name.as_slice()].concat(), Fact::Descriptor(DISK)));
        if let Some(mapped) = sysfs.attribute(devpath, b"dm/name") {
            self.facts.push(([b"/dev/mapper/", &*mapped].concat(), Fact::Descriptor(DISK)));
            self.file(&[b"/sys/block/", sysname].concat(), b"dm/name", mapped.into());
        }
        self.disk = Some(Disk { name, major, minor });
    }
}

/// A partition that device-mapper maps has a uuid that begins so.
fn is_part(start: &[u8]) -> bool {
    start.eq_ignore_ascii_case(b"part")
}

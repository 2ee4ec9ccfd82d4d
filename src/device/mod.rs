//! Stage 3: what is known of the device that an event is about.
//!
//! A [`Device`] joins the kernel's message with sysfs. An attribute is read when somebody asks for
//! it, and once an event.

mod family;
pub mod hwdb;
mod lookup;
pub mod record;
pub mod replay;
pub mod sysfs;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::uevent::{Action, Devnum, Uevent};
pub use sysfs::Sysfs;

/// udev's name for a device, and of its record: `b8:1`, `c10:200`, `n2`, `+usb:1-1`.
///
/// Bytes, as a kernel name may hold any byte but `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<[u8]>);

impl DeviceId {
    /// The id of the device that a uevent speaks of.
    #[must_use]
    pub fn of(uevent: &Uevent) -> Self {
        if let Some(devnum) = uevent.devnum() {
            return Self::of_number(devnum);
        }
        if let Some(ifindex) = uevent.ifindex() {
            return Self(format!("n{ifindex}").into_bytes().into());
        }
        let subsystem = uevent.subsystem();
        let mut id = vec![b'+'];
        id.extend_from_slice(subsystem);
        id.push(b':');
        if subsystem == b"drivers" {
            id.extend_from_slice(driver_bus(uevent.devpath()));
            id.push(b':');
        }
        id.extend_from_slice(last_element(uevent.devpath()));
        Self(id.into())
    }

    /// The id of the device that has this number.
    #[must_use]
    pub fn of_number(devnum: Devnum) -> Self {
        Self(devnum.to_string().into_bytes().into())
    }

    /// Takes an id as it was written, say the name of a record.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let known = matches!(bytes.first(), Some(b'b' | b'c' | b'n' | b'+'));
        let safe = bytes.len() > 1 && bytes.len() <= 255 && !bytes.contains(&b'/');
        (known && safe && !bytes.contains(&0)).then(|| Self(bytes.into()))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number in the id of a device that has one.
    #[must_use]
    pub fn devnum(&self) -> Option<Devnum> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let (kind, numbers) = text.split_at_checked(1)?;
        let (major, minor) = numbers.split_once(':')?;
        let block = match kind {
            "b" => true,
            "c" => false,
            _ => return None,
        };
        Some(Devnum { block, major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The part of a path behind its last slash.
#[must_use]
pub fn last_element(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// `/bus/usb/drivers/hub` -> `usb`.
fn driver_bus(devpath: &[u8]) -> &[u8] {
    devpath.split(|byte| *byte == b'/').nth(2).unwrap_or_default()
}

/// An attribute's content, if it has one.
type Attribute = Option<Box<[u8]>>;

/// Where the device above another one is, which cannot change while that one exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentAt {
    Nowhere,
    /// So many bytes of the devpath are its own.
    Length(usize),
}

/// The event's device: the message, and sysfs behind it.
#[derive(Debug)]
pub struct Device {
    sysfs: Sysfs,
    uevent: Arc<Uevent>,
    id: DeviceId,
    /// What was read in this event; `None` where there is nothing to read.
    attributes: RefCell<HashMap<Box<[u8]>, Attribute>>,
    /// Looked up when somebody asks; what is above a device does not change while it is handled.
    parent: OnceCell<Option<Rc<Self>>>,
    /// Where that is, from an earlier event of this device.
    parent_at: Cell<Option<ParentAt>>,
}

impl Device {
    #[must_use]
    pub fn new(sysfs: Sysfs, uevent: Arc<Uevent>) -> Self {
        let id = DeviceId::of(&uevent);
        Self {
            sysfs,
            uevent,
            id,
            attributes: RefCell::default(),
            parent: OnceCell::new(),
            parent_at: Cell::new(None),
        }
    }

    /// A device as sysfs has it, such as another one's parent; `None` if there is none.
    #[must_use]
    pub fn at(sysfs: &Sysfs, devpath: &[u8]) -> Option<Self> {
        let uevent = replay::replay(sysfs, devpath, Action::Add, 0)?;
        Some(Self::new(sysfs.clone(), Arc::new(uevent)))
    }

    /// The device above this one: the next directory upwards that has a `uevent` file.
    #[must_use]
    pub fn parent(&self) -> Option<&Rc<Self>> {
        self.parent.get_or_init(|| self.find_parent().map(Rc::new)).as_ref()
    }

    /// Where the device above this one is, if somebody has asked for it, now or in the event that `hint` is
    /// from.
    #[must_use]
    pub fn parent_at(&self) -> Option<ParentAt> {
        match self.parent.get() {
            Some(Some(parent)) => Some(ParentAt::Length(parent.uevent.devpath().len())),
            Some(None) => Some(ParentAt::Nowhere),
            None => self.parent_at.get(),
        }
    }

    /// Spares looking for the device above this one where an earlier event of this very device did.
    pub fn expect_parent_at(&self, hint: Option<ParentAt>) {
        self.parent_at.set(hint);
    }

    fn find_parent(&self) -> Option<Self> {
        match self.parent_at.get() {
            Some(ParentAt::Nowhere) => return None,
            Some(ParentAt::Length(length)) => {
                let path = self.uevent.devpath().get(..length)?;
                if let Some(parent) = Self::at(&self.sysfs, path) {
                    return Some(parent);
                }
            }
            None => {}
        }
        let mut path = self.uevent.devpath();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0) {
            path = &path[..slash];
            if let Some(parent) = Self::at(&self.sysfs, path) {
                return Some(parent);
            }
        }
        None
    }

    #[must_use]
    pub fn sysfs(&self) -> &Sysfs {
        &self.sysfs
    }

    #[must_use]
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    #[must_use]
    pub fn uevent(&self) -> &Arc<Uevent> {
        &self.uevent
    }

    #[must_use]
    pub fn subsystem(&self) -> &[u8] {
        self.uevent.subsystem()
    }

    /// Empty where the kernel names none.
    #[must_use]
    pub fn devtype(&self) -> &[u8] {
        self.uevent.devtype()
    }

    /// The kernel's name, `!` turned into `/` as in node names.
    #[must_use]
    pub fn sysname(&self) -> Vec<u8> {
        let slash = |byte: &u8| if *byte == b'!' { b'/' } else { *byte };
        last_element(self.uevent.devpath()).iter().map(slash).collect()
    }

    /// The driver that is bound to the device itself, or none.
    #[must_use]
    pub fn driver(&self) -> Option<Vec<u8>> {
        match self.uevent.get(b"DRIVER") {
            Some(driver) => Some(driver.to_vec()),
            None => self.sysfs.link_name(self.uevent.devpath(), b"driver"),
        }
    }

    /// The kernel module of the device's driver, as sysfs links it.
    #[must_use]
    pub fn module(&self) -> Option<Vec<u8>> {
        // a device with a driver says so in each of its messages (`drivers/base/core.c`)
        self.uevent.get(b"DRIVER")?;
        self.sysfs.link_name(self.uevent.devpath(), b"driver/module")
    }

    #[must_use]
    pub fn devname(&self) -> Option<&[u8]> {
        self.uevent.devname()
    }

    #[must_use]
    pub fn devnum(&self) -> Option<Devnum> {
        self.uevent.devnum()
    }

    /// Whether sysfs has the device (still).
    #[must_use]
    pub fn exists(&self) -> bool {
        self.sysfs.instance(self.uevent.devpath()).is_some()
    }

    /// Tells this device from a later one at the same path; see [`Sysfs::instance`].
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.sysfs.instance(self.uevent.devpath()).unwrap_or(0)
    }

    /// An attribute's content less its trailing newlines; `None` if it is missing or unreadable.
    #[must_use]
    pub fn attribute(&self, name: &[u8]) -> Attribute {
        if let Some(value) = self.attributes.borrow().get(name) {
            return value.clone();
        }
        let value = self.sysfs.attribute(self.uevent.devpath(), name);
        self.attributes.borrow_mut().insert(name.into(), value.clone());
        value
    }

    /// The first `limit` bytes of a binary attribute, as they are; `None` if it cannot be read.
    #[must_use]
    pub fn bytes(&self, name: &[u8], limit: u64) -> Option<Vec<u8>> {
        self.sysfs.bytes(self.uevent.devpath(), name, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uevent::{Action, Origin};

    fn id(devpath: &str, pairs: &[(&str, &str)]) -> String {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
        let uevent =
            Uevent::synthetic(Origin::Coldplug, Action::Add, devpath.as_bytes(), 1, &pairs);
        DeviceId::of(&uevent).to_string()
    }

    #[test]
    fn ids_are_written_as_udev_writes_them() {
        let disk = [("SUBSYSTEM", "block"), ("MAJOR", "8"), ("MINOR", "1")];
        assert_eq!(id("/devices/x/block/sda/sda1", &disk), "b8:1");
        let null = [("SUBSYSTEM", "mem"), ("MAJOR", "1"), ("MINOR", "3")];
        assert_eq!(id("/devices/virtual/mem/null", &null), "c1:3");
        let net = [("SUBSYSTEM", "net"), ("IFINDEX", "2")];
        assert_eq!(id("/devices/virtual/net/eth0", &net), "n2");
        assert_eq!(id("/devices/pci0000:00/1-1", &[("SUBSYSTEM", "usb")]), "+usb:1-1");
        assert_eq!(id("/bus/usb/drivers/hub", &[("SUBSYSTEM", "drivers")]), "+drivers:usb:hub");
        let zero = [("SUBSYSTEM", "x"), ("MAJOR", "0"), ("MINOR", "3")];
        assert_eq!(id("/devices/x/y", &zero), "+x:y", "major 0 is no device number");
    }

    #[test]
    fn an_id_that_would_leave_its_folder_is_refused() {
        assert!(DeviceId::from_bytes(b"+usb:../../etc").is_none());
        assert!(DeviceId::from_bytes(b"").is_none());
        assert!(DeviceId::from_bytes(b"x1").is_none());
        assert!(DeviceId::from_bytes(b"b8:1").is_some());
    }
}

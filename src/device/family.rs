//! Stage 3: the devices above a device, and another one by its subsystem and name.

use std::iter::successors;
use std::rc::Rc;

use crate::device::Device;

impl Device {
    /// The devices above this one, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &Self> {
        successors(self.parent().map(Rc::as_ref), |device| device.parent().map(Rc::as_ref))
    }

    /// This device and those above it.
    pub fn line(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.ancestors())
    }

    /// The nearest device above that is in the subsystem.
    #[must_use]
    pub fn above(&self, subsystem: &[u8]) -> Option<&Self> {
        self.ancestors().find(|device| device.subsystem() == subsystem)
    }

    /// The nearest device above that is in the subsystem and of the type.
    #[must_use]
    pub fn above_of_type(&self, subsystem: &[u8], devtype: &[u8]) -> Option<&Self> {
        self.ancestors()
            .find(|device| device.subsystem() == subsystem && device.devtype() == devtype)
    }

    /// Another device, by its subsystem and kernel name.
    #[must_use]
    pub fn peer(&self, subsystem: &[u8], name: &[u8]) -> Option<Self> {
        let sysfs = self.sysfs();
        Self::at(sysfs, &sysfs.find(subsystem, name)?)
    }

    /// The digits at the end of the kernel's name; `None` if there are none, or nothing else.
    #[must_use]
    pub fn sysnum(&self) -> Option<Vec<u8>> {
        let name = self.sysname();
        let before = name.iter().rposition(|byte| !byte.is_ascii_digit())? + 1;
        (before < name.len()).then(|| name[before..].to_vec())
    }
}

//! Names of interfaces whose bus or firmware gives them one place: s390 channels, virtual I/O, ACPI
//! platforms, netdevsim, Xen, device tree aliases.

use super::{Interface, number};
use crate::device::Device;
use crate::net::Scheme;

/// Where the kernel shows the aliases of a device tree.
const ALIASES: &[u8] = b"/firmware/devicetree/base/aliases";

impl Interface<'_> {
    pub(super) fn firmware_names(&mut self) {
        let aliased = self.scheme >= Scheme::V252 && self.prefix == "en";
        if let Some(index) = aliased.then(|| alias_index(self.device)).flatten() {
            self.put_name("ID_NET_NAME_ONBOARD", &[b"d", index.to_string().as_bytes()]);
        }
        let Some(parent) = skip_virtio(self.device.parent().map(AsRef::as_ref)) else { return };
        match parent.subsystem() {
            b"ccwgroup" | b"ccw" => {
                if let Some(id) = channel(&parent.sysname()) {
                    self.put_name("ID_NET_NAME_PATH", &[b"c", id]);
                }
            }
            b"vio" => {
                if let Some(slot) = virtual_slot(self.device.uevent().devpath()) {
                    self.put_name("ID_NET_NAME_SLOT", &[b"v", slot.to_string().as_bytes()]);
                }
            }
            b"platform" => {
                if let Some(name) = acpi(self.device.uevent().devpath()) {
                    self.put_name("ID_NET_NAME_PATH", &[name.as_bytes()]);
                }
            }
            b"netdevsim" if self.scheme >= Scheme::V243 => self.netdevsim(&parent.sysname()),
            b"xen" if self.scheme >= Scheme::V250 => {
                let path = parent.uevent().devpath().strip_prefix(b"/devices/vif-");
                let vif = path.and_then(|text| number(text, 10));
                if let Some(vif) = vif {
                    self.put_name("ID_NET_NAME_SLOT", &[b"X", vif.to_string().as_bytes()]);
                }
            }
            _ => {}
        }
    }

    fn netdevsim(&mut self, name: &[u8]) {
        let address = name.strip_prefix(b"netdevsim").and_then(|text| number(text, 10));
        if let (Some(address), Some(port)) = (address, self.port.clone()) {
            self.put_name("ID_NET_NAME_PATH", &[format!("i{address}n").as_bytes(), &port]);
        }
    }
}

/// What is above a virtio device stands for it.
pub(super) fn skip_virtio(mut device: Option<&Device>) -> Option<&Device> {
    while let Some(at) = device.filter(|at| at.subsystem() == b"virtio") {
        device = at.parent().map(AsRef::as_ref);
    }
    device
}

/// `0.0.f5f0` -> `f5f0`.
fn channel(name: &[u8]) -> Option<&[u8]> {
    if !matches!(name.len(), 8 | 9) {
        return None;
    }
    let zeros = name.iter().take_while(|byte| matches!(byte, b'0' | b'.')).count();
    Some(&name[zeros.min(name.len() - 1)..])
}

/// `/devices/vio/30000002/net/eth0` -> 2.
fn virtual_slot(devpath: &[u8]) -> Option<u32> {
    let mut parts = devpath.strip_prefix(b"/devices/vio/")?.split(|byte| *byte == b'/');
    let unit = parts.next().filter(|unit| (5..=8).contains(&unit.len()))?;
    let hexadecimal = unit.iter().all(u8::is_ascii_hexdigit);
    number(&unit[4..], 16).filter(|_| hexadecimal && is_first_name(parts))
}

/// Whether the interface has the kernel's own name yet: what is left is `net/ethN`.
fn is_first_name<'a>(mut parts: impl Iterator<Item = &'a [u8]>) -> bool {
    let net = parts.next() == Some(b"net");
    let digit = parts.next().and_then(|name| name.strip_prefix(b"eth")?.first());
    net && digit.is_some_and(u8::is_ascii_digit)
}

/// `/devices/platform/APMC0D05:00/net/eth0` -> `aapmcd05i0`.
fn acpi(devpath: &[u8]) -> Option<String> {
    let mut parts = devpath.strip_prefix(b"/devices/platform/")?.split(|byte| *byte == b'/');
    let name = str::from_utf8(parts.next()?).ok()?;
    let (id, instance) = name.split_once(':').filter(|_| is_first_name(parts))?;
    // identifiers of ACPI have four letters, older ones of PNP three
    let (vendor, model) = id.split_at_checked(id.len().checked_sub(4)?)?;
    let fits = matches!(vendor.len(), 3 | 4) && vendor.bytes().all(|b| b.is_ascii_alphanumeric());
    let model = u32::from_str_radix(model, 16).ok().filter(|_| fits)?;
    let instance = u32::from_str_radix(instance, 16).ok()?;
    Some(format!("a{}{model:x}i{instance}", vendor.to_ascii_lowercase()))
}

/// The number of the alias `ethernetN` that stands for the device's node in the device tree.
fn alias_index(device: &Device) -> Option<u32> {
    let parent = device.parent()?;
    let sysfs = device.sysfs();
    let node = sysfs.follow(&[parent.uevent().devpath(), b"/of_node"].concat())?;
    let node = node.strip_prefix(b"/firmware/devicetree/base")?.to_vec();
    let names = sysfs.names(ALIASES);
    let both = ["ethernet", "ethernet0"].map(|name| names.iter().any(|n| n == name.as_bytes()));
    let index = |name: &Vec<u8>| {
        let digits = name.strip_prefix(b"ethernet")?;
        let index = if digits.is_empty() { 0 } else { number(digits, 10)? };
        sysfs.attribute(ALIASES, name).is_some_and(|alias| *alias == *node).then_some(index)
    };
    let found = names.iter().filter_map(index).min();
    // two names of one number
    found.filter(|index| *index > 0 || both != [true; 2])
}

//! Names of interfaces on PCI: by the firmware's number, by slot and by place.

use super::firmware::skip_virtio;
use super::{Interface, NAME_MAX, is_printable, number};
use crate::device::{Device, last_element};
use crate::net::Scheme;

/// The firmware's numbers above these are mistakes.
const ONBOARD_MAX: u32 = (1 << 14) - 1;
const ONBOARD_MAX_V249: u32 = (1 << 16) - 1;

/// Where the header's type stands in the configuration space, and its bit for several functions.
const HEADER_TYPE: usize = 0x0e;
const HEADER_SIZE: u64 = 64;
const MULTIFUNCTION: u8 = 0x80;

/// Where a PCI device is, without the prefix of the interface.
pub(super) struct Place {
    pub(super) path: Vec<u8>,
    pub(super) slot: Option<Vec<u8>>,
}

/// `0000:05:00.1`.
struct Address {
    domain: u32,
    bus: u32,
    slot: u32,
    function: u32,
}

impl Address {
    fn parse(name: &[u8]) -> Option<Self> {
        let (rest, function) = split(name, b'.')?;
        let (rest, slot) = split(rest, b':')?;
        let (domain, bus) = split(rest, b':')?;
        let hexadecimal = |text: &[u8]| number(text, 16);
        Some(Self {
            domain: hexadecimal(domain)?,
            bus: hexadecimal(bus)?,
            slot: hexadecimal(slot)?,
            function: number(function, 10)?,
        })
    }
}

/// At the last of such a byte.
fn split(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|found| *found == byte)?;
    Some((&text[..at], &text[at + 1..]))
}

impl Interface<'_> {
    /// The place of the interface's device, or of the one that what carries it is plugged into.
    pub(super) fn pci_place(&mut self) -> Option<Place> {
        let parent = skip_virtio(self.device.parent().map(AsRef::as_ref))?;
        let direct = parent.subsystem() == b"pci";
        let pci = if direct { parent } else { parent.above(b"pci")? };
        let whole =
            (self.scheme >= Scheme::V239 && direct).then(|| virtual_function(pci)).flatten();
        let (pci, suffix) = match &whole {
            Some((whole, suffix)) => (whole, suffix.as_slice()),
            None => (pci, [].as_slice()),
        };
        if direct {
            self.onboard(pci, suffix);
        }
        let mut place = self.place(pci)?;
        place.path.extend_from_slice(suffix);
        if let Some(slot) = &mut place.slot {
            slot.extend_from_slice(suffix);
        }
        Some(place)
    }

    /// Names by the number and the label that the firmware gives a device on the main board.
    fn onboard(&mut self, pci: &Device, suffix: &[u8]) {
        let index = pci.attribute(b"acpi_index").or_else(|| pci.attribute(b"index"));
        let Some(index) = index.and_then(|text| number(&text, 0)) else { return };
        let (first, last) = match self.scheme {
            scheme if scheme >= Scheme::V249 => (0, ONBOARD_MAX_V249),
            scheme if scheme >= Scheme::V240 => (0, ONBOARD_MAX),
            _ => (1, ONBOARD_MAX),
        };
        if !(first..=last).contains(&index) {
            return;
        }
        let port = self.port_suffix(self.dev_port());
        self.put_name("ID_NET_NAME_ONBOARD", &[format!("o{index}").as_bytes(), &port, suffix]);
        let label = pci.attribute(b"label").filter(|label| is_printable(label));
        if let Some(label) = label.filter(|_| suffix.is_empty()) {
            let prefix = if self.scheme >= Scheme::V243 { "" } else { self.prefix };
            let label = [prefix.as_bytes(), &label].concat();
            if label.len() <= NAME_MAX {
                self.put("ID_NET_LABEL_ONBOARD", label);
            }
        }
    }

    fn place(&self, pci: &Device) -> Option<Place> {
        let mut address = Address::parse(&pci.sysname())?;
        let port = self.port_suffix(self.dev_port().or_else(|| self.infiniband_port()));
        // with alternative routing the number of the slot is the upper part of the function's
        let routed = || pci.attribute(b"ari_enabled").is_some_and(|text| *text == *b"1");
        if self.scheme >= Scheme::V239 && routed() {
            address.function += address.slot * 8;
        }
        let domain =
            if address.domain > 0 { format!("P{}", address.domain) } else { String::new() };
        let several = address.function > 0 || is_multifunction(pci);
        let function = if several { format!("f{}", address.function) } else { String::new() };
        let (bus, slot) = (address.bus, address.slot);
        let path = format!("{domain}p{bus}s{slot}{function}");
        let slot = self.hotplug_slot(pci);
        let slot =
            slot.map(|slot| [format!("{domain}s{slot}{function}").as_bytes(), &port].concat());
        Some(Place { path: [path.as_bytes(), &port].concat(), slot })
    }

    /// The number of the slot that the device, or one above it, is plugged in.
    fn hotplug_slot(&self, pci: &Device) -> Option<u32> {
        let sysfs = pci.sysfs();
        let slots = sysfs.names(b"/bus/pci/slots");
        // on s390 slots have the names of functions
        let id = || pci.attribute(b"function_id");
        if let Some(id) = (self.scheme >= Scheme::V249).then(id).flatten() {
            let id = number(&id, 0).filter(|id| *id > 0)?;
            let name = format!("{id:08x}");
            return slots.iter().any(|slot| slot == name.as_bytes()).then_some(id);
        }
        let mut at = Some(pci);
        while let Some(device) = at {
            let told =
                (self.scheme >= Scheme::V257).then(|| device.attribute(b"firmware_node/sun"));
            let told = told.flatten();
            let told = told.and_then(|text| number(&text, 0)).filter(|index| *index > 0);
            if let Some(index) = told {
                return self.is_plugged(pci, device).then_some(index);
            }
            let name = device.sysname();
            for slot in &slots {
                let Some(index) = number(slot, 0).filter(|index| *index > 0) else { continue };
                let folder = [b"/bus/pci/slots/".as_slice(), slot].concat();
                let Some(address) = sysfs.attribute(&folder, b"address") else { continue };
                if name.starts_with(&address) {
                    return self.is_plugged(pci, device).then_some(index);
                }
            }
            at = device.ancestors().next().filter(|above| above.subsystem() == b"pci");
        }
        None
    }

    /// A slot that holds a bridge would give one name to several devices.
    fn is_plugged(&self, pci: &Device, holder: &Device) -> bool {
        let multifunction = (Scheme::V251..=Scheme::V254).contains(&self.scheme);
        self.scheme < Scheme::V247 || !is_bridge(holder) || multifunction && is_multifunction(pci)
    }
}

/// The device that has the virtual function, and the end of its names: `v2`.
fn virtual_function(pci: &Device) -> Option<(Device, Vec<u8>)> {
    let sysfs = pci.sysfs();
    let path = pci.uevent().devpath();
    let whole = sysfs.follow(&[path, b"/physfn"].concat())?;
    let names = sysfs.names(&whole);
    let function = names.iter().find(|name| {
        name.strip_prefix(b"virtfn").is_some_and(|text| number(text, 10).is_some())
            && sysfs.link_name(&whole, name).is_some_and(|target| target == last_element(path))
    })?;
    let number = &function[b"virtfn".len()..];
    Some((Device::at(sysfs, &whole)?, [b"v", number].concat()))
}

fn is_multifunction(pci: &Device) -> bool {
    let config = pci.bytes(b"config", HEADER_SIZE);
    config
        .and_then(|config| config.get(HEADER_TYPE).copied())
        .is_some_and(|kind| kind & MULTIFUNCTION != 0)
}

/// By the class in the device's modalias.
fn is_bridge(pci: &Device) -> bool {
    let Some(alias) = pci.attribute(b"modalias").filter(|alias| alias.starts_with(b"pci:")) else {
        return false;
    };
    alias.windows(8).any(|part| part.starts_with(b"bc06sc04"))
}

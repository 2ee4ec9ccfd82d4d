//! Names of interfaces on a bus that stands behind PCI: USB, and Broadcom's bus of cores.

use super::firmware::skip_virtio;
use super::pci::Place;
use super::{Interface, NAME_MAX};
use crate::net::Scheme;

impl Interface<'_> {
    /// Names by the place on PCI, and on what is behind it.
    pub(super) fn bus_names(&mut self) {
        let direct = skip_virtio(self.device.parent().map(AsRef::as_ref));
        let direct = direct.is_some_and(|parent| parent.subsystem() == b"pci");
        let behind = if direct { Some(Vec::new()) } else { self.behind() };
        let Some(behind) = behind else { return };
        match self.pci_place() {
            Some(place) => self.put_place(&place, &behind),
            None if self.scheme >= Scheme::V253 && behind.starts_with(b"u") => {
                self.put_name("ID_NET_NAME_PATH", &[&behind]);
            }
            None => {}
        }
    }

    /// The place on the bus that stands behind PCI, if there is one.
    fn behind(&self) -> Option<Vec<u8>> {
        match self.device.above_of_type(b"usb", b"usb_interface") {
            Some(interface) => usb_ports(&interface.sysname()),
            None => core_number(&self.device.above(b"bcma")?.sysname()),
        }
    }

    fn put_place(&mut self, place: &Place, behind: &[u8]) {
        self.put_name("ID_NET_NAME_PATH", &[&place.path, behind]);
        if let Some(slot) = &place.slot {
            self.put_name("ID_NET_NAME_SLOT", &[slot, behind]);
        }
    }
}

/// `2-1.4:1.6` -> `u1u4i6`: the first configuration and interface are not told.
fn usb_ports(name: &[u8]) -> Option<Vec<u8>> {
    let dash = name.iter().position(|byte| *byte == b'-')?;
    let rest = &name[dash + 1..];
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let (ports, rest) = (&rest[..colon], &rest[colon + 1..]);
    let dot = rest.iter().position(|byte| *byte == b'.')?;
    let (configuration, interface) = (&rest[..dot], &rest[dot + 1..]);
    let mut name = vec![b'u'];
    name.extend(ports.iter().map(|byte| if *byte == b'.' { b'u' } else { *byte }));
    if configuration != b"1" {
        name.push(b'c');
        name.extend_from_slice(configuration);
    }
    if interface != b"0" {
        name.push(b'i');
        name.extend_from_slice(interface);
    }
    (name.len() <= NAME_MAX).then_some(name)
}

/// `bcma0:2` -> `b2`; the first core is not told.
fn core_number(name: &[u8]) -> Option<Vec<u8>> {
    let rest = name.strip_prefix(b"bcma")?;
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let core = super::number(&rest[colon + 1..], 10)?;
    super::number(&rest[..colon], 10)?;
    Some(if core > 0 { format!("b{core}").into_bytes() } else { Vec::new() })
}

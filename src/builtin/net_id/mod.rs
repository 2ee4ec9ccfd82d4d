//! `net_id`: a network interface in, names that stay the same out: `ID_NET_NAME_PATH`, `ID_NET_NAME_MAC`…
//!
//! Names are built as systemd.net-naming-scheme(7) says. `firmware` has the buses that give one name, `pci`
//! and `behind` those that give several.

mod behind;
mod firmware;
mod pci;

use super::number::signed;

use crate::builtin::{self, Call, Pair};
use crate::clean::is_character;
use crate::device::Device;
use crate::device::hwdb::Hwdb;
use crate::net::Scheme;

/// The longest alternative name that an interface can have (`ALTIFNAMSIZ` less the NUL); one that is too
/// long for the interface's own name is given out all the same.
const NAME_MAX: usize = 127;

/// `ARPHRD_…` of `linux/if_arp.h`.
const ETHER: i32 = 1;
const INFINIBAND: i32 = 32;
const SLIP: i32 = 256;

/// What is known of the interface, and what its names are made by.
struct Interface<'a> {
    device: &'a Device,
    /// Begins each name: `en`, `wl`…
    prefix: &'static str,
    infiniband: bool,
    /// The driver's name of the port, as `p0`.
    port: Option<Box<[u8]>>,
    scheme: Scheme,
    pairs: Vec<Pair>,
}

/// The properties, or `None` where the interface has no device that gives it a name.
pub(super) fn net_id(call: &Call<'_>, scheme: Scheme, hwdb: &Hwdb) -> Option<Vec<Pair>> {
    let device = call.device;
    let index = device.uevent().ifindex()?;
    let link = signed(&device.attribute(b"iflink")?)?;
    let kind = signed(&device.attribute(b"type")?)?;
    // such as VLANs, which stand on another interface
    if index.to_string() != link.to_string() {
        return Some(Vec::new());
    }
    let prefix = match (kind, device.devtype()) {
        (INFINIBAND, _) if scheme < Scheme::V240 => return Some(Vec::new()),
        (ETHER | INFINIBAND | SLIP, b"wlan") => "wl",
        (ETHER | INFINIBAND | SLIP, b"wwan") => "ww",
        (ETHER, _) => "en",
        (INFINIBAND, _) => "ib",
        (SLIP, _) => "sl",
        _ => return Some(Vec::new()),
    };
    let infiniband = kind == INFINIBAND;
    let port = device.attribute(b"phys_port_name");
    let port = port.filter(|name| !name.is_empty() && is_printable(name));
    let mut interface = Interface { device, prefix, infiniband, port, scheme, pairs: Vec::new() };
    interface.put("ID_NET_NAMING_SCHEME", scheme.name().as_bytes().to_vec());
    interface.hardware_address(hwdb);
    interface.firmware_names();
    interface.bus_names();
    Some(interface.pairs)
}

impl Interface<'_> {
    fn put(&mut self, key: &str, value: Vec<u8>) {
        self.pairs.push((key.as_bytes().to_vec(), value));
    }

    /// The prefix and these parts, unless the interface could not have the name.
    fn put_name(&mut self, key: &str, parts: &[&[u8]]) {
        let name = [self.prefix.as_bytes(), &parts.concat()].concat();
        if name.len() <= NAME_MAX {
            self.put(key, name);
        }
    }

    /// A name of the address, if that is the card's own, and who made it.
    fn hardware_address(&mut self, hwdb: &Hwdb) {
        if self.infiniband {
            return;
        }
        let Some(address) = self.device.attribute(b"address").and_then(|text| mac(&text)) else {
            return;
        };
        // NET_ADDR_PERM
        if attribute_number(self.device, b"addr_assign_type") != Some(0) {
            return;
        }
        let digits: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
        self.put_name("ID_NET_NAME_MAC", &[b"x", digits.as_bytes()]);
        // a first maker's number that others use as if it were none
        if address[..3] != [0; 3] {
            let modalias = format!("OUI:{}", digits.to_uppercase());
            self.pairs.extend(hwdb.look_up(modalias.as_bytes()).unwrap_or_default());
        }
    }

    /// The number of the port on a card that has several; the first is not told.
    fn dev_port(&self) -> Option<u64> {
        let port = self.device.attribute(b"dev_port")?;
        builtin::number::number(&port, 10).filter(|port| *port > 0)
    }

    /// With another attribute drivers of infiniband counted first. It is read in decimal, so that the
    /// kernel's own `0x1` is none.
    fn infiniband_port(&self) -> Option<u64> {
        self.device.attribute(b"dev_port").filter(|_| self.infiniband)?;
        let id = self.device.attribute(b"dev_id")?;
        builtin::number::number(&id, 10).filter(|port| *port > 0)
    }

    /// Tells ports of one card: by the driver's name or by number.
    fn port_suffix(&self, port: Option<u64>) -> Vec<u8> {
        let represented = self.port.as_deref().filter(|_| self.scheme >= Scheme::V254);
        if let Some(function) = represented.and_then(represented_function) {
            return format!("r{function}").into_bytes();
        }
        match (&self.port, port) {
            (Some(name), _) => [b"n".as_slice(), name].concat(),
            (None, Some(number)) => format!("d{number}").into_bytes(),
            (None, None) => Vec::new(),
        }
    }
}

/// `pf0vf12` -> 12: the port is the switch's end of that virtual function.
fn represented_function(port: &[u8]) -> Option<u32> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = port.strip_prefix(b"pf")?;
    let rest = rest[digits(rest)..].strip_prefix(b"vf").filter(|_| digits(rest) > 0)?;
    number(&rest[..digits(rest)], 10)
}

/// UTF-8 without control characters; udev takes nothing else for a port's name.
fn is_printable(text: &[u8]) -> bool {
    let printable = |c: char| !c.is_ascii_control() && is_character(c);
    std::str::from_utf8(text).is_ok_and(|text| text.chars().all(printable))
}

fn attribute_number(device: &Device, name: &[u8]) -> Option<u32> {
    number(&device.attribute(name)?, 10)
}

/// A number alone, of 32 bits.
fn number(text: &[u8], base: u32) -> Option<u32> {
    builtin::number::number(text, base).and_then(|number| u32::try_from(number).ok())
}

/// An address of six bytes: `54:ee:75:cb:1d:c0`, also with `-`, or as `54ee.75cb.1dc0`.
fn mac(text: &[u8]) -> Option<[u8; 6]> {
    let separator = *text.iter().find(|byte| b":-.".contains(byte))?;
    let width = if separator == b'.' { 4 } else { 2 };
    let mut address = Vec::new();
    for part in text.split(|byte| *byte == separator) {
        if !(1..=width).contains(&part.len()) || !part.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let value = u16::from_str_radix(str::from_utf8(part).ok()?, 16).ok()?;
        address.extend_from_slice(&value.to_be_bytes()[2 - width / 2..]);
    }
    address.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked of udevadm 252.
    #[test]
    fn a_ports_name_is_taken_as_udev_takes_it() {
        for taken in ["p0", " x", "a\"\\'%b", "\u{e9}", "a\u{80}b", "a\u{200b}b"] {
            assert!(is_printable(taken.as_bytes()), "{taken:?}");
        }
        let left: [&[u8]; 5] = [b"\xff", b"a\xffb", b"a\tb", b"\x7f", b"a\xef\xbf\xbfb"];
        for left in left {
            assert!(!is_printable(left), "{}", left.escape_ascii());
        }
    }
}

//! `path_id`: [Device] in, the way from the machine to it out: `ID_PATH`, `ID_PATH_TAG`.
//!
//! Each bus on the way adds what tells its devices apart, and the name stays the same as long as a device
//! is plugged in at the same place.

pub(super) mod scsi;

use crate::builtin::{Call, Pair};
use crate::device::Device;

/// What is gathered from the device upwards.
#[derive(Default)]
struct Way {
    path: Vec<u8>,
    /// As ATA ports were named before their devices had numbers.
    compat: Vec<u8>,
    /// Some bus has a place of its own in the machine.
    anchored: bool,
    /// Some bus tells a disk from others on it.
    transported: bool,
}

impl Way {
    fn prepend(&mut self, part: &[u8]) {
        put_before(&mut self.path, part);
    }

    /// Also before the compatible path, if there is one.
    fn prepend_both(&mut self, part: &[u8]) {
        self.prepend(part);
        if !self.compat.is_empty() {
            put_before(&mut self.compat, part);
        }
    }
}

fn put_before(path: &mut Vec<u8>, part: &[u8]) {
    let joint: &[u8] = if path.is_empty() { b"" } else { b"-" };
    *path = [part, joint, path.as_slice()].concat();
}

/// The properties, or `None` if the device has no stable place.
pub(super) fn path_id(call: &Call<'_>) -> Option<Vec<Pair>> {
    let way = walk(call.device);
    if way.path.is_empty() || !way.anchored {
        return None;
    }
    if call.device.subsystem() == b"block" && !way.transported {
        return None;
    }
    let mut pairs = vec![(b"ID_PATH_TAG".to_vec(), tag(&way.path))];
    pairs.push((b"ID_PATH".to_vec(), way.path));
    if !way.compat.is_empty() {
        pairs.push((b"ID_PATH_ATA_COMPAT".to_vec(), way.compat));
    }
    Some(pairs)
}

fn walk(device: &Device) -> Way {
    let mut way = Way::default();
    let mut at = Some(device);
    while let Some(bus) = at {
        let Some(last) = step(device, bus, &mut way) else { break };
        at = last.parent().map(AsRef::as_ref);
    }
    way
}

/// Adds what one device on the way tells; gives the device above which to go on, if any.
fn step<'a>(device: &Device, bus: &'a Device, way: &mut Way) -> Option<&'a Device> {
    let subsystem = bus.subsystem();
    match subsystem {
        b"scsi_tape" => tape(bus, way),
        b"scsi" => {
            way.transported = true;
            return scsi::scsi(bus, way);
        }
        b"cciss" => {
            way.transported = true;
            let name = bus.sysname();
            let disk = number_between(&name, b"c", b"d")?;
            way.prepend(format!("cciss-disk{disk}").as_bytes());
            return Some(skip(bus));
        }
        b"usb" => {
            way.transported = true;
            return Some(usb(bus, way));
        }
        b"bcma" => {
            way.transported = true;
            let core = after_colon(&bus.sysname())?;
            way.prepend(format!("bcma-{core}").as_bytes());
        }
        b"serio" | b"spi" => {
            let Some(number) = bus.sysnum() else { return Some(bus) };
            let word: &[u8] = if subsystem == b"spi" { b"cs-" } else { b"serio-" };
            way.prepend(&[word, &number].concat());
            return Some(skip(bus));
        }
        b"pci" | b"acpi" | b"xen" => {
            way.anchored = true;
            way.prepend_both(&[subsystem, b"-", &bus.sysname()].concat());
            return Some(skip(bus));
        }
        b"platform" | b"scm" | b"ccw" | b"ccwgroup" | b"iucv" => {
            (way.anchored, way.transported) = (true, true);
            way.prepend_both(&[subsystem, b"-", &bus.sysname()].concat());
            return Some(skip(bus));
        }
        b"virtio" => {
            way.transported = true;
            return Some(skip(bus));
        }
        b"ap" => {
            (way.anchored, way.transported) = (true, true);
            way.prepend(&crypto(bus));
            return Some(skip(bus));
        }
        b"nvme" | b"nvme-subsystem" => {
            if let Some(nsid) = device.attribute(b"nsid") {
                way.anchored |= subsystem == b"nvme";
                way.transported = true;
                way.prepend_both(&[b"nvme-".as_slice(), &nsid].concat());
                return Some(skip(bus));
            }
        }
        _ => {}
    }
    Some(bus)
}

/// The topmost of the devices that follow each other in one subsystem.
fn skip(device: &Device) -> &Device {
    let same = |above: &&Device| above.subsystem() == device.subsystem();
    device.ancestors().take_while(same).last().unwrap_or(device)
}

/// A tape has several nodes that differ in mode: `nst0l` is `nstl`.
fn tape(device: &Device, way: &mut Way) {
    let name = device.sysname();
    for kind in [b"nst".as_slice(), b"st"] {
        if let Some(rest) = name.strip_prefix(kind) {
            let mode = &rest[..rest.len().min(1)];
            if matches!(mode, b"" | b"l" | b"m" | b"a") {
                way.prepend(&[kind, mode].concat());
            }
            return;
        }
    }
}

/// `1-1.2:1.0` is `usb-0:1.2:1.0`: the number of the bus depends on who came first.
fn usb<'a>(device: &'a Device, way: &mut Way) -> &'a Device {
    if !matches!(device.devtype(), b"usb_interface" | b"usb_device") {
        return device;
    }
    let name = device.sysname();
    let Some(dash) = name.iter().position(|byte| *byte == b'-') else { return device };
    way.prepend(&[b"usb-0:".as_slice(), &name[dash + 1..]].concat());
    skip(device)
}

/// An adjunct processor by its type and functions.
fn crypto(device: &Device) -> Vec<u8> {
    match (device.attribute(b"type"), device.attribute(b"ap_functions")) {
        (Some(kind), Some(functions)) => [b"ap-".as_slice(), &kind, b"-", &functions].concat(),
        _ => [b"ap-".as_slice(), &device.sysname()].concat(),
    }
}

/// `bcma0:7` -> 7.
fn after_colon(name: &[u8]) -> Option<u32> {
    let rest = name.strip_prefix(b"bcma")?;
    let colon = rest.iter().position(|byte| *byte == b':').filter(|at| *at > 0)?;
    rest[..colon].iter().all(u8::is_ascii_digit).then(|| leading(&rest[colon + 1..]))?
}

/// `c0d3…` -> 3, if the words are `c` and `d`.
fn number_between(name: &[u8], first: &[u8], second: &[u8]) -> Option<u32> {
    let rest = name.strip_prefix(first)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    leading(&rest[..digits])?;
    leading(rest[digits..].strip_prefix(second)?)
}

/// The decimal number that a text begins with.
fn leading(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// The path as a word that can be a tag or a unit's name.
fn tag(path: &[u8]) -> Vec<u8> {
    let mut tag = Vec::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || *byte == b'-' {
            tag.push(*byte);
        } else if tag.last().is_some_and(|last| *last != b'_') {
            tag.push(b'_');
        }
    }
    while tag.last() == Some(&b'_') {
        tag.pop();
    }
    tag
}

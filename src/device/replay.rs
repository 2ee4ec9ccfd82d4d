//! What sysfs says of a device, as the kernel would say it in a message.

use crate::device::Sysfs;
use crate::uevent::{Action, Origin, Uevent, parse};

/// The event of one device as sysfs has it now; `None` if there is no (longer a) device.
///
/// A directory between devices may have no subsystem, and then the event has none.
#[must_use]
pub fn replay(sysfs: &Sysfs, devpath: &[u8], action: Action, seqnum: u64) -> Option<Uevent> {
    let text = sysfs.uevent(devpath).filter(|_| parse::is_devpath(devpath))?;
    let subsystem = subsystem(sysfs, devpath);
    let mut properties: Vec<(&[u8], &[u8])> = Vec::new();
    properties.extend(subsystem.as_deref().map(|name| (b"SUBSYSTEM".as_slice(), name)));
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            let (key, value) = (&line[..at], &line[at + 1..]);
            // as from a packet of the kernel: no name leads out of /dev
            if parse::fault(key, value).is_none() {
                properties.push((key, value));
            }
        }
    }
    // what the kernel adds to an event that userspace asked for
    properties.push((b"SYNTH_UUID", b"0"));
    Some(Uevent::synthetic(Origin::Coldplug, action, devpath, seqnum, &properties))
}

/// The `subsystem` link's name, or what udev calls the kinds that have none.
fn subsystem(sysfs: &Sysfs, devpath: &[u8]) -> Option<Vec<u8>> {
    if let Some(name) = sysfs.link_name(devpath, b"subsystem") {
        return Some(name);
    }
    let mut parts = devpath.split(|byte| *byte == b'/').skip(1);
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        (b"module", Some(_), None, None) => Some(b"module".to_vec()),
        (b"bus", Some(_), Some(b"drivers"), Some(_)) => Some(b"drivers".to_vec()),
        (b"bus" | b"class", Some(_), None, None) => Some(b"subsystem".to_vec()),
        _ => None,
    }
}

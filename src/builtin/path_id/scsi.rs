//! What a SCSI device's transport tells of its place: a port, an address, a target.

use super::Way;
use crate::device::{Device, last_element};

/// Adds the transport's part; gives the device above which to go on, `None` if its place is not known.
pub(super) fn scsi<'a>(device: &'a Device, way: &mut Way) -> Option<&'a Device> {
    if device.devtype() != b"scsi_device" {
        return Some(device);
    }
    if let Some(id) = device.attribute(b"ieee1394_id") {
        way.anchored = true;
        way.prepend(&[b"ieee1394-0x".as_slice(), &id].concat());
        return Some(super::skip(device));
    }
    // sysfs does not tell the transport, the way there does
    let path = device.uevent().devpath();
    let on_way = |part: &[u8]| path.windows(part.len()).any(|piece| piece == part);
    let part = if on_way(b"/rport-") {
        way.anchored = true;
        fibre_channel(device)?
    } else if on_way(b"/end_device-") {
        way.anchored = true;
        sas(device)?
    } else if on_way(b"/session") {
        way.anchored = true;
        iscsi(device)?
    } else if on_way(b"/ata") {
        let (port, part) = ata(device)?;
        way.compat = [b"ata-", port.as_slice()].concat();
        part
    } else if on_way(b"/vmbus_") {
        hyper_v(device, 37)?
    } else if on_way(b"/VMBUS") {
        hyper_v(device, 38)?
    } else {
        let host = device.above_of_type(b"scsi", b"scsi_host")?;
        way.prepend(&plain(device, host)?);
        return Some(host);
    };
    way.prepend(&part);
    Some(device)
}

/// The logical unit as SAN tools write it.
fn lun(device: &Device) -> Option<Vec<u8>> {
    let number = device.sysnum()?;
    let number: u64 = str::from_utf8(&number).ok()?.parse().ok()?;
    Some(if number < 256 {
        format!("lun-{number}").into_bytes()
    } else {
        // flat addressing, with the two halves of the number swapped
        format!("lun-0x{:04x}{:04x}00000000", number & 0xffff, (number >> 16) & 0xffff).into_bytes()
    })
}

fn target(device: &Device) -> Option<&Device> {
    device.above_of_type(b"scsi", b"scsi_target")
}

fn fibre_channel(device: &Device) -> Option<Vec<u8>> {
    let transport = device.peer(b"fc_transport", &target(device)?.sysname())?;
    let port = transport.attribute(b"port_name")?;
    Some([b"fc-".as_slice(), &port, b"-", &lun(device)?].concat())
}

fn sas(device: &Device) -> Option<Vec<u8>> {
    let end = target(device)?.parent()?;
    let disk = device.peer(b"sas_device", &end.sysname())?;
    let port = end.parent()?;
    let phys = device.peer(b"sas_port", &port.sysname())?.attribute(b"num_phys")?;
    if *phys != *b"1" {
        let address = disk.attribute(b"sas_address")?;
        return Some([b"sas-".as_slice(), &address, b"-", &lun(device)?].concat());
    }
    let phy = disk.attribute(b"phy_identifier")?;
    let expander = device.peer(b"sas_device", &port.parent()?.sysname());
    Some(match expander {
        Some(expander) => {
            let address = expander.attribute(b"sas_address")?;
            [b"sas-exp".as_slice(), &address, b"-phy", &phy, b"-", &lun(device)?].concat()
        }
        None => [b"sas-phy".as_slice(), &phy, b"-", &lun(device)?].concat(),
    })
}

fn iscsi(device: &Device) -> Option<Vec<u8>> {
    let session = device.ancestors().find(|above| above.sysname().starts_with(b"session"))?;
    let target = device.peer(b"iscsi_session", &session.sysname())?.attribute(b"targetname")?;
    let name = [b"connection".as_slice(), &session.sysnum()?, b":0"].concat();
    let connection = device.peer(b"iscsi_connection", &name)?;
    let address = connection.attribute(b"persistent_address")?;
    let port = connection.attribute(b"persistent_port")?;
    let lun = lun(device)?;
    Some([b"ip-".as_slice(), &address, b":", &port, b"-iscsi-", &target, b"-", &lun].concat())
}

/// The port's number, and the part of the path.
fn ata(device: &Device) -> Option<(Vec<u8>, Vec<u8>)> {
    let [_, bus, target, _] = numbers(&device.sysname())?;
    let host = device.above_of_type(b"scsi", b"scsi_host")?;
    let port = device.peer(b"ata_port", &host.parent()?.sysname())?.attribute(b"port_no")?;
    // behind a multiplier of ports, each port is a bus of its own
    let rest = if bus == 0 { format!(".{target}") } else { format!(".{bus}.0") };
    let part = [b"ata-".as_slice(), &port, rest.as_bytes()].concat();
    Some((port.into_vec(), part))
}

/// `length`: of the identifier with its braces.
fn hyper_v(device: &Device, length: usize) -> Option<Vec<u8>> {
    let host = device.above_of_type(b"scsi", b"scsi_host")?;
    let id = host.parent()?.attribute(b"device_id")?;
    if id.first() != Some(&b'{') || id.get(length - 1) != Some(&b'}') {
        return None;
    }
    let digits: Vec<u8> = id[1..length - 1].iter().copied().filter(|byte| *byte != b'-').collect();
    Some([b"vmbus-".as_slice(), &digits, b"-", &lun(device)?].concat())
}

/// The device's own numbers; that of the host counted from its controller's first.
fn plain(device: &Device, host: &Device) -> Option<Vec<u8>> {
    let [number, bus, target, lun] = numbers(&device.sysname())?;
    let path = host.uevent().devpath();
    let folder = &path[..path.len() - last_element(path).len()];
    let names = host.sysfs().names(folder);
    let hosts = names.iter().filter_map(|name| super::leading(name.strip_prefix(b"host")?));
    let first = hosts.min()?;
    let number = i64::from(number) - i64::from(first);
    Some(format!("scsi-{number}:{bus}:{target}:{lun}").into_bytes())
}

/// Host, bus, target, unit.
pub(in crate::builtin) fn numbers(name: &[u8]) -> Option<[u32; 4]> {
    let mut parts = name.split(|byte| *byte == b':').map(super::leading);
    Some([parts.next()??, parts.next()??, parts.next()??, parts.next()??])
}

//! `usb_id`: a device on USB in; maker, model, serial number and interfaces out: `ID_VENDOR`, `ID_SERIAL`…
//!
//! What a USB device says of itself is not trusted: names are cleaned, a serial number that looks broken is
//! not used, and the descriptors are read with care for their lengths.

use crate::builtin::number::number;
use crate::builtin::path_id::scsi::numbers;
use crate::builtin::{Call, Pair};
use crate::clean::{encode, join_blanks, replace_unsafe};
use crate::device::Device;

/// How much of a name is used.
const NAME_MAX: usize = 63;

/// A name's escaped form is cut.
const ENCODED_MAX: usize = 256;

/// A longer serial number is cut.
const SERIAL_MAX: usize = 511;

/// A device descriptor, and all configurations that the kernel may show.
const DESCRIPTORS_MAX: u64 = 18 + 65_535;

/// What a device descriptor takes.
const DEVICE_SIZE: usize = 18;

/// What an interface descriptor takes.
const INTERFACE_SIZE: usize = 9;

/// So much of the list of interfaces is told.
const INTERFACES_MAX: usize = 72;

/// Maker or model: safe in a name, and with all that is not safe escaped.
#[derive(Clone, Default)]
struct Name {
    safe: Vec<u8>,
    encoded: Vec<u8>,
}

#[derive(Default)]
struct Identity {
    vendor: Name,
    model: Name,
    revision: Vec<u8>,
    /// What kind of device its first interface, or a SCSI device behind it, is.
    kind: &'static str,
    /// Target and unit of a SCSI device behind it.
    instance: Option<String>,
}

/// The properties, or `None` where the device is no USB device and on none.
pub(super) fn usb_id(call: &Call<'_>) -> Option<Vec<Pair>> {
    let device = call.device;
    let mut identity = Identity::default();
    let mut pairs = Vec::new();
    let usb = if device.devtype() == b"usb_device" {
        device
    } else {
        let interface = device.above_of_type(b"usb", b"usb_interface")?;
        let usb = interface.above_of_type(b"usb", b"usb_device")?;
        by_interface(device, interface, &mut identity)?;
        let number = interface.attribute(b"bInterfaceNumber");
        pairs.extend(number.map(|number| ("INTERFACE_NUM", number.into_vec())));
        pairs.extend(interface.driver().map(|driver| ("DRIVER", driver)));
        usb
    };
    let interfaces = usb.bytes(b"descriptors", DESCRIPTORS_MAX).map(|bytes| interfaces(&bytes));
    let interfaces = interfaces.filter(|list| !list.is_empty());
    let vendor = usb.attribute(b"idVendor")?;
    let model = usb.attribute(b"idProduct")?;
    if identity.vendor.safe.is_empty() {
        identity.vendor = name(&usb.attribute(b"manufacturer").unwrap_or_else(|| vendor.clone()));
    }
    if identity.model.safe.is_empty() {
        identity.model = name(&usb.attribute(b"product").unwrap_or_else(|| model.clone()));
    }
    if identity.revision.is_empty() {
        identity.revision = clean(&usb.attribute(b"bcdDevice").unwrap_or_default(), NAME_MAX);
    }
    let serial = usb.attribute(b"serial").filter(|serial| is_serial(serial));
    let serial = serial.map(|serial| clean(&serial, SERIAL_MAX)).filter(|text| !text.is_empty());
    pairs.extend(identity.pairs(&vendor, &model, serial));
    let bus = call.property(b"ID_BUS").is_none();
    let mut all = Vec::new();
    for (key, value) in pairs {
        let own = matches!(key, "INTERFACE_NUM" | "DRIVER");
        if bus && !own {
            all.push((format!("ID_{key}").into_bytes(), value.clone()));
        }
        all.push((format!("ID_USB_{key}").into_bytes(), value));
    }
    all.extend(bus.then(|| (b"ID_BUS".to_vec(), b"usb".to_vec())));
    all.extend(interfaces.map(|list| (b"ID_USB_INTERFACES".to_vec(), list)));
    Some(all)
}

impl Identity {
    /// Without the prefix of their keys.
    fn pairs(
        self,
        vendor: &[u8],
        model: &[u8],
        serial: Option<Vec<u8>>,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let mut whole = [self.vendor.safe.as_slice(), b"_", &self.model.safe].concat();
        if let Some(serial) = &serial {
            whole.push(b'_');
            whole.extend_from_slice(serial);
        }
        if let Some(instance) = &self.instance {
            whole.push(b'-');
            whole.extend_from_slice(instance.as_bytes());
        }
        let mut pairs = vec![
            ("VENDOR", self.vendor.safe),
            ("VENDOR_ENC", self.vendor.encoded),
            ("VENDOR_ID", vendor.to_vec()),
            ("MODEL", self.model.safe),
            ("MODEL_ENC", self.model.encoded),
            ("MODEL_ID", model.to_vec()),
            ("REVISION", self.revision),
            ("SERIAL", whole),
        ];
        pairs.extend(serial.map(|serial| ("SERIAL_SHORT", serial)));
        let kind = (!self.kind.is_empty()).then(|| ("TYPE", self.kind.as_bytes().to_vec()));
        pairs.extend(kind);
        pairs.extend(self.instance.map(|instance| ("INSTANCE", instance.into_bytes())));
        pairs
    }
}

/// What the interface, and a SCSI device behind mass storage, say of themselves.
///
/// `None` where the interface is none.
fn by_interface(device: &Device, interface: &Device, identity: &mut Identity) -> Option<()> {
    let class = number(&interface.attribute(b"bInterfaceClass")?, 16)?;
    let class = u32::try_from(class).ok()?;
    if class != 8 {
        identity.kind = interface_kind(class);
        return Some(());
    }
    let Some(subclass) = interface.attribute(b"bInterfaceSubClass") else { return Some(()) };
    let subclass = number(&subclass, 0).unwrap_or(0);
    identity.kind = storage_kind(subclass);
    // ATAPI and SCSI commands: there is a SCSI device that knows more
    if matches!(subclass, 2 | 6) {
        by_unit(device, identity);
    }
    Some(())
}

/// What the SCSI device says, as far as it says anything.
fn by_unit(device: &Device, identity: &mut Identity) {
    let Some(scsi) = device.above_of_type(b"scsi", b"scsi_device") else { return };
    let Some([_, _, target, unit]) = numbers(&scsi.sysname()) else { return };
    let Some(vendor) = scsi.attribute(b"vendor") else { return };
    identity.vendor = name(&vendor);
    let Some(model) = scsi.attribute(b"model") else { return };
    identity.model = name(&model);
    let Some(kind) = scsi.attribute(b"type") else { return };
    identity.kind = scsi_kind(number(&kind, 0));
    let Some(revision) = scsi.attribute(b"rev") else { return };
    identity.revision = clean(&revision, NAME_MAX);
    identity.instance = Some(format!("{target}:{unit}"));
}

fn interface_kind(class: u32) -> &'static str {
    match class {
        1 => "audio",
        3 => "hid",
        6 => "media",
        7 => "printer",
        8 => "storage",
        9 => "hub",
        0x0e => "video",
        _ => "generic",
    }
}

fn storage_kind(subclass: u64) -> &'static str {
    match subclass {
        1 => "rbc",
        2 => "atapi",
        3 => "tape",
        4 => "floppy",
        6 => "scsi",
        _ => "generic",
    }
}

fn scsi_kind(kind: Option<u64>) -> &'static str {
    match kind {
        Some(0 | 0x0e) => "disk",
        Some(1) => "tape",
        Some(4 | 7 | 0x0f) => "optical",
        Some(5) => "cd",
        _ => "generic",
    }
}

fn name(text: &[u8]) -> Name {
    Name { safe: clean(text, NAME_MAX), encoded: encode(text, ENCODED_MAX) }
}

fn clean(text: &[u8], limit: usize) -> Vec<u8> {
    let mut text = join_blanks(&text[..text.len().min(limit)]);
    replace_unsafe(&mut text, b"");
    text
}

/// Some devices tell bytes at random, or lists.
fn is_serial(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, 0x20..=0x7f) && *byte != b',')
}

/// Class, subclass and protocol of each kind of interface: `:030101:030102:`. The last `:` is missing where
/// a descriptor is longer than all of them, and what is behind it is not looked at.
fn interfaces(descriptors: &[u8]) -> Vec<u8> {
    const INTERFACE: u8 = 4;
    let mut kinds: Vec<&[u8]> = Vec::new();
    let mut rest = if descriptors.len() < DEVICE_SIZE { &[] } else { descriptors };
    let mut end = ":";
    while rest.len() > INTERFACE_SIZE && kinds.len() < INTERFACES_MAX {
        let length = usize::from(rest[0]);
        if length < 3 {
            break;
        }
        if length > descriptors.len() - INTERFACE_SIZE {
            end = "";
            break;
        }
        let kind = &rest[5..8];
        if rest[1] == INTERFACE && !kinds.contains(&kind) {
            kinds.push(kind);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    let hexadecimal = |kind: &&[u8]| kind.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = kinds.iter().map(hexadecimal).collect();
    if list.is_empty() { Vec::new() } else { format!(":{}{end}", list.join(":")).into_bytes() }
}

//! Devices on USB: what they say of themselves, and what is behind them.

use super::Text;

const NAMES: &[&str] = &[
    "Generic",
    "SanDisk",
    "  Ultra  Fit \\t",
    "A/B;C",
    "Ger\\xc3\\xa4t",
    "\\xff\\xfe",
    "",
    " ",
    "a\\\\b",
    "x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x",
    "0123456789012345678901234567890123456789012345678901234567890  123456789",
    "\\xc3\\xa4 \\xc3\\xa4 /////////////////////////////////////////////////////////",
    "\\x7f",
    "tab\\tend",
];

const SERIALS: &[&str] = &[
    "4C530001",
    "0123456789ABCDEF",
    "a b",
    "1,2",
    "\\x7f",
    "\\xc3\\xa4",
    "",
    " ",
    "s\\x01",
    "a/b",
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
];

pub(super) fn usb(text: &mut Text<'_>) {
    let pci = text.pci();
    let bus = format!("{pci}/usb1");
    text.device(&bus, "usb:usb_device");
    text.maybe("idVendor", &["1d6b"]);
    text.maybe("idProduct", &["0002"]);
    text.ask(&bus);
    let mut path = bus;
    let mut ports = String::from("1-1");
    for _ in 0..=text.below(3) {
        path = format!("{path}/{ports}");
        stick(text, &path);
        ports = format!("{ports}.{}", 1 + text.below(12));
    }
    text.ask(&path);
    let name = path.rsplit('/').next().unwrap();
    let number = text.below(3);
    let interface = format!("{path}/{name}:{}.{number}", 1 + text.below(2));
    let kind = if text.one_in(15) { "usb" } else { "usb:usb_interface" };
    text.device(&interface, kind);
    let class = text.below(256);
    let class = if text.one_in(2) { "08".into() } else { format!("{class:02x}") };
    text.maybe("bInterfaceClass", &[&class]);
    let subclass = ["00", "01", "02", "03", "04", "05", "06", "08", "10"];
    text.maybe("bInterfaceSubClass", &subclass);
    text.maybe("bInterfaceProtocol", &["50", "62", "00", "01"]);
    text.maybe("bInterfaceNumber", &["00", "01", "0f"]);
    if text.one_in(2) {
        text.property("DRIVER", "usb-storage");
        text.link("driver", "../../../../../bus/usb/drivers/usb-storage");
    }
    text.ask(&interface);
    behind(text, &interface);
}

fn stick(text: &mut Text<'_>, path: &str) {
    text.device(path, "usb:usb_device");
    if text.one_in(6) {
        text.property("SET:ID_BUS", "ata");
    }
    text.maybe("idVendor", &["0781", "8564", "0BDA"]);
    text.maybe("idProduct", &["5581", "1000"]);
    text.maybe("manufacturer", NAMES);
    text.maybe("product", NAMES);
    text.maybe("serial", SERIALS);
    text.maybe("bcdDevice", &["0100", "0228", " 1"]);
    if !text.one_in(5) {
        let bytes = descriptors(text);
        text.binary("descriptors", &bytes);
    }
}

fn descriptors(text: &mut Text<'_>) -> Vec<u8> {
    let byte = |text: &mut Text<'_>, limit| u8::try_from(text.below(limit)).unwrap();
    let mut bytes = vec![18, 1, 0, 2, 0, 0, 0, 64, 0x81, 7, 0x81, 0x55, 0, 1, 1, 2, 3, 1];
    bytes.extend([9, 2, 32, 0, 1, 1, 0, 0x80, 100]);
    let count = if text.one_in(8) { text.below(90) } else { text.below(5) };
    for number in 0..count {
        let (class, subclass) = (byte(text, 20), byte(text, 7));
        let length = if text.one_in(12) { byte(text, 12) } else { 9 };
        bytes.extend([length, 4, u8::try_from(number).unwrap(), 0, 2, class, subclass, 0x50, 0]);
        bytes.extend([7, 5, 0x81, 2, 0, 2, 0]);
    }
    if text.one_in(6) {
        bytes.truncate(text.random.below(bytes.len() + 1));
    }
    if text.one_in(6) {
        let at = text.below(bytes.len().max(1));
        if let Some(place) = bytes.get_mut(at) {
            *place = byte(text, 256);
        }
    }
    bytes
}

fn behind(text: &mut Text<'_>, interface: &str) {
    match text.below(4) {
        0 => {
            let path = format!("{interface}/sound/card1");
            text.device(&path, "sound");
            if text.one_in(3) {
                text.property("SET:ID_BUS", "usb");
            }
            text.ask(&path);
        }
        1 => {
            let path = format!("{interface}/tty/ttyUSB0");
            text.device(&path, "tty");
            text.ask(&path);
        }
        _ => disk(text, interface),
    }
}

fn disk(text: &mut Text<'_>, interface: &str) {
    let host = format!("{interface}/host6");
    text.device(&host, "scsi:scsi_host");
    let target = format!("{host}/target6:0:0");
    text.device(&target, "scsi:scsi_target");
    let name = text.of(&["6:0:0:0", "6:0:0:0", "6:0:0:1", "6:0:1", "6:0:x:0"]);
    let unit = format!("{target}/{name}");
    text.device(&unit, "scsi:scsi_device");
    text.maybe("vendor", &["SanDisk ", "Generic-", "        "]);
    text.maybe("model", &["Ultra Fit       ", "SD/MMC          "]);
    text.maybe("type", &["0", "1", "4", "5", "7", "14", "15", "3"]);
    text.maybe("rev", &["1.00", "1.0;"]);
    text.ask(&unit);
    let path = format!("{unit}/block/sdb");
    text.device(&path, "block:disk");
    text.ask(&path);
}

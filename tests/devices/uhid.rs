//! Input devices that are connected by writing to `/dev/uhid`: `include/uapi/linux/uhid.h`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::manager::wait;

/// UHID_CREATE2 and UHID_INPUT2.
const CREATE: u32 = 11;
const INPUT: u32 = 12;
const BUS_USB: u16 = 3;
/// The longest report, and the longest description of reports.
const DATA: usize = 4096;

/// A keyboard of eight keys at once, as HID's appendix B describes it for a machine that starts.
pub(crate) const KEYBOARD: &[u8] = &[
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01,
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x06, 0x75, 0x08,
    0x15, 0x00, 0x26, 0xff, 0x00, 0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0,
];

/// A pen on a surface of 100 mm by 50 mm, in steps of 1/40 mm.
pub(crate) const TABLET: &[u8] = &[
    0x05, 0x0d, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x20, 0xa1, 0x00, // digitizer, pen; stylus
    0x09, 0x42, 0x09, 0x32, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x02, 0x81,
    0x02, // tip, in range
    0x95, 0x06, 0x81, 0x03, // six bits for nothing
    0x05, 0x01, 0x55, 0x0f, 0x65, 0x11, 0x75, 0x10, 0x95, 0x01, // millimetres, 16 bits
    0x09, 0x30, 0x35, 0x00, 0x46, 0x64, 0x00, 0x15, 0x00, 0x26, 0xa0, 0x0f, 0x81, 0x02, // x
    0x09, 0x31, 0x35, 0x00, 0x46, 0x32, 0x00, 0x15, 0x00, 0x26, 0xd0, 0x07, 0x81, 0x02, // y
    0xc0, 0xc0,
];

/// Connected as long as it lives.
pub(crate) struct Device {
    file: File,
    name: String,
}

impl Device {
    pub(crate) fn connect(name: &str, reports: &[u8]) -> Self {
        let mut file = File::options().read(true).write(true).open("/dev/uhid").unwrap();
        let text = |text: &str, length: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(length, 0);
            bytes
        };
        let mut event = CREATE.to_ne_bytes().to_vec();
        event.extend([text(name, 128), text("mapdev/test", 64), text("", 64)].concat());
        event.extend(u16::try_from(reports.len()).unwrap().to_ne_bytes());
        event.extend(BUS_USB.to_ne_bytes());
        // vendor, product, version, country
        for number in [0x1209_u32, 0x0001, 1, 0] {
            event.extend(number.to_ne_bytes());
        }
        event.extend(reports);
        event.resize(4 + 256 + 4 + 16 + DATA, 0);
        file.write_all(&event).unwrap();
        Self { file, name: name.to_owned() }
    }

    /// As if the device sent this.
    pub(crate) fn report(&mut self, bytes: &[u8]) {
        let mut event = INPUT.to_ne_bytes().to_vec();
        event.extend(u16::try_from(bytes.len()).unwrap().to_ne_bytes());
        event.extend(bytes);
        event.resize(4 + 2 + DATA, 0);
        self.file.write_all(&event).unwrap();
    }

    /// Its event device, when the manager has loaded all drivers that it wants.
    pub(crate) fn event_device(&self) -> PathBuf {
        wait_for_event_device(&|input| {
            let name = fs::read_to_string(input.join("name")).unwrap_or_default();
            name.starts_with(&self.name)
        })
    }
}

/// The event device of the input device that is meant.
pub(crate) fn wait_for_event_device(meant: &dyn Fn(&Path) -> bool) -> PathBuf {
    let mut found = None;
    wait("the event device", || {
        let devices = fs::read_dir("/sys/class/input").unwrap().map(|entry| entry.unwrap().path());
        let is_event = |path: &PathBuf| path.to_string_lossy().contains("/event");
        found = devices.filter(is_event).find(|path| meant(&path.join("device")));
        found.is_some()
    });
    found.unwrap()
}

//! `keyboard` and `input_id`: keys, axes and sizes of input devices, as the hardware database has them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use super::event_node::{Axis, axes, keymap, next_key};
use super::manager::{Record, Running, node};
use super::same;
use super::uhid::{Device, KEYBOARD, TABLET, wait_for_event_device};

/// Keys of `include/uapi/linux/input-event-codes.h`.
const ESC: u16 = 1;
const A: u32 = 30;
const LEFT_CTRL: u32 = 29;
const VOLUME_DOWN: u32 = 114;

/// A key of the keyboard, and its scan code.
const CAPS_LOCK: u8 = 0x39;
const CAPS_LOCK_SCAN: u32 = 0x7_0039;
const A_SCAN: u32 = 0x7_0004;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keyboard {
    record: Record,
    keys: BTreeMap<u32, u32>,
    /// What is told when caps lock is pressed.
    pressed: u16,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnKeyboard {
    record: Record,
    keys: BTreeMap<u32, u32>,
    releases: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tablet {
    record: Record,
    axes: [Axis; 2],
}

pub(crate) fn keyboard(running: &Running) -> Keyboard {
    let mut device = Device::connect("Mapdev Keyboard", KEYBOARD);
    let syspath = device.event_device();
    let record = running.record(&syspath, |it| it.property("ID_INPUT_KEYBOARD").is_some());
    let path = node(&syspath);
    let mut events = File::open(&path).unwrap();
    device.report(&[0, 0, CAPS_LOCK, 0, 0, 0, 0, 0]);
    Keyboard { record, keys: keymap(&path), pressed: next_key(&mut events) }
}

/// The one that the machine has; it comes anew, with a new keymap.
pub(crate) fn own_keyboard(running: &Running) -> OwnKeyboard {
    let port = fs::canonicalize("/sys/bus/serio/devices/serio0").unwrap();
    let driver = Path::new("/sys/bus/serio/drivers/atkbd");
    fs::write(driver.join("unbind"), "serio0").unwrap();
    fs::write(driver.join("bind"), "serio0").unwrap();
    let syspath = wait_for_event_device(&|input| {
        fs::canonicalize(input).is_ok_and(|input| input.starts_with(&port))
    });
    let record = running.record(&syspath, |it| it.property("KEYBOARD_KEY_3a").is_some());
    // the driver has told of the device before it made the port's attributes
    fs::write(syspath.join("uevent"), "change").unwrap();
    running.settle();
    let releases = fs::read_to_string(port.join("force_release")).unwrap();
    OwnKeyboard { record, keys: keymap(&node(&syspath)), releases }
}

pub(crate) fn tablets(running: &Running) -> [Tablet; 2] {
    ["Mapdev Tablet", "Mapdev Corrected Tablet"].map(|name| {
        let device = Device::connect(name, TABLET);
        let syspath = device.event_device();
        let record = running.record(&syspath, |it| it.property("ID_INPUT_TABLET").is_some());
        Tablet { record, axes: axes(&node(&syspath)) }
    })
}

#[test]
#[ignore = "in the virtual machine"]
fn a_key_of_a_keyboard_means_what_the_database_says() {
    let ours = same(|facts| &facts.keyboard);
    assert_eq!(ours.record.property("KEYBOARD_KEY_70039"), Some("esc"));
    assert_eq!((ours.keys[&CAPS_LOCK_SCAN], ours.pressed), (u32::from(ESC), ESC));
    // of this one the database does not speak
    assert_eq!(ours.keys[&A_SCAN], A);
}

#[test]
#[ignore = "in the virtual machine"]
fn keys_of_the_machines_own_keyboard_are_set_and_released() {
    let ours = same(|facts| &facts.own_keyboard);
    assert_eq!(ours.record.property("KEYBOARD_KEY_3b"), Some("!volumedown"));
    assert_eq!((ours.keys[&0x3a], ours.keys[&0x3b]), (LEFT_CTRL, VOLUME_DOWN));
    // the kernel knows of others by itself
    let mut releases = ours.releases.trim_end().split(',');
    assert!(releases.any(|scan| scan == "59"), "{}", ours.releases);
}

#[test]
#[ignore = "in the virtual machine"]
fn the_axes_of_a_tablet_and_its_size_are_what_the_database_says() {
    let [plain, corrected] = same(|facts| &facts.tablets);
    let size = |tablet: &Tablet| {
        let keys = ["ID_INPUT_WIDTH_MM", "ID_INPUT_HEIGHT_MM"];
        keys.map(|key| tablet.record.property(key).map(str::to_owned))
    };
    let [x, y] = plain.axes;
    assert_eq!((x.maximum, x.resolution, y.maximum, y.resolution), (4000, 40, 2000, 40));
    assert_eq!(size(plain), [Some("100".to_owned()), Some("50".to_owned())]);
    // EVDEV_ABS_00=100:4100:20:3:4, EVDEV_ABS_01=::10, and an axis 40 that no device has
    let [x, y] = corrected.axes;
    assert_eq!((x.minimum, x.maximum, x.resolution, x.fuzz, x.flat), (100, 4100, 20, 3, 4));
    assert_eq!((y.minimum, y.maximum, y.resolution), (0, 2000, 10));
    assert_eq!(size(corrected), [Some("200".to_owned()), Some("200".to_owned())]);
}

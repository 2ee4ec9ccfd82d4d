//! What an event node tells of its keys and axes: `include/uapi/linux/input.h`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::ioctl::{self, Opcode, Updater, opcode};

/// `struct input_keymap_entry`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    flags: u8,
    length: u8,
    index: u16,
    key: u32,
    scan: [u32; 8],
}

/// `struct input_absinfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Axis {
    value: i32,
    pub(crate) minimum: i32,
    pub(crate) maximum: i32,
    pub(crate) fuzz: i32,
    pub(crate) flat: i32,
    pub(crate) resolution: i32,
}

/// `EVIOCGKEYCODE_V2`, `EVIOCGABS(ABS_X)` and `EVIOCGABS(ABS_Y)`.
const KEY: Opcode = opcode::read::<Entry>(b'E', 0x04);
const X: Opcode = opcode::read::<Axis>(b'E', 0x40);
const Y: Opcode = opcode::read::<Axis>(b'E', 0x41);
/// INPUT_KEYMAP_BY_INDEX
const BY_INDEX: u8 = 1;
/// EV_KEY; `struct input_event` is two longs, two words of 16 bits and one of 32.
const EV_KEY: u16 = 1;
const EVENT: usize = 24;

#[expect(unsafe_code, reason = "calls of drivers have no other form")]
fn ask<const OPCODE: Opcode, T>(node: &File, value: &mut T) -> rustix::io::Result<()> {
    // SAFETY: the numbers above are made with the size of what the kernel reads and writes, and each of
    // the two types is made of integers alone, without gaps.
    unsafe { ioctl::ioctl(node, Updater::<OPCODE, T>::new(value)) }
}

/// All scan codes that the device knows, with their keys.
pub(crate) fn keymap(node: &Path) -> BTreeMap<u32, u32> {
    let file = File::open(node).unwrap();
    let entry = |index| {
        let mut entry = Entry { flags: BY_INDEX, length: 4, index, ..Entry::default() };
        ask::<KEY, _>(&file, &mut entry).ok()?;
        Some((entry.scan[0], entry.key))
    };
    (0..u16::MAX).map_while(entry).collect()
}

/// Both axes of a surface.
pub(crate) fn axes(node: &Path) -> [Axis; 2] {
    let file = File::open(node).unwrap();
    let [mut x, mut y] = [Axis::default(); 2];
    ask::<X, _>(&file, &mut x).unwrap();
    ask::<Y, _>(&file, &mut y).unwrap();
    [x, y]
}

/// The key that is told next.
pub(crate) fn next_key(node: &mut File) -> u16 {
    let mut event = [0; EVENT];
    loop {
        node.read_exact(&mut event).unwrap();
        let word = |at| u16::from_ne_bytes([event[at], event[at + 1]]);
        if word(16) == EV_KEY {
            return word(18);
        }
    }
}

//! Sysfs's bitmaps of what an input device can do, and the numbers of what is looked for.
#![forbid(unsafe_code)]

use std::ops::Range;

/// As many bits as keys have numbers (`KEY_CNT`); others have less.
const BITS: usize = 0x300;

/// The bits of a word of the kernel, which writes them as wide as its own.
const WORD: usize = usize::BITS as usize;

/// A bitmap.
pub(super) struct Bits([usize; BITS / WORD]);

impl Bits {
    /// Words in hexadecimal, the lowest last.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut bits = Self([0; BITS / WORD]);
        let words = text.rsplit(|byte| *byte == b' ').filter(|word| !word.is_empty());
        for (slot, word) in bits.0.iter_mut().zip(words) {
            let value = str::from_utf8(word).ok();
            *slot = value.and_then(|word| usize::from_str_radix(word, 16).ok()).unwrap_or(0);
        }
        bits
    }

    pub(super) fn has(&self, bit: usize) -> bool {
        self.0.get(bit / WORD).is_some_and(|word| word >> (bit % WORD) & 1 == 1)
    }

    pub(super) fn any(&self, mut range: Range<usize>) -> bool {
        range.any(|bit| self.has(bit))
    }

    pub(super) fn count(&self, range: Range<usize>) -> usize {
        range.filter(|bit| self.has(*bit)).count()
    }
}

/// Kinds of events.
pub(super) mod ev {
    pub(crate) const KEY: usize = 0x01;
    pub(crate) const REL: usize = 0x02;
    pub(crate) const SW: usize = 0x05;
}

/// Relative axes.
pub(super) mod rel {
    pub(crate) const X: usize = 0x00;
    pub(crate) const Y: usize = 0x01;
    pub(crate) const HWHEEL: usize = 0x06;
    pub(crate) const WHEEL: usize = 0x08;
}

/// Absolute axes.
pub(super) mod abs {
    pub(crate) const X: usize = 0x00;
    pub(crate) const Y: usize = 0x01;
    pub(crate) const Z: usize = 0x02;
    pub(crate) const RX: usize = 0x03;
    pub(crate) const PRESSURE: usize = 0x18;
    pub(crate) const MT_SLOT: usize = 0x2f;
    pub(crate) const MT_POSITION_X: usize = 0x35;
    pub(crate) const MT_POSITION_Y: usize = 0x36;
}

/// Properties of the whole device.
pub(super) mod prop {
    pub(crate) const DIRECT: usize = 0x01;
    pub(crate) const POINTING_STICK: usize = 0x05;
    pub(crate) const ACCELEROMETER: usize = 0x06;
}

/// Keys and buttons.
pub(super) mod key {
    pub(crate) const LEFTCTRL: usize = 29;
    pub(crate) const CAPSLOCK: usize = 58;
    pub(crate) const NUMLOCK: usize = 69;
    pub(crate) const INSERT: usize = 110;
    pub(crate) const MUTE: usize = 113;
    pub(crate) const CALC: usize = 140;
    pub(crate) const FILE: usize = 144;
    pub(crate) const MAIL: usize = 155;
    pub(crate) const PLAYPAUSE: usize = 164;
    pub(crate) const BRIGHTNESSDOWN: usize = 224;
    /// The first button.
    pub(crate) const MISC: usize = 0x100;
    pub(crate) const BTN_0: usize = 0x100;
    pub(crate) const MOUSE: usize = 0x110;
    pub(crate) const JOYSTICK: usize = 0x120;
    pub(crate) const DIGI: usize = 0x140;
    pub(crate) const TOOL_PEN: usize = 0x140;
    pub(crate) const TOOL_FINGER: usize = 0x145;
    pub(crate) const TOUCH: usize = 0x14a;
    pub(crate) const STYLUS: usize = 0x14b;
    pub(crate) const OK: usize = 0x160;
    pub(crate) const DPAD_UP: usize = 0x220;
    pub(crate) const DPAD_END: usize = 0x224;
    pub(crate) const ALS_TOGGLE: usize = 0x230;
    pub(crate) const TRIGGER_HAPPY: usize = 0x2c0;
    pub(crate) const TRIGGER_HAPPY_END: usize = 0x2e8;
}

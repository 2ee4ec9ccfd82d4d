//! `input_id`: an input device's capabilities in, what kind of device it is out: `ID_INPUT_MOUSE`…
//!
//! The kernel tells which keys, axes and properties a device has; libinput and X want to know what it is.
//! Numbers are those of `linux/input-event-codes.h`.

mod axes;
mod bits;

use bits::{Bits, abs, ev, key, prop, rel};

use crate::builtin::{Call, Pair};
use crate::device::Device;

/// `BUS_I2C` of `linux/input.h`.
const BUS_I2C: u32 = 0x18;

/// Keys of groups of a keyboard; who has several of them is no joystick.
const KEYBOARD_GROUPS: [usize; 10] = [
    key::LEFTCTRL,
    key::CAPSLOCK,
    key::NUMLOCK,
    key::INSERT,
    key::MUTE,
    key::CALC,
    key::FILE,
    key::MAIL,
    key::PLAYPAUSE,
    key::BRIGHTNESSDOWN,
];

/// From so many groups of keys on.
const KEYBOARD_LIKE: usize = 4;

/// What a device can do.
struct Abilities {
    ev: Bits,
    abs: Bits,
    key: Bits,
    rel: Bits,
    prop: Bits,
    bus: u32,
}

/// What it is, as properties' names without `ID_INPUT_`.
type Kinds = Vec<&'static str>;

/// The properties; none where there is no input device.
pub(super) fn input_id(call: &Call<'_>) -> Vec<Pair> {
    let device = call.device;
    let able = |device: &&Device| device.attribute(b"capabilities/ev").is_some();
    let Some(input) = device.line().take_while(|at| at.subsystem() == b"input").find(able) else {
        return Vec::new();
    };
    let abilities = Abilities::of(input);
    let mut kinds = Kinds::new();
    let pointer = abilities.pointer(&mut kinds);
    let keys = abilities.keys(&mut kinds);
    if !pointer && !keys && abilities.has_wheel() {
        kinds.push("KEY");
    }
    if abilities.ev.has(ev::SW) {
        kinds.push("SWITCH");
    }
    let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let mut pairs = vec![pair(b"ID_INPUT", b"1")];
    pairs.extend(kinds.iter().map(|kind| pair(format!("ID_INPUT_{kind}").as_bytes(), b"1")));
    if device.sysname().starts_with(b"event") {
        pairs.extend(axes::size(device));
    }
    pairs
}

impl Abilities {
    fn of(device: &Device) -> Self {
        let bits = |name: &[u8]| Bits::parse(&device.attribute(name).unwrap_or_default());
        let bus = device.attribute(b"id/bustype").unwrap_or_default();
        let bus = str::from_utf8(&bus).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
        Self {
            ev: bits(b"capabilities/ev"),
            abs: bits(b"capabilities/abs"),
            key: bits(b"capabilities/key"),
            rel: bits(b"capabilities/rel"),
            prop: bits(b"properties"),
            bus: bus.unwrap_or(0),
        }
    }

    fn has_position(&self) -> bool {
        self.abs.has(abs::X) && self.abs.has(abs::Y)
    }

    fn has_wheel(&self) -> bool {
        self.ev.has(ev::REL) && (self.rel.has(rel::WHEEL) || self.rel.has(rel::HWHEEL))
    }

    /// Whether something is pointed at with it, and with what.
    fn pointer(&self, kinds: &mut Kinds) -> bool {
        let three = self.has_position() && self.abs.has(abs::Z);
        if self.prop.has(prop::ACCELEROMETER) || (!self.ev.has(ev::KEY) && three) {
            kinds.push("ACCELEROMETER");
            return true;
        }
        let found = self.surface();
        let mouse_button = self.key.any(key::MOUSE..key::JOYSTICK);
        let moves = self.ev.has(ev::REL) && self.rel.has(rel::X) && self.rel.has(rel::Y);
        // a tablet's buttons, without its pen
        let pad = self.key.has(key::BTN_0) && !self.key.has(key::TOOL_PEN);
        let joystick = found.joystick && self.is_joystick();
        let mouse = !found.tablet
            && !found.touchpad
            && !found.joystick
            && mouse_button
            && (moves || !self.has_position());
        // a stick in the keyboard is what I2C has of mice
        let stick = self.prop.has(prop::POINTING_STICK) || mouse && self.bus == BUS_I2C;
        let all = [
            (stick, "POINTINGSTICK"),
            (mouse || found.mouse, "MOUSE"),
            (found.touchpad, "TOUCHPAD"),
            (found.touchscreen, "TOUCHSCREEN"),
            (joystick, "JOYSTICK"),
            (found.tablet, "TABLET"),
            (found.tablet && pad, "TABLET_PAD"),
        ];
        kinds.extend(all.iter().filter(|(is, _)| *is).map(|(_, kind)| *kind));
        let is =
            [stick, mouse, joystick, found.mouse, found.touchpad, found.touchscreen, found.tablet];
        is.contains(&true)
    }

    /// What has absolute coordinates, of one finger or of several.
    fn surface(&self) -> Surface {
        let pen = self.key.has(key::STYLUS) || self.key.has(key::TOOL_PEN);
        let direct = self.prop.has(prop::DIRECT);
        let finger = self.key.has(key::TOOL_FINGER) && !self.key.has(key::TOOL_PEN) && !direct;
        let touch = self.key.has(key::TOUCH) || direct;
        let joystick = self.joystick_parts() > 0;
        let mut found = Surface::default();
        if self.has_position() {
            if pen {
                found.tablet = true;
            } else if finger {
                found.touchpad = true;
            } else if self.key.any(key::MOUSE..key::JOYSTICK) {
                // the pointer of a virtual machine
                found.mouse = true;
            } else if touch {
                found.touchscreen = true;
            } else {
                found.joystick = joystick;
            }
        } else {
            found.joystick = joystick;
        }
        if self.has_fingers() {
            if pen {
                found.tablet = true;
            } else if finger {
                found.touchpad = true;
            } else if touch {
                found.touchscreen = true;
            }
        }
        found
    }

    /// Several touches at a time. Who claims all axes that there are has none of these.
    fn has_fingers(&self) -> bool {
        let both = self.abs.has(abs::MT_POSITION_X) && self.abs.has(abs::MT_POSITION_Y);
        both && !(self.abs.has(abs::MT_SLOT) && self.abs.has(abs::MT_SLOT - 1))
    }

    /// How many buttons and axes it has that joysticks have.
    fn joystick_parts(&self) -> usize {
        let mut parts = 0;
        // a mouse of many buttons runs into those of joysticks
        if !self.key.has(key::JOYSTICK - 1) {
            parts += self.key.count(key::JOYSTICK..key::DIGI);
            parts += self.key.count(key::TRIGGER_HAPPY..key::TRIGGER_HAPPY_END);
            parts += self.key.count(key::DPAD_UP..key::DPAD_END);
        }
        parts + self.abs.count(abs::RX..abs::PRESSURE)
    }

    /// Whether it does not only look like one: some keyboards have buttons at random.
    fn is_joystick(&self) -> bool {
        let groups = KEYBOARD_GROUPS.iter().filter(|code| self.key.has(**code)).count();
        let keyboard = self.ev.has(ev::KEY) && groups >= KEYBOARD_LIKE;
        !keyboard && self.joystick_parts() >= 2
    }

    /// Whether it has keys, not only buttons; and whether it is a whole keyboard.
    fn keys(&self, kinds: &mut Kinds) -> bool {
        if !self.ev.has(ev::KEY) {
            return false;
        }
        let keys = self.key.any(0..key::MISC)
            || self.key.any(key::OK..key::DPAD_UP)
            || self.key.any(key::ALS_TOGGLE..key::TRIGGER_HAPPY);
        if keys {
            kinds.push("KEY");
        }
        // escape, the digits, and the letters up to D
        if self.key.count(1..32) == 31 {
            kinds.push("KEYBOARD");
        }
        keys
    }
}

#[derive(Default)]
struct Surface {
    tablet: bool,
    touchpad: bool,
    touchscreen: bool,
    mouse: bool,
    joystick: bool,
}

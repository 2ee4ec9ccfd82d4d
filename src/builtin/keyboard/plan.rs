//! Stage 3e: what a keyboard's properties ask for: properties in, a [`Plan`] out.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::builtin::Pair;

/// Names and codes of `include/uapi/linux/input-event-codes.h`.
static KEYS: LazyLock<HashMap<&str, u32>> = LazyLock::new(|| {
    let lines = include_str!("keys.txt").lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(name, code)| Some((name, code.parse().ok()?))).collect()
});

/// More scan codes than any keyboard repeats by itself; udev's list ends here.
const RELEASES_MAX: usize = 127;

/// ABS_MAX of `include/uapi/linux/input-event-codes.h`; a number behind it would be another call's.
const AXIS_MAX: u8 = 0x3f;

/// What is to be done to a device, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Scan codes that are sent when a key goes down and never when it goes up.
    pub releases: Vec<u32>,
    /// What was wrong in the properties.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// From a scan code to a key.
    Key(u32, u32),
    /// An axis, and what of its minimum, maximum, resolution, fuzz and flat is another.
    Axis(u8, [Option<i32>; 5]),
    /// Of the pointing stick that the device is part of.
    Sensitivity(u8),
    /// The node is opened and nothing else.
    Open,
}

impl Plan {
    /// Reads a device's properties.
    #[must_use]
    pub fn of(properties: &[Pair]) -> Self {
        let mut plan = Self::default();
        for (key, value) in properties {
            let shown = || format!("{}={}", key.escape_ascii(), value.escape_ascii());
            let problem = if let Some(scan) = key.strip_prefix(b"KEYBOARD_KEY_") {
                plan.key(scan, value)
            } else if let Some(axis) = key.strip_prefix(b"EVDEV_ABS_") {
                plan.axis(axis, value)
            } else if key == b"POINTINGSTICK_SENSITIVITY" {
                match signed(value).map(u8::try_from) {
                    Some(Ok(value)) => {
                        plan.steps.push(Step::Sensitivity(value));
                        None
                    }
                    _ => Some("a number from 0 to 255 wanted"),
                }
            } else {
                None
            };
            plan.problems.extend(problem.map(|problem| format!("{}: {problem}", shown())));
        }
        plan
    }

    fn key(&mut self, scan: &[u8], value: &[u8]) -> Option<&'static str> {
        let Some(scan) = unsigned(scan, 16) else { return Some("a scan code in hex wanted") };
        let forced = value.strip_prefix(b"!");
        if forced.is_some() {
            // one too many takes the last place
            self.releases.truncate(RELEASES_MAX - 1);
            self.releases.push(scan);
        }
        if forced == Some(b"") {
            return None;
        }
        match key_code(forced.unwrap_or(value)) {
            Some(code) => self.steps.push(Step::Key(scan, code)),
            None => {
                self.steps.push(Step::Open);
                return Some("the name of a key wanted, as in input-event-codes.h");
            }
        }
        None
    }

    fn axis(&mut self, axis: &[u8], value: &[u8]) -> Option<&'static str> {
        let Some(axis) = unsigned(axis, 16) else { return Some("an axis in hex wanted") };
        let axis = u8::try_from(axis).ok().filter(|axis| *axis <= AXIS_MAX);
        match (axis, limits(value)) {
            (Some(axis), Some(limits)) => {
                self.steps.push(Step::Axis(axis, limits));
                return None;
            }
            // udev has opened the node before it finds out
            _ => self.steps.push(Step::Open),
        }
        Some(match axis {
            None => "an axis from 0 to 3f wanted",
            Some(_) => "MIN:MAX:RESOLUTION:FUZZ:FLAT wanted, any of them left out",
        })
    }
}

/// `esc`, `key_esc`, `btn_left`, or a number.
fn key_code(name: &[u8]) -> Option<u32> {
    let text = str::from_utf8(name).ok()?;
    let named = KEYS.get(format!("key_{text}").as_str()).or_else(|| KEYS.get(text));
    named.copied().or_else(|| unsigned(name, 0))
}

/// A number as strtoul(3) reads it, with nothing behind it; base 0 is 10, or what its begin says.
fn unsigned(text: &[u8], base: u32) -> Option<u32> {
    let text =
        str::from_utf8(text).ok()?.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let text = text.strip_prefix('+').unwrap_or(text);
    let begun = |short: &str| text.strip_prefix(['0']).is_some_and(|rest| rest.starts_with(short));
    let (base, digits) = match base {
        0 | 16 if begun("x") || begun("X") => (16, &text[2..]),
        0 if begun("b") => (2, &text[2..]),
        0 if begun("o") => (8, &text[2..]),
        0 if text.starts_with('0') => (8, text),
        0 => (10, text),
        base => (base, text),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u32::from_str_radix(digits, base).ok().filter(|_| plain)
}

fn signed(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii_start();
    match text.strip_prefix(b"-") {
        Some(digits) if digits.first().is_some_and(u8::is_ascii_digit) => {
            i32::try_from(-i64::from(unsigned(digits, 0)?)).ok()
        }
        Some(_) => None,
        None => i32::try_from(unsigned(text, 0)?).ok(),
    }
}

/// Numbers between colons; one that is missing changes nothing.
fn limits(text: &[u8]) -> Option<[Option<i32>; 5]> {
    let mut limits = [None; 5];
    let mut parts = text.split(|byte| *byte == b':');
    for limit in &mut limits {
        match parts.next() {
            None => break,
            Some(b"") => {}
            Some(number) => *limit = Some(signed(number)?),
        }
    }
    // a colon may end it
    match (parts.next(), parts.next()) {
        (None | Some(b""), None) => Some(limits),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(lines: &[&str]) -> Plan {
        let pair = |line: &&str| {
            let (key, value) = line.split_once('=').unwrap();
            (key.as_bytes().to_vec(), value.as_bytes().to_vec())
        };
        Plan::of(&lines.iter().map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn keys_are_names_or_numbers() {
        let code = |name: &str| key_code(name.as_bytes());
        assert_eq!((code("esc"), code("key_esc"), code("btn_left")), (Some(1), Some(1), Some(272)));
        assert_eq!((code("5"), code("+5"), code("17")), (Some(6), Some(5), Some(17)));
        assert_eq!((code("0x10"), code("010"), code("0b11")), (Some(16), Some(8), Some(3)));
        for none in ["", "Esc", "KEY_ESC", "esc ", "-1", "0x", "5x", "4294967296", "++1", "max"] {
            assert_eq!(code(none), None, "{none}");
        }
        assert_eq!(signed(b"-0x10"), Some(-16));
        assert_eq!((signed(b"--1"), signed(b"- 1"), signed(b"")), (None, None, None));
    }

    #[test]
    fn what_is_wrong_costs_itself() {
        let plan = plan(&[
            "KEYBOARD_KEY_1e=!volumedown",
            "KEYBOARD_KEY_1f=!",
            "KEYBOARD_KEY_x=esc",
            "KEYBOARD_KEY_20=nonsense",
            "EVDEV_ABS_00=1::3:",
            "EVDEV_ABS_01=1:2:3:4:5:6",
            "EVDEV_ABS_3f=:7",
            "EVDEV_ABS_40=:7",
            "EVDEV_ABS_100=:7",
            "POINTINGSTICK_SENSITIVITY=256",
            "POINTINGSTICK_SENSITIVITY=255",
        ]);
        let limits = [Some(1), None, Some(3), None, None];
        let last = Step::Axis(0x3f, [None, Some(7), None, None, None]);
        let steps = [Step::Key(0x1e, 114), Step::Open, Step::Axis(0, limits), Step::Open, last];
        let behind = [Step::Open, Step::Open, Step::Sensitivity(255)];
        assert_eq!(plan.steps, [&steps[..], &behind].concat());
        assert_eq!((plan.releases, plan.problems.len()), (vec![0x1e, 0x1f], 6));
    }
}

//! Stage 9: the object path of a device, from its id and back.
//!
//! `c10:200` is `c10_200`, `n2` is `n2`, `+usb:1-1` is `s_usb_1_2d1`: bytes outside `[A-Za-z0-9]`
//! are `_xx`. A name that begins with two hexadecimal digits would read as such an escape behind
//! its separator (`a` + `2db_c` and `a-b` + `5fc` would be one path): its first byte is escaped.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::device::DeviceId;

/// Where the manager is.
pub const ROOT: &str = "/org/mapdev1";

/// The parent of all devices.
pub const DEVICES: &str = "/org/mapdev1/device";

/// The object path of a device.
#[must_use]
pub fn of(id: &DeviceId) -> String {
    format!("{DEVICES}/{}", name(id))
}

/// The last element of a device's object path.
#[must_use]
pub fn name(id: &DeviceId) -> String {
    let bytes = id.as_bytes();
    let Some(rest) = bytes.strip_prefix(b"+") else {
        let text = String::from_utf8_lossy(bytes);
        return text.replace(':', "_");
    };
    let at = rest.iter().position(|byte| *byte == b':').unwrap_or(rest.len());
    let (subsystem, sysname) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
    let mut path = String::from("s_");
    subsystem.iter().for_each(|byte| escape(*byte, &mut path));
    path.push('_');
    let mut sysname = sysname.iter();
    if let [first, second, ..] = sysname.as_slice()
        && is_hex(*first)
        && is_hex(*second)
    {
        sysname.next();
        write!(path, "_{first:02x}").ok();
    }
    sysname.for_each(|byte| escape(*byte, &mut path));
    path
}

/// The id behind an object path; `None` if no device can be there.
#[must_use]
pub fn id(path: &str) -> Option<DeviceId> {
    let name = path.strip_prefix(DEVICES)?.strip_prefix('/')?;
    let id = match name.strip_prefix("s_") {
        Some(rest) => named(rest.as_bytes())?,
        None => numbered(name)?.into_bytes(),
    };
    // one device, one path: what the id is not written as, is not there
    DeviceId::from_bytes(&id).filter(|id| self::name(id) == name)
}

fn escape(byte: u8, path: &mut String) {
    if byte.is_ascii_alphanumeric() {
        path.push(char::from(byte));
    } else {
        write!(path, "_{byte:02x}").ok();
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn named(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut id = vec![b'+'];
    let mut separated = false;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'_', [high, low, after @ ..]) if is_hex(*high) && is_hex(*low) => {
                let digits = [*high, *low];
                id.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = after;
            }
            (b'_', tail) if !separated => {
                separated = true;
                id.push(b':');
                rest = tail;
            }
            (byte, tail) if byte.is_ascii_alphanumeric() => {
                id.push(*byte);
                rest = tail;
            }
            _ => return None,
        }
    }
    separated.then_some(id)
}

fn numbered(name: &str) -> Option<String> {
    let number = |text: &str| {
        let value: u32 = text.parse().ok()?;
        (value.to_string() == text).then_some(value)
    };
    match name.split_at_checked(1)? {
        ("n", index) => Some(format!("n{}", number(index)?)),
        (kind @ ("b" | "c"), numbers) => {
            let (major, minor) = numbers.split_once('_')?;
            Some(format!("{kind}{}:{}", number(major)?, number(minor)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(id: &[u8]) -> DeviceId {
        DeviceId::from_bytes(id).unwrap()
    }

    #[test]
    fn paths_are_written_as_specified() {
        for (id, path) in [
            ("c10:200", "c10_200"),
            ("b8:0", "b8_0"),
            ("n2", "n2"),
            ("+usb:1-1", "s_usb_1_2d1"),
            ("+drivers:usb:hub", "s_drivers_usb_3ahub"),
            ("+pci:0000:00:14.0", "s_pci__30000_3a00_3a14_2e0"),
        ] {
            assert_eq!(name(&device(id.as_bytes())), path);
            assert_eq!(super::id(&format!("{DEVICES}/{path}")), Some(device(id.as_bytes())));
        }
    }

    #[test]
    fn two_devices_never_share_a_path() {
        assert_ne!(of(&device(b"+a:2db_c")), of(&device(b"+a-b:5fc")));
        assert_ne!(of(&device(b"+drivers:usb:hub")), of(&device(b"+drivers:pci:hub")));
    }

    #[test]
    fn what_no_device_is_written_as_is_no_device() {
        for wrong in ["c010_200", "c1", "b8_0_1", "n", "n+2", "s_usb", "s_a_b_c", "S_a_b", ""] {
            assert_eq!(id(&format!("{DEVICES}/{wrong}")), None, "{wrong}");
        }
        assert_eq!(id("/org/mapdev1/devices"), None);
        assert_eq!(id("/org/mapdev1/device/s_a_2f2e"), None, "a slash is in no kernel name");
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        let near = proptest::sample::select(b"ab2f_-c5:.\xff".to_vec());
        let byte = prop_oneof![near, any::<u8>()];
        let byte = byte.prop_filter("in no kernel name", |byte| !matches!(byte, 0 | b'/'));
        proptest::collection::vec(byte, 0..12)
    }

    proptest! {
        #[test]
        fn every_id_has_one_valid_path_and_comes_back(subsystem in part(), sysname in part()) {
            let subsystem: Vec<u8> = subsystem.into_iter().filter(|byte| *byte != b':').collect();
            let id = device(&[b"+", subsystem.as_slice(), b":", &sysname].concat());
            let path = of(&id);
            prop_assert!(zbus::ObjectPath::try_from(path.as_str()).is_ok());
            prop_assert_eq!(super::id(&path), Some(id));
        }

        #[test]
        fn a_path_that_is_taken_is_written_the_same_again(name in "[scbn]_?[a-f0-9_]{0,10}") {
            let path = format!("{DEVICES}/{name}");
            if let Some(id) = id(&path) {
                prop_assert_eq!(of(&id), path);
            }
        }
    }
}

//! Stage 1: bytes from the kernel in, [`Uevent`] out.
//!
//! A uevent is bytes, not text: keys and values may hold anything but NUL. The kernel's packet is
//! copied once, into the event that owns it; every part of it is a range of that copy.
#![forbid(unsafe_code)]

mod fault;
pub mod parse;
pub mod socket;

use std::fmt;
use std::ops::Range;

pub use kobject_uevent::ActionType as Action;

/// What an action is called in a uevent (`kobject_actions[]` in `lib/kobject_uevent.c`).
#[must_use]
pub fn action_name(action: Action) -> &'static str {
    match action {
        Action::Add => "add",
        Action::Remove => "remove",
        Action::Change => "change",
        Action::Move => "move",
        Action::Online => "online",
        Action::Offline => "offline",
        Action::Bind => "bind",
        Action::Unbind => "unbind",
    }
}

/// A device number with its kind; `b8:1` and `c8:1` are different devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devnum {
    /// A block device; else a character device.
    pub block: bool,
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Devnum {
    /// As udev writes it: `b8:1`, `c10:200`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.block { 'b' } else { 'c' };
        write!(f, "{kind}{}:{}", self.major, self.minor)
    }
}

/// Who says that something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel, over netlink.
    Kernel,
    /// Our own walk through sysfs, at start or after loss.
    Coldplug,
    /// A change of policy or a run-time grant: the device is decided anew.
    Policy,
}

/// One event of one device, owned.
#[derive(Clone, PartialEq, Eq)]
pub struct Uevent {
    bytes: Box<[u8]>,
    action: Action,
    devpath: Range<usize>,
    properties: Box<[(Range<usize>, Range<usize>)]>,
    named: Named,
    seqnum: u64,
    pub origin: Origin,
}

/// Where the values are that every event is asked for many times; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    subsystem: Range<usize>,
    devtype: Range<usize>,
    devname: Range<usize>,
    devpath_old: Range<usize>,
    major: Option<u32>,
    minor: Option<u32>,
    ifindex: Option<u32>,
}

impl Named {
    /// Of several with one key, the last.
    fn of(bytes: &[u8], properties: &[(Range<usize>, Range<usize>)]) -> Self {
        let mut named = Self::default();
        for (key, value) in properties {
            let text = bytes.get(value.clone()).unwrap_or_default();
            let number = || std::str::from_utf8(text).ok()?.parse().ok();
            match bytes.get(key.clone()).unwrap_or_default() {
                b"SUBSYSTEM" => named.subsystem = value.clone(),
                b"DEVTYPE" => named.devtype = value.clone(),
                b"DEVNAME" => {
                    let start = if text.starts_with(b"/dev/") { b"/dev/".len() } else { 0 };
                    named.devname = value.start + start..value.end;
                }
                b"DEVPATH_OLD" => named.devpath_old = value.clone(),
                b"MAJOR" => named.major = number(),
                b"MINOR" => named.minor = number(),
                b"IFINDEX" => named.ifindex = number(),
                _ => {}
            }
        }
        named
    }
}

impl Uevent {
    /// An event that no packet carried; ACTION and DEVPATH are put in front of `properties`.
    ///
    /// Keys and values must hold neither NUL nor, in keys, `=`: such pairs are left out.
    #[must_use]
    pub fn synthetic(
        origin: Origin,
        action: Action,
        devpath: &[u8],
        seqnum: u64,
        properties: &[(&[u8], &[u8])],
    ) -> Self {
        let name = action_name(action).as_bytes();
        let mut bytes = Vec::with_capacity(64 + devpath.len());
        let mut ranges = Vec::with_capacity(properties.len() + 2);
        let number = seqnum.to_string();
        let head: [(&[u8], &[u8]); 2] = [(b"ACTION", name), (b"DEVPATH", devpath)];
        let tail: [(&[u8], &[u8]); 1] = [(b"SEQNUM", number.as_bytes())];
        let own = |key: &[u8]| matches!(key, b"ACTION" | b"DEVPATH" | b"SEQNUM");
        let middle = properties.iter().copied().filter(|(k, _)| !own(k));
        for (key, value) in head.into_iter().chain(middle).chain(tail) {
            if key.is_empty() || key.contains(&b'=') || key.contains(&0) || value.contains(&0) {
                continue;
            }
            let start = bytes.len();
            bytes.extend_from_slice(key);
            bytes.push(b'=');
            let middle = bytes.len();
            bytes.extend_from_slice(value);
            ranges.push((start..middle - 1, middle..bytes.len()));
            bytes.push(0);
        }
        let devpath = ranges.get(1).map_or(0..0, |(_, value)| value.clone());
        Self::new(bytes.into(), action, devpath, ranges.into(), seqnum, origin)
    }

    fn new(
        bytes: Box<[u8]>,
        action: Action,
        devpath: Range<usize>,
        properties: Box<[(Range<usize>, Range<usize>)]>,
        seqnum: u64,
        origin: Origin,
    ) -> Self {
        let named = Named::of(&bytes, &properties);
        Self { bytes, action, devpath, properties, named, seqnum, origin }
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Path below /sys, with a leading slash.
    #[must_use]
    pub fn devpath(&self) -> &[u8] {
        self.part(&self.devpath)
    }

    /// The kernel's count of uevents; of a coldplug event, the count when it was made.
    #[must_use]
    pub fn seqnum(&self) -> u64 {
        self.seqnum
    }

    /// All properties in the order of the packet, ACTION, DEVPATH and SEQNUM among them.
    pub fn properties(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.properties.iter().map(|(key, value)| (self.part(key), self.part(value)))
    }

    /// The value of a property; of several with one key, the last.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.properties().rfind(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Whether this event says of the device what `other` said, and no more: no media change, no
    /// cookie of device-mapper, no UUID by which somebody waits for this very event.
    #[must_use]
    pub fn repeats(&self, other: &Self) -> bool {
        let counted = |(key, value): &(&[u8], &[u8])| {
            matches!(*key, b"ACTION" | b"SEQNUM") || (*key, *value) == (b"SYNTH_UUID", b"0")
        };
        self.properties()
            .filter(|pair| !counted(pair))
            .eq(other.properties().filter(|pair| !counted(pair)))
    }

    #[must_use]
    pub fn subsystem(&self) -> &[u8] {
        self.part(&self.named.subsystem)
    }

    /// Empty where the kernel names none.
    #[must_use]
    pub fn devtype(&self) -> &[u8] {
        self.part(&self.named.devtype)
    }

    /// Name below /dev, without `/dev/`, as the kernel says it.
    #[must_use]
    pub fn devname(&self) -> Option<&[u8]> {
        Some(self.part(&self.named.devname)).filter(|name| !name.is_empty())
    }

    /// `None` for devices without node; MAJOR 0 means none.
    #[must_use]
    pub fn devnum(&self) -> Option<Devnum> {
        let major = self.named.major.filter(|major| *major != 0)?;
        let minor = self.named.minor.unwrap_or(0);
        Some(Devnum { block: self.subsystem() == b"block", major, minor })
    }

    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        self.named.ifindex.filter(|index| *index != 0)
    }

    /// Where a moved device was.
    #[must_use]
    pub fn devpath_old(&self) -> Option<&[u8]> {
        Some(self.part(&self.named.devpath_old)).filter(|path| !path.is_empty())
    }
}

impl fmt::Debug for Uevent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", action_name(self.action), self.devpath().escape_ascii())?;
        let pairs =
            self.properties().map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii()));
        f.debug_list().entries(pairs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: Action, pairs: &[(&[u8], &[u8])]) -> Uevent {
        Uevent::synthetic(Origin::Kernel, action, b"/devices/sr0", 7, pairs)
    }

    #[test]
    fn a_change_that_says_more_than_the_device_is_there_repeats_nothing() {
        let known = event(Action::Add, &[(b"MAJOR", b"11"), (b"SYNTH_UUID", b"0")]);
        let repeats = |pairs: &[(&[u8], &[u8])]| event(Action::Change, pairs).repeats(&known);
        assert!(repeats(&[(b"MAJOR", b"11")]));
        assert!(repeats(&[(b"SYNTH_UUID", b"0"), (b"MAJOR", b"11")]));
        assert!(!repeats(&[(b"MAJOR", b"11"), (b"DISK_MEDIA_CHANGE", b"1")]));
        assert!(!repeats(&[(b"SYNTH_UUID", b"5b1"), (b"MAJOR", b"11")]));
        assert!(!repeats(&[(b"MAJOR", b"12")]));
    }
}

//! Stage 1: `ACTION@DEVPATH\0KEY=VALUE\0…` in, [`Packet`] or [`ParseError`] out.
//!
//! A packet that contradicts itself about *which* device and *what* happened is refused. A single
//! bad pair is left out and named in [`Packet::dropped`], and the event goes on: no byte that a
//! device's firmware chose may cost the machine a device.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::str::FromStr;

pub use super::fault::{BadPair, Dropped, MAX_NAMED_DROPS, ParseError, Quoted};
use super::{Action, Origin, Uevent, action_name};

/// The largest packet accepted, in bytes.
///
/// The kernel writes pairs of `UEVENT_BUFFER_SIZE` (2,048) bytes at most, DEVPATH among them, so
/// a packet with its header stays below 4,096. Twice that leaves room for a kernel that raises
/// it, and is what libudev's clients can read of what we tell them.
pub const MAX_PACKET: usize = 8192;

/// Keys that say which event this is.
const IDENTITY: [&[u8]; 3] = [b"ACTION", b"DEVPATH", b"SEQNUM"];

/// A checked packet that still lies in the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The pairs, after the header's NUL.
    body: &'a [u8],
    action: Action,
    /// Range of the value of DEVPATH in `body`.
    devpath: Range<usize>,
    seqnum: u64,
    dropped: Dropped,
}

impl<'a> Packet<'a> {
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    #[must_use]
    pub fn devpath(&self) -> &'a [u8] {
        self.body.get(self.devpath.clone()).unwrap_or_default()
    }

    #[must_use]
    pub fn seqnum(&self) -> u64 {
        self.seqnum
    }

    /// The good pairs in their order; values are cut at the first newline.
    pub fn properties(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let body = self.body;
        let slice = move |range: Range<usize>| body.get(range).unwrap_or_default();
        self.ranges().map(move |(key, value)| (slice(key), slice(value)))
    }

    /// What was left out of this event; a line for the log when not empty.
    #[must_use]
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    #[must_use]
    pub fn into_dropped(self) -> Dropped {
        self.dropped
    }

    /// Copies the packet once, into the event that owns it.
    #[must_use]
    pub fn to_uevent(&self, origin: Origin) -> Uevent {
        let properties = self.ranges().collect();
        let (action, devpath) = (self.action, self.devpath.clone());
        Uevent::new(self.body.into(), action, devpath, properties, self.seqnum, origin)
    }

    fn ranges(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut seen = Seen::default();
        pairs(self.body).filter_map(move |(range, pair)| {
            let (key, value) = split(pair).ok()?;
            if fault(key, value).is_some() || seen.again(key) {
                return None;
            }
            let start = range.start + key.len() + 1;
            Some((range.start..start - 1, start..start + value.len()))
        })
    }
}

/// Checks one packet of the kernel.
///
/// # Errors
///
/// Says what was wrong and what was wanted when the packet as a whole cannot be trusted: its
/// frame is broken, or header, ACTION, DEVPATH and SEQNUM are missing, malformed or disagree.
pub fn parse(packet: &[u8]) -> Result<Packet<'_>, ParseError> {
    if packet.len() > MAX_PACKET {
        return Err(ParseError::Oversize(packet.len()));
    }
    // without it the last value may have been cut short
    if packet.last() != Some(&0) {
        return Err(ParseError::NoFinalNul(Quoted::tail(packet)));
    }
    let end = packet.iter().position(|byte| *byte == 0).unwrap_or(0);
    let (header, body) = packet.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let (action, devpath) = parse_header(header)?;

    let mut found = Found::default();
    let mut dropped = Dropped::default();
    for (range, pair) in pairs(body) {
        let (key, value) = match split(pair) {
            Ok(pair) => pair,
            Err(what) => {
                dropped.add(what, pair);
                continue;
            }
        };
        if IDENTITY.contains(&key) {
            // a cut path would be another device's, so these three are compared whole
            let whole = pair.get(key.len() + 1..).unwrap_or_default();
            let start = range.start + key.len() + 1;
            if !found.identity(key, whole, start, action, devpath)? {
                dropped.add(BadPair::Repeated, pair);
            }
        } else if let Some(what) = fault(key, value) {
            dropped.add(what, pair);
        }
    }
    if !found.action {
        return Err(ParseError::Missing("ACTION"));
    }
    let Some(start) = found.devpath else { return Err(ParseError::Missing("DEVPATH")) };
    let Some(seqnum) = found.seqnum else { return Err(ParseError::Missing("SEQNUM")) };
    Ok(Packet { body, action, devpath: start..start + devpath.len(), seqnum, dropped })
}

fn parse_header(header: &[u8]) -> Result<(Action, &[u8]), ParseError> {
    let mut parts = header.splitn(2, |byte| *byte == b'@');
    let (Some(name), Some(devpath)) = (parts.next(), parts.next()) else {
        return Err(ParseError::Header(Quoted::of(header)));
    };
    let action = std::str::from_utf8(name).ok().and_then(|name| Action::from_str(name).ok());
    let Some(action) = action else { return Err(ParseError::Action(Quoted::of(name))) };
    if !is_devpath(devpath) {
        return Err(ParseError::Devpath(Quoted::of(devpath)));
    }
    Ok((action, devpath))
}

/// Whether `path` is `/a/b`: no empty, `.` or `..` part, so that equal paths are equal bytes and
/// none leads out of /sys, and no newline, which records and listings could not carry.
pub(crate) fn is_devpath(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    is_clean(rest) && !path.contains(&b'\n')
}

fn is_clean(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// The NUL-terminated pieces of `body` with their ranges.
fn pairs(body: &[u8]) -> impl Iterator<Item = (Range<usize>, &[u8])> {
    let mut at = 0;
    // `body` ends in NUL: what `split` finds behind that is no pair
    let body = body.strip_suffix(&[0]);
    body.into_iter().flat_map(|body| body.split(|byte| *byte == 0)).map(move |pair| {
        let start = at;
        at += pair.len() + 1;
        (start..start + pair.len(), pair)
    })
}

/// Key and value of a pair, the value cut at the first newline.
fn split(pair: &[u8]) -> Result<(&[u8], &[u8]), BadPair> {
    let at = pair.iter().position(|byte| *byte == b'=').ok_or(BadPair::NoEquals)?;
    if at == 0 {
        return Err(BadPair::EmptyKey);
    }
    let (key, value) = (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default());
    let line = value.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok((key, line))
}

/// Values that would lead out of /dev or /sys if somebody believed them.
pub(crate) fn fault(key: &[u8], value: &[u8]) -> Option<BadPair> {
    match key {
        b"DEVNAME" => {
            let name = value.strip_prefix(b"/dev/").unwrap_or(value);
            (!is_clean(name)).then_some(BadPair::Devname)
        }
        b"DEVPATH_OLD" => (!is_devpath(value)).then_some(BadPair::OldPath),
        _ => None,
    }
}

/// What the pairs have said so far of the event's identity.
#[derive(Default)]
struct Found {
    action: bool,
    /// Where the value of DEVPATH begins.
    devpath: Option<usize>,
    seqnum: Option<u64>,
}

impl Found {
    /// Notes one identity pair; `false` when it only says again what is known.
    fn identity(
        &mut self,
        key: &[u8],
        value: &[u8],
        start: usize,
        action: Action,
        devpath: &[u8],
    ) -> Result<bool, ParseError> {
        let disagree = |key, header| {
            let (header, value) = (Quoted::of(header), Quoted::of(value));
            Err(ParseError::Disagree { key, header, value })
        };
        match key {
            b"ACTION" if value != action_name(action).as_bytes() => {
                disagree("ACTION", action_name(action).as_bytes())
            }
            b"ACTION" => Ok(!std::mem::replace(&mut self.action, true)),
            b"DEVPATH" if value != devpath => disagree("DEVPATH", devpath),
            b"DEVPATH" if self.devpath.is_some() => Ok(false),
            b"DEVPATH" => {
                self.devpath = Some(start);
                Ok(true)
            }
            _ => {
                let number = decimal(value).ok_or_else(|| ParseError::Seqnum(Quoted::of(value)))?;
                match self.seqnum.replace(number) {
                    Some(first) if first != number => Err(ParseError::TwoSeqnums(first, number)),
                    first => Ok(first.is_none()),
                }
            }
        }
    }
}

/// Which identity keys were met: only the first of each is a property.
#[derive(Default)]
struct Seen([bool; IDENTITY.len()]);

impl Seen {
    fn again(&mut self, key: &[u8]) -> bool {
        let mut known = IDENTITY.iter().zip(&mut self.0);
        known.find(|(name, _)| **name == key).is_some_and(|(_, seen)| std::mem::replace(seen, true))
    }
}

/// Digits only: `str::parse` alone would take a sign.
fn decimal(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

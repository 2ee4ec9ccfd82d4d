//! Stage 5b: `[Match]`: the keys that it has, and whether an interface is meant.
#![forbid(unsafe_code)]

use super::condition::{Condition, Subject};
use super::hardware::HardwareAddress;
use super::ini::Assignment;
use super::keys::{Refused, Taken, wants};
use super::values::{NAME_LIMIT, Quoting, is_interface_name, property, words};
use crate::glob::fnmatch;

/// The keys of the section.
pub(super) const KEYS: [&str; 15] = [
    "MACAddress",
    "PermanentMACAddress",
    "Path",
    "Driver",
    "Type",
    "Kind",
    "Property",
    "OriginalName",
    "Host",
    "Virtualization",
    "KernelCommandLine",
    "KernelVersion",
    "Credential",
    "Architecture",
    "Firmware",
];

/// Patterns, those with `!` in front being negated.
type Patterns = Vec<String>;

/// What an interface has to be; an empty list asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub addresses: Vec<HardwareAddress>,
    pub permanent_addresses: Vec<HardwareAddress>,
    pub paths: Patterns,
    pub drivers: Patterns,
    pub types: Patterns,
    pub kinds: Patterns,
    pub properties: Patterns,
    pub names: Patterns,
}

/// An interface as `[Match]` sees it.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub address: Option<&'a HardwareAddress>,
    pub permanent_address: Option<&'a HardwareAddress>,
    pub driver: Option<&'a [u8]>,
    pub hardware: Option<&'a [u8]>,
    pub kind: Option<&'a [u8]>,
    pub name: &'a [u8],
}

impl Match {
    /// Whether it asks nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn take(&mut self, conditions: &mut Vec<Condition>, line: &Assignment) -> Taken {
        let value = line.value.as_str();
        match line.key.as_str() {
            "MACAddress" => take_addresses(&mut self.addresses, value),
            "PermanentMACAddress" => take_addresses(&mut self.permanent_addresses, value),
            "Path" => take_patterns(&mut self.paths, value),
            "Driver" => take_patterns(&mut self.drivers, value),
            "Type" => take_patterns(&mut self.types, value),
            "Kind" => take_patterns(&mut self.kinds, value),
            "Property" => take_list(&mut self.properties, value, Quoting::Escaped, |word| {
                property(word).is_some()
            }),
            "OriginalName" => take_list(&mut self.names, value, Quoting::Plain, |word| {
                is_interface_name(word.as_bytes(), NAME_LIMIT)
            }),
            key => take_condition(conditions, key, value),
        }
    }

    /// Whether an interface is meant; `property` gives its properties.
    pub fn matches<'a>(
        &self,
        candidate: &Candidate<'_>,
        property: impl Fn(&[u8]) -> Option<&'a [u8]>,
    ) -> bool {
        let among = |wanted: &[HardwareAddress], address: Option<&HardwareAddress>| {
            wanted.is_empty() || address.is_some_and(|address| wanted.contains(address))
        };
        let driver = candidate.driver.or_else(|| property(b"ID_NET_DRIVER"));
        among(&self.addresses, candidate.address)
            && among(&self.permanent_addresses, candidate.permanent_address)
            && holds(&self.paths, property(b"ID_PATH"))
            && holds(&self.drivers, driver)
            && holds(&self.types, candidate.hardware)
            && holds(&self.kinds, candidate.kind)
            && self.properties.iter().all(|wanted| has(wanted, &property))
            && holds(&self.names, Some(candidate.name))
    }
}

fn take_addresses(list: &mut Vec<HardwareAddress>, value: &str) -> Taken {
    if value.is_empty() {
        list.clear();
    }
    let (found, whole) = words(value, Quoting::Plain);
    let addresses: Vec<_> = found.iter().filter_map(|word| HardwareAddress::parse(word)).collect();
    let all = whole && addresses.len() == found.len();
    list.extend(addresses);
    wants(Some(()).filter(|()| all), "hardware addresses such as 12:34:56:78:90:ab")
}

fn take_patterns(list: &mut Patterns, value: &str) -> Taken {
    take_list(list, value, Quoting::Quoted, |_| true)
}

/// A `!` in front negates every word of its line.
fn take_list(
    list: &mut Patterns,
    value: &str,
    quoting: Quoting,
    valid: impl Fn(&str) -> bool,
) -> Taken {
    if value.is_empty() {
        list.clear();
        return Ok(());
    }
    let (sign, rest) = match value.strip_prefix('!') {
        Some(rest) => ("!", rest),
        None => ("", value),
    };
    let (found, whole) = words(rest, quoting);
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|word| valid(word));
    list.extend(good.into_iter().map(|word| format!("{sign}{word}")));
    match bad.first() {
        Some(word) => Err(Refused::Value(format!("other words than {word:?}"))),
        None => wants(Some(()).filter(|()| whole), "quotes and escapes that end"),
    }
}

fn take_condition(conditions: &mut Vec<Condition>, key: &str, value: &str) -> Taken {
    let subject = match key {
        "Host" => Subject::Host,
        "Virtualization" => Subject::Virtualization,
        "KernelCommandLine" => Subject::KernelCommandLine,
        "KernelVersion" => Subject::KernelVersion,
        "Credential" => Subject::Credential,
        "Architecture" => Subject::Architecture,
        "Firmware" => Subject::Firmware,
        _ => return Err(Refused::Key),
    };
    // the last line of a kind counts
    conditions.retain(|condition| condition.subject != subject);
    let (negated, rest) = match value.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    if !value.is_empty() {
        conditions.push(Condition { subject, negated, value: rest.to_owned() });
    }
    Ok(())
}

/// Whether a value is matched by any pattern, if there is one without `!`, and by none with it.
fn holds(patterns: &[String], value: Option<&[u8]>) -> bool {
    let is = |pattern: &str| value.is_some_and(|value| fnmatch(pattern.as_bytes(), value));
    let (mut positive, mut matched) = (false, false);
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if is(negated) => return false,
            Some(_) => {}
            None => {
                positive = true;
                matched |= is(pattern);
            }
        }
    }
    matched || !positive
}

fn has<'a>(wanted: &str, get: &impl Fn(&[u8]) -> Option<&'a [u8]>) -> bool {
    let (negated, pair) = match wanted.strip_prefix('!') {
        Some(pair) => (true, pair),
        None => (false, wanted),
    };
    let found = property(pair).is_some_and(|(key, pattern)| {
        get(key.as_bytes()).is_some_and(|value| fnmatch(pattern.as_bytes(), value))
    });
    found != negated
}

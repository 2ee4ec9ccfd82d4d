//! Stage 5b: the keys of `[Link]`: an assignment in, the setting out, or what was wanted instead.
#![forbid(unsafe_code)]

use super::hardware::HardwareAddress;
use super::ini::Assignment;
use super::link_file::{AddressPolicy, Amount, NamePolicy, Settings, WakePassword};
use super::matching;
use super::sriov;
use super::values::{
    ALTERNATIVE_LIMIT, NAME_LIMIT, Quoting, boolean, is_interface_name, microseconds, size,
    unsigned, unsigned32, words,
};
use super::words::{
    CHANNELS, COALESCE, FEATURES, LINK_MODES, MDI, PAUSE, PORTS, RINGS, Unit, WAKE,
};

/// The sections of a file.
pub(super) const SECTIONS: [&str; 3] = ["Match", "Link", "SR-IOV"];

/// Why an assignment has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such key.
    Key,
    /// What was wanted; the good words of a list count all the same.
    Value(String),
}

pub(super) type Taken = Result<(), Refused>;

pub(super) fn wants<T>(value: Option<T>, what: &str) -> Result<T, Refused> {
    value.ok_or_else(|| Refused::Value(what.to_owned()))
}

/// Keys that are no list's.
const PLAIN: [&str; 23] = [
    "Description",
    "Alias",
    "MACAddressPolicy",
    "MACAddress",
    "NamePolicy",
    "Name",
    "AlternativeNamesPolicy",
    "AlternativeName",
    "TransmitQueues",
    "ReceiveQueues",
    "TransmitQueueLength",
    "MTUBytes",
    "BitsPerSecond",
    "Duplex",
    "AutoNegotiation",
    "WakeOnLan",
    "WakeOnLanPassword",
    "Port",
    "Advertise",
    "GenericSegmentOffloadMaxBytes",
    "GenericSegmentOffloadMaxSegments",
    "MDI",
    "SR-IOVVirtualFunctions",
];

/// The keys of a section.
pub(super) fn known(section: &str) -> Vec<&'static str> {
    match section {
        "Match" => matching::KEYS.to_vec(),
        "Link" => {
            let features = FEATURES.iter().map(|(key, _)| *key);
            let coalesce = COALESCE.iter().map(|(key, _)| *key);
            let counts = CHANNELS.into_iter().chain(RINGS).chain(PAUSE);
            PLAIN.into_iter().chain(features).chain(coalesce).chain(counts).collect()
        }
        _ => sriov::KEYS.to_vec(),
    }
}

const NAME_POLICIES: [(&str, NamePolicy); 7] = [
    ("kernel", NamePolicy::Kernel),
    ("keep", NamePolicy::Keep),
    ("database", NamePolicy::Database),
    ("onboard", NamePolicy::Onboard),
    ("slot", NamePolicy::Slot),
    ("path", NamePolicy::Path),
    ("mac", NamePolicy::Mac),
];

/// Policies of a list that replaces what stood there; `from` leaves out the first ones.
fn policies(value: &str, from: usize) -> (Vec<NamePolicy>, Taken) {
    let mut policies = Vec::new();
    let (list, _) = words(value, Quoting::Plain);
    let known = &NAME_POLICIES[from..];
    let mut taken = Ok(());
    for word in list {
        match known.iter().find(|(name, _)| *name == word) {
            Some((_, policy)) if policies.contains(policy) => {}
            Some((_, policy)) => policies.push(*policy),
            None => {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                let what = format!("a list of {}, not {word:?}", names.join(", "));
                taken = Err(Refused::Value(what));
            }
        }
    }
    (policies, taken)
}

/// A boolean, or nothing for what the kernel does by itself.
pub(super) fn switch(value: &str) -> Result<Option<bool>, Refused> {
    if value.is_empty() {
        return Ok(None);
    }
    wants(boolean(value), "yes or no").map(Some)
}

fn queues(value: &str) -> Result<u32, Refused> {
    if value.is_empty() {
        return Ok(0);
    }
    let number = unsigned32(value).filter(|number| (1..=4096).contains(number));
    wants(number, "a number from 1 to 4096")
}

fn amount(value: &str) -> Result<Option<Amount>, Refused> {
    match value {
        "" => Ok(None),
        "max" => Ok(Some(Amount::Max)),
        _ => {
            let number = unsigned32(value).filter(|number| *number > 0);
            wants(number, "a number from 1 to 4294967295, or max").map(Amount::Number).map(Some)
        }
    }
}

fn coalesce(value: &str, unit: Unit) -> Result<Option<u32>, Refused> {
    if value.is_empty() {
        return Ok(None);
    }
    let time = || wants(microseconds(value), "a time such as 10us");
    let fits = |time: u64| {
        let what = "a time of at most 4294967295us";
        wants(u32::try_from(time).ok(), what)
    };
    let some = |number: u32| wants(Some(number).filter(|number| *number > 0), "more than 0");
    Ok(Some(match unit {
        Unit::Microseconds => fits(time()?)?,
        Unit::SomeMicroseconds => some(fits(time()?)?)?,
        Unit::Seconds => some(fits(time()?.div_ceil(1_000_000))?)?,
        Unit::Count => wants(unsigned32(value), "a number from 0 to 4294967295")?,
        Unit::Boolean => u32::from(wants(boolean(value), "yes or no")?),
    }))
}

fn at(list: &[&str], key: &str) -> Option<usize> {
    list.iter().position(|known| *known == key)
}

impl Settings {
    pub(super) fn take(&mut self, assignment: &Assignment) -> Taken {
        let (key, value) = (assignment.key.as_str(), assignment.value.as_str());
        match key {
            "Description" => {}
            "MACAddressPolicy" => self.address_policy = address_policy(value)?,
            "MACAddress" if value.is_empty() => self.address = None,
            "MACAddress" => {
                let address = HardwareAddress::parse(value);
                self.address = Some(wants(address, "a hardware address")?);
            }
            "Alias" | "Name" | "NamePolicy" | "AlternativeName" | "AlternativeNamesPolicy" => {
                return self.take_name(key, value);
            }
            "TransmitQueues" => self.transmit_queues = queues(value)?,
            "ReceiveQueues" => self.receive_queues = queues(value)?,
            "TransmitQueueLength" if value.is_empty() => self.queue_length = None,
            "TransmitQueueLength" => {
                let number = unsigned32(value).filter(|number| *number < u32::MAX);
                self.queue_length = Some(wants(number, "a number from 0 to 4294967294")?);
            }
            "MTUBytes" => {
                let bytes = size(value, 1024).and_then(|bytes| u32::try_from(bytes).ok());
                self.mtu = wants(bytes, "a size below 4G, such as 1500 or 9K")?;
            }
            "GenericSegmentOffloadMaxBytes" => {
                let bytes = size(value, 1024).and_then(|bytes| u32::try_from(bytes).ok());
                self.gso_max_bytes = wants(bytes, "a size such as 64K")?;
            }
            "GenericSegmentOffloadMaxSegments" => {
                let number = unsigned32(value);
                self.gso_max_segments = wants(number, "a number from 1 to 65535")?;
            }
            "SR-IOVVirtualFunctions" if value.is_empty() => self.virtual_functions = None,
            "SR-IOVVirtualFunctions" => {
                let limit = u64::from(u32::MAX >> 1);
                let number = unsigned(value).filter(|number| *number <= limit);
                let number = number.and_then(|number| u32::try_from(number).ok());
                self.virtual_functions = Some(wants(number, "a number from 0 to 2147483647")?);
            }
            _ => return self.take_ethtool(key, value),
        }
        Ok(())
    }

    fn take_name(&mut self, key: &str, value: &str) -> Taken {
        match key {
            "Alias" if value.is_empty() => self.alias = None,
            "Alias" => {
                let fits = value.is_ascii() && value.len() < 256;
                let alias = Some(value.to_owned()).filter(|_| fits);
                self.alias = Some(wants(alias, "at most 255 ASCII characters")?);
            }
            "Name" if value.is_empty() => self.name = None,
            "Name" => {
                let valid = is_interface_name(value.as_bytes(), NAME_LIMIT);
                let name = Some(value.to_owned()).filter(|_| valid);
                self.name = Some(wants(name, NAME_WANTED)?);
            }
            "NamePolicy" => {
                let (policies, taken) = policies(value, 0);
                self.name_policy = policies;
                return taken;
            }
            "AlternativeNamesPolicy" => {
                let (policies, taken) = policies(value, 2);
                self.alternative_policy = policies;
                return taken;
            }
            _ if value.is_empty() => self.alternative_names.clear(),
            _ => {
                let (list, whole) = words(value, Quoting::Plain);
                let (good, bad): (Vec<_>, Vec<_>) = list
                    .into_iter()
                    .partition(|name| is_interface_name(name.as_bytes(), ALTERNATIVE_LIMIT));
                self.alternative_names.extend(good);
                let what = "names of at most 127 ASCII characters, not `.`, `..`, `all`, \
                            `default` or a number, without `:`, `/` and `%`";
                return wants(Some(()).filter(|()| bad.is_empty() && whole), what);
            }
        }
        Ok(())
    }

    /// What is set by ethtool's calls.
    fn take_ethtool(&mut self, key: &str, value: &str) -> Taken {
        match key {
            "BitsPerSecond" => {
                // beyond that is no speed for the kernel, and its greatest number means none
                let limit = u64::from(u32::MAX - 1) * 1_000_000;
                let speed = size(value, 1000).filter(|speed| *speed <= limit);
                self.bits_per_second = wants(speed, "a speed such as 100M")?;
            }
            "Duplex" => {
                let full = match value {
                    "full" => Some(true),
                    "half" => Some(false),
                    _ => None,
                };
                self.full_duplex = Some(wants(full, "half or full")?);
            }
            "AutoNegotiation" => self.negotiation = switch(value)?,
            "WakeOnLan" => return self.take_wake(value),
            "WakeOnLanPassword" if value.is_empty() => self.wake_password = None,
            "WakeOnLanPassword" if value.starts_with('/') => {
                self.wake_password = Some(WakePassword::File(value.into()));
            }
            "WakeOnLanPassword" => {
                let what = "a password such as aa:bb:cc:dd:ee:ff, or the path of a file with one";
                self.wake_password = Some(wants(WakePassword::parse(value), what)?);
            }
            "Port" => {
                let port = at(&PORTS, value).and_then(|port| u8::try_from(port).ok());
                self.port = Some(wants(port, "tp, aui, mii, fibre or bnc")?);
            }
            "Advertise" => return self.take_modes(value),
            "MDI" if value.is_empty() => self.mdi = None,
            "MDI" => {
                let mdi = MDI.iter().find(|(word, _)| *word == value).map(|(_, mdi)| *mdi);
                self.mdi = Some(wants(mdi, "straight, crossover or auto")?);
            }
            _ => return self.take_listed(key, value),
        }
        Ok(())
    }

    fn take_listed(&mut self, key: &str, value: &str) -> Taken {
        if let Some(feature) = FEATURES.iter().position(|(known, _)| *known == key) {
            self.features[feature] = switch(value)?;
        } else if let Some(channel) = at(&CHANNELS, key) {
            self.channels[channel] = amount(value)?;
        } else if let Some(ring) = at(&RINGS, key) {
            self.rings[ring] = amount(value)?;
        } else if let Some(pause) = at(&PAUSE, key) {
            self.pause[pause] = switch(value)?;
        } else if let Some(at) = COALESCE.iter().position(|(known, _)| *known == key) {
            self.coalesce[at] = coalesce(value, COALESCE[at].1)?;
        } else {
            return Err(Refused::Key);
        }
        Ok(())
    }

    fn take_wake(&mut self, value: &str) -> Taken {
        if matches!(value, "" | "off") {
            self.wake = (value == "off").then_some(0);
            return Ok(());
        }
        let mut wake = self.wake.unwrap_or(0);
        let mut taken = Ok(());
        for word in words(value, Quoting::Plain).0 {
            match at(&WAKE, &word) {
                Some(bit) => wake |= 1 << bit,
                None => {
                    let what = format!("off, or a list of {}, not {word:?}", WAKE.join(", "));
                    taken = Err(Refused::Value(what));
                }
            }
        }
        self.wake = Some(wake);
        taken
    }

    fn take_modes(&mut self, value: &str) -> Taken {
        if value.is_empty() {
            self.advertise = Default::default();
        }
        let mut taken = Ok(());
        for word in words(value, Quoting::Plain).0 {
            match at(&LINK_MODES, &word).filter(|_| !word.is_empty()) {
                Some(bit) => self.advertise[bit / 32] |= 1 << (bit % 32),
                None => {
                    let what = format!("modes such as 1000baset-full, not {word:?}");
                    taken = Err(Refused::Value(what));
                }
            }
        }
        taken
    }
}

const NAME_WANTED: &str = "a name of at most 15 ASCII characters, not `.`, `..`, `all`, `default` \
                           or a number, without `:`, `/`, `%` and blanks";

fn address_policy(value: &str) -> Result<AddressPolicy, Refused> {
    let policy = match value {
        "" | "none" => Some(AddressPolicy::None),
        "persistent" => Some(AddressPolicy::Persistent),
        "random" => Some(AddressPolicy::Random),
        _ => None,
    };
    wants(policy, "persistent, random or none")
}

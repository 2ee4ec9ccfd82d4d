//! Stage 5b: the name and the alternative names of an interface: policies and properties in, names out.
#![forbid(unsafe_code)]

use super::link_file::{NamePolicy, Settings};
use super::scheme::{Naming, Scheme};
use super::values::{NAME_LIMIT, is_interface_name};

/// Who gave an interface its name: `NET_NAME_…` of `linux/netdevice.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NameSource {
    /// A tun device, or a kernel that does not say.
    #[default]
    Unknown,
    /// The kernel, by counting.
    Enumerated,
    /// The kernel, by what does not change.
    Predictable,
    User,
    Renamed,
}

impl NameSource {
    /// From the attribute `name_assign_type`.
    #[must_use]
    pub(super) fn parse(text: &[u8]) -> Self {
        match text {
            b"1" => Self::Enumerated,
            b"2" => Self::Predictable,
            b"3" => Self::User,
            b"4" => Self::Renamed,
            _ => Self::Unknown,
        }
    }

    fn by_user(self) -> bool {
        matches!(self, Self::User | Self::Renamed)
    }
}

impl NamePolicy {
    /// The property in which net_id or the hwdb left the name.
    fn property(self) -> Option<&'static [u8]> {
        match self {
            Self::Kernel | Self::Keep => None,
            Self::Database => Some(b"ID_NET_NAME_FROM_DATABASE"),
            Self::Onboard => Some(b"ID_NET_NAME_ONBOARD"),
            Self::Slot => Some(b"ID_NET_NAME_SLOT"),
            Self::Path => Some(b"ID_NET_NAME_PATH"),
            Self::Mac => Some(b"ID_NET_NAME_MAC"),
        }
    }
}

/// The name that an interface is to have; `None`: the one that it has.
pub(super) fn name<'a>(
    settings: &'a Settings,
    naming: Naming,
    given_by: NameSource,
    property: impl Fn(&[u8]) -> Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    // since v240, whoever was given a name is renamed nevertheless
    if given_by.by_user() && naming.scheme < Scheme::V240 {
        return None;
    }
    let policies = if naming.names { settings.name_policy.as_slice() } else { &[] };
    for policy in policies {
        let kept = match policy {
            NamePolicy::Kernel => given_by == NameSource::Predictable,
            NamePolicy::Keep => given_by.by_user(),
            NamePolicy::Database
            | NamePolicy::Onboard
            | NamePolicy::Slot
            | NamePolicy::Path
            | NamePolicy::Mac => false,
        };
        if kept {
            return None;
        }
        let name = policy.property().and_then(&property);
        if let Some(name) = name.filter(|name| is_interface_name(name, NAME_LIMIT)) {
            return Some(name);
        }
    }
    settings.name.as_deref().map(str::as_bytes)
}

/// The alternative names that an interface called `name` is to have, sorted.
pub(super) fn alternative_names<'a>(
    settings: &Settings,
    name: &[u8],
    property: impl Fn(&[u8]) -> Option<&'a [u8]>,
) -> Vec<Vec<u8>> {
    let set = settings.alternative_names.iter().map(|name| name.as_bytes());
    let policies = settings.alternative_policy.iter();
    let found = policies.filter_map(|policy| policy.property().and_then(&property));
    let all = set.chain(found).filter(|other| *other != name && !other.is_empty());
    let mut names: Vec<_> = all.map(<[u8]>::to_vec).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_policy_that_gives_a_name_counts() {
        let settings = Settings {
            name_policy: vec![
                NamePolicy::Keep,
                NamePolicy::Kernel,
                NamePolicy::Slot,
                NamePolicy::Mac,
            ],
            name: Some("x".to_owned()),
            ..Settings::default()
        };
        let property = |key: &[u8]| match key {
            b"ID_NET_NAME_SLOT" => Some(b"123".as_slice()),
            b"ID_NET_NAME_MAC" => Some(b"enx1".as_slice()),
            _ => None,
        };
        let naming = Naming::default();
        let by = |source| name(&settings, naming, source, property);
        assert_eq!(by(NameSource::Enumerated), Some(b"enx1".as_slice()), "123 is no name");
        assert_eq!((by(NameSource::User), by(NameSource::Predictable)), (None, None));
        let none = Naming { names: false, ..naming };
        assert_eq!(name(&settings, none, NameSource::User, property), Some(b"x".as_slice()));
        let old = Naming { scheme: Scheme::V239, ..naming };
        assert_eq!(name(&settings, old, NameSource::Renamed, property), None);
    }
}

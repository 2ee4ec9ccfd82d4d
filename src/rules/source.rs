//! Stage 4: who decided something, and what can be decided.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

/// What of a node can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    Owner,
    Group,
    Mode,
    Link,
    Tag,
    /// Steps say `KEY=value`.
    Property,
}

impl Attribute {
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Group, Self::Mode, Self::Link, Self::Tag, Self::Property];

    /// Its name on D-Bus and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Mode => "mode",
            Self::Link => "links",
            Self::Tag => "tags",
            Self::Property => "properties",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.name() == name)
    }
}

/// A place in a file that an administrator can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1, in bytes.
    pub column: u32,
}

/// Who wanted a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The device's own message: DEVUID, DEVGID, DEVMODE.
    Kernel,
    /// A line of tmpfiles.d(5), for a name that no device has yet.
    Tmpfiles(Place),
    /// A udev rule.
    Rule(Place),
    /// A policy file's rule, with its id.
    Policy { id: Arc<str>, place: Place },
    /// A caller on D-Bus, as the bus names him, and the reason that he gave.
    Runtime { by: Arc<str>, reason: Arc<str> },
}

impl Source {
    /// The word that D-Bus's `Origin` and `Explain` use.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Tmpfiles(_) => "tmpfiles",
            Self::Rule(_) => "rule",
            Self::Policy { .. } => "policy",
            Self::Runtime { .. } => "runtime",
        }
    }

    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Tmpfiles(place) | Self::Rule(place) | Self::Policy { place, .. } => Some(place),
            Self::Kernel | Self::Runtime { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("kernel"),
            Self::Tmpfiles(place) | Self::Rule(place) => {
                write!(f, "{}:{}", place.file, place.line)
            }
            Self::Policy { id, place } => write!(f, "{}:{} ({id})", place.file, place.line),
            Self::Runtime { by, reason } if reason.is_empty() => write!(f, "set by {by}"),
            Self::Runtime { by, reason } => write!(f, "set by {by}: {reason}"),
        }
    }
}

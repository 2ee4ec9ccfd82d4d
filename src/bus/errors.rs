//! Stage 9: why a call was refused, in the words of the bus.
//!
//! `busctl` prints the message only: it is a whole sentence that says what to do.

use std::fmt;

use crate::dispatch::command::{ChangeError, LoadError};

/// The names of errors that callers can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AccessDenied,
    InteractiveAuthorizationRequired,
    InvalidArgs,
    LimitsExceeded,
    UnknownObject,
    UnknownInterface,
    UnknownMethod,
    UnknownProperty,
    PropertyReadOnly,
    Failed,
    NoSuchDevice,
    UnknownUser,
    NotSupported,
    Busy,
    Throttled,
    Shadow,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "org.freedesktop.DBus.Error.AccessDenied",
            Self::InteractiveAuthorizationRequired => {
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
            }
            Self::InvalidArgs => "org.freedesktop.DBus.Error.InvalidArgs",
            Self::LimitsExceeded => "org.freedesktop.DBus.Error.LimitsExceeded",
            Self::UnknownObject => "org.freedesktop.DBus.Error.UnknownObject",
            Self::UnknownInterface => "org.freedesktop.DBus.Error.UnknownInterface",
            Self::UnknownMethod => "org.freedesktop.DBus.Error.UnknownMethod",
            Self::UnknownProperty => "org.freedesktop.DBus.Error.UnknownProperty",
            Self::PropertyReadOnly => "org.freedesktop.DBus.Error.PropertyReadOnly",
            Self::Failed => "org.freedesktop.DBus.Error.Failed",
            Self::NoSuchDevice => "org.mapdev1.Error.NoSuchDevice",
            Self::UnknownUser => "org.mapdev1.Error.UnknownUser",
            Self::NotSupported => "org.mapdev1.Error.NotSupported",
            Self::Busy => "org.mapdev1.Error.Busy",
            Self::Throttled => "org.mapdev1.Error.Throttled",
            Self::Shadow => "org.mapdev1.Error.Shadow",
        }
    }
}

/// A call's answer when it is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub message: String,
}

impl Refusal {
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgs, message)
    }

    #[must_use]
    pub fn no_such_device(what: &str) -> Self {
        let message = format!(
            "There is no device '{what}'; call ListDevices (or 'mapdevctl list') for those there are."
        );
        Self::new(Kind::NoSuchDevice, message)
    }

    /// Dispatch no longer takes or answers requests.
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(Kind::Busy, "The device manager is stopping; call again once it runs.")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<zbus::Error> for Refusal {
    /// An answer that could not be put into a message.
    fn from(error: zbus::Error) -> Self {
        Self::new(Kind::Failed, format!("The answer could not be written as a message: {error}."))
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NoSuchDevice => Self::new(
                Kind::NoSuchDevice,
                "The device is gone; a change ends with its device, so there is nothing to do.",
            ),
            ChangeError::Shadow => Self::new(
                Kind::Shadow,
                "The daemon runs in shadow mode, where it writes nothing outside its runtime \
                 folder; leave out 'persist'.",
            ),
            ChangeError::NotSupported(why) => Self::new(Kind::NotSupported, sentence(&why)),
            ChangeError::Failed(why) => Self::new(Kind::Failed, sentence(&why)),
        }
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Shadow => Self::new(
                Kind::Shadow,
                "The daemon runs in shadow mode, where it loads nothing; call with 'dry-run', or \
                 load the module with modprobe.",
            ),
            LoadError::Busy => Self::new(
                Kind::Busy,
                "As many modules are being loaded as may be at once; call again in a moment.",
            ),
            LoadError::NoModule(why) => Self::invalid(sentence(&why)),
            LoadError::Failed(why) => Self::new(Kind::Failed, sentence(&why)),
        }
    }
}

/// Makes a sentence of an error's lower-case text.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let mut sentence: String = first.into_iter().chain(letters).collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_change_reads_as_a_sentence() {
        let refusal = Refusal::from(ChangeError::NotSupported("the device has no node".into()));
        assert_eq!(refusal.message, "The device has no node.");
        assert_eq!(refusal.kind.name(), "org.mapdev1.Error.NotSupported");
    }
}

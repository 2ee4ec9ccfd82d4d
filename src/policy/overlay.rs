//! Stage 4b: what policy sets for one device, and for each attribute every rule that had a say.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

/// What a setting is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    Owner,
    Group,
    Mode,
    /// Of links, each rule adds its own.
    Symlink,
    /// Who gets a link that several devices claim: the device with the highest.
    SymlinkPriority,
    /// Of a name that no device has yet: which module brings it.
    Module,
    /// Whether the name is there before its device is.
    Autoload,
}

impl Attribute {
    /// The word used in files and on D-Bus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Mode => "mode",
            Self::Symlink => "symlink",
            Self::SymlinkPriority => "symlink-priority",
            Self::Module => "module",
            Self::Autoload => "autoload",
        }
    }
}

/// What an attribute is set to, names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Uid(u32),
    Gid(u32),
    /// Permission bits, at most 0o7777.
    Mode(u32),
    /// Name below /dev.
    Link(Box<[u8]>),
    LinkPriority(i32),
    /// A module's name.
    Module(Box<str>),
    Autoload(bool),
}

/// One thing that one rule sets, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub attribute: Attribute,
    pub value: Value,
    /// The value as it stands in the file, such as the user's name.
    pub written: Box<str>,
    /// The rule's id.
    pub id: Arc<str>,
    pub file: Arc<Path>,
    /// Of the value, from 1.
    pub line: u32,
    /// Of the value, in characters, from 1.
    pub column: u32,
    /// The rule's, 0 to 999.
    pub priority: u16,
}

/// What policy says of one device: for each attribute every setting, the one that holds last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    settings: Vec<Arc<Setting>>,
}

impl Overlay {
    /// Sorts the settings of all rules that match, which come in the order of the rules.
    pub(super) fn new(mut settings: Vec<Arc<Setting>>) -> Self {
        // stable: at equal priority the later rule stays the later one
        settings.sort_by_key(|setting| (setting.attribute, setting.priority));
        Self { settings }
    }

    /// All settings, by attribute, and for each attribute the one that holds last.
    #[must_use]
    pub fn settings(&self) -> &[Arc<Setting>] {
        &self.settings
    }

    /// The settings of one attribute, the one that holds last.
    pub fn of(&self, attribute: Attribute) -> impl DoubleEndedIterator<Item = &Arc<Setting>> {
        self.settings.iter().filter(move |setting| setting.attribute == attribute)
    }

    /// The setting that holds; of links, use [`Overlay::links`].
    #[must_use]
    pub fn winner(&self, attribute: Attribute) -> Option<&Arc<Setting>> {
        self.of(attribute).next_back()
    }

    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        let winner = self.winner(Attribute::Owner)?;
        if let Value::Uid(uid) = winner.value { Some(uid) } else { None }
    }

    #[must_use]
    pub fn group(&self) -> Option<u32> {
        let winner = self.winner(Attribute::Group)?;
        if let Value::Gid(gid) = winner.value { Some(gid) } else { None }
    }

    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        let winner = self.winner(Attribute::Mode)?;
        if let Value::Mode(mode) = winner.value { Some(mode) } else { None }
    }

    /// Names below /dev that all matching rules add; one may occur twice.
    pub fn links(&self) -> impl Iterator<Item = &[u8]> {
        self.of(Attribute::Symlink).filter_map(|setting| {
            if let Value::Link(name) = &setting.value { Some(&**name) } else { None }
        })
    }

    #[must_use]
    pub fn link_priority(&self) -> Option<i32> {
        let winner = self.winner(Attribute::SymlinkPriority)?;
        if let Value::LinkPriority(priority) = winner.value { Some(priority) } else { None }
    }

    /// The module that brings the name's device.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        let winner = self.winner(Attribute::Module)?;
        if let Value::Module(name) = &winner.value { Some(name) } else { None }
    }

    /// Whether the name may be there before its device is; it may, unless a rule says no.
    #[must_use]
    pub fn autoload(&self) -> bool {
        let winner = self.winner(Attribute::Autoload);
        winner.is_none_or(|setting| setting.value != Value::Autoload(false))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }
}

//! Stage 4: what a rule is once it was understood: tokens in the order in which they are evaluated.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::builtin::Builtin;
use crate::rules::glob::Pattern;
use crate::rules::template::Template;
use crate::rules::token::Operator;

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    pub pattern: Pattern,
    /// `!=`
    pub negated: bool,
    /// `i"…"`: letters match whatever their case.
    pub nocase: bool,
    /// Whether white space at the end of a value matters: the pattern ends in some, or is empty.
    pub keeps_blanks: bool,
}

impl Matcher {
    /// Whether the pattern fits, `!=` aside.
    #[must_use]
    pub fn fits(&self, value: &[u8]) -> bool {
        if self.nocase {
            return self.pattern.matches(&value.to_ascii_lowercase());
        }
        self.pattern.matches(value)
    }

    #[must_use]
    pub fn holds(&self, value: &[u8]) -> bool {
        self.fits(value) != self.negated
    }

    /// For a list: whether one entry fits, or with `!=` none does. Of an empty list, `==` never holds.
    pub fn holds_for_any<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        values.into_iter().any(|value| self.fits(value)) != self.negated
    }
}

/// The name of an attribute in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttributeName {
    /// `[subsystem/kernel]attribute`: of another device.
    Elsewhere(Box<[u8]>),
    Own(Template),
}

/// System constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    Arch,
    Virt,
    Cvm,
}

/// What of the event's device is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Action,
    Devpath,
    Kernel,
    Symlink,
    Name,
    Env(Box<[u8]>),
    Const(Constant),
    Tag,
    Subsystem,
    Driver,
    Attr(AttributeName),
    Sysctl(Template),
}

/// What of the device or one of its parents is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParentSubject {
    Kernel,
    Subsystem,
    Driver,
    Attr(AttributeName),
    Tag,
}

/// Where IMPORT gets properties from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Import {
    File(Template),
    Program(Template),
    Builtin(Builtin, Template),
    Db(Box<[u8]>),
    Cmdline(Box<[u8]>),
    Parent(Template),
}

/// One value of OPTIONS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    Dump {
        json: bool,
    },
    EscapeNone,
    EscapeReplace,
    DbPersist,
    Watch(bool),
    LinkPriority(i32),
    /// As syslog counts, 7 is debug; `None` goes back to the daemon's.
    LogLevel(Option<u8>),
    StaticNode(Box<[u8]>),
}

/// A user, a group or a mode: known when loaded, or filled in for each event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    Known(u32),
    Filled(Template),
    /// A name that nobody has. Of OWNER and GROUP it takes back what rules said before, of MODE it
    /// does nothing.
    Nobody,
}

/// What a token asks or does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Match(Subject, Matcher),
    Parent(ParentSubject, Matcher),
    Test { path: Template, mask: Option<u32>, negated: bool },
    Program { command: Template, negated: bool },
    Import { import: Import, negated: bool },
    Result(Matcher),
    Options(Setting),
    Owner(Wanted),
    Group(Wanted),
    Mode(Wanted),
    Tag(Template),
    Seclabel { module: Box<[u8]>, label: Template },
    Env { key: Box<[u8]>, value: Template },
    Name(Template),
    Symlink(Template),
    Attr { path: Box<[u8]>, value: Template },
    Sysctl { path: Template, value: Template },
    RunBuiltin(Builtin, Template),
    RunProgram(Template),
}

impl What {
    /// Where in its rule it is evaluated: udev's order, whatever the order in the file.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Match(subject, _) => subject.rank(),
            Self::Parent(subject, _) => match subject {
                ParentSubject::Kernel => 12,
                ParentSubject::Subsystem => 13,
                ParentSubject::Driver => 14,
                ParentSubject::Attr(_) => 15,
                ParentSubject::Tag => 16,
            },
            Self::Test { .. } => 17,
            Self::Program { .. } => 18,
            Self::Import { import, .. } => match import {
                Import::File(_) => 19,
                Import::Program(_) => 20,
                Import::Builtin(..) => 21,
                Import::Db(_) => 22,
                Import::Cmdline(_) => 23,
                Import::Parent(_) => 24,
            },
            Self::Result(_) => 25,
            Self::Options(setting) => setting.rank(),
            Self::Owner(wanted) => 33 + wanted.rank(),
            Self::Group(wanted) => 34 + wanted.rank(),
            // whether text is a mode is seen when the rule is applied, also where nothing is filled in
            Self::Mode(Wanted::Filled(_) | Wanted::Nobody) => 35,
            Self::Mode(Wanted::Known(_)) => 38,
            Self::Tag(_) => 39,
            Self::Seclabel { .. } => 41,
            Self::Env { .. } => 42,
            Self::Name(_) => 43,
            Self::Symlink(_) => 44,
            Self::Attr { .. } => 45,
            Self::Sysctl { .. } => 46,
            Self::RunBuiltin(..) => 47,
            Self::RunProgram(_) => 48,
        }
    }
}

impl Subject {
    fn rank(&self) -> u8 {
        match self {
            Self::Action => 0,
            Self::Devpath => 1,
            Self::Kernel => 2,
            Self::Symlink => 3,
            Self::Name => 4,
            Self::Env(_) => 5,
            Self::Const(_) => 6,
            Self::Tag => 7,
            Self::Subsystem => 8,
            Self::Driver => 9,
            Self::Attr(_) => 10,
            Self::Sysctl(_) => 11,
        }
    }
}

impl Setting {
    fn rank(&self) -> u8 {
        match self {
            Self::Dump { .. } => 26,
            Self::EscapeNone => 27,
            Self::EscapeReplace => 28,
            Self::DbPersist => 29,
            Self::Watch(_) => 30,
            Self::LinkPriority(_) => 31,
            Self::LogLevel(_) => 32,
            Self::StaticNode(_) => 40,
        }
    }
}

impl Wanted {
    /// The number, if it is the same for every device.
    #[must_use]
    pub fn known(&self) -> Option<u32> {
        match self {
            Self::Known(number) => Some(*number),
            Self::Filled(_) | Self::Nobody => None,
        }
    }

    /// Those that are filled in come before all that are known.
    fn rank(&self) -> u8 {
        match self {
            Self::Filled(_) => 0,
            Self::Known(_) | Self::Nobody => 3,
        }
    }
}

/// One pair of a rule, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub what: What,
    /// `:=` where that is allowed; for a match its own operator.
    pub operator: Operator,
    /// Of the key, from 1.
    pub line: u32,
    pub column: u32,
}

/// What kinds of effect a rule has; they say for which events it is tried at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// NAME
    pub name: bool,
    /// SYMLINK, OWNER, GROUP, MODE
    pub node: bool,
    /// OPTIONS="static_node=…"
    pub static_node: bool,
    /// Any other assignment, PROGRAM, any IMPORT
    pub other: bool,
}

impl Effects {
    pub(super) fn of(what: &What) -> Self {
        let none = Self::default();
        match what {
            What::Match(..) | What::Parent(..) | What::Test { .. } | What::Result(_) => none,
            What::Name(_) => Self { name: true, ..none },
            What::Owner(_) | What::Group(_) | What::Mode(_) | What::Symlink(_) => {
                Self { node: true, ..none }
            }
            What::Options(Setting::StaticNode(_)) => Self { static_node: true, ..none },
            What::Options(_)
            | What::Program { .. }
            | What::Import { .. }
            | What::Tag(_)
            | What::Seclabel { .. }
            | What::Env { .. }
            | What::Attr { .. }
            | What::Sysctl { .. }
            | What::RunBuiltin(..)
            | What::RunProgram(_) => Self { other: true, ..none },
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.name |= more.name;
        self.node |= more.node;
        self.static_node |= more.static_node;
        self.other |= more.other;
    }

    #[must_use]
    pub fn any(self) -> bool {
        self.name || self.node || self.static_node || self.other
    }
}

/// A rule: a line of a file, its tokens sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins, from 1.
    pub line: u32,
    pub tokens: Box<[Token]>,
    pub effects: Effects,
    pub label: Option<Box<[u8]>>,
    /// The rule of the same file to go on with when this one held.
    pub goto: Option<usize>,
}

impl Rule {
    /// Whether it asks a program or a builtin for something.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.tokens.iter().any(|token| {
            let asks = |import: &Import| matches!(import, Import::Program(_) | Import::Builtin(..));
            matches!(&token.what, What::Program { .. })
                || matches!(&token.what, What::Import { import, .. } if asks(import))
        })
    }
}

/// A file's rules, first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    pub file: Arc<str>,
    pub rules: Vec<Rule>,
}

//! Stage 4: rules are applied to an event, first to last, each token in udev's order.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::rules::decision::{Attribute, Source};
use crate::rules::event::{Escape, Event};
use crate::rules::resolve::Rules;
use crate::rules::rule::{Effects, Rule, Token, What};
use crate::uevent::Action;

/// Why an event ended before all rules were applied: a file that is there could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub source: Source,
    pub what: String,
    /// The system's number for it, which libudev's clients are told.
    pub errno: i32,
}

/// What is no regular file, and has no error of the system's: a bad one, as `errno.h` calls it.
const EBADF: i32 = 9;

/// An error of the system's by its number.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EBADF)
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.what)
    }
}

impl std::error::Error for Failed {}

impl Rules {
    /// Applies all rules to an event.
    ///
    /// # Errors
    /// When a file that a rule wants is there and cannot be read; what was decided before stands.
    pub fn apply(&self, event: &mut Event<'_>) -> Result<(), Failed> {
        self.apply_from(0, 0, event)
    }

    /// Applies the rules from one on, of that file and those behind it.
    pub(super) fn apply_from(
        &self,
        file: usize,
        rule: usize,
        event: &mut Event<'_>,
    ) -> Result<(), Failed> {
        let mut next = rule;
        for file in self.files().iter().skip(file) {
            event.enter(file);
            while let Some(rule) = file.rules.get(next) {
                // GOTO leads forward, as resolve sees to it: this ends
                next = event.rule(rule, 0)?.then_some(rule.goto).flatten().unwrap_or(next + 1);
            }
            next = 0;
        }
        Ok(())
    }
}

impl Event<'_> {
    /// Whether a rule held to its end; `known` are bits for those of its first tokens that hold.
    pub(super) fn rule(&mut self, rule: &Rule, known: u64) -> Result<bool, Failed> {
        if !self.concerns(rule.effects) && rule.goto.is_none() {
            return Ok(false);
        }
        self.escape = Escape::Unset;
        let mut searched = false;
        for (index, token) in rule.tokens.iter().enumerate() {
            if index < 64 && known & (1 << index) != 0 {
                continue;
            }
            if matches!(token.what, What::Parent(..)) {
                // all of them are looked at together, at one device after the other
                if !searched && !self.search(rule) {
                    return Ok(false);
                }
                searched = true;
            } else if !self.token(token)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a rule with these effects can do anything to the device.
    fn concerns(&self, effects: Effects) -> bool {
        let stays = self.device.uevent().action() != Action::Remove;
        effects.other
            || (effects.node && stays && self.device.devnum().is_some())
            || (effects.name && stays && self.device.uevent().ifindex().is_some())
    }

    fn token(&mut self, token: &Token) -> Result<bool, Failed> {
        match &token.what {
            What::Match(subject, matcher) => return self.compare(subject, matcher, token),
            What::Parent(..) => {}
            What::Test { path, mask, negated } => return Ok(self.test(path, *mask, *negated)),
            What::Program { command, negated } => {
                return Ok(self.program(command, *negated, token));
            }
            What::Import { import, negated } => return self.import(import, *negated, token),
            What::Result(matcher) => return Ok(matcher.holds(&self.result)),
            What::Options(setting) => self.option(setting, token),
            What::Owner(wanted) => self.own(Attribute::Owner, wanted, token),
            What::Group(wanted) => self.own(Attribute::Group, wanted, token),
            What::Mode(wanted) => self.own(Attribute::Mode, wanted, token),
            What::Tag(tag) => self.tag(tag, token),
            What::Seclabel { module, label } => self.seclabel(module, label, token),
            What::Env { key, value } => self.env(key, value, token),
            What::Name(name) => self.rename(name, token),
            What::Symlink(names) => self.link(names, token),
            What::Attr { path, value } => self.write(path, value, token),
            What::Sysctl { path, value } => self.sysctl_write(path, value, token),
            What::RunBuiltin(builtin, command) => self.run(Some(*builtin), command, token),
            What::RunProgram(command) => self.run(None, command, token),
        }
        Ok(true)
    }
}

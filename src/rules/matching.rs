//! Stage 4: comparisons with the event's device, and the search for a parent.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::clean::trim_end;
use crate::device::Device;
use crate::rules::eval::{Failed, errno};
use crate::rules::event::{Event, Found};
use crate::rules::rule::{AttributeName, Matcher, ParentSubject, Rule, Subject, Token, What};
use crate::rules::subst::{NAME_MAX, PATH_MAX};
use crate::rules::template::Template;
use crate::uevent::action_name;

impl Event<'_> {
    /// Whether a comparison holds.
    pub(super) fn compare(
        &mut self,
        subject: &Subject,
        matcher: &Matcher,
        token: &Token,
    ) -> Result<bool, Failed> {
        let device = self.device;
        Ok(match subject {
            Subject::Action => matcher.holds(action_name(device.uevent().action()).as_bytes()),
            Subject::Devpath => matcher.holds(device.uevent().devpath()),
            Subject::Kernel => matcher.holds(&device.sysname()),
            Subject::Symlink => {
                matcher.holds_for_any(self.decision.links.iter().map(|link| link.name.as_slice()))
            }
            Subject::Name => matcher.holds(self.decision.name.as_deref().unwrap_or_default()),
            Subject::Env(key) => matcher.holds(&self.property(key).unwrap_or_default()),
            Subject::Const(constant) => matcher.holds(&self.world.constant(*constant)),
            Subject::Tag => matcher.holds_for_any(self.tags_to_match()),
            Subject::Subsystem => matcher.holds(device.subsystem()),
            Subject::Driver => matcher.holds(&device.driver().unwrap_or_default()),
            Subject::Attr(name) => {
                self.attribute(name, None).is_some_and(|value| compared(matcher, &value))
            }
            Subject::Sysctl(name) => match self.sysctl(name, token)? {
                Some(value) => matcher.holds(&value),
                None => false,
            },
        })
    }

    /// The value of a sysctl, empty if there is none; `None` if its name is too long.
    fn sysctl(&mut self, name: &Template, token: &Token) -> Result<Option<Vec<u8>>, Failed> {
        let Some(name) = self.fill(name, PATH_MAX) else { return Ok(None) };
        let path = sysctl_path(&name);
        match self.world.file(&path) {
            Ok(value) => Ok(Some(value.unwrap_or_default().trim_ascii().to_vec())),
            Err(error) => Err(Failed {
                source: self.source(token),
                what: format!("cannot read {}: {error}", path.escape_ascii()),
                errno: errno(&error),
            }),
        }
    }

    /// An attribute of the event's device, or of one above it; `None` where there is none to read.
    fn attribute(
        &mut self,
        name: &AttributeName,
        above: Option<&Device>,
    ) -> Option<Cow<'static, [u8]>> {
        match name {
            AttributeName::Elsewhere(text) => self.elsewhere(text).map(Cow::Owned),
            AttributeName::Own(template) => {
                let name = self.fill(template, NAME_MAX)?;
                let value = above.unwrap_or(self.device).attribute(&name)?;
                Some(Cow::Owned(value.into_vec()))
            }
        }
    }

    /// Looks for the nearest device, the event's own first, at which all of a rule's parent matches
    /// hold, and remembers it.
    pub(super) fn search(&mut self, rule: &Rule) -> bool {
        for steps in 0.. {
            let above = match steps {
                0 => None,
                _ => match self.above(steps) {
                    Some(device) => Some(device),
                    None => break,
                },
            };
            // substitutions in the names of attributes see the device that is looked at
            self.found = Found::At(steps);
            let holds = rule.tokens.iter().all(|token| {
                let What::Parent(subject, matcher) = &token.what else { return true };
                self.fits(subject, matcher, above)
            });
            if holds {
                return true;
            }
        }
        self.found = Found::Nowhere;
        false
    }

    fn fits(&mut self, subject: &ParentSubject, matcher: &Matcher, above: Option<&Device>) -> bool {
        let device = above.unwrap_or(self.device);
        match subject {
            ParentSubject::Kernel => matcher.holds(&device.sysname()),
            ParentSubject::Subsystem => matcher.holds(device.subsystem()),
            ParentSubject::Driver => matcher.holds(&device.driver().unwrap_or_default()),
            ParentSubject::Attr(name) => {
                let value = self.attribute(name, above);
                value.is_some_and(|value| compared(matcher, &value))
            }
            ParentSubject::Tag => match above {
                Some(device) => {
                    let record = self.world.record(device.id()).unwrap_or_default();
                    matcher.holds_for_any(record.current_tags.iter().map(Vec::as_slice))
                }
                None => matcher.holds_for_any(self.tags_to_match()),
            },
        }
    }

    /// TEST: whether a path leads somewhere, and there has one of the mask's bits.
    pub(super) fn test(&mut self, path: &Template, mask: Option<u32>, negated: bool) -> bool {
        let Some(path) = self.fill(path, PATH_MAX) else { return false };
        let Some(path) = self.absolute(path) else { return false };
        let there = self.starred(&path).and_then(|path| self.world.mode(&path));
        let holds = there.is_some_and(|mode| mask.is_none_or(|mask| mode & mask != 0));
        holds != negated
    }

    /// A path as rules write it: absolute, of another device, or of this one; `None` if too long.
    pub(super) fn absolute(&self, path: Vec<u8>) -> Option<Vec<u8>> {
        if path.starts_with(b"/") {
            return Some(path);
        }
        let sysfs = self.device.sysfs();
        let (devpath, rest) = match sysfs.elsewhere(&path) {
            Some((devpath, attribute)) => (devpath, attribute),
            None => (self.device.uevent().devpath().to_vec(), path.as_slice()),
        };
        let folder = sysfs.syspath(&devpath).into_os_string().into_encoded_bytes();
        let path = [folder.as_slice(), rest].join(&b'/');
        (path.len() <= PATH_MAX).then_some(path)
    }

    /// One `/*/` is the first entry below which the rest exists; `None` if there is none.
    pub(super) fn starred(&self, path: &[u8]) -> Option<Vec<u8>> {
        let Some(star) = path.windows(3).position(|part| part == b"/*/") else {
            return Some(path.to_vec());
        };
        let (folder, rest) = (&path[..star], &path[star + 2..]);
        let names = self.world.names(folder).into_iter();
        let mut paths = names.map(|name| [folder, b"/", &name, rest].concat());
        paths.find(|path| self.world.mode(path).is_some())
    }
}

/// White space at the end of an attribute counts only where the pattern asks for it.
fn compared(matcher: &Matcher, value: &[u8]) -> bool {
    if matcher.keeps_blanks {
        return matcher.holds(value);
    }
    matcher.holds(trim_end(&value[..value.len().min(NAME_MAX)]))
}

/// Where sysctls are.
pub(super) const SYSCTLS: &str = "/proc/sys";

/// The file of a sysctl: in `net.ipv4.conf.eth0/1` dots separate and slashes are dots, in
/// `net/ipv4/conf/eth0.1` it is the other way round; the first of both decides.
pub(super) fn sysctl_path(name: &[u8]) -> Vec<u8> {
    let first = name.iter().find(|byte| matches!(byte, b'.' | b'/'));
    let swapped = |byte: &u8| match byte {
        b'.' => b'/',
        b'/' => b'.',
        other => *other,
    };
    let mut path = [SYSCTLS.as_bytes(), b"/"].concat();
    match first {
        Some(b'.') => path.extend(name.iter().map(swapped)),
        Some(_) | None => path.extend_from_slice(name),
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_of_a_sysctl_decides() {
        assert_eq!(sysctl_path(b"net.ipv4.conf.eth0/1.x"), b"/proc/sys/net/ipv4/conf/eth0.1/x");
        assert_eq!(sysctl_path(b"net/ipv4/conf/eth0.1/x"), b"/proc/sys/net/ipv4/conf/eth0.1/x");
    }
}

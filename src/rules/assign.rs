//! Stage 4: what a rule assigns when all its comparisons held.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::builtin::Builtin;
use crate::clean::{is_blank, replace_in_interface, replace_unsafe};
use crate::rules::decision::{Attribute, Run, Write, Written};
use crate::rules::event::{Escape, Event};
use crate::rules::matching::{SYSCTLS, sysctl_path};
use crate::rules::rule::{Setting, Token, Wanted};
use crate::rules::settings::octal;
use crate::rules::subst::{LINE_MAX, NAME_MAX, PATH_MAX};
use crate::rules::template::Template;
use crate::rules::token::Operator;

impl Event<'_> {
    pub(super) fn option(&mut self, setting: &Setting, token: &Token) {
        match setting {
            Setting::EscapeNone => self.escape = Escape::None,
            Setting::EscapeReplace => self.escape = Escape::Replace,
            Setting::DbPersist => self.decision.persist = true,
            Setting::Watch(watch) => {
                if !close(&mut self.closed.watch, token) {
                    self.decision.watch = Some(*watch);
                }
            }
            Setting::LinkPriority(priority) => self.decision.link_priority = *priority,
            // what is logged, and how much, is not the decision's; static nodes are settled at start
            Setting::Dump { .. } | Setting::LogLevel(_) | Setting::StaticNode(_) => {}
        }
    }

    /// OWNER, GROUP or MODE.
    pub(super) fn own(&mut self, attribute: Attribute, wanted: &Wanted, token: &Token) {
        let closed = match attribute {
            Attribute::Owner => close(&mut self.closed.owner, token),
            Attribute::Group => close(&mut self.closed.group, token),
            Attribute::Mode => close(&mut self.closed.mode, token),
            Attribute::Link | Attribute::Tag | Attribute::Property => true,
        };
        if closed {
            return;
        }
        let number = match wanted {
            Wanted::Known(number) => Some(*number),
            Wanted::Nobody => {
                let source = self.source(token);
                return self.decision.unset(attribute, source);
            }
            Wanted::Filled(template) => self.fill(template, NAME_MAX).and_then(|text| {
                let name = std::str::from_utf8(&text).ok();
                match attribute {
                    Attribute::Owner => name.and_then(|name| self.names.uid(name)),
                    Attribute::Group => name.and_then(|name| self.names.gid(name)),
                    Attribute::Mode => octal(&text),
                    Attribute::Link | Attribute::Tag | Attribute::Property => None,
                }
            }),
        };
        if let Some(number) = number {
            let source = self.source(token);
            self.decision.set(attribute, number, source);
        }
    }

    pub(super) fn tag(&mut self, tag: &Template, token: &Token) {
        let Some(tag) = self.fill(tag, PATH_MAX) else { return };
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        // a tag that is none is not given, and yet `=` takes the others away
        let tag = Some(&*tag).filter(|tag| !tag.is_empty() && tag.iter().all(valid));
        let source = self.source(token);
        self.decision.change_tags(token.operator.name(), tag, source);
    }

    pub(super) fn seclabel(&mut self, module: &[u8], label: &Template, token: &Token) {
        let Some(filled) = self.fill(label, LINE_MAX) else { return };
        let value = if filled.is_empty() { label.text().to_vec() } else { filled };
        if token.operator == Operator::Assign {
            self.decision.seclabels.clear();
        }
        self.decision.seclabels.retain(|(known, _)| known != module);
        self.decision.seclabels.push((module.to_vec(), value));
    }

    pub(super) fn env(&mut self, key: &[u8], value: &Template, token: &Token) {
        let adds = token.operator == Operator::Add;
        if value.text().is_empty() {
            if !adds {
                self.set(key, None, token);
            }
            return;
        }
        let old = self.property(key).filter(|_| adds);
        let mut whole = old.map(|old| [&*old, b" "].concat()).unwrap_or_default();
        let Some(room) = NAME_MAX.checked_sub(whole.len()) else { return };
        let Some(mut filled) = self.fill(value, room) else { return };
        if self.escape == Escape::Replace {
            replace_unsafe(&mut filled, b"");
        }
        whole.extend(filled);
        self.set(key, Some(whole), token);
    }

    /// The new name of a network interface.
    pub(super) fn rename(&mut self, name: &Template, token: &Token) {
        if close(&mut self.closed.name, token) || self.device.uevent().ifindex().is_none() {
            return;
        }
        let Some(mut name) = self.fill(name, PATH_MAX) else { return };
        if self.escape != Escape::None {
            replace_in_interface(&mut name);
        }
        self.decision.name = Some(name);
    }

    pub(super) fn link(&mut self, names: &Template, token: &Token) {
        if self.closed.symlink || self.device.devnum().is_none() {
            return;
        }
        close(&mut self.closed.symlink, token);
        let source = self.source(token);
        if matches!(token.operator, Operator::Assign | Operator::Final) {
            self.decision.remove_links(None, source.clone());
        }
        let joined = self.escape != Escape::None;
        let Some(mut names) = self.fill_in(names, PATH_MAX, joined) else { return };
        match self.escape {
            Escape::Unset => replace_unsafe(&mut names, b"/ "),
            Escape::Replace => replace_unsafe(&mut names, b"/"),
            Escape::None => {}
        }
        let words = names.split(|byte| is_blank(*byte)).filter(|word| !word.is_empty());
        for name in words.filter_map(below_dev) {
            if token.operator == Operator::Remove {
                self.decision.remove_links(Some(&name), source.clone());
            } else {
                self.decision.add_link(&name, 0, source.clone());
            }
        }
    }

    /// Writes to an attribute.
    pub(super) fn write(&mut self, path: &[u8], value: &Template, token: &Token) {
        let Some(value) = self.fill(value, NAME_MAX) else { return };
        let path = self.absolute_attribute(path).and_then(|path| self.starred(&path));
        let Some(path) = path else { return };
        let device = self.device;
        self.written(device.sysfs().root(), &path, &value, token);
    }

    /// Unlike TEST's, a path with a slash in front is the device's as well.
    fn absolute_attribute(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.absolute(if path.starts_with(b"/") { [b".", path].concat() } else { path.to_vec() })
    }

    pub(super) fn sysctl_write(&mut self, path: &Template, value: &Template, token: &Token) {
        let Some(path) = self.fill(path, PATH_MAX) else { return };
        let Some(value) = self.fill(value, NAME_MAX) else { return };
        self.written(Path::new(SYSCTLS), &sysctl_path(&path), &value, token);
    }

    fn written(&mut self, root: &Path, path: &[u8], value: &[u8], token: &Token) {
        let source = self.source(token);
        let outcome = match self.world.write(root, path, value) {
            Some(Ok(())) => Written::Done,
            Some(Err(error)) => Written::Failed(error.to_string()),
            None => Written::Skipped,
        };
        let (path, value) = (path.to_vec(), value.to_vec());
        self.decision.writes.push(Write { path, value, outcome, source });
    }

    pub(super) fn run(&mut self, builtin: Option<Builtin>, command: &Template, token: &Token) {
        if close(&mut self.closed.run, token) {
            return;
        }
        if matches!(token.operator, Operator::Assign | Operator::Final) {
            self.decision.run.clear();
        }
        let Some(command) = self.fill(command, LINE_MAX) else { return };
        // an empty command fails when its turn comes, and is listed until then
        let source = self.source(token);
        self.decision.run.push(Run { builtin, command, source });
    }
}

/// Whether `:=` has closed it before; this token may close it for those that follow.
fn close(closed: &mut bool, token: &Token) -> bool {
    let before = *closed;
    *closed |= token.operator == Operator::Final;
    before
}

/// A link's name below `/dev`, in one form; `None` if it leads elsewhere or nowhere.
fn below_dev(name: &[u8]) -> Option<Vec<u8>> {
    let relative = match name {
        [b'/', ..] => name.strip_prefix(b"/dev/")?,
        relative => relative,
    };
    let parts: Vec<_> = relative
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    (!parts.is_empty() && !parts.contains(&b"..".as_slice())).then(|| parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_below_dev() {
        assert_eq!(below_dev(b"disk//by-id/./x/").unwrap(), b"disk/by-id/x");
        assert_eq!(below_dev(b"/dev/x").unwrap(), b"x");
        for none in ["../etc/x", "a/../../x", "/etc/x", "/dev/", ".", "/device"] {
            assert_eq!(below_dev(none.as_bytes()), None, "{none}");
        }
    }
}

//! Stage 4b: the `set` of a rule: users, groups, modes and links, as written in, as numbers out.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::file::{Item, Missing, Reader};
use super::{Attribute, Setting, Value};
use crate::rules::problem::Severity;

const SET: [&str; 6] = ["owner", "group", "mode", "symlink", "module", "autoload"];
const SET_LATER: [&str; 4] = ["acl", "seat", "sysfs", "tags"];
const SYMLINK: [&str; 2] = ["add", "priority"];
/// udev keeps a link's priority in an int; nobody needs more than this.
const LINK_PRIORITY: std::ops::RangeInclusive<i64> = -1_000_000..=1_000_000;

/// `MODULE_NAME_LEN` of `include/linux/moduleparam.h`, less its end.
const MODULE_MAX: usize = 55;

/// A user or group is not known, and the rule or the file is left out for it.
struct LeaveOut;

impl Reader<'_> {
    /// What a rule sets; `None` if an unknown name takes the rule along.
    pub(super) fn settings(
        &mut self,
        item: Item<'_, '_>,
        id: &Arc<str>,
        priority: u16,
    ) -> Option<Vec<Setting>> {
        let table = self.table(item, "keys such as `mode`")?;
        let mut found: Vec<(Attribute, Value, Item<'_, '_>)> = Vec::new();
        let mut whole = true;
        for (key, value) in table.iter() {
            let result = match &**key.get_ref() {
                "owner" => self.name(value, Attribute::Owner),
                "group" => self.name(value, Attribute::Group),
                "mode" => Ok(self.mode(value)),
                "module" => Ok(self.module(value)),
                "autoload" => Ok(self.autoload(value)),
                "symlink" => {
                    self.symlink(value, &mut found);
                    continue;
                }
                _ => {
                    self.unknown(key, &SET, &SET_LATER);
                    continue;
                }
            };
            match result {
                Ok(setting) => found.extend(setting.map(|(a, v)| (a, v, value))),
                Err(LeaveOut) => whole = false,
            }
        }
        if table.is_empty() {
            self.error(item.span(), "`set` is empty");
        }
        let placed = |(attribute, value, item): (Attribute, Value, Item<'_, '_>)| {
            let (line, column) = self.source.position(item.span().start);
            let raw = self.source.bytes().get(item.span()).unwrap_or_default();
            let written = match item.get_ref().as_str() {
                Some(text) => text.into(),
                None => String::from_utf8_lossy(raw).into(),
            };
            let (id, file) = (id.clone(), self.file.clone());
            Setting { attribute, value, written, id, file, line, column, priority }
        };
        whole.then(|| found.into_iter().map(placed).collect())
    }

    fn name(
        &mut self,
        item: Item<'_, '_>,
        attribute: Attribute,
    ) -> Result<Option<(Attribute, Value)>, LeaveOut> {
        let kind = if attribute == Attribute::Owner { "user" } else { "group" };
        let Some(name) = item.get_ref().as_str().filter(|name| !name.is_empty()) else {
            self.error(item.span(), format!("the name of a {kind} in quotes wanted"));
            return Ok(None);
        };
        let names = self.names;
        let value = match attribute {
            Attribute::Owner => names.uid(name).map(Value::Uid),
            Attribute::Group
            | Attribute::Mode
            | Attribute::Symlink
            | Attribute::SymlinkPriority
            | Attribute::Module
            | Attribute::Autoload => names.gid(name).map(Value::Gid),
        };
        if let Some(value) = value {
            return Ok(Some((attribute, value)));
        }
        let (severity, effect) = match self.missing {
            Missing::SkipAttribute => {
                (Severity::Warning, format!("{} is not set", attribute.name()))
            }
            Missing::SkipRule => (Severity::Warning, "rule is left out".to_owned()),
            Missing::Error => (Severity::Error, "file is left out".to_owned()),
        };
        let what = format!("unknown {kind} \"{}\": {effect}", name.escape_debug());
        let problem = self.problem(item.span(), severity, what);
        let problem = if attribute == Attribute::Owner {
            problem.suggest(name, names.users())
        } else {
            problem.suggest(name, names.groups())
        };
        self.push(problem);
        match self.missing {
            Missing::SkipAttribute => Ok(None),
            Missing::SkipRule => Err(LeaveOut),
            Missing::Error => {
                self.refuse();
                Err(LeaveOut)
            }
        }
    }

    fn mode(&mut self, item: Item<'_, '_>) -> Option<(Attribute, Value)> {
        let octal = |text: &str| {
            let digits = text.len() >= 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777)
        };
        let mode = item.get_ref().as_str().and_then(octal);
        if mode.is_none() {
            self.error(item.span(), "an octal mode in quotes wanted, such as \"0660\"");
        }
        mode.map(|mode| (Attribute::Mode, Value::Mode(mode)))
    }

    /// Whether there is such a module is asked where the modules are known.
    fn module(&mut self, item: Item<'_, '_>) -> Option<(Attribute, Value)> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let name = item
            .get_ref()
            .as_str()
            .filter(|name| !name.is_empty() && name.len() <= MODULE_MAX && name.bytes().all(fits));
        if name.is_none() {
            self.error(item.span(), "the name of a module in quotes wanted, such as \"zram\"");
        }
        name.map(|name| (Attribute::Module, Value::Module(name.replace('-', "_").into())))
    }

    fn autoload(&mut self, item: Item<'_, '_>) -> Option<(Attribute, Value)> {
        let yes = item.get_ref().as_bool();
        if yes.is_none() {
            self.error(item.span(), "`true` or `false` wanted, without quotes");
        }
        yes.map(|yes| (Attribute::Autoload, Value::Autoload(yes)))
    }

    fn symlink<'t, 'i>(
        &mut self,
        item: Item<'t, 'i>,
        found: &mut Vec<(Attribute, Value, Item<'t, 'i>)>,
    ) {
        let Some(table) = self.table(item, "a table such as `{ add = [\"name\"] }`") else {
            return;
        };
        for (key, value) in table.iter() {
            match &**key.get_ref() {
                "add" => self.links(value, found),
                "priority" => match self.integer(value).filter(|n| LINK_PRIORITY.contains(n)) {
                    Some(number) => {
                        let number = i32::try_from(number).unwrap_or_default();
                        found.push((
                            Attribute::SymlinkPriority,
                            Value::LinkPriority(number),
                            value,
                        ));
                    }
                    None => self.error(value.span(), "a number wanted, at most 1000000"),
                },
                _ => self.unknown(key, &SYMLINK, &[]),
            }
        }
    }

    fn links<'t, 'i>(
        &mut self,
        item: Item<'t, 'i>,
        found: &mut Vec<(Attribute, Value, Item<'t, 'i>)>,
    ) {
        let Some(items) = item.get_ref().as_array() else {
            self.error(item.span(), "a list wanted, such as `[\"name\"]`");
            return;
        };
        for item in items {
            let name = item.get_ref().as_str().unwrap_or_default();
            let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
            let plain = name.len() <= 512 && !name.contains(char::is_control);
            if plain && name.split('/').all(part) {
                found.push((Attribute::Symlink, Value::Link(name.as_bytes().into()), item));
            } else {
                let what = "a name below /dev wanted, without `..`, such as \"mydisk/first\"";
                self.error(item.span(), what);
            }
        }
    }
}

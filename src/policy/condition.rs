//! Stage 4b: the `match` of a rule: what it asks for, and whether a device has it.
#![forbid(unsafe_code)]

use toml::de::DeValue;

use super::Facts;
use super::file::{Item, Reader};
use crate::rules::glob::Pattern;

const MATCH: [&str; 6] = ["devname", "subsystem", "devtype", "sysname", "driver", "property"];
/// Words of the format that this version does not act on: a rule with one would do too much.
const MATCH_LATER: [&str; 4] = ["attr", "parents", "tag", "unless"];

/// A key below `match`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    Devname,
    Subsystem,
    Devtype,
    Sysname,
    Driver,
    Property(Box<[u8]>),
}

impl Field {
    pub(super) fn of<'a>(&self, facts: &Facts<'a>) -> &'a [u8] {
        match self {
            Self::Devname => facts.devname.unwrap_or_default(),
            Self::Subsystem => facts.subsystem,
            Self::Devtype => facts.devtype,
            Self::Sysname => facts.sysname,
            Self::Driver => facts.driver,
            Self::Property(key) => (facts.property)(key).unwrap_or_default(),
        }
    }
}

/// One key of `match` with its values: one of `any` (if there are), and none of `none`.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) field: Field,
    pub(super) any: Vec<Pattern>,
    none: Vec<Pattern>,
}

impl Condition {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        let value = self.field.of(facts);
        let matches = |pattern: &Pattern| pattern.matches(value);
        (self.any.is_empty() || self.any.iter().any(matches)) && !self.none.iter().any(matches)
    }
}

impl Reader<'_> {
    pub(super) fn conditions(&mut self, item: Item<'_, '_>) -> Vec<Condition> {
        let Some(table) = self.table(item, "keys such as `subsystem`") else { return Vec::new() };
        if table.is_empty() {
            self.error(item.span(), "an empty `match` would hold for every device");
        }
        let mut conditions = Vec::new();
        for (key, value) in table.iter() {
            let field = match &**key.get_ref() {
                "devname" => Field::Devname,
                "subsystem" => Field::Subsystem,
                "devtype" => Field::Devtype,
                "sysname" => Field::Sysname,
                "driver" => Field::Driver,
                "property" => {
                    let wanted = "a table such as `{ ID_BUS = \"usb\" }`";
                    let properties = self.table(value, wanted);
                    for (key, value) in properties.into_iter().flat_map(|table| table.iter()) {
                        let name = key.get_ref().as_bytes().into();
                        conditions.extend(self.condition(Field::Property(name), value));
                    }
                    continue;
                }
                _ => {
                    self.unknown(key, &MATCH, &MATCH_LATER);
                    continue;
                }
            };
            conditions.extend(self.condition(field, value));
        }
        conditions
    }

    fn condition(&mut self, field: Field, item: Item<'_, '_>) -> Option<Condition> {
        let mut condition = Condition { field, any: Vec::new(), none: Vec::new() };
        let items: Vec<Item<'_, '_>> = match item.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![item],
        };
        if items.is_empty() {
            self.error(item.span(), "an empty list matches nothing: a pattern wanted");
        }
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                self.error(item.span(), "a pattern in quotes, or a list of them, wanted");
                return None;
            };
            if condition.field == Field::Devname && text.trim_start_matches('!').starts_with('/') {
                self.error(item.span(), "a name below /dev wanted: `net/tun`, not `/dev/net/tun`");
            }
            match text.strip_prefix('!') {
                Some(text) => condition.none.push(Pattern::new(text.as_bytes())),
                None => condition.any.push(Pattern::new(text.as_bytes())),
            }
        }
        Some(condition)
    }
}

//! The outcome of stage 4: what a node shall be, and who wanted it so.
//!
//! Every value carries its source, so that *explain* is a look-up and not a guess.
#![forbid(unsafe_code)]

use crate::builtin::Builtin;
use crate::exec::Outcome;
pub use crate::rules::source::{Attribute, Place, Source};

/// One assignment, in the order in which they were made; the last of an attribute wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub attribute: Attribute,
    pub source: Source,
    /// `=`, `+=`, `-=`.
    pub operation: &'static str,
    /// As text: ids in decimal, modes in octal. Empty if it was not decided before.
    pub old: String,
    pub new: String,
}

/// A link that a device claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Below `/dev`, without `/dev/`.
    pub name: Vec<u8>,
    /// The highest of all claimants owns the link.
    pub priority: i32,
}

/// A device's tags: those of this event, and all that it ever had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub sticky: Vec<Vec<u8>>,
    pub current: Vec<Vec<u8>>,
}

impl Tags {
    /// Takes over what the device had before.
    pub fn remember(&mut self, sticky: &[Vec<u8>]) {
        for tag in sticky.iter().filter(|tag| !tag.is_empty()) {
            if !self.sticky.contains(tag) {
                self.sticky.push(tag.clone());
            }
        }
    }

    fn add(&mut self, tag: &[u8]) {
        for list in [&mut self.sticky, &mut self.current] {
            if !list.iter().any(|known| known == tag) {
                list.push(tag.to_vec());
            }
        }
    }
}

/// An entry of RUN: done when the record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// A builtin; else a program.
    pub builtin: Option<Builtin>,
    /// Filled in, not yet split into words.
    pub command: Vec<u8>,
    pub source: Source,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    Failed(String),
    /// Nothing is written here.
    Skipped,
}

/// What a rule wanted written to an attribute or a sysctl: an absolute path, and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub path: Vec<u8>,
    pub value: Vec<u8>,
    pub outcome: Written,
    pub source: Source,
}

/// What a rule wanted and was not done, since this run does not do such things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub what: Vec<u8>,
    pub source: Source,
}

/// A program that a rule asked, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Filled in, not split into words.
    pub command: Vec<u8>,
    pub outcome: Outcome,
    pub source: Source,
}

/// What a device's node and links shall be. Nothing decided means: leave it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// Permission bits, `0o7777`.
    pub mode: Option<u32>,
    pub links: Vec<Link>,
    /// `OPTIONS="link_priority=…"`, for all links that rules claim.
    pub link_priority: i32,
    pub tags: Tags,
    /// What rules set, in the order in which they first did; names with a dot in front live for this
    /// event only.
    pub properties: Vec<(Vec<u8>, Vec<u8>)>,
    /// Properties of the kernel's that a rule removed.
    pub dropped: Vec<Vec<u8>>,
    pub run: Vec<Run>,
    /// Module and label, the last of a module's holds.
    pub seclabels: Vec<(Vec<u8>, Vec<u8>)>,
    /// The new name of a network interface.
    pub name: Option<Vec<u8>>,
    /// Whether to tell when a writer closes the node; `None`: as before.
    pub watch: Option<bool>,
    /// Whether the record outlives a clean-up.
    pub persist: bool,
    /// In the order in which it was, or would have been, written.
    pub writes: Vec<Write>,
    pub skipped: Vec<Skipped>,
    /// In the order in which they ran.
    pub asked: Vec<Asked>,
    pub steps: Vec<Step>,
}

impl Decision {
    /// Assigns owner, group or mode.
    pub fn set(&mut self, attribute: Attribute, value: u32, source: Source) {
        let slot = match attribute {
            Attribute::Owner => &mut self.owner,
            Attribute::Group => &mut self.group,
            Attribute::Mode => &mut self.mode,
            Attribute::Link | Attribute::Tag | Attribute::Property => return,
        };
        let old = slot.replace(value).map_or_else(String::new, |old| written(attribute, old));
        let new = written(attribute, value);
        self.steps.push(Step { attribute, source, operation: "=", old, new });
    }

    /// Goes back to what the kernel said of owner or group; as udev does for a name that nobody has.
    pub fn unset(&mut self, attribute: Attribute, source: Source) {
        let said = self.explain(attribute).find(|step| step.source == Source::Kernel);
        let said = said.and_then(|step| step.new.parse().ok());
        let slot = match attribute {
            Attribute::Owner => &mut self.owner,
            Attribute::Group => &mut self.group,
            Attribute::Mode | Attribute::Link | Attribute::Tag | Attribute::Property => return,
        };
        let shown = |id: Option<u32>| id.map_or_else(String::new, |id| id.to_string());
        let (old, new) = (shown(std::mem::replace(slot, said)), shown(said));
        if old != new {
            self.steps.push(Step { attribute, source, operation: "=", old, new });
        }
    }

    /// Claims a link; claimed twice, the last priority counts.
    pub fn add_link(&mut self, name: &[u8], priority: i32, source: Source) {
        self.change_links("+=", source, |links| {
            links.retain(|link| link.name != name);
            links.push(Link { name: name.to_vec(), priority });
        });
    }

    /// Gives up a link, or all of them.
    pub fn remove_links(&mut self, name: Option<&[u8]>, source: Source) {
        let operation = if name.is_some() { "-=" } else { "=" };
        self.change_links(operation, source, |links| {
            links.retain(|link| name.is_some_and(|name| link.name != name));
        });
    }

    fn change_links(
        &mut self,
        operation: &'static str,
        source: Source,
        change: impl FnOnce(&mut Vec<Link>),
    ) {
        let names = |links: &[Link]| joined(links.iter().map(|link| link.name.as_slice()));
        let old = names(&self.links);
        change(&mut self.links);
        let new = names(&self.links);
        if old != new || operation == "+=" {
            self.steps.push(Step { attribute: Attribute::Link, source, operation, old, new });
        }
    }

    /// All links that rules claim have the device's priority, which is known when all were applied.
    pub fn settle_links(&mut self) {
        self.links.iter_mut().for_each(|link| link.priority = self.link_priority);
    }

    /// Gives the device a tag (`+=`), takes it away (`-=`), or takes all away and gives it (`=`).
    pub fn change_tags(&mut self, operation: &'static str, tag: Option<&[u8]>, source: Source) {
        let old = joined(self.tags.current.iter().map(Vec::as_slice));
        if operation == "=" {
            self.tags = Tags::default();
        }
        match tag {
            Some(tag) if operation == "-=" => self.tags.current.retain(|known| known != tag),
            Some(tag) => self.tags.add(tag),
            None if operation == "=" => {}
            None => return,
        }
        let new = joined(self.tags.current.iter().map(Vec::as_slice));
        self.steps.push(Step { attribute: Attribute::Tag, source, operation, old, new });
    }

    /// Sets a property, or removes it; `old` is its value before, the rules' or the kernel's.
    pub fn set_property(
        &mut self,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        operation: &'static str,
        source: Source,
    ) {
        let place = self.properties.iter().position(|(known, _)| known == key);
        match (place, new) {
            (Some(place), Some(value)) => self.properties[place].1 = value.to_vec(),
            (None, Some(value)) => self.properties.push((key.to_vec(), value.to_vec())),
            (Some(place), None) => drop(self.properties.remove(place)),
            (None, None) => {}
        }
        self.dropped.retain(|dropped| dropped != key);
        if new.is_none() && old.is_some() {
            self.dropped.push(key.to_vec());
        }
        let shown = |value: Option<&[u8]>| {
            let pair = |value: &[u8]| format!("{}={}", key.escape_ascii(), value.escape_ascii());
            value.map(pair).unwrap_or_default()
        };
        let (old, new) = (shown(old), shown(new));
        self.steps.push(Step { attribute: Attribute::Property, source, operation, old, new });
    }

    /// The properties that are remembered: not those that live for this event only.
    #[must_use]
    pub fn lasting_properties(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let lasting = self.properties.iter().filter(|(key, _)| !key.starts_with(b"."));
        lasting.cloned().collect()
    }

    /// Owner, group or mode.
    #[must_use]
    pub fn value(&self, attribute: Attribute) -> Option<u32> {
        match attribute {
            Attribute::Owner => self.owner,
            Attribute::Group => self.group,
            Attribute::Mode => self.mode,
            Attribute::Link | Attribute::Tag | Attribute::Property => None,
        }
    }

    /// Takes over owner, group or mode from another decision, with who wanted it so.
    pub fn take_from(&mut self, other: &Self, attribute: Attribute) {
        let Some(value) = other.value(attribute) else { return };
        let slot = match attribute {
            Attribute::Owner => &mut self.owner,
            Attribute::Group => &mut self.group,
            Attribute::Mode => &mut self.mode,
            Attribute::Link | Attribute::Tag | Attribute::Property => return,
        };
        *slot = Some(value);
        self.steps.retain(|step| step.attribute != attribute);
        self.steps.extend(other.explain(attribute).cloned());
    }

    /// The steps of one attribute, first to last.
    pub fn explain(&self, attribute: Attribute) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.attribute == attribute)
    }

    /// Who decided an attribute; `None` if nobody did.
    #[must_use]
    pub fn source(&self, attribute: Attribute) -> Option<&Source> {
        self.explain(attribute).last().map(|step| &step.source)
    }

    /// udev's rule: a group that is not root's, and no mode, means 0660.
    pub fn finish(&mut self) {
        if self.mode.is_none() && self.group.is_some_and(|group| group != 0) {
            let source = self.source(Attribute::Group).cloned().unwrap_or(Source::Kernel);
            self.set(Attribute::Mode, 0o660, source);
        }
    }
}

/// Names in the order of the list, separated by spaces.
fn joined<'a>(names: impl Iterator<Item = &'a [u8]>) -> String {
    names.map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// As people write it: modes in octal with a leading zero.
#[must_use]
pub fn written(attribute: Attribute, value: u32) -> String {
    if attribute == Attribute::Mode { format!("{value:04o}") } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(line: u32) -> Source {
        let place = Place { file: "50-x.toml".into(), line, column: 1 };
        Source::Policy { id: "x".into(), place }
    }

    #[test]
    fn the_last_assignment_wins_and_all_are_remembered() {
        let mut decision = Decision::default();
        decision.set(Attribute::Mode, 0o600, Source::Kernel);
        decision.set(Attribute::Mode, 0o660, policy(7));
        assert_eq!(decision.mode, Some(0o660));
        let steps: Vec<_> = decision.explain(Attribute::Mode).collect();
        assert_eq!((steps[1].old.as_str(), steps[1].new.as_str()), ("0600", "0660"));
        assert_eq!(decision.source(Attribute::Mode), Some(&policy(7)));
        assert_eq!(decision.source(Attribute::Owner), None);
    }

    #[test]
    fn a_group_without_mode_gives_the_group_its_access() {
        let mut decision = Decision::default();
        decision.set(Attribute::Group, 6, policy(3));
        decision.finish();
        assert_eq!(decision.mode, Some(0o660));
        assert_eq!(decision.source(Attribute::Mode), Some(&policy(3)));
        let mut root = Decision::default();
        root.set(Attribute::Group, 0, policy(3));
        root.finish();
        assert_eq!(root.mode, None);
    }

    #[test]
    fn links_are_claimed_once() {
        let mut decision = Decision::default();
        decision.add_link(b"a", 0, policy(1));
        decision.add_link(b"b", 0, policy(2));
        decision.add_link(b"a", 5, policy(3));
        assert_eq!(decision.links.len(), 2);
        assert_eq!(decision.links[1].priority, 5);
        assert_eq!(decision.steps[2].old, "a b");
    }
}

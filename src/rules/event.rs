//! Stage 4: the state of one event while rules are applied to it.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::builtin::{Builtin, Pair};
use crate::device::Device;
use crate::device::record::Record;
use crate::rules::decision::{Decision, Place, Source};
use crate::rules::names::Names;
use crate::rules::rule::{RuleFile, Token};
use crate::rules::world::World;
use crate::uevent::Action;

/// `OPTIONS="string_escape=…"`, for one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Escape {
    #[default]
    Unset,
    None,
    Replace,
}

/// What `:=` has closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Closed {
    pub(super) owner: bool,
    pub(super) group: bool,
    pub(super) mode: bool,
    pub(super) name: bool,
    pub(super) symlink: bool,
    pub(super) run: bool,
    pub(super) watch: bool,
}

/// Where a search for a parent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nowhere,
    /// Steps upwards; 0 is the event's device.
    At(usize),
}

/// One event's device, and what rules have made of it so far.
#[derive(Debug)]
pub struct Event<'a> {
    pub(super) device: &'a Device,
    pub(super) world: &'a dyn World,
    pub(super) names: &'a Names,
    /// The record before this event.
    pub(super) old: Option<&'a Record>,
    pub(super) decision: Decision,
    /// The kernel's and the rules', in the order in which they came.
    pub(super) properties: Vec<Pair>,
    pub(super) found: Found,
    /// What the last PROGRAM said.
    pub(super) result: Vec<u8>,
    pub(super) escape: Escape,
    pub(super) closed: Closed,
    /// What builtins that run once have said.
    pub(super) ran: HashMap<Builtin, bool>,
    /// The rule's file.
    pub(super) file: Arc<str>,
    imported_devtype: bool,
}

impl<'a> Event<'a> {
    /// An event to be decided. `old` is the device's record; of a device that goes away, its
    /// properties, links and tags are the event's, else its tags only.
    #[must_use]
    pub fn new(
        device: &'a Device,
        world: &'a dyn World,
        names: &'a Names,
        old: Option<&'a Record>,
        decision: Decision,
    ) -> Self {
        let uevent = device.uevent();
        let mut properties: Vec<Pair> =
            uevent.properties().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        make_absolute(device, &mut properties);
        let mut event = Self {
            device,
            world,
            names,
            old,
            decision,
            properties,
            found: Found::Nowhere,
            result: Vec::new(),
            escape: Escape::Unset,
            closed: Closed::default(),
            ran: HashMap::new(),
            file: Arc::from(""),
            imported_devtype: false,
        };
        let Some(old) = old else { return event };
        event.decision.tags.remember(&old.sticky_tags);
        if uevent.action() == Action::Remove {
            event.take_back(old);
        }
        event
    }

    /// Of a device that goes away, everything that was remembered counts.
    fn take_back(&mut self, old: &Record) {
        for (key, value) in &old.properties {
            self.put(key, value.clone());
        }
        for link in &old.links {
            self.decision.add_link(link, old.link_priority, Source::Kernel);
        }
        self.decision.tags.current.clone_from(&old.current_tags);
        if let Some(usec) = old.initialized_usec {
            self.put(b"USEC_INITIALIZED", usec.to_string().into_bytes());
        }
    }

    /// The tags that TAG and TAGS see at the event's device: all that it ever had, as it was made from
    /// a message; of a device that goes away and was remembered, the current ones.
    pub(super) fn tags_to_match(&self) -> impl Iterator<Item = &[u8]> {
        let removed = self.device.uevent().action() == Action::Remove;
        let remembered = removed && self.old.is_some_and(|old| !old.is_empty());
        let tags = &self.decision.tags;
        let tags = if remembered { &tags.current } else { &tags.sticky };
        tags.iter().map(Vec::as_slice)
    }

    /// What was decided.
    #[must_use]
    pub fn finish(mut self) -> Decision {
        self.decision.settle_links();
        self.decision
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.imported_devtype |= key == b"DEVTYPE";
        match self.properties.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.properties.push((key.to_vec(), value)),
        }
    }

    /// A property as the rules see it now.
    pub(super) fn property(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let tags = &self.decision.tags;
        let own = match key {
            b"DEVLINKS" => devlinks(self.decision.links.iter().map(|link| link.name.as_slice())),
            b"TAGS" => listed(&tags.sticky),
            b"CURRENT_TAGS" => listed(&tags.current),
            _ => None,
        };
        // what was imported under such a name is seen as long as there is none of its own
        let known = || self.properties.iter().find(|(known, _)| known == key);
        own.map(Cow::Owned).or_else(|| known().map(|(_, value)| Cow::Borrowed(value.as_slice())))
    }

    /// All properties: what programs get as their environment.
    #[must_use]
    pub fn properties(&self) -> Vec<Pair> {
        let mut all = self.properties.clone();
        for key in [b"DEVLINKS".as_slice(), b"TAGS", b"CURRENT_TAGS"] {
            let Some(value) = self.property(key).map(Cow::into_owned) else { continue };
            all.retain(|(known, _)| known != key);
            all.push((key.to_vec(), value));
        }
        all
    }

    /// Sets a property, or removes it; `operation` is how the rule says that.
    pub(super) fn set(&mut self, key: &[u8], value: Option<Vec<u8>>, token: &Token) {
        let source = self.source(token);
        let operation = token.operator.name();
        let old = self.properties.iter().find(|(known, _)| known == key);
        let old = old.map(|(_, value)| value.clone());
        self.decision.set_property(key, old.as_deref(), value.as_deref(), operation, source);
        match value {
            Some(value) => self.put(key, value),
            None => self.properties.retain(|(known, _)| known != key),
        }
    }

    /// The rules that follow are this file's.
    pub(super) fn enter(&mut self, file: &RuleFile) {
        if !Arc::ptr_eq(&self.file, &file.file) {
            self.file = file.file.clone();
        }
    }

    /// Whether an import gave DEVTYPE another value than it had when the event began.
    pub(super) fn devtype_is_not(&self, began_as: &[u8]) -> bool {
        self.imported_devtype && self.property(b"DEVTYPE").as_deref() != Some(began_as)
    }

    /// The file and line that a token stands in.
    pub(super) fn source(&self, token: &Token) -> Source {
        let file = self.file.clone();
        Source::Rule(Place { file, line: token.line, column: token.column })
    }

    /// The device that is so many steps above; 0 is the device itself and gives `None` as well.
    pub(super) fn above(&self, steps: usize) -> Option<&'a Device> {
        let up = std::iter::successors(Some(self.device), |device| device.parent().map(Rc::as_ref));
        up.skip(1).nth(steps.checked_sub(1)?)
    }

    /// The device above that a search found, if that is not the event's own.
    pub(super) fn found_above(&self) -> Option<&'a Device> {
        match self.found {
            Found::Nowhere => None,
            Found::At(steps) => self.above(steps),
        }
    }
}

/// Links as udev lists them: absolute, separated by spaces.
fn devlinks<'a>(links: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let all: Vec<_> = links.map(|link| [b"/dev/", link].concat()).collect();
    (!all.is_empty()).then(|| all.join(&b' '))
}

/// All that is known of a device outside of an event: what sysfs says, and its record.
pub(super) fn remembered(device: &Device, record: Option<&Record>) -> Vec<Pair> {
    let of_event = |key: &[u8]| matches!(key, b"ACTION" | b"SEQNUM" | b"SYNTH_UUID");
    let said = device.uevent().properties().filter(|(key, _)| !of_event(key));
    let mut all: Vec<Pair> = said.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    make_absolute(device, &mut all);
    let Some(record) = record else { return all };
    let own = [
        (b"DEVLINKS".as_slice(), devlinks(record.links.iter().map(Vec::as_slice))),
        (b"TAGS", listed(&record.sticky_tags)),
        (b"CURRENT_TAGS", listed(&record.current_tags)),
        (b"USEC_INITIALIZED", record.initialized_usec.map(|usec| usec.to_string().into_bytes())),
    ];
    all.extend(own.into_iter().filter_map(|(key, value)| Some((key.to_vec(), value?))));
    for (key, value) in &record.properties {
        all.retain(|(known, _)| known != key);
        all.push((key.clone(), value.clone()));
    }
    all
}

/// The name of the node gets `/dev/` in front.
fn make_absolute(device: &Device, properties: &mut [Pair]) {
    if let (Some(name), Some(pair)) =
        (device.devname(), properties.iter_mut().find(|(key, _)| key == b"DEVNAME"))
    {
        pair.1 = [b"/dev/", name].concat();
    }
}

/// `:a:b:`, as udev writes tags.
fn listed(tags: &[Vec<u8>]) -> Option<Vec<u8>> {
    (!tags.is_empty()).then(|| [b":", tags.join(&b':').as_slice(), b":"].concat())
}

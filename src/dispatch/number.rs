//! Stage 1 in dispatch: an event as it is heard in, the number of a name that waits for it out.
//!
//! Who opened the name goes on then. The event's own locks, programs and probes are among those who open
//! it: without the number they would wait for the event that they are part of.

use tracing::warn;

use super::Dispatch;
use super::names;
use super::publish::Publisher;
use super::table::Table;
use crate::device::DeviceId;
use crate::map::layout::E_LIVE;
use crate::map::{Kind, Node};
use crate::uevent::{Action, Uevent};

impl Dispatch {
    /// Before an event waits, and again before it is handled.
    pub(super) fn number_heard(&mut self, uevent: &Uevent) {
        if let Some(problem) = self.publisher.number(uevent) {
            let devpath = uevent.devpath().escape_ascii();
            warn!(seqnum = uevent.seqnum(), "{devpath}: {problem}");
        }
    }
}

impl Publisher {
    /// Gives a name without a number that of its device; owner and mode stay what they are.
    pub(super) fn number(&mut self, uevent: &Uevent) -> Option<String> {
        let (name, devnum) = uevent.devname().zip(uevent.devnum())?;
        let waits = |node: &Node| matches!(node.kind, Kind::Pending { .. });
        if uevent.action() == Action::Remove || !self.map.get(name).is_some_and(waits) {
            return None;
        }
        let now = self.map.now(name)?;
        let origin = self.static_name(name).map_or(0, names::origin);
        let node = Node { kind: Kind::of(devnum), flags: E_LIVE | origin, ..now };
        match self.map.upsert(name, &node) {
            Ok(_) => {
                self.numbered.insert(name.into(), DeviceId::of(uevent));
                None
            }
            Err(error) => Some(format!("map: `{}`: {error}", name.escape_ascii())),
        }
    }

    /// The device of an event was gone before it was handled: its name waits again, unless another has it.
    pub(super) fn number_is_void(&mut self, uevent: &Uevent, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(name) = uevent.devname()
            && self.numbered.remove(name).is_some()
            && table.named(name).is_none()
        {
            self.give_back(name, &mut problems);
        }
        problems
    }

    /// A device is gone of which no event was handled: a name that had its number waits again.
    pub(super) fn never_met(&mut self, id: &DeviceId) -> Vec<String> {
        let mut problems = Vec::new();
        let its = self.numbered.iter().filter(|(_, of)| *of == id);
        let names: Vec<Box<[u8]>> = its.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.give_back(name, &mut problems));
        problems
    }
}

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
use crate::map::control::EV_ATTRIBUTES;
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
        let now = self
            .map
            .get(name)
            .filter(|now| uevent.action() != Action::Remove && waits(now))?
            .clone();
        let origin = self.static_name(name).map_or(0, names::origin);
        let node = Node { kind: Kind::of(devnum), flags: E_LIVE | origin, ..now };
        match self.map.upsert_keeping(name, &node, EV_ATTRIBUTES) {
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

#[cfg(test)]
mod tests {
    use super::super::tests::Rig;
    use super::*;
    use crate::map::layout::E_MODULE;
    use crate::uevent::Origin;

    /// A name that waits has the number of a device whose event came to nothing: its disk was locked too long.
    fn numbered(devpath: &[u8]) -> Rig {
        let mut rig = Rig::new(&[1]);
        let kind = Kind::Pending { block: false, alias: b"probe".as_slice().into() };
        let waits = Node { kind, mode: 0o640, uid: 7, gid: 8, flags: E_MODULE };
        rig.dispatch.publisher.map.upsert(b"late", &waits).unwrap();
        rig.dispatch.take(event(Action::Add, devpath));
        let job = rig.dispatch.next_job().unwrap();
        rig.dispatch.over(job);
        assert!(rig.dispatch.queue.is_idle());
        assert!(is_numbered(&rig));
        rig
    }

    fn event(action: Action, devpath: &[u8]) -> Uevent {
        let pairs: [(&[u8], &[u8]); 4] =
            [(b"SUBSYSTEM", b"misc"), (b"MAJOR", b"10"), (b"MINOR", b"9"), (b"DEVNAME", b"late")];
        Uevent::synthetic(Origin::Kernel, action, devpath, 9, &pairs)
    }

    fn is_numbered(rig: &Rig) -> bool {
        let node = rig.dispatch.publisher.map.get(b"late");
        node.is_some_and(|node| node.kind.devnum().is_some())
    }

    #[tokio::test]
    async fn a_number_ends_with_its_device_though_no_event_of_it_was_handled() {
        let mut rig = numbered(b"/devices/late");
        rig.dispatch.take(event(Action::Remove, b"/devices/late"));
        while !rig.dispatch.queue.is_idle() {
            rig.turn().await;
        }
        assert!(!is_numbered(&rig));
        assert!(rig.dispatch.publisher.numbered.is_empty());
    }

    #[tokio::test]
    async fn a_number_whose_devices_end_was_lost_ends_with_the_next_walk() {
        let mut rig = numbered(b"/devices/late");
        rig.walk().await;
        assert!(!is_numbered(&rig));
        assert!(rig.dispatch.publisher.numbered.is_empty());
    }
}

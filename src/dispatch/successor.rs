//! Stage 6: a device that came in another one's place, and nobody told that the first went: uevents were lost,
//! or no daemon ran. In devtmpfs it has a node of its own; in the map it is given one.

use super::Dispatch;
use super::known::Known;
use super::publish::Publisher;
use crate::device::DeviceId;
use crate::map::Kind;
use crate::nodes::devtmpfs::{KERNEL_DEFAULT, decided};

impl Dispatch {
    /// Whether another device had this one's id last. Of one that sysfs no longer has, nobody knows which it
    /// was: its removal is on the way.
    pub(super) fn is_successor(&self, known: &Known) -> bool {
        match self.table.get(&known.id) {
            Some(old) => known.instance != 0 && old.instance != known.instance,
            None => {
                let earlier = self.instances.as_ref().filter(|_| has_node(known));
                earlier.is_some_and(|earlier| earlier.is_anothers(&known.id, known.instance))
            }
        }
    }

    /// Remembers whose node it is, for the next run; to be called when nothing of another one's is left, and
    /// before there is anything of this one's. `old` is what was known.
    pub(super) fn remember(&self, known: &Known, old: Option<&Known>) -> Option<String> {
        let same = old.is_some_and(|old| old.instance == known.instance);
        let instances = self.instances.as_ref().filter(|_| !same && has_node(known))?;
        // where the map is the daemon's alone, it ends with it
        let done = match known.instance != 0 && self.publisher.may_outlive_us() {
            true => instances.keep(&known.id, known.instance),
            false => instances.forget(&known.id),
        };
        done.err().map(|error| format!("cannot remember which device it is: {error}"))
    }

    /// The map outlives the daemon from now on.
    pub(super) fn remember_all(&self) -> Vec<String> {
        self.table.iter().filter_map(|known| self.remember(known, None)).collect()
    }

    /// The device is gone, and its node.
    pub(super) fn forget_instance(&self, id: &DeviceId) -> Option<String> {
        let instances = self.instances.as_ref().filter(|_| id.devnum().is_some())?;
        let error = instances.forget(id).err()?;
        Some(format!("cannot forget which device it was: {error}"))
    }
}

impl Publisher {
    /// Ends what the name was, and with it ACL, owner and mode: what nobody decided is the kernel's default.
    pub(super) fn begin_anew(&mut self, known: &mut Known) {
        let Some(name) = known.devname() else { return };
        if self.map.get(name).is_some_and(|node| !matches!(node.kind, Kind::Pending { .. })) {
            self.map.remove(name);
        }
        if self.is_served() && self.made_in().is_none() {
            // what the worker has looked at was the old one
            known.permissions = decided(&known.decision, KERNEL_DEFAULT);
        }
    }
}

fn has_node(known: &Known) -> bool {
    known.devname().is_some() && known.devnum().is_some()
}

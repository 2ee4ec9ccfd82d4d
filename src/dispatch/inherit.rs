//! Stage 6: our map takes the place of another run's on /dev. What is there goes over into ours before, so that
//! no name is missing for a moment, however long the walk through sysfs takes; what that one said of a device
//! which is gone goes to no other.

use tracing::warn;

use super::Dispatch;
use super::names;
use super::publish::Publisher;
use crate::device::DeviceId;
use crate::map::layout::E_LIVE;
use crate::map::{Kind, Node};
use crate::nodes::devtmpfs::KERNEL_DEFAULT;
use crate::nodes::{Permissions, disk, links};
use crate::switch::inherit::Left;
use crate::uevent::Devnum;

/// A node that is the same device's in both maps.
pub(super) type Inherited = (Vec<u8>, Devnum);

impl Dispatch {
    /// Enters the nodes of devices that exist, each with its links; owner and mode go over unless they were
    /// another device's. Tells which nodes are the same device's.
    pub(super) fn inherit(&mut self, left: &Left) -> Vec<Inherited> {
        let mut inherited = Vec::new();
        let mut problems = Vec::new();
        for (name, devnum, permissions) in left.devices(&self.config.sysfs) {
            let id = DeviceId::of_number(devnum);
            let known = self.table.named(name);
            let instance = known.map_or_else(|| self.instance_at(devnum), |known| known.instance);
            let kept = self.instances.as_ref();
            let anothers = kept.is_some_and(|kept| kept.is_anothers(&id, instance));
            if known.is_some_and(|known| known.id != id || anothers) {
                // ours has a later device's node
                continue;
            }
            if known.is_none() && self.publisher.fixed.walked {
                self.publisher.numbered.insert(name.into(), id.clone());
            }
            let permissions = if anothers { KERNEL_DEFAULT } else { permissions };
            problems.extend(self.publisher.carry_over(name, devnum, permissions));
            if !anothers {
                problems.extend(self.publisher.carry_links(name, &id));
                inherited.push((name.to_vec(), devnum));
            }
        }
        problems.into_iter().for_each(|problem| warn!("{problem}"));
        inherited
    }

    /// 0 if there is no such device.
    fn instance_at(&self, devnum: Devnum) -> u64 {
        let place = [b"/dev/", &*links::by_number(devnum)].concat();
        self.sysfs.instance(&place).unwrap_or(0)
    }

    /// What was on /dev until now is ours: access lists are given again, and who had no node there when its
    /// event was handled is told of again.
    pub(super) fn replaced(&mut self, left: &Left, inherited: &[Inherited]) {
        let named = inherited.iter().map(|(name, devnum)| (&**name, *devnum));
        let mut problems = left.give_lists(&self.config.dev, named);
        for known in self.table.iter() {
            let Some((name, devnum)) = known.devname().zip(known.devnum()) else { continue };
            let devpath = known.uevent.devpath();
            if left.of(name, devnum).is_none()
                && let Err(error) = disk::tell(&self.sysfs, devpath)
            {
                problems.push(format!("{}: {error}", devpath.escape_ascii()));
            }
        }
        problems.into_iter().for_each(|problem| warn!("{problem}"));
    }

    /// After a walk: names that have a number of a device that nobody will tell of any more wait again.
    pub(super) fn void_numbers(&mut self) {
        let void = |name: &[u8], id: &DeviceId| {
            let there = |devnum| self.instance_at(devnum) != 0;
            self.table.named(name).is_none()
                && !self.queue.concerns(id.as_bytes())
                && !id.devnum().is_some_and(there)
        };
        let numbered = self.publisher.numbered.iter().filter(|(name, id)| void(name, id));
        let void: Vec<Box<[u8]>> = numbered.map(|(name, _)| name.clone()).collect();
        let mut problems = Vec::new();
        void.iter().for_each(|name| self.publisher.give_back(name, &mut problems));
        problems.into_iter().for_each(|problem| warn!("{problem}"));
    }
}

impl Publisher {
    /// A live node as it is in the other map.
    fn carry_over(&mut self, name: &[u8], devnum: Devnum, permissions: Permissions) -> Vec<String> {
        let mut problems = Vec::new();
        let Permissions { uid, gid, mode } = permissions;
        let flags = E_LIVE | self.static_name(name).map_or(0, names::origin);
        let node = Node { kind: Kind::of(devnum), mode, uid, gid, flags };
        if let Err(error) = self.map.upsert(name, &node) {
            problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
        }
        self.link(&links::by_number(devnum), Some(name), &mut problems);
        problems
    }

    /// The links that the device owns.
    fn carry_links(&mut self, name: &[u8], id: &DeviceId) -> Vec<String> {
        let mut problems = Vec::new();
        let owned: Vec<Vec<u8>> = self.claims.owned(id).map(<[u8]>::to_vec).collect();
        for link in owned {
            // a node's name is the node's
            if self.map.get(&link).is_none_or(|there| there.flags & E_LIVE == 0) {
                self.link(&link, Some(name), &mut problems);
            }
        }
        problems
    }
}

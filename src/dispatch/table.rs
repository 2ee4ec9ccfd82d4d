//! The devices that are known, by id, by devpath and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::known::Known;
use crate::device::DeviceId;
use crate::nodes::claims::Claims;

/// Every look-up costs the same however many devices there are.
#[derive(Debug, Default)]
pub(super) struct Table {
    devices: BTreeMap<DeviceId, Arc<Known>>,
    paths: HashMap<Box<[u8]>, DeviceId>,
    names: HashMap<Box<[u8]>, DeviceId>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn get(&self, id: &DeviceId) -> Option<&Arc<Known>> {
        self.devices.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.devices.values()
    }

    /// The device that an event said to be at this devpath last.
    pub(super) fn at(&self, devpath: &[u8]) -> Option<&Arc<Known>> {
        self.devices.get(self.paths.get(devpath)?)
    }

    /// The device whose node has this name below `/dev`.
    pub(super) fn named(&self, devname: &[u8]) -> Option<&Arc<Known>> {
        self.devices.get(self.names.get(devname)?)
    }

    /// Takes a device in, and returns what was known of it.
    pub(super) fn insert(&mut self, known: Arc<Known>) -> Option<Arc<Known>> {
        let id = known.id.clone();
        let old = self.devices.insert(id.clone(), known.clone());
        if let Some(old) = &old {
            if keys(old) == keys(&known)
                && self.paths.get(known.uevent.devpath()) == Some(&id)
                && known.devname().is_none_or(|name| self.names.get(name) == Some(&id))
            {
                return Some(old.clone());
            }
            self.forget_keys(old);
        }
        self.paths.insert(known.uevent.devpath().into(), id.clone());
        if let (Some(name), Some(_)) = (known.devname(), known.devnum()) {
            self.names.insert(name.into(), id);
        }
        old
    }

    pub(super) fn remove(&mut self, id: &DeviceId) -> Option<Arc<Known>> {
        let old = self.devices.remove(id)?;
        self.forget_keys(&old);
        Some(old)
    }

    /// Path and name may belong to a later device by now.
    fn forget_keys(&mut self, old: &Known) {
        let path = old.uevent.devpath();
        if self.paths.get(path) == Some(&old.id) {
            self.paths.remove(path);
        }
        if let Some(name) = old.devname()
            && self.names.get(name) == Some(&old.id)
        {
            self.names.remove(name);
        }
    }

    /// By node, link, syspath, devpath or id: `/dev/null`, `null`, `disk/by-id/x`, `/sys/…`, `c1:3`.
    pub(super) fn resolve(&self, text: &[u8], claims: &Claims) -> Option<&Arc<Known>> {
        let devpath = text.strip_prefix(b"/sys").filter(|rest| rest.starts_with(b"/"));
        if let Some(known) = self.at(devpath.unwrap_or(text)) {
            return Some(known);
        }
        let name = text.strip_prefix(b"/dev/").unwrap_or(text);
        if let Some(known) = self.named(name) {
            return Some(known);
        }
        if let Some(known) = claims.owner(name).and_then(|id| self.devices.get(id)) {
            return Some(known);
        }
        if let Some(number) =
            [b"char/".as_slice(), b"block/"].iter().zip(["c", "b"]).find_map(|(folder, kind)| {
                Some([kind.as_bytes(), name.strip_prefix(*folder)?].concat())
            })
        {
            return self.devices.get(&DeviceId::from_bytes(&number)?);
        }
        self.devices.get(&DeviceId::from_bytes(text)?)
    }
}

/// By what a device is found, beside its id.
fn keys(known: &Known) -> (&[u8], Option<&[u8]>, bool) {
    (known.uevent.devpath(), known.devname(), known.devnum().is_some())
}

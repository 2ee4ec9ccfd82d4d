//! Who owns a link that several devices claim: the highest priority, at equal priority the device
//! that was handled last (as systemd-udevd 252 decides).
//!
//! A claim costs O(log n) in the number of the link's claimants, and nothing else.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use crate::device::DeviceId;
use crate::rules::decision::Link;

/// What happened to one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// Below `/dev`.
    pub name: Vec<u8>,
    /// The device that owns it now; `None`: the link goes.
    pub owner: Option<DeviceId>,
}

/// Priority, then the order of handling: the greatest key owns the link.
type Rank = (i32, u64);

/// All claims of all devices.
#[derive(Debug, Default)]
pub struct Claims {
    links: HashMap<Vec<u8>, BTreeMap<Rank, DeviceId>>,
    devices: HashMap<DeviceId, Vec<(Vec<u8>, Rank)>>,
    handled: u64,
}

impl Claims {
    /// Replaces a device's claims and returns the links whose owner is now another one.
    pub fn update(&mut self, id: &DeviceId, links: &[Link]) -> Vec<LinkChange> {
        if links.is_empty() && !self.devices.contains_key(id) {
            return Vec::new();
        }
        self.handled += 1;
        let before = self.devices.remove(id).unwrap_or_default();
        let mut owners: BTreeMap<Vec<u8>, Option<DeviceId>> = BTreeMap::new();
        for (name, rank) in before {
            owners.insert(name.clone(), self.owner(&name).cloned());
            if let Some(claimants) = self.links.get_mut(&name) {
                claimants.remove(&rank);
            }
        }
        let mut claimed = Vec::with_capacity(links.len());
        for link in links {
            owners.entry(link.name.clone()).or_insert_with(|| self.owner(&link.name).cloned());
            let rank = (link.priority, self.handled);
            self.links.entry(link.name.clone()).or_default().insert(rank, id.clone());
            claimed.push((link.name.clone(), rank));
        }
        if !claimed.is_empty() {
            self.devices.insert(id.clone(), claimed);
        }
        owners.into_iter().filter_map(|(name, old)| self.changed(name, old)).collect()
    }

    fn changed(&mut self, name: Vec<u8>, old: Option<DeviceId>) -> Option<LinkChange> {
        let owner = self.owner(&name).cloned();
        if owner.is_none() {
            self.links.remove(&name);
        }
        (owner != old).then_some(LinkChange { name, owner })
    }

    /// The device that owns a link.
    #[must_use]
    pub fn owner(&self, name: &[u8]) -> Option<&DeviceId> {
        self.links.get(name)?.last_key_value().map(|(_, id)| id)
    }

    /// The links that a device owns at the moment.
    pub fn owned<'a>(&'a self, id: &'a DeviceId) -> impl Iterator<Item = &'a [u8]> {
        let claimed = self.devices.get(id).into_iter().flatten();
        claimed.map(|(name, _)| name.as_slice()).filter(move |name| self.owner(name) == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> DeviceId {
        DeviceId::from_bytes(format!("b8:{n}").as_bytes()).unwrap()
    }

    fn link(priority: i32) -> Vec<Link> {
        vec![Link { name: b"disk/by-label/x".to_vec(), priority }]
    }

    #[test]
    fn the_highest_priority_owns_the_link_and_the_last_at_equal_priority() {
        let mut claims = Claims::default();
        assert_eq!(claims.update(&id(1), &link(0))[0].owner, Some(id(1)));
        assert_eq!(claims.update(&id(2), &link(10))[0].owner, Some(id(2)));
        assert_eq!(claims.update(&id(3), &link(0)), []);
        assert_eq!(claims.update(&id(4), &link(10))[0].owner, Some(id(4)));
        assert_eq!(claims.update(&id(4), &[])[0].owner, Some(id(2)));
        assert_eq!(claims.update(&id(2), &[])[0].owner, Some(id(3)));
    }

    #[test]
    fn an_event_that_changes_nothing_reports_nothing() {
        let mut claims = Claims::default();
        claims.update(&id(1), &link(0));
        assert_eq!(claims.update(&id(1), &link(0)), []);
        assert_eq!(claims.update(&id(9), &[]), []);
    }

    #[test]
    fn nothing_remains_of_claims_that_were_given_up() {
        let mut claims = Claims::default();
        for n in 0..5000 {
            claims.update(&id(n), &link(0));
        }
        assert_eq!(claims.owner(b"disk/by-label/x"), Some(&id(4999)));
        for n in 0..5000 {
            claims.update(&id(n), &[]);
        }
        assert!(claims.links.is_empty() && claims.devices.is_empty());
    }
}

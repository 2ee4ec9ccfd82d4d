//! Who owns a link that several devices claim, as systemd-udevd 252 decides: the highest priority, and of
//! equals the device that was handled last; when one gives the link up, the one that came last.
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

/// Priority, then the order in which the claims were made.
type Rank = (i32, u64);

#[derive(Debug)]
struct Contest {
    claims: BTreeMap<Rank, DeviceId>,
    /// Among the highest priority, but not always the last of it.
    owner: DeviceId,
}

/// Why a device's claims are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The kernel told of the device: it takes what it may have.
    Event,
    /// We look at it anew: a claim that it has already takes nothing from its equals.
    Again,
}

/// All claims of all devices.
#[derive(Debug, Default)]
pub struct Claims {
    links: HashMap<Vec<u8>, Contest>,
    devices: HashMap<DeviceId, Vec<(Vec<u8>, Rank)>>,
    /// Claims that were ever made.
    made: u64,
}

impl Claims {
    /// Replaces a device's claims and returns the links whose owner is now another one.
    pub fn update(&mut self, id: &DeviceId, links: &[Link], why: Why) -> Vec<LinkChange> {
        let before = self.devices.remove(id).unwrap_or_default();
        let mut changes = Vec::new();
        for (name, rank) in &before {
            if links.iter().all(|link| link.name != *name) {
                changes.extend(self.release(name, *rank));
            }
        }
        let mut claimed = Vec::with_capacity(links.len());
        for Link { name, priority } in links {
            let old = before.iter().find(|(known, _)| known == name).map(|(_, rank)| *rank);
            let same = old.filter(|rank| rank.0 == *priority);
            let rank = same.unwrap_or_else(|| {
                self.made += 1;
                (*priority, self.made)
            });
            if same.is_none() || why == Why::Event {
                changes.extend(self.claim(id, name, old, rank));
            }
            claimed.push((name.clone(), rank));
        }
        if !claimed.is_empty() {
            self.devices.insert(id.clone(), claimed);
        }
        changes
    }

    fn claim(
        &mut self,
        id: &DeviceId,
        name: &[u8],
        old: Option<Rank>,
        rank: Rank,
    ) -> Option<LinkChange> {
        let change =
            |owner: &DeviceId| LinkChange { name: name.to_vec(), owner: Some(owner.clone()) };
        let Some(contest) = self.links.get_mut(name) else {
            let claims = BTreeMap::from([(rank, id.clone())]);
            self.links.insert(name.to_vec(), Contest { claims, owner: id.clone() });
            return Some(change(id));
        };
        if old != Some(rank) {
            old.map(|old| contest.claims.remove(&old));
            contest.claims.insert(rank, id.clone());
        }
        let best = contest.claims.last_key_value();
        let owner = best.filter(|(top, _)| top.0 > rank.0).map_or(id, |(_, best)| best).clone();
        let before = std::mem::replace(&mut contest.owner, owner);
        (before != contest.owner).then(|| change(&contest.owner))
    }

    fn release(&mut self, name: &[u8], rank: Rank) -> Option<LinkChange> {
        let contest = self.links.get_mut(name)?;
        contest.claims.remove(&rank);
        let owner = contest.claims.last_key_value().map(|(_, id)| id.clone());
        let changed = match &owner {
            Some(best) if contest.owner == *best => false,
            Some(best) => {
                contest.owner = best.clone();
                true
            }
            None => self.links.remove(name).is_some(),
        };
        changed.then(|| LinkChange { name: name.to_vec(), owner })
    }

    /// Takes in what an earlier run left: the claims on a link in the order in which they were made, and
    /// which of them the link leads to.
    pub fn restore(&mut self, name: &[u8], claims: &[(DeviceId, i32)], owner: Option<&DeviceId>) {
        for (id, priority) in claims {
            self.made += 1;
            let rank = (*priority, self.made);
            self.claim(id, name, None, rank);
            self.devices.entry(id.clone()).or_default().push((name.to_vec(), rank));
        }
        let Some(contest) = self.links.get_mut(name) else { return };
        let Some(top) = contest.claims.last_key_value().map(|((top, _), _)| *top) else { return };
        let claim = claims.iter().find(|(id, priority)| *priority == top && owner == Some(id));
        if let Some((id, _)) = claim {
            contest.owner = id.clone();
        }
    }

    /// The device that owns a link.
    #[must_use]
    pub fn owner(&self, name: &[u8]) -> Option<&DeviceId> {
        self.links.get(name).map(|contest| &contest.owner)
    }

    /// The links that a device owns at the moment.
    pub fn owned<'a>(&'a self, id: &'a DeviceId) -> impl Iterator<Item = &'a [u8]> {
        self.claimed(id).filter(move |name| self.owner(name) == Some(id))
    }

    /// The links that a device claims.
    pub fn claimed<'a>(&'a self, id: &DeviceId) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.devices.get(id).into_iter().flatten().map(|(name, _)| name.as_slice())
    }

    /// Every device that claims a link.
    pub fn claimants(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.keys()
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

    fn owner(claims: &Claims) -> Option<&DeviceId> {
        claims.owner(b"disk/by-label/x")
    }

    #[test]
    fn the_highest_priority_owns_the_link_and_the_last_at_equal_priority() {
        let mut claims = Claims::default();
        assert_eq!(claims.update(&id(1), &link(0), Why::Event)[0].owner, Some(id(1)));
        assert_eq!(claims.update(&id(2), &link(10), Why::Event)[0].owner, Some(id(2)));
        assert_eq!(claims.update(&id(3), &link(0), Why::Event), []);
        assert_eq!(claims.update(&id(4), &link(10), Why::Event)[0].owner, Some(id(4)));
        assert_eq!(claims.update(&id(4), &[], Why::Event)[0].owner, Some(id(2)));
        assert_eq!(claims.update(&id(2), &[], Why::Event)[0].owner, Some(id(3)));
    }

    #[test]
    fn who_is_handled_again_takes_the_link_and_a_release_gives_it_to_who_came_last() {
        let mut claims = Claims::default();
        for n in 1..4 {
            claims.update(&id(n), &link(0), Why::Event);
        }
        assert_eq!(claims.update(&id(1), &link(0), Why::Event)[0].owner, Some(id(1)));
        assert_eq!(claims.update(&id(2), &[], Why::Event)[0].owner, Some(id(3)));
        assert_eq!(claims.update(&id(1), &link(0), Why::Again), []);
        assert_eq!(claims.update(&id(1), &link(1), Why::Again)[0].owner, Some(id(1)));
        assert_eq!(claims.update(&id(1), &link(-1), Why::Event)[0].owner, Some(id(3)));
    }

    #[test]
    fn an_event_that_changes_nothing_reports_nothing() {
        let mut claims = Claims::default();
        claims.update(&id(1), &link(0), Why::Event);
        assert_eq!(claims.update(&id(1), &link(0), Why::Event), []);
        assert_eq!(claims.update(&id(9), &[], Why::Event), []);
    }

    #[test]
    fn what_an_earlier_run_left_is_as_it_was() {
        let mut claims = Claims::default();
        let left = [(id(1), 5), (id(2), 0), (id(3), 5)];
        claims.restore(b"disk/by-label/x", &left, Some(&id(1)));
        assert_eq!(owner(&claims), Some(&id(1)));
        assert_eq!(claims.update(&id(3), &link(5), Why::Again), []);
        assert_eq!(claims.update(&id(1), &[], Why::Event)[0].owner, Some(id(3)));
        let mut claims = Claims::default();
        claims.restore(b"disk/by-label/x", &left, Some(&id(2)));
        assert_eq!(owner(&claims), Some(&id(3)), "a link that leads to a lower one is wrong");
    }

    #[test]
    fn nothing_remains_of_claims_that_were_given_up() {
        let mut claims = Claims::default();
        for n in 0..5000 {
            claims.update(&id(n), &link(0), Why::Event);
        }
        assert_eq!(owner(&claims), Some(&id(4999)));
        for n in 0..5000 {
            claims.update(&id(n), &[], Why::Event);
        }
        assert!(claims.links.is_empty() && claims.devices.is_empty());
    }
}

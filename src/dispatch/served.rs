//! Stage 9: what is said of the names that are there before their devices: who serves them, and who changed them in
//! the kernel.

use super::Dispatch;
use super::command::{Served, Waiting};
use super::kernel::permissions;
use super::known::{KernelHand, KernelHands};
use super::publish::Publisher;
use crate::map::change::KernelChange;
use crate::map::layout::E_LIVE;
use crate::modules::modprobe::State;
use crate::nodes::Permissions;

impl Dispatch {
    /// The modules that serve a name, or all names that a module serves.
    pub(super) fn served(&self, name: Option<&[u8]>) -> Vec<Served> {
        let modules = &self.book.modules;
        let loaded =
            |module: &str| State::of(modules, &self.config.sysfs, module.as_bytes()).is_there();
        let wanted = |found: &[u8]| name.is_none_or(|name| name == found);
        let statics = &self.publisher.fixed.statics.names;
        let declared = modules.devnames().filter(|declared| wanted(declared.name));
        let mut served: Vec<Served> = declared
            .map(|declared| Served {
                name: declared.name.into(),
                module: declared.module.into(),
                block: declared.number.map_or_else(
                    || statics.get(declared.name).is_some_and(|name| name.number.block()),
                    |number| number.block,
                ),
                number: declared.number,
                loaded: loaded(declared.module),
            })
            .collect();
        // what tmpfiles.d and policy name beside
        for (name, found) in statics.iter().filter(|(name, _)| wanted(name)) {
            let Some(module) = &found.module else { continue };
            if !served.iter().any(|row| row.name == *name && row.module == *module) {
                served.push(Served {
                    name: name.clone(),
                    module: module.clone(),
                    block: found.number.block(),
                    number: found.number.known(),
                    loaded: loaded(module),
                });
            }
        }
        served.sort_by(|a, b| a.name.cmp(&b.name));
        served
    }
}

impl Publisher {
    /// Takes in a change of a name that no device has.
    pub(super) fn name_changed(&mut self, change: &KernelChange) {
        if self.static_name(&change.path).is_none() {
            return;
        }
        let now = permissions(&change.node);
        let mut hands = self.seen(&change.path, now);
        if !change.is_ours() {
            hands = hands.and(change);
        }
        match hands.last {
            Some(_) => drop(self.fixed.changed.insert((*change.path).into(), (now, hands))),
            None => drop(self.fixed.changed.remove(&*change.path)),
        }
    }

    /// What is to be said of a name that is there before its device.
    pub(super) fn waiting(&self, name: &[u8]) -> Option<Waiting> {
        let found = self.static_name(name)?;
        let now = self.map.now(name).map(|now| permissions(&now));
        Some(Waiting {
            decision: found.decision.clone(),
            permissions: now.unwrap_or_else(|| found.permissions()),
            by_kernel: self.hands_of(name),
        })
    }

    /// Who changed a name that is there before its device, each attribute as long as it is so; somebody, where
    /// that was before this daemon was there.
    pub(super) fn hands_of(&self, name: &[u8]) -> KernelHands {
        let now = self.map.now(name).filter(|_| self.is_served());
        let Some((found, now)) = self.static_name(name).zip(now) else {
            return KernelHands::default();
        };
        let now = permissions(&now);
        self.seen(name, now).or(KernelHands::unseen(now, &found.decision, false))
    }

    /// Who was seen to change a name before it had a device, each attribute if it is so `now`.
    pub(super) fn seen(&self, name: &[u8], now: Permissions) -> KernelHands {
        let seen = self.fixed.changed.get(name);
        seen.map_or_else(KernelHands::default, |(left, by)| by.kept(*left, now))
    }

    /// The names that somebody changed, and who did so last.
    pub(super) fn names_changed(&self) -> Vec<(Box<[u8]>, KernelHand)> {
        let waiting = self.map.entries().filter(|(_, node)| node.flags & E_LIVE == 0);
        let waiting = waiting.filter(|(name, _)| self.static_name(name).is_some());
        waiting.filter_map(|(name, _)| Some((name.into(), self.hands_of(name).last?))).collect()
    }
}

//! Keeps links and map what the devices say: the only place that changes either.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::known::Known;
use super::names::{self, Fixed};
use super::table::Table;
use crate::config::{Config, Mode};
use crate::device::DeviceId;
use crate::device::record::Records;
use crate::map::change::KernelChange;
use crate::map::control::{EV_ATTRIBUTES, EV_GID, EV_MODE, EV_UID};
use crate::map::kernel::Kernel;
use crate::map::layout::E_LIVE;
use crate::map::shim::{self, Told};
use crate::map::{self, Kind, MapWriter, WriterStats};
use crate::nodes::claims::{Claims, LinkChange, Why};
use crate::nodes::devtmpfs::Node;
use crate::nodes::links;
use crate::nodes::stack::Stack;
use crate::rules::decision::Decision;
use crate::uevent::Devnum;

/// The claims on links, the map, and `/dev` in active mode.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) claims: Claims,
    pub(super) map: MapWriter,
    pub(super) fixed: Fixed,
    /// Names that have a device's number, whose event is not handled yet.
    pub(super) numbered: HashMap<Box<[u8]>, DeviceId>,
    /// The kernel is to serve the map, and does not yet.
    pub(super) to_be_served: bool,
    /// `None` in shadow mode: links are computed, not made.
    pub(super) dev: Option<PathBuf>,
    /// The claims on disk, in active mode; what a worker has entered is taken back here.
    stack: Option<Stack>,
}

impl Publisher {
    pub(super) fn new(config: &Config, map: MapWriter) -> Self {
        let dev = (config.mode == Mode::Active).then(|| config.dev.clone());
        let links = config.udev_folder().join("links");
        let stack = dev.as_ref().map(|dev| Stack::new(&links, dev));
        let (claims, fixed, numbered) = (Claims::default(), Fixed::new(config), HashMap::new());
        Self { claims, map, fixed, numbered, to_be_served: false, dev, stack }
    }

    /// Takes in the claims of an earlier run, ours or systemd-udevd's.
    pub(super) fn restore_claims(&mut self, records: &Records) {
        let Some(stack) = &self.stack else { return };
        for (link, claims) in stack.load(|id| records.read(id).unwrap_or_default().links) {
            let owner = links::target(stack.dev(), &link)
                .and_then(|node| claims.iter().find(|claim| claim.node == node));
            let owner = owner.map(|claim| claim.id.clone());
            let claims: Vec<_> = claims.into_iter().map(|one| (one.id, one.priority)).collect();
            self.claims.restore(&link, &claims, owner.as_ref());
        }
    }

    /// Publishes a device after its event; `table` holds it already, `old` is what it was.
    pub(super) fn publish(
        &mut self,
        known: &Known,
        old: Option<&Known>,
        why: Why,
        table: &Table,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(old) = old.filter(|old| old.devname() != known.devname()) {
            self.withdraw_node(old, table, &mut problems);
        }
        let (Some(name), Some(devnum)) = (known.devname(), known.devnum()) else {
            return problems;
        };
        self.numbered.remove(name);
        self.fixed.changed.remove(name);
        let same_node = old.is_some_and(|old| old.devname() == Some(name));
        self.end_other(name, devnum);
        let origin = self.static_name(name).map_or(0, names::origin);
        let node = map_node(known, devnum, origin);
        let left_alone = self.left_alone(name, known, &node);
        if let Err(error) = self.map.upsert_keeping(name, &node, left_alone) {
            problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
        }
        if !same_node {
            self.link(&links::by_number(devnum), Some(name), &mut problems);
        }
        let mut changes = self.claims.update(&known.id, &known.decision.links, why);
        if !same_node {
            // the links that it owns point to its old name, or are as an earlier run left them
            let told = |name: &[u8]| changes.iter().any(|change| change.name == name);
            let again = self.claims.owned(&known.id).filter(|name| !told(name));
            let owner = || Some(known.id.clone());
            let again = again.map(|name| LinkChange { name: name.to_vec(), owner: owner() });
            let again: Vec<_> = again.collect();
            changes.extend(again);
        }
        self.apply(changes, table, &mut problems);
        problems
    }

    /// Withdraws a device that is gone; `table` no longer holds it.
    pub(super) fn withdraw(&mut self, old: &Known, table: &Table) -> Vec<String> {
        let mut problems = self.give_up(&old.id, table);
        self.withdraw_node(old, table, &mut problems);
        problems
    }

    /// Takes back all claims of a device.
    pub(super) fn give_up(&mut self, id: &DeviceId, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        for link in self.claims.claimed(id) {
            if let Some(Err(error)) = self.stack.as_ref().map(|stack| stack.leave(link, id)) {
                problems.push(format!("claim on link `{}`: {error}", link.escape_ascii()));
            }
        }
        let changes = self.claims.update(id, &[], Why::Event);
        self.apply(changes, table, &mut problems);
        problems
    }

    fn withdraw_node(&mut self, old: &Known, table: &Table, problems: &mut Vec<String>) {
        let (Some(name), Some(devnum)) = (old.devname(), old.devnum()) else { return };
        if table.named(name).is_none_or(|other| other.id == old.id) {
            self.give_back(name, problems);
        }
        if table.get(&old.id).is_none() {
            self.link(&links::by_number(devnum), None, problems);
        }
    }

    fn apply(&mut self, changes: Vec<LinkChange>, table: &Table, problems: &mut Vec<String>) {
        for LinkChange { name, owner } in changes {
            let target = match &owner {
                // one of an earlier run that we did not meet yet: its link waits for it
                Some(id) if table.get(id).is_none() => continue,
                Some(id) => node_name(id, table),
                None => None,
            };
            if let (None, Some(stack)) = (&owner, &self.stack) {
                stack.clear(&name);
            }
            if table.named(&name).is_some() {
                problems.push(format!("link `{}` has a node's name", name.escape_ascii()));
                continue;
            }
            self.link(&name, target.as_deref(), problems);
            match target {
                Some(target) => self.map_link(&name, Some(&target), problems),
                None => self.give_back(&name, problems),
            }
        }
    }

    fn map_link(&mut self, name: &[u8], target: Option<&[u8]>, problems: &mut Vec<String>) {
        let Some(target) = target else {
            self.map.remove(name);
            return;
        };
        let target = links::relative(name, target).into_boxed_slice();
        let node = map::Node { kind: Kind::Link { target }, mode: 0o777, uid: 0, gid: 0, flags: 0 };
        if let Err(error) = self.map.upsert(name, &node) {
            problems.push(format!("map: link `{}`: {error}", name.escape_ascii()));
        }
    }

    /// Makes or removes a link of `/dev`, in active mode. A map of the kernel's has all of them, since it may
    /// be on `/dev` the next moment.
    pub(super) fn link(&mut self, name: &[u8], target: Option<&[u8]>, problems: &mut Vec<String>) {
        if self.dev.is_some() && self.may_outlive_us() {
            self.map_link(name, target, problems);
        }
        let Some(dev) = self.made_in() else { return };
        let made = match target {
            Some(target) => links::point(dev, name, target),
            None => links::remove(dev, name),
        };
        if let Err(error) = made {
            problems.push(format!("link `{}`: {error}", name.escape_ascii()));
        }
    }

    /// Removes links that a device left behind which is gone, unless another one owns them.
    pub(super) fn drop_links(&mut self, names: &[Vec<u8>]) -> Vec<String> {
        let mut problems = Vec::new();
        for name in names {
            if self.claims.owner(name).is_none() {
                self.link(name, None, &mut problems);
            }
        }
        problems
    }

    /// Which of mode, owner and group stay as they are, where the kernel may know better than the worker's look.
    fn left_alone(&self, name: &[u8], known: &Known, node: &map::Node) -> u32 {
        let now = self.map.get(name).filter(|_| self.is_served());
        let pending = |now: &map::Node| matches!(now.kind, Kind::Pending { .. });
        match now {
            // where /dev is the map, the worker has settled it there
            Some(now) if now.kind == node.kind && self.made_in().is_none() => EV_ATTRIBUTES,
            Some(now) if now.kind == node.kind || pending(now) => undecided(&known.decision),
            // another device's are not inherited
            Some(_) | None => 0,
        }
    }

    pub(super) fn attach(&mut self, kernel: Box<dyn Kernel>) -> io::Result<()> {
        self.map.attach(kernel)
    }

    /// Makes the links of every device again, and gives its node what it had: `/dev` was another one.
    pub(super) fn make_again(&mut self, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        for known in table.iter() {
            let (Some(name), Some(devnum)) = (known.devname(), known.devnum()) else { continue };
            self.link(&links::by_number(devnum), Some(name), &mut problems);
            let owned: Vec<Vec<u8>> = self.claims.owned(&known.id).map(<[u8]>::to_vec).collect();
            for link in owned.iter().filter(|link| table.named(link).is_none()) {
                self.link(link, Some(name), &mut problems);
            }
            let Some(dev) = self.made_in() else { continue };
            let settled = Node::find(dev, name, devnum).and_then(|node| {
                let other = node.filter(|node| node.permissions() != known.permissions);
                other.map(|node| node.give(known.permissions)).transpose()
            });
            problems.extend(settled.err().map(|error| error.to_string()));
        }
        problems
    }

    pub(super) fn detach(&mut self) {
        drop(self.map.detach_kernel());
    }

    pub(super) fn is_served(&self) -> bool {
        self.map.is_served()
    }

    /// The kernel serves the map, or is to.
    pub(super) fn may_outlive_us(&self) -> bool {
        self.is_served() || self.to_be_served
    }

    /// What is new of what the kernel tells.
    pub(super) fn taken_in(&mut self, told: &Told) -> Vec<KernelChange> {
        match told {
            Told::Changed(change) => self.map.changed_by_kernel(change).into_iter().collect(),
            Told::CompareAll => self.map.compare(),
        }
    }

    /// The folder where nodes and links are made: none in shadow mode, and where `/dev` is the map.
    pub(super) fn made_in(&self) -> Option<&Path> {
        let dev = self.dev.as_deref()?;
        (!self.may_outlive_us() || !shim::is_mounted_on(dev)).then_some(dev)
    }

    /// Whether this is the link by number of a node that is there: it leads up from its folder.
    pub(super) fn is_by_number(&self, name: &[u8], table: &Table) -> bool {
        let by_number = name.starts_with(b"char/") || name.starts_with(b"block/");
        let Some(node) = self.map.get(name).filter(|_| by_number) else { return false };
        match &node.kind {
            Kind::Link { target } => {
                target.strip_prefix(b"../").is_some_and(|name| table.named(name).is_some())
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Pending { .. } => false,
        }
    }

    pub(super) fn read_only_fd(&self) -> io::Result<(OwnedFd, u64)> {
        Ok((self.map.read_only_fd()?, self.map.generation()))
    }

    /// The map's memory for the service manager's store, if it is another one than before.
    pub(super) fn take_replaced(&mut self) -> bool {
        self.map.take_replaced()
    }

    pub(super) fn map(&self) -> &MapWriter {
        &self.map
    }

    pub(super) fn stats(&self) -> WriterStats {
        self.map.stats()
    }
}

/// Which of mode, owner and group nobody decided.
pub(super) fn undecided(decision: &Decision) -> u32 {
    let undecided = |decided: bool, bit| if decided { 0 } else { bit };
    undecided(decision.mode.is_some(), EV_MODE)
        | undecided(decision.owner.is_some(), EV_UID)
        | undecided(decision.group.is_some(), EV_GID)
}

fn node_name(id: &DeviceId, table: &Table) -> Option<Vec<u8>> {
    table.get(id)?.devname().map(<[u8]>::to_vec)
}

/// The entry of a live device; `origin` says where its name comes from beside.
fn map_node(known: &Known, devnum: Devnum, origin: u32) -> map::Node {
    let permissions = known.permissions;
    map::Node {
        kind: Kind::of(devnum),
        mode: permissions.mode,
        uid: permissions.uid,
        gid: permissions.gid,
        flags: E_LIVE | origin,
    }
}

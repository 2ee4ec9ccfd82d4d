//! Keeps links and map what the devices say: the only place that changes either.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::known::Known;
use super::names::{self, Fixed};
use super::table::Table;
use crate::config::{Config, Mode};
use crate::device::DeviceId;
use crate::map::kernel::Kernel;
use crate::map::layout::E_LIVE;
use crate::map::serve::KernelChange;
use crate::map::shim::{self, Told};
use crate::map::{Kind, MapWriter, Node, WriterStats};
use crate::nodes::claims::{Claims, LinkChange};
use crate::nodes::links;
use crate::uevent::Devnum;

/// The claims on links, the map, and `/dev` in active mode.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) claims: Claims,
    pub(super) map: MapWriter,
    pub(super) fixed: Fixed,
    /// `None` in shadow mode: links are computed, not made.
    pub(super) dev: Option<PathBuf>,
}

impl Publisher {
    pub(super) fn new(config: &Config, map: MapWriter) -> Self {
        let dev = (config.mode == Mode::Active).then(|| config.dev.clone());
        Self { claims: Claims::default(), map, fixed: Fixed::new(config), dev }
    }

    /// Publishes a device after its event; `table` holds it already, `old` is what it was.
    pub(super) fn publish(
        &mut self,
        known: &Known,
        old: Option<&Known>,
        table: &Table,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(old) = old.filter(|old| old.devname() != known.devname()) {
            self.withdraw_node(old, table, &mut problems);
        }
        let (Some(name), Some(devnum)) = (known.devname(), known.devnum()) else {
            return problems;
        };
        let same_node = old.is_some_and(|old| old.devname() == Some(name));
        let origin = self.static_name(name).map_or(0, names::origin);
        let node = self.kept(name, known, map_node(known, devnum, origin));
        if let Err(error) = self.map.upsert(name, &node) {
            problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
        }
        if !same_node {
            self.link(&links::by_number(devnum), Some(name), &mut problems);
        }
        let changes = self.claims.update(&known.id, &known.decision.links);
        self.apply(changes, table, &mut problems);
        if !same_node && old.is_some() {
            // the links that it owns point to its old name
            let names: Vec<Vec<u8>> = self.claims.owned(&known.id).map(<[u8]>::to_vec).collect();
            let owner = || Some(known.id.clone());
            let again = names.into_iter().map(|name| LinkChange { name, owner: owner() });
            self.apply(again.collect(), table, &mut problems);
        }
        problems
    }

    /// Withdraws a device that is gone; `table` no longer holds it.
    pub(super) fn withdraw(&mut self, old: &Known, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        let changes = self.claims.update(&old.id, &[]);
        self.apply(changes, table, &mut problems);
        self.withdraw_node(old, table, &mut problems);
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
            let target = owner.as_ref().and_then(|id| node_name(id, table));
            self.link(&name, target.as_deref(), problems);
            if table.named(&name).is_some() {
                problems.push(format!("link `{}` has a node's name", name.escape_ascii()));
                continue;
            }
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
        let node = Node { kind: Kind::Link { target }, mode: 0o777, uid: 0, gid: 0, flags: 0 };
        if let Err(error) = self.map.upsert(name, &node) {
            problems.push(format!("map: link `{}`: {error}", name.escape_ascii()));
        }
    }

    /// Makes or removes a link of `/dev`, in active mode. Where `/dev` is the map, it is one of it.
    fn link(&mut self, name: &[u8], target: Option<&[u8]>, problems: &mut Vec<String>) {
        let Some(dev) = self.made_in() else {
            if self.dev.is_some() {
                self.map_link(name, target, problems);
            }
            return;
        };
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

    /// What nobody decided stays as it is, where the kernel may know better than the worker's look.
    fn kept(&self, name: &[u8], known: &Known, node: Node) -> Node {
        let pending = |now: &Node| matches!(now.kind, Kind::Pending { .. });
        let same = |now: &Node| self.is_served() && (now.kind == node.kind || pending(now));
        let Some(now) = self.map.now(name).filter(same) else { return node };
        let decision = &known.decision;
        Node {
            mode: if decision.mode.is_some() { node.mode } else { now.mode },
            uid: if decision.owner.is_some() { node.uid } else { now.uid },
            gid: if decision.group.is_some() { node.gid } else { now.gid },
            ..node
        }
    }

    pub(super) fn attach(&mut self, kernel: Box<dyn Kernel>) -> io::Result<()> {
        self.map.attach(kernel)
    }

    pub(super) fn detach(&mut self) {
        drop(self.map.detach_kernel());
    }

    pub(super) fn is_served(&self) -> bool {
        self.map.is_served()
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
        (!self.map.is_served() || !shim::is_mounted_on(dev)).then_some(dev)
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

fn node_name(id: &DeviceId, table: &Table) -> Option<Vec<u8>> {
    table.get(id)?.devname().map(<[u8]>::to_vec)
}

/// The entry of a live device; `origin` says where its name comes from beside.
fn map_node(known: &Known, devnum: Devnum, origin: u32) -> Node {
    let Devnum { block, major, minor } = devnum;
    let kind = if block { Kind::Block { major, minor } } else { Kind::Char { major, minor } };
    let permissions = known.permissions;
    Node {
        kind,
        mode: permissions.mode,
        uid: permissions.uid,
        gid: permissions.gid,
        flags: E_LIVE | origin,
    }
}

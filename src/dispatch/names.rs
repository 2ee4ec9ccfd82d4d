//! Names that are there before their devices: in the map, and in active mode as nodes of `/dev`.
//!
//! A live device takes its name over, and the name comes back when the device goes. What changes is
//! found by comparing with what was published before, so that a change costs what it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{debug, warn};

use super::Dispatch;
use super::job::Book;
use super::known::KernelHands;
use super::publish::{Publisher, undecided};
use super::table::Table;
use crate::config::{Config, Mode};
use crate::map::control::EV_ATTRIBUTES;
use crate::map::layout::{E_BUILTIN, E_LIVE, E_MODULE};
use crate::map::{Kind, Node};
use crate::modules::ModuleDb;
use crate::nodes::Permissions;
use crate::nodes::devtmpfs;
use crate::nodes::fixed::{self, There};
use crate::nodes::links::is_safe;
use crate::nodes::statics::{Number, Sources, StaticName, Statics};
use crate::rules::decision::Decision;
use crate::uevent::Devnum;

/// What is published, and what of it was made in `/dev` and below udev's runtime folder.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) statics: Statics,
    /// Problems that were logged: the same ones are not told again with each change.
    told: BTreeSet<String>,
    /// Nodes that we made; nobody else's are removed.
    made: BTreeMap<Box<[u8]>, Devnum>,
    /// Keeps `made` over a restart.
    file: PathBuf,
    tags: PathBuf,
    /// Who changed names that no device has, and what they made of them.
    pub(super) changed: HashMap<Box<[u8]>, (Permissions, KernelHands)>,
    /// The first walk through sysfs is over: what is live is known.
    pub(super) walked: bool,
}

/// Where a name comes from, as the map says it.
pub(super) fn origin(name: &StaticName) -> u32 {
    match (&name.module, name.builtin) {
        (Some(_), true) => E_BUILTIN,
        (Some(_), false) => E_MODULE,
        (None, _) => 0,
    }
}

fn map_node(name: &StaticName) -> Node {
    let kind = match &name.number {
        Number::Known(devnum) => Kind::of(*devnum),
        Number::Pending { block, alias } => Kind::Pending { block: *block, alias: alias.clone() },
    };
    let shall = name.permissions();
    Node { kind, mode: shall.mode, uid: shall.uid, gid: shall.gid, flags: origin(name) }
}

impl Fixed {
    pub(super) fn new(config: &Config) -> Self {
        let file = config.runtime.join("static-nodes");
        let beside = match config.mode {
            Mode::Active => config.udev_folder(),
            Mode::Shadow => config.runtime.clone(),
        };
        Self {
            statics: Statics::default(),
            told: BTreeSet::new(),
            made: read_made(&file),
            file,
            tags: beside.join("static_node-tags"),
            changed: HashMap::new(),
            walked: false,
        }
    }

    fn keep_made(&self) -> io::Result<()> {
        let mut lines = Vec::new();
        for (name, number) in &self.made {
            lines.extend([number.to_string().as_bytes(), b" ", name, b"\n"].concat());
        }
        let new = self.file.with_extension("new");
        fs::write(&new, lines)?;
        fs::rename(&new, &self.file)
    }
}

/// Lines such as `c10:200 net/tun`; a name holds no newline.
fn read_made(file: &Path) -> BTreeMap<Box<[u8]>, Devnum> {
    let text = fs::read(file).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let number = crate::device::DeviceId::from_bytes(line.get(..at)?)?.devnum()?;
        Some((line.get(at + 1..)?.into(), number))
    });
    lines.collect()
}

impl Publisher {
    pub(super) fn static_name(&self, name: &[u8]) -> Option<&StaticName> {
        self.fixed.statics.names.get(name)
    }

    /// Whether somebody else than a static name has this name of the map.
    fn is_taken(&self, name: &[u8], table: &Table) -> bool {
        // an entry of an earlier run belongs to its device until sysfs was read
        let kept = |node: &Node| node.flags & E_LIVE != 0 || matches!(node.kind, Kind::Link { .. });
        table.named(name).is_some()
            || self.numbered.contains_key(name)
            || self.claims.owner(name).is_some()
            || (!self.fixed.walked && self.map.get(name).is_some_and(kept))
    }

    /// Publishes the difference to what was published before.
    pub(super) fn replace_names(&mut self, statics: Statics, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        let old = std::mem::replace(&mut self.fixed.statics, statics);
        let names = &self.fixed.statics.names;
        let gone: Vec<Box<[u8]>> =
            old.names.keys().filter(|name| !names.contains_key(*name)).cloned().collect();
        let new = names.iter().filter(|(name, found)| old.names.get(*name) != Some(found));
        let new: Vec<Box<[u8]>> = new.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.unpublish(name, table, &mut problems);
        }
        for name in &new {
            let was = old.names.get(name).map(|was| &was.decision);
            self.put(name, was, table, &mut problems);
        }
        if self.dev.is_some() {
            self.make_nodes(&new, table, &mut problems);
        }
        if old.tags != self.fixed.statics.tags || !(gone.is_empty() && new.is_empty()) {
            self.tag(table, &mut problems);
        }
        problems
    }

    /// Writes the entry of a static name, unless a device or a link has the name. What nobody decides, and
    /// nobody did before (`was`), is as chmod and chown left it.
    fn put(
        &mut self,
        name: &[u8],
        was: Option<&Decision>,
        table: &Table,
        problems: &mut Vec<String>,
    ) {
        let Some(found) = self.static_name(name) else { return };
        let now = self.map.get(name).filter(|now| !matches!(now.kind, Kind::Link { .. }));
        let live = now.filter(|now| now.flags & E_LIVE != 0);
        let mut node = map_node(found);
        let mut left_alone = 0;
        if self.is_taken(name, table) {
            // it stays what it is; only where its name comes from may have changed
            let Some(live) = live else { return };
            node = Node { flags: E_LIVE | node.flags, ..live.clone() };
            left_alone = EV_ATTRIBUTES;
        } else if now.is_some() && live.is_none() {
            left_alone = undecided(&found.decision) & was.map_or(EV_ATTRIBUTES, undecided);
        }
        if let Err(error) = self.map.upsert_keeping(name, &node, left_alone) {
            problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
        }
    }

    /// Takes back a name that nobody declares any longer.
    fn unpublish(&mut self, name: &[u8], table: &Table, problems: &mut Vec<String>) {
        self.fixed.changed.remove(name);
        if !self.is_taken(name, table) {
            self.map.remove(name);
            self.unmake(name, problems);
            return;
        }
        if let Some(live) = self.map.get(name).filter(|live| live.flags & E_LIVE != 0) {
            let node = Node { flags: E_LIVE, ..live.clone() };
            if let Err(error) = self.map.upsert_keeping(name, &node, EV_ATTRIBUTES) {
                problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
            }
        }
    }

    /// A device or a link no longer has the name: it is the static name's again, or nobody's.
    pub(super) fn give_back(&mut self, name: &[u8], problems: &mut Vec<String>) {
        self.numbered.remove(name);
        let Some(found) = self.static_name(name) else {
            self.map.remove(name);
            self.unmake(name, problems);
            return;
        };
        if let Err(error) = self.map.upsert(name, &map_node(found)) {
            problems.push(format!("map: `{}`: {error}", name.escape_ascii()));
        }
        if self.dev.is_some() {
            self.settle_nodes(&[name.into()], problems);
        }
    }

    /// What an earlier run left in the map and nobody stands for is removed.
    pub(super) fn sweep(&mut self, table: &Table) -> Vec<String> {
        let mut problems = Vec::new();
        self.fixed.walked = true;
        let ours = |name: &[u8]| {
            table.named(name).is_some()
                || self.numbered.contains_key(name)
                || self.claims.owner(name).is_some()
                || self.is_by_number(name, table)
        };
        let stale = self.map.entries().map(|(name, _)| name).filter(|name| !ours(name));
        let stale: Vec<Box<[u8]>> = stale.map(Into::into).collect();
        for name in stale {
            match self.static_name(&name) {
                Some(_) => self.put(&name, None, table, &mut problems),
                None => drop(self.map.remove(&name)),
            }
        }
        if self.dev.is_some() {
            let all: Vec<Box<[u8]>> = self.fixed.statics.names.keys().cloned().collect();
            self.make_nodes(&all, table, &mut problems);
            let names = &self.fixed.statics.names;
            let left = self.fixed.made.keys().filter(|name| !names.contains_key(*name));
            let left: Vec<Box<[u8]>> =
                left.filter(|name| table.named(name).is_none()).cloned().collect();
            left.iter().for_each(|name| self.unmake(name, &mut problems));
        }
        self.tag(table, &mut problems);
        problems
    }

    /// Settles the nodes of those names that no device has.
    fn make_nodes(&mut self, names: &[Box<[u8]>], table: &Table, problems: &mut Vec<String>) {
        let free = names.iter().filter(|name| table.named(name).is_none());
        let free: Vec<Box<[u8]>> = free.cloned().collect();
        self.settle_nodes(&free, problems);
    }

    /// Makes what is missing, and gives what is there owner and mode as far as somebody decided them.
    fn settle_nodes(&mut self, names: &[Box<[u8]>], problems: &mut Vec<String>) {
        let Some(dev) = self.made_in().map(Path::to_owned) else { return };
        let mut missing = Vec::new();
        for name in names {
            let Some(found) = self.static_name(name) else { continue };
            // a built-in driver's node is the kernel's to make
            let (Some(number), false) = (found.number.known(), found.builtin) else { continue };
            match fixed::look(&dev, name, number) {
                There::Nothing => missing.push((name.clone(), number)),
                // before sysfs was read it may be a live device's
                There::Same if self.fixed.walked => {
                    if let Err(error) = self.settle_node(&dev, name, number) {
                        problems.push(error);
                    }
                }
                There::Same | There::Other => {}
            }
        }
        if missing.is_empty() {
            return;
        }
        self.fixed.made.extend(missing.iter().cloned());
        if let Err(error) = self.fixed.keep_made() {
            problems.push(format!("cannot remember which nodes were made: {error}"));
        }
        for (name, number) in missing {
            let Some(found) = self.static_name(&name) else { continue };
            if let Err(error) = fixed::make(&dev, &name, number, found.permissions()) {
                self.fixed.made.remove(&name);
                let name = name.escape_ascii();
                problems.push(format!("cannot make the node /dev/{name}: {error}"));
            }
        }
    }

    fn settle_node(&self, dev: &Path, name: &[u8], number: Devnum) -> Result<(), String> {
        let Some(found) = self.static_name(name) else { return Ok(()) };
        let node = devtmpfs::Node::find(dev, name, number).map_err(|error| error.to_string())?;
        let Some(node) = node else { return Ok(()) };
        let shall = if self.fixed.made.contains_key(name) {
            // a node of ours has what a device that is gone gave it
            found.permissions()
        } else {
            devtmpfs::decided(&found.decision, node.permissions())
        };
        let is = node.permissions();
        if (is.uid, is.gid, is.mode & 0o777) == (shall.uid, shall.gid, shall.mode & 0o777) {
            return Ok(());
        }
        let mut decision = found.decision.clone();
        decision.owner = Some(shall.uid);
        decision.group = Some(shall.gid);
        decision.mode = Some(shall.mode);
        node.settle(&decision).map(drop).map_err(|error| error.to_string())
    }

    /// Removes a node that we made.
    fn unmake(&mut self, name: &[u8], problems: &mut Vec<String>) {
        let Some(dev) = self.made_in().map(Path::to_owned) else { return };
        let Some(number) = self.fixed.made.remove(name) else { return };
        if let Err(error) = fixed::remove(&dev, name, number) {
            problems.push(format!("cannot remove /dev/{}: {error}", name.escape_ascii()));
        }
        if let Err(error) = self.fixed.keep_made() {
            problems.push(format!("cannot remember which nodes were made: {error}"));
        }
    }

    /// Makes the links by which logind and others find tagged static nodes.
    fn tag(&self, table: &Table, problems: &mut Vec<String>) {
        let Fixed { statics, tags: folder, .. } = &self.fixed;
        let mut wanted: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for (name, tags) in &statics.tags {
            if statics.names.contains_key(name) || table.named(name).is_some() {
                let node = Path::new("/dev").join(std::ffi::OsStr::from_bytes(name));
                // what would lead elsewhere is no tag
                for tag in tags.iter().filter(|tag| is_safe(tag) && !tag.contains(&b'/')) {
                    let tag = folder.join(std::ffi::OsStr::from_bytes(tag));
                    wanted.insert(tag.join(escaped(name)), node.clone());
                }
            }
        }
        if let Err(error) = fixed::links(folder, &wanted) {
            problems.push(format!("cannot tag static nodes: {error}"));
        }
    }
}

/// A node's name as udev writes it in a file's name.
fn escaped(name: &[u8]) -> std::ffi::OsString {
    let mut text = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'/' | b'.' | b'\\' => text.extend(format!("\\x{byte:02x}").into_bytes()),
            plain => text.push(*plain),
        }
    }
    std::os::unix::ffi::OsStringExt::from_vec(text)
}

impl Dispatch {
    /// Gathers the names anew, after a change of policy or of modules.
    pub(super) fn renew_names(&mut self) {
        let Book { policy, rules, tmpfiles, modules, .. } = &*self.book;
        let rules = rules.static_nodes();
        let sources = Sources { modules, tmpfiles, rules, policy };
        let (statics, problems) = Statics::gather(&sources);
        let problems: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
        let told = &mut self.publisher.fixed.told;
        problems.difference(told).for_each(|problem| warn!("{problem}"));
        *told = problems;
        let problems = self.publisher.replace_names(statics, &self.table);
        problems.into_iter().for_each(|problem| warn!("{problem}"));
    }

    /// Modules came or went.
    pub(super) fn renew_modules(&mut self, modules: Arc<ModuleDb>) {
        let book = Book { modules, ..Book::clone(&self.book) };
        debug!("{} modules, {} names", book.modules.len(), book.modules.devnames().len());
        self.book = Arc::new(book);
        self.renew_names();
    }
}

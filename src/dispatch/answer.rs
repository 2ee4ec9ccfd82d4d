//! Answers what the bus asks, and makes run-time changes.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Dispatch;
use super::command::{Change, ChangeError, Command, Notice, Status, Terms};
use super::job::Book;
use super::known::Known;
use crate::config::{Config, Mode, ResolveNames};
use crate::device::DeviceId;
use crate::modules::ModuleDb;
use crate::net::{LinkFiles, Machine};
use crate::nodes::devtmpfs::Node;
use crate::nodes::tmpfiles;
use crate::policy::Policy;
use crate::policy::grants::{DeviceGrants, Grant};
use crate::policy::local::{Key, Local};
use crate::rules::Rules;
use crate::rules::names::Names;
use crate::uevent::{Action, Origin, Uevent};

/// Callers that wait for a device at once.
const AWAITING_MAX: usize = 1024;

/// Reads policy, rules and names; every problem is logged, none is fatal.
pub(super) fn load_book(config: &Config, generation: u64, modules: Arc<ModuleDb>) -> Book {
    let names = Names::load(&config.root);
    let (policy, problems) = Policy::load(&config.policy_folders(), &names);
    problems.into_iter().for_each(|problem| warn!("{problem}"));
    let nobody = Names::default();
    let known = match config.resolve_names {
        ResolveNames::Yes => &names,
        ResolveNames::Never => &nobody,
    };
    let (rules, problems) = Rules::load(&config.root, known);
    problems.into_iter().for_each(|problem| warn!("{problem}"));
    info!(rules = rules.iter().count(), "udev rules loaded");
    let (lines, problems) = tmpfiles::load(&config.root, &names);
    problems.into_iter().for_each(|problem| warn!("{problem}"));
    let host = Machine::read(&config.root, &config.sysfs);
    let (links, problems) = LinkFiles::load(&config.root, &host);
    problems.into_iter().for_each(|problem| warn!("{problem}"));
    Book {
        generation,
        policy: Arc::new(policy),
        rules: Arc::new(rules),
        names: Arc::new(names),
        tmpfiles: lines.into(),
        links: Arc::new(links),
        modules,
    }
}

impl Dispatch {
    /// A caller that has gone is no error: its answer is dropped.
    pub(super) fn answer(&mut self, command: Command) {
        match command {
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::List(reply) => drop(reply.send(self.table.iter().cloned().collect())),
            Command::Device(id, reply) => drop(reply.send(self.table.get(&id).cloned())),
            Command::Resolve(text, reply) => {
                let found = self.table.resolve(&text, &self.publisher.claims);
                drop(reply.send(found.cloned()));
            }
            Command::Map(reply) => drop(reply.send(self.publisher.read_only_fd())),
            Command::Ping(reply) => self.ping(reply),
            Command::Hold(held) => self.hold(held),
            Command::Settle(reply) => self.settle(reply),
            Command::Await(text, reply) => self.wait_for(text, reply),
            Command::Change(id, change, terms, reply) => self.change(&id, change, &terms, reply),
            Command::Reload(reply) => self.reload(reply),
            Command::Compare(reply) => drop(reply.send(self.compare())),
            Command::Modules(modules) => self.renew_modules(modules),
            Command::Load(name, dry_run, reply) => self.load(name, dry_run, reply),
            Command::Served(name, reply) => drop(reply.send(self.served(name.as_deref()))),
            Command::Name(name, reply) => {
                drop(reply.send(self.publisher.waiting(&name)));
            }
            Command::NamesChanged(reply) => drop(reply.send(self.publisher.names_changed())),
        }
    }

    fn status(&self) -> Status {
        let counters = self.socket.counters();
        let map = self.publisher.stats();
        Status {
            shadow: self.config.mode == Mode::Shadow,
            generation: self.book.generation,
            map_generation: self.publisher.map().generation(),
            map_entries: map.entries as u64,
            shim_attached: self.publisher.is_served(),
            devices: self.table.len() as u64,
            queue_length: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            queue_high_water: u32::try_from(self.queue.high_water()).unwrap_or(u32::MAX),
            overruns: counters.lost,
            resyncs: self.resyncs,
            events: self.handled,
            refused: counters.foreign + counters.truncated + counters.malformed,
            seqnum_gaps: counters.gaps,
            coalesced: self.queue.merged(),
            modules_with_devnames: self.book.modules.devnames().len() as u64,
            throttled: self.throttled.keys().cloned().collect(),
        }
    }

    /// What lies in the socket when the question comes is waited for as well.
    fn settle(&mut self, reply: oneshot::Sender<()>) {
        self.hear_rest();
        self.compare_in_doubt();
        self.settlers.retain(|(_, reply)| !reply.is_closed());
        self.settlers.push((self.taken, reply));
        self.release();
    }

    fn wait_for(&mut self, text: Vec<u8>, reply: oneshot::Sender<Arc<Known>>) {
        if let Some(found) = self.table.resolve(&text, &self.publisher.claims) {
            drop(reply.send(found.clone()));
            return;
        }
        self.awaiting.retain(|(_, reply)| !reply.is_closed());
        if self.awaiting.len() < AWAITING_MAX {
            self.awaiting.push((text, reply));
        }
    }

    fn load_policy(&mut self) {
        let modules = self.book.modules.clone();
        self.book = Arc::new(load_book(&self.config, self.book.generation + 1, modules));
        self.renew_names();
    }

    /// Puts an event of our own into the queue: the device is decided again in its turn.
    pub(super) fn decide_anew(&mut self, id: &DeviceId) -> Option<u64> {
        let uevent = self.table.get(id)?.uevent.clone();
        let properties: Vec<_> = uevent.properties().collect();
        let (devpath, seqnum) = (uevent.devpath(), uevent.seqnum());
        let again = Uevent::synthetic(Origin::Policy, Action::Change, devpath, seqnum, &properties);
        Some(self.take(again))
    }

    /// In shadow mode: what the machine's nodes have now, beside what we would give them.
    fn compare(&self) -> Vec<Arc<Known>> {
        let compared = self.table.iter().map(|known| self.compared(known));
        compared.filter(|known| !known.mismatches.is_empty()).collect()
    }

    fn compared(&self, known: &Arc<Known>) -> Arc<Known> {
        let node = known.devname().zip(known.devnum());
        let node =
            node.and_then(|(name, number)| Node::find(&self.config.dev, name, number).ok()?);
        let mismatches = node.map(|node| node.mismatches(&known.decision)).unwrap_or_default();
        if mismatches == known.mismatches {
            return known.clone();
        }
        Arc::new(Known { mismatches, ..Known::clone(known) })
    }

    /// The other manager is done with a device: now its node can be compared.
    ///
    /// It may be faster than we are: then it is compared when we are done, too.
    pub(super) fn compare_at(&mut self, devpath: &[u8]) {
        // the kernel told both of us before
        self.hear_rest();
        if self.queue.concerns_path(devpath) {
            self.compare_later.insert(devpath.into());
            return;
        }
        let Some(known) = self.table.at(devpath) else { return };
        let device = self.compared(known);
        if !Arc::ptr_eq(&device, known) {
            self.table.insert(device.clone());
            self.teller.notify(Notice::Changed { device });
        }
    }

    fn change(
        &mut self,
        id: &DeviceId,
        change: Change,
        terms: &Terms,
        reply: oneshot::Sender<Result<(), ChangeError>>,
    ) {
        let made = self.try_change(id, change, terms);
        match made {
            // answered when the device's turn has come and gone
            Ok(Some(order)) => self.changing.push((order, reply)),
            Ok(None) => drop(reply.send(Ok(()))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn try_change(
        &mut self,
        id: &DeviceId,
        change: Change,
        terms: &Terms,
    ) -> Result<Option<u64>, ChangeError> {
        let known = self.table.get(id).cloned().ok_or(ChangeError::NoSuchDevice)?;
        // a later device of this id is not the one that permission was given for
        if terms.instance.is_some_and(|instance| instance != known.instance) {
            return Err(ChangeError::NoSuchDevice);
        }
        if terms.persist && self.config.mode == Mode::Shadow {
            return Err(ChangeError::Shadow);
        }
        let (Some(name), Some(_)) = (known.devname(), known.devnum()) else {
            let what = format!("{id} has no device node; choose a device that has one");
            return Err(ChangeError::NotSupported(what));
        };
        let local = Local::new(&self.config.root);
        let failed = |error: std::io::Error| ChangeError::Failed(error.to_string());
        let devname = name.escape_ascii().to_string();
        match change {
            Change::Set { attribute, value } if terms.persist => {
                let key = self.key(&known, &devname)?;
                if terms.dry_run {
                    return Ok(None);
                }
                let by = format!("{}: {}", terms.by, terms.reason);
                local.set(&key, attribute, value, by.trim_end_matches(": ")).map_err(failed)?;
                self.load_policy();
            }
            Change::Set { .. } | Change::Reset if terms.dry_run => return Ok(None),
            Change::Set { attribute, value } => {
                let (by, reason) = (terms.by.clone(), terms.reason.clone());
                let device = DeviceGrants { instance: known.instance, devname, grants: Vec::new() };
                let grant = Grant { attribute, value, by, reason };
                self.grants.set(id, &device, grant).map_err(failed)?;
            }
            Change::Reset => {
                self.grants.end(id).map_err(failed)?;
                if self.config.mode == Mode::Active
                    && let Ok(key) = self.key(&known, &devname)
                    && local.reset(&key).map_err(failed)?
                {
                    self.load_policy();
                }
            }
        }
        Ok(self.decide_anew(id))
    }

    /// What tells this device from every other one, also after it was away.
    fn key(&self, known: &Known, devname: &str) -> Result<Key, ChangeError> {
        let properties = known.properties();
        for name in ["ID_SERIAL", "ID_PATH"] {
            let found = properties.iter().find(|(key, _)| *key == name.as_bytes());
            if let Some(value) = found.and_then(|(_, value)| str::from_utf8(value).ok()) {
                match Key::property(name, value) {
                    Some(key) => return Ok(key),
                    None => continue,
                }
            }
        }
        if self.book.modules.devname(devname.as_bytes()).is_some() {
            return Ok(Key::Devname(devname.to_owned()));
        }
        Err(ChangeError::NotSupported(format!(
            "/dev/{devname} has no key of its own (ID_SERIAL, ID_PATH, or a name that a module \
             declares), so the change cannot be kept for later; leave out `persist`, or write a \
             policy rule"
        )))
    }

    /// Ends the grants of a device that is gone.
    pub(super) fn end_grants(&mut self, id: &DeviceId, problems: &mut Vec<String>) {
        if let Err(error) = self.grants.end(id) {
            problems.push(format!("cannot forget its run-time changes: {error}"));
        }
    }

    /// Ends grants that were made for an earlier device of this id.
    pub(super) fn end_stale_grants(
        &mut self,
        known: &Known,
        grants: Option<&DeviceGrants>,
        problems: &mut Vec<String>,
    ) {
        if grants.is_some_and(|grants| grants.instance != known.instance) {
            self.end_grants(&known.id, problems);
        }
    }
}

//! Run-time changes: bound to one device, ended by its `remove`, kept over a restart.
//!
//! They live in `95-dbus.toml` of the runtime folder, in the form of policy rules, so that an
//! administrator can read them. The daemon alone writes that file. A grant names the device's
//! *instance*, so that a later device of the same name inherits nothing, even if it came while the
//! daemon was down.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::DeviceId;
use crate::rules::decision::Attribute;

/// The file's name below a policy folder; [`super::Policy::load`] passes over it.
pub const FILE: &str = "95-dbus.toml";

/// One attribute that a caller set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Owner, group or mode.
    pub attribute: Attribute,
    /// A uid, a gid or permission bits.
    pub value: u32,
    /// The caller for people: `uid 0 (:1.42)`.
    pub by: Arc<str>,
    pub reason: Arc<str>,
}

/// What was granted on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceGrants {
    /// See `Sysfs::instance`.
    pub instance: u64,
    pub devname: String,
    pub grants: Vec<Grant>,
}

/// All run-time changes.
#[derive(Debug)]
pub struct Grants {
    file: PathBuf,
    devices: BTreeMap<DeviceId, Arc<DeviceGrants>>,
}

#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
struct Rule {
    id: String,
    priority: u16,
    device: String,
    instance: u64,
    devname: String,
    by: String,
    reason: String,
    set: BTreeMap<String, u32>,
}

impl Grants {
    /// Reads what an earlier run left. A damaged file is moved aside, and the sentence says so.
    #[must_use]
    pub fn load(folder: &Path) -> (Self, Option<String>) {
        let file = folder.join(FILE);
        let mut grants = Self { file, devices: BTreeMap::new() };
        let text = match fs::read(&grants.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (grants, None),
            Err(error) => {
                let problem = format!("{}: cannot be read: {error}", grants.file.display());
                return (grants, Some(problem));
            }
        };
        let problem = match toml::from_slice::<File>(&text) {
            Ok(content) => {
                content.rule.into_iter().for_each(|rule| grants.take(rule));
                None
            }
            Err(error) => {
                let aside = grants.file.with_extension("toml.damaged");
                let moved = fs::rename(&grants.file, &aside);
                let place = if moved.is_ok() { &aside } else { &grants.file };
                let file = grants.file.display();
                Some(format!("{file}: {}; kept as {}", error.message(), place.display()))
            }
        };
        (grants, problem)
    }

    fn take(&mut self, rule: Rule) {
        let Some(id) = DeviceId::from_bytes(rule.device.as_bytes()) else { return };
        let entry = self.devices.entry(id).or_insert_with(|| {
            let devname = rule.devname.clone();
            Arc::new(DeviceGrants { instance: rule.instance, devname, grants: Vec::new() })
        });
        let (by, reason): (Arc<str>, Arc<str>) = (rule.by.into(), rule.reason.into());
        for (name, value) in rule.set {
            let Some(attribute) = Attribute::from_name(&name) else { continue };
            let grant = Grant { attribute, value, by: by.clone(), reason: reason.clone() };
            Arc::make_mut(entry).grants.push(grant);
        }
    }

    #[must_use]
    pub fn of(&self, id: &DeviceId) -> Option<&Arc<DeviceGrants>> {
        self.devices.get(id)
    }

    /// Grants on a device; an earlier grant of the same attribute is replaced.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is granted then.
    pub fn set(&mut self, id: &DeviceId, like: &DeviceGrants, grant: Grant) -> io::Result<()> {
        let mut device = match self.devices.get(id).filter(|old| old.instance == like.instance) {
            Some(old) => DeviceGrants::clone(old),
            None => DeviceGrants { grants: Vec::new(), ..like.clone() },
        };
        device.grants.retain(|old| old.attribute != grant.attribute);
        device.grants.push(grant);
        let old = self.devices.insert(id.clone(), Arc::new(device));
        self.save().inspect_err(|_| {
            match old {
                Some(old) => self.devices.insert(id.clone(), old),
                None => self.devices.remove(id),
            };
        })
    }

    /// Ends every grant on a device; `false` if there was none.
    ///
    /// # Errors
    /// When the file cannot be written; the grants have ended nevertheless.
    pub fn end(&mut self, id: &DeviceId) -> io::Result<bool> {
        if self.devices.remove(id).is_none() {
            return Ok(false);
        }
        self.save().map(|()| true)
    }

    fn save(&self) -> io::Result<()> {
        let mut rule = Vec::new();
        for (id, device) in &self.devices {
            for grant in &device.grants {
                rule.push(Rule {
                    id: format!("dbus-{id}-{}", grant.attribute.name()),
                    priority: 999,
                    device: id.to_string(),
                    instance: device.instance,
                    devname: device.devname.clone(),
                    by: grant.by.to_string(),
                    reason: grant.reason.to_string(),
                    set: BTreeMap::from([(grant.attribute.name().to_owned(), grant.value)]),
                });
            }
        }
        let text = toml::to_string(&File { schema: 1, rule }).map_err(io::Error::other)?;
        let head = "# Run-time changes made over D-Bus. mapdevd writes this file; \
                    change it with mapdevctl.\n";
        replace(&self.file, format!("{head}{text}").as_bytes())
    }
}

/// Replaces a file atomically: synced, then renamed into place.
///
/// # Errors
/// When the new content cannot be written; the old file is then untouched.
pub fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("new");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut new = options.write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    new.write_all(text)?;
    new.sync_all()?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(attribute: Attribute, value: u32) -> Grant {
        Grant { attribute, value, by: "uid 0 (:1.7)".into(), reason: "a \"test\"\n".into() }
    }

    fn device(instance: u64) -> DeviceGrants {
        DeviceGrants { instance, devname: "null".into(), grants: Vec::new() }
    }

    #[test]
    fn grants_survive_a_restart_and_end_with_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let id = DeviceId::from_bytes(b"c1:3").unwrap();
        let (mut grants, _) = Grants::load(folder.path());
        grants.set(&id, &device(7), grant(Attribute::Owner, 1000)).unwrap();
        grants.set(&id, &device(7), grant(Attribute::Mode, 0o640)).unwrap();
        grants.set(&id, &device(7), grant(Attribute::Owner, 1001)).unwrap();
        let (mut again, problem) = Grants::load(folder.path());
        assert_eq!(problem, None);
        let all = &again.of(&id).unwrap().grants;
        assert_eq!(all.len(), 2);
        assert!(all.contains(&grant(Attribute::Owner, 1001)));
        assert!(again.end(&id).unwrap());
        assert!(Grants::load(folder.path()).0.of(&id).is_none());
    }

    #[test]
    fn a_later_device_of_the_same_number_inherits_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let id = DeviceId::from_bytes(b"b8:16").unwrap();
        let (mut grants, _) = Grants::load(folder.path());
        grants.set(&id, &device(7), grant(Attribute::Owner, 1000)).unwrap();
        grants.set(&id, &device(8), grant(Attribute::Mode, 0o600)).unwrap();
        assert_eq!(grants.of(&id).unwrap().grants, [grant(Attribute::Mode, 0o600)]);
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_named() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in [b"schema = ".as_slice(), b"schema = 1 # \xff\n"] {
            fs::write(folder.path().join(FILE), damaged).unwrap();
            let (grants, problem) = Grants::load(folder.path());
            assert!(grants.devices.is_empty());
            assert!(problem.unwrap().contains("95-dbus.toml.damaged"));
        }
    }
}

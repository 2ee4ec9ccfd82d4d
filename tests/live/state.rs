//! All that a daemon leaves behind for others: records, nodes, links, map, list of devices.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::{Machine, Place};
use crate::storm::is_ours;
use crate::sysfs::Device;

type Lines = BTreeMap<String, String>;

/// What belongs to this test's devices; the machine's own events reach every namespace of its root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    records: Lines,
    files: Lines,
    map: Lines,
    devices: Lines,
}

impl State {
    /// Looks at a daemon that has settled.
    pub(crate) fn of(place: &Place, bus: &Bus) -> Self {
        let mut records = Lines::new();
        for entry in fs::read_dir(&place.records).unwrap().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap();
            // when a device was first handled differs between any two runs
            let lines = text.lines().filter(|line| !line.starts_with("I:"));
            let lines = lines.collect::<Vec<_>>().join(" ");
            records.insert(entry.file_name().into_string().unwrap(), lines);
        }
        let mut files = Lines::new();
        walk(&place.dev, &place.dev, &mut files);
        let mut map = Lines::new();
        for entry in bus.json(&["map", "dump", "--numeric"]).as_array().unwrap() {
            map.insert(entry["path"].as_str().unwrap().to_owned(), entry.to_string());
        }
        let mut devices = Lines::new();
        for device in bus.json(&["list"]).as_array().unwrap() {
            devices.insert(device["path"].as_str().unwrap().to_owned(), device.to_string());
        }
        for lines in [&mut records, &mut files, &mut map, &mut devices] {
            lines.retain(|name, text| is_ours(name) || is_ours(text));
        }
        Self { records, files, map, devices }
    }

    /// That of a new daemon on the same machine, which knows nothing but sysfs.
    pub(crate) fn fresh<'a>(
        machine: &Machine,
        bus: &Bus,
        devices: impl Iterator<Item = &'a Device>,
    ) -> Self {
        let place = machine.fresh_place(devices);
        let daemon = Daemon::start(machine, &place, bus, &Manager::new("fresh"), &ACTIVE);
        bus.settle();
        let state = Self::of(&place, bus);
        daemon.stop();
        state
    }

    /// Fails with what differs, line by line.
    pub(crate) fn assert_equals(&self, fresh: &Self) {
        let mut differences = Vec::new();
        let parts = [
            ("record", &self.records, &fresh.records),
            ("file", &self.files, &fresh.files),
            ("map", &self.map, &fresh.map),
            ("device", &self.devices, &fresh.devices),
        ];
        for (kind, ours, theirs) in parts {
            assert!(!theirs.is_empty(), "a fresh coldplug has no {kind}");
            let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
            for name in names.filter(|name| ours.get(*name) != theirs.get(*name)) {
                let [ours, theirs] = [ours, theirs].map(|lines| lines.get(name));
                differences.push(format!("{kind} {name}\n  is {ours:?}\n  not {theirs:?}"));
            }
        }
        let count = differences.len();
        differences.truncate(20);
        assert!(count == 0, "{count} differ from a fresh coldplug:\n{}", differences.join("\n"));
    }

    pub(crate) fn figures(&self) -> String {
        let Self { records, files, map, devices } = self;
        let (records, files) = (records.len(), files.len());
        let (map, devices) = (map.len(), devices.len());
        format!("{devices} devices, {records} records, {files} nodes and links, {map} map entries")
    }
}

/// Nodes and links below a folder.
fn walk(top: &Path, folder: &Path, found: &mut Lines) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            walk(top, &path, found);
        } else if stat.is_symlink() {
            found.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.insert(name, describe(&stat));
        }
    }
}

fn describe(stat: &fs::Metadata) -> String {
    format!("{:o} {}:{} {:x}", stat.mode(), stat.uid(), stat.gid(), stat.rdev())
}

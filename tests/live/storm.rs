//! A storm of events over 500 devpaths: sysfs, nodes and events in step, as the kernel has them.

use crate::machine::Machine;
use crate::random::Random;
use crate::sysfs::Device;

const CHARS: usize = 300;
const DISKS: usize = 40;
const PARTITIONS: usize = 2;
const NETS: usize = 40;
const PLAINS: usize = 40;

/// Numbers that no driver of this machine has.
const MAJOR: &str = "4000";

/// Whether a name or a line speaks of a device of the storm.
pub(crate) fn is_ours(text: &str) -> bool {
    ["live", "4000:", "4000_", "n900"].iter().any(|mark| text.contains(mark))
}

/// Whether a device that comes back may have other permissions than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permissions {
    /// The driver decides by name, as drivers do. After a kill nobody knows whether a node has what
    /// an event of its predecessor said, handled late, or what somebody gave it by hand.
    Stay,
    Vary,
}

pub(crate) struct Storm {
    random: Random,
    permissions: Permissions,
    slots: Vec<Option<Device>>,
}

impl Storm {
    pub(crate) fn new(permissions: Permissions) -> Self {
        let count = CHARS + DISKS * (1 + PARTITIONS) + NETS + PLAINS;
        assert_eq!(count, 500);
        Self { random: Random::new(), permissions, slots: vec![None; count] }
    }

    /// Policy whose links several devices want, each with a priority of its own.
    pub(crate) fn policy() -> String {
        let mut text = "schema = 1\n".to_owned();
        for index in 0..CHARS {
            let (pool, mode) = (index % 20, ["0600", "0640", "0660"][index % 3]);
            text.push_str(&format!(
                "[[rule]]\nid = \"c{index}\"\nmatch.devname = \"livec{index}\"\n\
                 set.symlink = {{ add = [\"live-pool/{pool}\", \"live-one/{index}\"], \
                 priority = {index} }}\n"
            ));
            if index % 5 == 0 {
                text.push_str(&format!("set.mode = \"{mode}\"\nset.group = \"lab\"\n"));
            }
        }
        text
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.slots.iter().flatten()
    }

    /// Adds every device.
    pub(crate) fn fill(&mut self, machine: &mut Machine) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_none() {
                self.add(slot, machine);
            }
        }
    }

    /// One event of a device that is there already.
    pub(crate) fn change(&mut self, machine: &mut Machine) {
        let present: Vec<usize> =
            (0..self.slots.len()).filter(|n| self.slots[*n].is_some()).collect();
        let slot = present[self.random.below(present.len())];
        machine.tell("change", self.slots[slot].as_ref().unwrap(), &[]);
    }

    /// One event: add, change, move or remove of a device by chance.
    pub(crate) fn step(&mut self, machine: &mut Machine) {
        let slot = self.random.below(self.slots.len());
        if self.slots[slot].is_none() {
            return self.add(slot, machine);
        }
        match self.random.below(20) {
            0..12 => _ = machine.change(self.slots[slot].as_ref().unwrap()),
            12..15 => self.rename(slot, machine),
            _ => self.remove(slot, machine),
        }
    }

    fn add(&mut self, slot: usize, machine: &mut Machine) {
        // a partition needs its disk
        let slot = match disk_of(slot) {
            Some(disk) if self.slots[disk].is_none() => disk,
            _ => slot,
        };
        let device = self.device(slot);
        machine.add(&device);
        self.slots[slot] = Some(device);
    }

    fn remove(&mut self, slot: usize, machine: &mut Machine) {
        // a disk goes after its partitions
        let child = (0..self.slots.len())
            .find(|other| disk_of(*other) == Some(slot) && self.slots[*other].is_some());
        let slot = child.unwrap_or(slot);
        machine.remove(&self.slots[slot].take().unwrap());
    }

    fn rename(&mut self, slot: usize, machine: &mut Machine) {
        let old = self.slots[slot].clone().unwrap();
        let mut new = old.clone();
        let path = &old.devpath;
        match old.subsystem.as_str() {
            // to another parent, under the same name
            "livechar" if path.contains("/here/") => {
                new.devpath = path.replace("/here/", "/there/")
            }
            "livechar" => new.devpath = path.replace("/there/", "/here/"),
            // to another name
            "livenet" | "liveplain" => {
                let stay = path.strip_suffix('x');
                new.devpath = stay.map_or(format!("{path}x"), str::to_owned);
            }
            // disks do not move
            _ => {
                machine.change(&old);
                return;
            }
        }
        machine.rename(&old, &new);
        self.slots[slot] = Some(new);
    }

    fn device(&mut self, slot: usize) -> Device {
        let base = DISKS * (1 + PARTITIONS);
        if slot < DISKS {
            return self.node(&disk_path(slot), "block", slot * 4, "disk");
        }
        if let Some(disk) = disk_of(slot) {
            let part = (slot - DISKS) % PARTITIONS + 1;
            let path = format!("{}/lived{disk}p{part}", disk_path(disk));
            return self.node(&path, "block", disk * 4 + part, "partition");
        }
        let index = slot - base;
        if index < CHARS {
            // sometimes it comes back under another number
            let minor = 1000 + index + 1000 * self.random.below(2);
            return self.node(&format!("/devices/live/here/livec{index}"), "livechar", minor, "");
        }
        let index = index - CHARS;
        if index < NETS {
            let path = format!("/devices/live/net/live{index}");
            let ifindex = format!("900{index:03}");
            return Device::new(&path, "livenet", &[("INTERFACE", "live"), ("IFINDEX", &ifindex)]);
        }
        let path = format!("/devices/live/plain/livep{}", index - NETS);
        Device::new(&path, "liveplain", &[("LIVE", "yes")])
    }

    fn node(&mut self, devpath: &str, subsystem: &str, minor: usize, devtype: &str) -> Device {
        let minor = minor.to_string();
        let name = devpath.rsplit('/').next().unwrap();
        let mut pairs = vec![("MAJOR", MAJOR), ("MINOR", &minor), ("DEVNAME", name)];
        if !devtype.is_empty() {
            pairs.push(("DEVTYPE", devtype));
        }
        let choice = match self.permissions {
            Permissions::Stay => name.len() + usize::from(name.as_bytes()[name.len() - 1]),
            Permissions::Vary => self.random.below(4),
        };
        match choice % 4 {
            0 => pairs.push(("DEVMODE", "0666")),
            1 => pairs.extend([("DEVMODE", "0640"), ("DEVUID", "77"), ("DEVGID", "78")]),
            2 => pairs.push(("DEVGID", "79")),
            _ => {}
        }
        Device::new(devpath, subsystem, &pairs)
    }
}

fn disk_path(disk: usize) -> String {
    format!("/devices/live/host/lived{disk}")
}

/// The disk of a partition's slot.
fn disk_of(slot: usize) -> Option<usize> {
    let first = DISKS..DISKS * (1 + PARTITIONS);
    first.contains(&slot).then(|| (slot - DISKS) / PARTITIONS)
}

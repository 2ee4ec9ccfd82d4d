//! A machine of the test's own: namespaces, an empty `/run` and `/dev`, and a fake sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, Uid};

use crate::inject::{Injector, payload};
use crate::namespaces;
use crate::sysfs::{Device, FakeSysfs};

/// Makes `/run` and `/dev` private before the test runs.
const PREPARE: &str = "
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/new
mount -t tmpfs -o mode=0755 tmpfs /run/new
mknod -m 0666 /run/new/null c 1 3
mknod -m 0666 /run/new/zero c 1 5
mknod -m 0666 /run/new/random c 1 8
mknod -m 0666 /run/new/urandom c 1 9
ln -s /proc/self/fd /run/new/fd
mount --move /run/new /dev
rmdir /run/new
exec \"$0\" \"$@\"
";

/// Runs the test again in namespaces where it disturbs nobody; there, with a machine of its own.
pub(crate) fn private(module: &str, test: &str, body: impl FnOnce(Machine)) {
    if namespaces::inside() {
        return body(Machine::new());
    }
    namespaces::again(module, test, PREPARE);
}

/// Folders that a daemon works with; `sysfs` and `root` are the machine's.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dev: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) records: PathBuf,
}

impl Place {
    fn new(top: &Path) -> Self {
        let place = Self {
            dev: top.join("dev"),
            runtime: top.join("mapdev"),
            records: top.join("udev/data"),
        };
        fs::create_dir_all(&place.dev).unwrap();
        place
    }
}

/// The kernel's side of things.
pub(crate) struct Machine {
    pub(crate) top: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) place: Place,
    pub(crate) sysfs: FakeSysfs,
    senders: [Injector; 2],
    /// Events sent so far; each carries its number.
    sent: u64,
}

impl Machine {
    fn new() -> Self {
        let top = PathBuf::from("/run/live");
        let root = top.join("root");
        fs::create_dir_all(root.join("etc/mapdev/policy.d")).unwrap();
        let passwd = "root:x:0:0::/:/bin/sh\nalice:x:1234:1234::/:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nlab:x:4321:\n").unwrap();
        let place = Place::new(&top.join("first"));
        let sysfs = FakeSysfs::new(top.join("sys"));
        Self { root, place, sysfs, top, senders: [Injector::new(), Injector::new()], sent: 0 }
    }

    pub(crate) fn policy(&self, name: &str, text: &str) {
        fs::write(self.root.join("etc/mapdev/policy.d").join(name), text).unwrap();
    }

    /// Sends an event by the two senders in turn, and returns its number.
    pub(crate) fn tell(&mut self, action: &str, device: &Device, more: &[(&str, &str)]) -> u64 {
        self.sent += 1;
        let mut pairs = device.event_pairs();
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.extend(more);
        pairs.push(("LIVE_N".to_owned(), self.sent.to_string()));
        let sender = &self.senders[usize::from(self.sent.is_multiple_of(2))];
        sender.inject(&payload(action, &device.devpath, &pairs));
        self.sent
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// As the kernel does it: sysfs, node, event.
    pub(crate) fn add(&mut self, device: &Device) -> u64 {
        self.add_with(device, &[])
    }

    /// The event says more than the `uevent` file.
    pub(crate) fn add_with(&mut self, device: &Device, more: &[(&str, &str)]) -> u64 {
        self.sysfs.add_device(device);
        make_node(&self.place.dev, device);
        self.tell("add", device, more)
    }

    pub(crate) fn change(&mut self, device: &Device) -> u64 {
        self.sysfs.change(device);
        self.tell("change", device, &[])
    }

    pub(crate) fn rename(&mut self, old: &Device, new: &Device) -> u64 {
        self.sysfs.rename(old, new);
        self.tell("move", new, &[("DEVPATH_OLD", &old.devpath)])
    }

    pub(crate) fn remove(&mut self, device: &Device) -> u64 {
        if let Some(name) = device.get("DEVNAME") {
            fs::remove_file(self.place.dev.join(name)).unwrap();
        }
        let number = self.tell("remove", device, &[]);
        self.sysfs.remove_device(device);
        number
    }

    /// Another place on this machine, with the nodes as the kernel would make them now.
    pub(crate) fn fresh_place<'a>(&self, devices: impl Iterator<Item = &'a Device>) -> Place {
        let place = Place::new(&self.top.join("fresh"));
        devices.for_each(|device| make_node(&place.dev, device));
        place
    }
}

/// As devtmpfs makes a node (`handle_create()` in `drivers/base/devtmpfs.c`).
fn make_node(dev: &Path, device: &Device) {
    let Some(name) = device.get("DEVNAME") else { return };
    let number = |key, radix| device.get(key).map(|n| u32::from_str_radix(n, radix).unwrap());
    let major = number("MAJOR", 10).unwrap();
    let devnum = rustix::fs::makedev(major, number("MINOR", 10).unwrap());
    let block = device.subsystem == "block";
    let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let path = dev.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), devnum).unwrap();
    let mode = Mode::from_raw_mode(number("DEVMODE", 8).unwrap_or(0o600));
    rustix::fs::chmod(&path, mode).unwrap();
    let (uid, gid) = (number("DEVUID", 10).unwrap_or(0), number("DEVGID", 10).unwrap_or(0));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
}

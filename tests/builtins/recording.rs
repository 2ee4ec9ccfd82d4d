//! Devices as `umockdev-record` writes them, and a tree of plain files that holds them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Subsystems that are buses; all others are classes.
const BUSES: [&str; 26] = [
    "acpi",
    "amba",
    "ap",
    "bcma",
    "cciss",
    "ccw",
    "ccwgroup",
    "hid",
    "i2c",
    "iucv",
    "mmc",
    "netdevsim",
    "nvmem",
    "pci",
    "platform",
    "scm",
    "scsi",
    "serio",
    "spi",
    "usb",
    "usb-serial",
    "vio",
    "virtio",
    "vmbus",
    "xen",
    "firewire",
];

/// What a rule and not the kernel has said.
const NOT_THE_KERNELS: [&str; 8] = [
    "CURRENT_TAGS",
    "DEVLINKS",
    "DEVPATH",
    "LIBINPUT_DEVICE_GROUP",
    "SUBSYSTEM",
    "TAGS",
    "USEC_INITIALIZED",
    "UPOWER_VENDOR",
];

/// The lines of a recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    pub(crate) lines: Vec<String>,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> Self {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Those of a subsystem: of others the kernel sends no event.
    pub(crate) fn devpaths(&self) -> Vec<String> {
        let devices = self
            .lines
            .split(String::is_empty)
            .filter(|lines| lines.iter().any(|line| line.starts_with("E: SUBSYSTEM=")));
        let paths = devices.filter_map(|lines| lines.iter().find_map(|l| l.strip_prefix("P: ")));
        paths.map(str::to_owned).collect()
    }

    /// Makes the tree at `root`, in the place of what was there.
    pub(crate) fn unpack(&self, root: &Path) {
        for entry in fs::read_dir(root).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        let mut device = Folder::default();
        for line in &self.lines {
            let Some((kind, rest)) = line.split_at_checked(2) else { continue };
            let value = rest.trim_start_matches(' ');
            match kind {
                "P:" => {
                    device.finish();
                    device = Folder::new(root, value);
                }
                "N:" => device.node(value.split('=').next().unwrap()),
                "E:" => device.property(value),
                "A:" => device.attribute(value, &unescaped),
                "H:" => device.attribute(value, &hexadecimal),
                "L:" => device.link(value),
                _ => {}
            }
        }
        device.finish();
    }
}

/// A device that is being made.
#[derive(Default)]
struct Folder {
    root: PathBuf,
    path: PathBuf,
    devpath: String,
    uevent: String,
}

impl Folder {
    fn new(root: &Path, devpath: &str) -> Self {
        let path = root.join(&devpath[1..]);
        fs::create_dir_all(&path).unwrap();
        Self { root: root.to_owned(), path, devpath: devpath.to_owned(), uevent: String::new() }
    }

    fn node(&mut self, name: &str) {
        self.uevent.push_str(&format!("DEVNAME={name}\n"));
    }

    fn property(&mut self, pair: &str) {
        let (key, value) = pair.split_once('=').unwrap();
        match key {
            "SUBSYSTEM" => self.subsystem(value),
            "DEVNAME" => {}
            _ if key.starts_with("ID_") || NOT_THE_KERNELS.contains(&key) => {}
            // how a generated device has what a rule has set before
            _ => self.uevent.push_str(&format!("{}={value}\n", key.trim_start_matches("SET:"))),
        }
    }

    fn subsystem(&self, name: &str) {
        let home = if BUSES.contains(&name) { "bus" } else { "class" };
        let up = "../".repeat(self.devpath.matches('/').count());
        self.link(&format!("subsystem={up}{home}/{name}"));
        let folder = match home {
            "bus" => format!("{home}/{name}/devices"),
            _ => format!("{home}/{name}"),
        };
        let up = "../".repeat(folder.matches('/').count() + 1);
        fs::create_dir_all(self.root.join(&folder)).unwrap();
        let link = self.root.join(&folder).join(self.path.file_name().unwrap());
        drop(symlink(format!("{up}{}", &self.devpath[1..]), link));
    }

    fn attribute(&self, pair: &str, content: &dyn Fn(&str) -> Vec<u8>) {
        let (name, value) = pair.split_once('=').unwrap();
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name != "uevent" && !path.is_dir() {
            fs::write(path, content(value)).unwrap();
        }
    }

    fn link(&self, pair: &str) {
        let (name, target) = pair.split_once('=').unwrap();
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(symlink(target, path));
    }

    fn finish(&self) {
        if self.devpath.starts_with("/devices") {
            fs::write(self.path.join("uevent"), &self.uevent).unwrap();
        }
    }
}

/// `\n`, `\\` and `\xNN`, as a recording has them.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match rest {
            [b'n', tail @ ..] => {
                bytes.push(b'\n');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                bytes.extend(hexadecimal(str::from_utf8(&[*high, *low]).unwrap()));
                rest = tail;
            }
            [other, tail @ ..] => {
                bytes.push(*other);
                rest = tail;
            }
            [] => {}
        }
    }
    bytes
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

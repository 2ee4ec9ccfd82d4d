//! A sysfs of the test's own, mounted on `/sys`, and the nodes of its devices.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev};

/// Devices by the names that cases use: devpath, subsystem, `uevent` file.
pub(crate) const DEVICES: [(&str, &str, &str, &str); 8] = [
    ("lone", "/devices/lone", "misc", ""),
    ("host", "/devices/pci0", "", ""),
    (
        "bus",
        "/devices/pci0/usb1",
        "usb",
        "MAJOR=189\nMINOR=0\nDEVNAME=bus/usb/001/001\nDEVTYPE=usb_device\nDRIVER=usb\nBUSNUM=001\n",
    ),
    (
        "port",
        "/devices/pci0/usb1/1-1",
        "usb",
        "DEVTYPE=usb_interface\nDRIVER=uas\nMODALIAS=usb:v1d6b\n",
    ),
    (
        "disk",
        "/devices/pci0/usb1/1-1/block/sdz",
        "block",
        "MAJOR=8\nMINOR=240\nDEVNAME=sdz\nDEVTYPE=disk\nDISKSEQ=7\n",
    ),
    (
        "partition",
        "/devices/pci0/usb1/1-1/block/sdz/sdz12",
        "block",
        "MAJOR=8\nMINOR=252\nDEVNAME=sdz12\nDEVTYPE=partition\nPARTN=12\n",
    ),
    ("net", "/devices/virtual/net/mdev0", "net", "INTERFACE=mdev0\nIFINDEX=77\n"),
    (
        "odd",
        "/devices/virtual/misc/a!b0",
        "misc",
        "MAJOR=10\nMINOR=77\nDEVNAME=a/b0\nDEVMODE=0666\n",
    ),
];

/// Attributes: of which device, name, content.
const ATTRIBUTES: [(&str, &str, &[u8]); 23] = [
    ("bus", "idVendor", b"1d6b\n"),
    ("bus", "product", b"A Hub  \n"),
    ("bus", "serial", b"0000:00:1d.7\n"),
    ("bus", "authorized", b"1\n"),
    ("port", "idVendor", b"abcd\n"),
    ("port", "bInterfaceNumber", b"00\n"),
    ("port", "only", b"port\n"),
    ("port", "power/control", b"auto\n"),
    ("disk", "size", b"1000\n"),
    ("disk", "ro", b"0\n"),
    ("disk", "removable", b"1"),
    ("disk", "model", b"  WDC  WD10/x;y\t\xc3\xa4 \n"),
    ("disk", "label", b"back\\x2fslash\\y 100% $5\n"),
    ("disk", "empty", b""),
    ("disk", "blanks", b"x \t\n"),
    ("disk", "lines", b"one\ntwo\n\n"),
    ("disk", "nul", b"front\0back\n"),
    ("disk", "high", b"\xff\xfe\n"),
    ("disk", "writable", b"old\n"),
    ("disk", "queue/rotational", b"1\n"),
    ("partition", "partition", b"12\n"),
    ("net", "address", b"02:00:00:00:00:01\n"),
    ("odd", "mode", b"0640\n"),
];

pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

impl Tree {
    /// Makes the tree, mounts it on `/sys`, and makes the nodes.
    pub(crate) fn mount() -> Self {
        let root = PathBuf::from("/run/tree");
        let tree = Self { root };
        for (_, devpath, subsystem, uevent) in DEVICES {
            tree.device(devpath, subsystem, uevent);
        }
        for (device, name, content) in ATTRIBUTES {
            tree.put(&format!("{}/{name}", devpath(device)), content);
        }
        let long = "0123456789".repeat(60);
        tree.put(&format!("{}/long", devpath("disk")), long.as_bytes());
        let spaced = format!("{}   \n", "9".repeat(520));
        tree.put(&format!("{}/spaced", devpath("disk")), spaced.as_bytes());
        tree.put("/class/dmi/id/.keep", b"");
        tree.put("/devices/virtual/dmi/id/vendor", b"Example Inc.\n");
        tree.put("/devices/virtual/dmi/id/uevent", b"");
        fs::remove_dir_all(tree.root.join("class/dmi")).unwrap();
        tree.link("/class/dmi/id", "../../devices/virtual/dmi/id");
        tree.link("/devices/virtual/dmi/id/subsystem", "../../../../class/dmi");
        tree.put("/module/loop/parameters/max_loop", b"8\n");
        tree.put("/bus/usb/drivers/usb/note", b"driver's\n");
        tree.put("/bus/usb/drivers/uas/note", b"other\n");
        let disk = devpath("disk");
        tree.put(&format!("{disk}/secret"), b"hidden\n");
        let secret = tree.root.join(&disk[1..]).join("secret");
        fs::set_permissions(secret, fs::Permissions::from_mode(0o200)).unwrap();
        tree.link(&format!("{}/driver", devpath("bus")), "../../../bus/usb/drivers/usb");
        tree.link(&format!("{}/driver", devpath("port")), "../../../../bus/usb/drivers/uas");
        tree.link(&format!("{disk}/device"), "../../../1-1");
        tree.link(&format!("{disk}/alias"), "size");
        let mounted = Command::new("mount").args(["--bind", "/run/tree", "/sys"]).status();
        assert!(mounted.unwrap().success());
        tree
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.root.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.root.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn device(&self, devpath: &str, subsystem: &str, uevent: &str) {
        self.put(&format!("{devpath}/uevent"), uevent.as_bytes());
        if subsystem.is_empty() {
            return;
        }
        let up = "../".repeat(devpath.matches('/').count());
        let name = devpath.rsplit('/').next().unwrap();
        let home = if subsystem == "usb" { "bus/usb" } else { &format!("class/{subsystem}") };
        self.link(&format!("{devpath}/subsystem"), &format!("{up}{home}"));
        let folder = if subsystem == "usb" { "bus/usb/devices" } else { home };
        let up = "../".repeat(folder.matches('/').count() + 1);
        self.link(&format!("/{folder}/{name}"), &format!("{up}{}", &devpath[1..]));
    }

    /// What rules may write to, as it was.
    pub(crate) fn reset(&self) {
        let path = self.root.join(&devpath("disk")[1..]).join("writable");
        fs::write(path, "old\n").unwrap();
        for (_, _, _, uevent) in DEVICES {
            plug(uevent);
        }
    }

    pub(crate) fn writable(&self) -> String {
        let path = self.root.join(&devpath("disk")[1..]).join("writable");
        fs::read_to_string(path).unwrap()
    }
}

pub(crate) fn devpath(device: &str) -> &'static str {
    let known = DEVICES.iter().find(|(name, ..)| *name == device);
    known.unwrap_or_else(|| panic!("no device {device}")).1
}

/// The value of a `uevent` file's line.
fn value<'a>(uevent: &'a str, key: &str) -> Option<&'a str> {
    uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Removes the node that a `uevent` file speaks of, as the kernel does.
pub(crate) fn unplug(uevent: &str) {
    if let Some(name) = value(uevent, "DEVNAME") {
        fs::remove_file(Path::new("/dev").join(name)).unwrap();
    }
}

/// Makes the node that a `uevent` file speaks of, as the kernel does: root's, 0600.
pub(crate) fn plug(uevent: &str) {
    let value = |key| value(uevent, key);
    let (Some(name), Some(major), Some(minor)) = (value("DEVNAME"), value("MAJOR"), value("MINOR"))
    else {
        return;
    };
    let path = Path::new("/dev").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(fs::remove_file(&path));
    let block = matches!(value("DEVTYPE"), Some("disk" | "partition"));
    let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = makedev(major.parse().unwrap(), minor.parse().unwrap());
    rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), number).unwrap();
    chown(&path, Some(0), Some(0)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

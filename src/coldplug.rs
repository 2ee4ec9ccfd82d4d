//! Stage 3a: today's sysfs as events, at start and after loss.
//!
//! The `uevent` file of a device holds what the kernel would put into its message, so reading it
//! asks the kernel to repeat itself without telling everybody else on the machine, and needs no
//! privilege.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::mpsc;

use crate::device::Sysfs;
use crate::device::replay::replay;
use crate::uevent::{Action, Uevent};

/// Events that wait for dispatch at most; the readers are then held up.
pub const COLDPLUG_MAX: usize = 1024;

/// The devpaths of all devices by their depth, so that a parent comes before its children.
///
/// As `udevadm trigger` finds them: `/sys/bus/*/devices/*` and `/sys/class/*/*`, and for the
/// kinds that are no devices `/sys/bus/*`, `/sys/bus/*/drivers/*` and `/sys/module/*`.
#[must_use]
pub fn devpaths(sysfs: &Sysfs) -> BTreeMap<usize, BTreeSet<Vec<u8>>> {
    let mut found: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut add = |path: Vec<u8>| {
        let depth = path.iter().filter(|byte| **byte == b'/').count();
        found.entry(depth).or_default().insert(path);
    };
    let join = |parts: &[&[u8]]| parts.join(&b'/');
    let links = |folder: &[u8]| -> Vec<Vec<u8>> {
        let names = sysfs.names(folder);
        names.iter().filter_map(|name| sysfs.follow(&join(&[folder, name]))).collect()
    };
    for bus in sysfs.names(b"/bus") {
        add(join(&[b"/bus", &bus]));
        let drivers = join(&[b"/bus", &bus, b"drivers"]);
        sysfs.names(&drivers).iter().for_each(|driver| add(join(&[&drivers, driver])));
        links(&join(&[b"/bus", &bus, b"devices"])).into_iter().for_each(&mut add);
    }
    for class in sysfs.names(b"/class") {
        links(&join(&[b"/class", &class])).into_iter().for_each(&mut add);
    }
    for module in sysfs.names(b"/module") {
        add(join(&[b"/module", &module]));
    }
    found
}

/// The event of one device as sysfs has it now; `None` if there is no (longer a) device.
#[must_use]
pub fn event(sysfs: &Sysfs, devpath: &[u8], action: Action, seqnum: u64) -> Option<Uevent> {
    // what has no subsystem stands between devices and is none
    replay(sysfs, devpath, action, seqnum).filter(|event| event.get(b"SUBSYSTEM").is_some())
}

/// Reads all of sysfs, on as many threads as the machine has processors, and sends each device.
///
/// Returns at once; the channel closes when everything was sent. Devices of one depth are read
/// side by side, a depth after the one above it: parents are sent first.
#[must_use]
pub fn start(sysfs: &Sysfs) -> mpsc::Receiver<Uevent> {
    let (sender, receiver) = mpsc::channel(COLDPLUG_MAX);
    let sysfs = sysfs.clone();
    thread::spawn(move || {
        let seqnum = sysfs.seqnum();
        for paths in devpaths(&sysfs).into_values() {
            read(&sysfs, &Vec::from_iter(paths), seqnum, &sender);
        }
    });
    receiver
}

fn read(sysfs: &Sysfs, paths: &[Vec<u8>], seqnum: u64, sender: &mpsc::Sender<Uevent>) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(event) = event(sysfs, path, Action::Add, seqnum) else { continue };
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    };
    // a thread for a handful of paths costs more than it reads
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(paths.len() / 16);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn device(root: &Path, devpath: &str, class: &str, uevent: &[u8]) {
        let folder = root.join(&devpath[1..]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("uevent"), uevent).unwrap();
        fs::create_dir_all(root.join("class").join(class)).unwrap();
        let up = "../".repeat(devpath.matches('/').count());
        symlink(format!("{up}class/{class}"), folder.join("subsystem")).unwrap();
        let name = Path::new(devpath).file_name().unwrap();
        symlink(format!("../..{devpath}"), root.join("class").join(class).join(name)).unwrap();
    }

    #[test]
    fn every_device_comes_once_and_after_its_parent() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "/devices/a/block/sda", "block", b"MAJOR=8\nMINOR=0\nDEVNAME=sda\n");
        for n in 1..40 {
            let path = format!("/devices/a/block/sda/sda{n}");
            let text = format!("MAJOR=8\nMINOR={n}\nDEVNAME=sda{n}\nPARTN={n}\n");
            device(root.path(), &path, "block", text.as_bytes());
        }
        let mut receiver = start(&Sysfs::new(root.path()));
        let events: Vec<_> = std::iter::from_fn(|| receiver.blocking_recv()).collect();
        assert_eq!(events.len(), 40);
        assert_eq!(events[0].devname(), Some(b"sda".as_slice()));
        assert_eq!(events[0].devnum().unwrap().to_string(), "b8:0");
    }

    #[test]
    fn a_name_that_leads_out_of_dev_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "/devices/a/x", "misc", b"MAJOR=10\nMINOR=3\nDEVNAME=../etc/x\n");
        let event = event(&Sysfs::new(root.path()), b"/devices/a/x", Action::Add, 7).unwrap();
        assert_eq!((event.devname(), event.get(b"MINOR")), (None, Some(b"3".as_slice())));
    }

    #[test]
    fn a_value_that_is_no_text_does_not_lose_the_device() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "/devices/mmc0", "mmc_host", b"MMC_NAME=\xff\xfe\nDRIVER=mmcblk\n");
        let event = event(&Sysfs::new(root.path()), b"/devices/mmc0", Action::Add, 7).unwrap();
        assert_eq!(event.get(b"MMC_NAME"), Some(b"\xff\xfe".as_slice()));
        assert_eq!((event.subsystem(), event.seqnum()), (b"mmc_host".as_slice(), 7));
    }
}

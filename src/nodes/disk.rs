//! Stage 5: a disk as a whole: its lock during an event, and what is done when a program that wrote to it
//! has closed it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, ioctl};

use crate::device::{Device, Sysfs, last_element};
use crate::problem::at;

/// `BLKRRPART` of `include/uapi/linux/fs.h`.
const REREAD_PARTITIONS: Opcode = 0x125f;

/// Disks that are put together from others: who works on those takes no lock of ours.
const STACKED: [&[u8]; 3] = [b"dm-", b"md", b"drbd"];

/// The lock of a whole disk, shared with other events; given back when it is dropped.
#[derive(Debug)]
pub struct DiskLock {
    _held: OwnedFd,
}

/// What became of a lock that was wanted.
#[derive(Debug)]
pub enum Locking {
    Held(DiskLock),
    /// Another program works on the disk.
    Busy,
    /// The device is no disk or part of one, or the disk is gone.
    None,
}

/// Locks the disk that a device is or is part of, and never waits (systemd.io/BLOCK_DEVICE_LOCKING).
///
/// # Errors
/// When the system refuses to open the disk, or to lock it.
pub fn lock(device: &Device, dev: &Path) -> io::Result<Locking> {
    let Some(name) = whole(device) else { return Ok(Locking::None) };
    let node = dev.join(OsStr::from_bytes(&name));
    let held = match open_quietly(&node) {
        // a link at the node's place leads to what is not this disk
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM | Errno::LOOP) => {
            return Ok(Locking::None);
        }
        held => held.map_err(|error| at(&node, &error.into()))?,
    };
    match flock(&held, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Locking::Held(DiskLock { _held: held })),
        Err(Errno::WOULDBLOCK) => Ok(Locking::Busy),
        Err(error) => Err(at(&node, &error.into())),
    }
}

/// The node of the disk that a device is or is part of, if such disks are locked.
fn whole(device: &Device) -> Option<Vec<u8>> {
    let sysname = device.sysname();
    if device.subsystem() != b"block" || STACKED.iter().any(|name| sysname.starts_with(name)) {
        return None;
    }
    match device.devtype() {
        b"disk" => device.devname().map(<[u8]>::to_vec),
        b"partition" => {
            let disk = device.parent()?;
            let is_disk = disk.subsystem() == b"block" && disk.devtype() == b"disk";
            disk.devname().filter(|_| is_disk).map(<[u8]>::to_vec)
        }
        _ => None,
    }
}

/// Without waiting for a medium, and without a close that looks like that of a writer.
fn open_quietly(node: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(node, flags, Mode::empty())
}

/// What a node's writer is told about: the device.
#[derive(Clone, Debug)]
pub struct Closed {
    pub devpath: Vec<u8>,
    /// Below `/dev`.
    pub devname: Vec<u8>,
    /// It is a disk whose partitions the kernel knows.
    pub is_disk: bool,
}

/// A writer has closed the node: has a disk's partitions read again, which tells all of them; else has the
/// kernel tell of the device, and of its partitions, with `change`. It may take as long as the disk does.
///
/// # Errors
/// When sysfs does not take what is written.
pub fn closed(device: &Closed, sysfs: &Sysfs, dev: &Path) -> io::Result<()> {
    let Closed { devpath, devname, is_disk } = device;
    let is_disk = *is_disk && !last_element(devpath).starts_with(b"dm-");
    let reread = is_disk && reread(&dev.join(OsStr::from_bytes(devname)));
    let mut parts = Vec::new();
    if is_disk {
        for name in sysfs.names(devpath) {
            let path = [devpath, b"/".as_slice(), &name].concat();
            if sysfs.syspath(&path).join("partition").exists() {
                parts.push(path);
            }
        }
    }
    if reread && !parts.is_empty() {
        return Ok(());
    }
    tell(sysfs, devpath)?;
    parts.iter().try_for_each(|part| tell(sysfs, part))
}

/// Has the kernel tell of a device, with `change`; of one that went meanwhile it does not.
///
/// # Errors
/// When sysfs does not take what is written.
pub fn tell(sysfs: &Sysfs, devpath: &[u8]) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).open(sysfs.syspath(devpath).join("uevent")) {
        Ok(mut file) => io::Write::write_all(&mut file, b"change"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the kernel read the partitions anew: not while somebody has the disk locked, or a part in use.
#[expect(unsafe_code, reason = "rustix has no name for this ioctl")]
fn reread(node: &Path) -> bool {
    let Ok(disk) = open_quietly(node) else { return false };
    if flock(&disk, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // SAFETY: BLKRRPART takes no argument (block/ioctl.c), and the descriptor is open.
    unsafe { ioctl(&disk, NoArg::<REREAD_PARTITIONS>::new()) }.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::uevent::{Action, Origin, Uevent};

    fn device(sysfs: &Sysfs, devpath: &[u8], devname: &[u8], devtype: &[u8]) -> Device {
        let pairs = [
            (b"SUBSYSTEM".as_slice(), b"block".as_slice()),
            (b"DEVNAME", devname),
            (b"DEVTYPE", devtype),
        ];
        let uevent = Uevent::synthetic(Origin::Coldplug, Action::Change, devpath, 1, &pairs);
        Device::new(sysfs.clone(), Arc::new(uevent))
    }

    /// A disk with one partition.
    fn machine() -> (tempfile::TempDir, Sysfs) {
        let top = tempfile::tempdir().unwrap();
        let disk = top.path().join("sys/devices/sda");
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(top.path().join("sys/class/block")).unwrap();
        std::os::unix::fs::symlink("../../class/block", disk.join("subsystem")).unwrap();
        fs::write(disk.join("uevent"), "DEVNAME=sda\nDEVTYPE=disk\nMAJOR=8\nMINOR=0\n").unwrap();
        fs::write(disk.join("sda1/uevent"), "").unwrap();
        fs::write(disk.join("sda1/partition"), "1\n").unwrap();
        fs::create_dir(top.path().join("dev")).unwrap();
        fs::write(top.path().join("dev/sda"), "").unwrap();
        let sysfs = Sysfs::new(top.path().join("sys"));
        (top, sysfs)
    }

    #[test]
    fn a_partition_shares_its_disks_lock_and_never_waits_for_it() {
        let (top, sysfs) = machine();
        let dev = top.path().join("dev");
        let part = device(&sysfs, b"/devices/sda/sda1", b"sda1", b"partition");
        let disk = device(&sysfs, b"/devices/sda", b"sda", b"disk");
        let held = [lock(&part, &dev).unwrap(), lock(&disk, &dev).unwrap()];
        assert!(held.iter().all(|lock| matches!(lock, Locking::Held(_))));
        let other = fs::File::open(dev.join("sda")).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(matches!(lock(&part, &dev).unwrap(), Locking::Busy));
        let stacked = device(&sysfs, b"/devices/md0", b"sda", b"disk");
        assert!(matches!(lock(&stacked, &dev).unwrap(), Locking::None));
        let gone = device(&sysfs, b"/devices/sdb", b"sdb", b"disk");
        assert!(matches!(lock(&gone, &dev).unwrap(), Locking::None));
        std::os::unix::fs::symlink("sda", dev.join("sdb")).unwrap();
        assert!(matches!(lock(&gone, &dev).unwrap(), Locking::None), "a link is no disk");
    }

    #[test]
    fn a_disk_whose_partitions_cannot_be_read_tells_of_itself_and_of_them() {
        let (top, sysfs) = machine();
        let disk = top.path().join("sys/devices/sda");
        let said = |path: &str| fs::read_to_string(disk.join(path)).unwrap();
        let (devpath, devname) = (b"/devices/sda".to_vec(), b"sda".to_vec());
        let device = Closed { devpath, devname, is_disk: true };
        closed(&device, &sysfs, &top.path().join("dev")).unwrap();
        assert!(said("uevent").starts_with("change") && said("sda1/uevent") == "change");
        fs::write(disk.join("sda1/uevent"), "").unwrap();
        let part = Closed { is_disk: false, ..device };
        closed(&part, &sysfs, &top.path().join("dev")).unwrap();
        assert_eq!(said("sda1/uevent"), "", "only a disk speaks for its partitions");
    }
}

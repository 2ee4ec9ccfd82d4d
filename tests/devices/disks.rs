//! `btrfs ready`: a file system of two disks is ready when both are there.

use std::fs::File;
use std::path::Path;

use super::manager::{Record, Running, program};
use super::same;

const IMAGES: [&str; 2] = ["/tmp/first", "/tmp/second"];
/// mkfs.btrfs wants more for two disks that both hold the metadata.
const SIZE: u64 = 192 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disks {
    /// The first one, before the other is there.
    alone: Record,
    first: Record,
    second: Record,
}

pub(crate) fn disks(running: &Running) -> Disks {
    if !Path::new(IMAGES[0]).exists() {
        for image in IMAGES {
            File::create(image).unwrap().set_len(SIZE).unwrap();
        }
        program("mkfs.btrfs", &["-q", "-m", "raid1", "-d", "single", IMAGES[0], IMAGES[1]]);
    }
    program("modprobe", &["btrfs"]);
    program("modprobe", &["loop"]);
    let ready = |at: usize, value: &str| {
        let path = format!("/sys/block/loop{at}");
        running.record(Path::new(&path), |it| it.property("ID_BTRFS_READY") == Some(value))
    };
    program("losetup", &["/dev/loop0", IMAGES[0]]);
    let alone = ready(0, "0");
    program("losetup", &["/dev/loop1", IMAGES[1]]);
    // the rule that finds it ready has the others looked at again
    let (second, first) = (ready(1, "1"), ready(0, "1"));
    for node in ["/dev/loop0", "/dev/loop1"] {
        program("losetup", &["-d", node]);
    }
    running.settle();
    Disks { alone, first, second }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_file_system_is_ready_when_its_last_disk_is_there() {
    let Disks { alone, first, second } = same(|facts| &facts.disks);
    assert_eq!(
        (alone.property("ID_FS_TYPE"), alone.property("SYSTEMD_READY")),
        (Some("btrfs"), Some("0"))
    );
    assert_eq!((first.property("SYSTEMD_READY"), second.property("SYSTEMD_READY")), (None, None));
}

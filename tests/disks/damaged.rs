//! Disks with one wrong byte, options and labels of all kinds.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::attached::{Attached, ours, theirs};
use crate::contents::private;
use crate::images::{self, MADE};
use crate::kit;

/// Images, and where they keep what they say of themselves, beside the first 4 KiB.
const DAMAGED: [(&str, u64); 6] =
    [("ext4", 1024), ("btrfs", 65_536), ("lvm2", 512), ("luks2", 0), ("fat16", 0), ("iso", 32_768)];

/// Bytes from the beginning of an image that are changed.
const AREA: u64 = 4096;

/// How many bytes lie between two that are changed, and between two of which udev is asked too.
const STEPS: (usize, usize) = (13, 169);

/// Names an image of which each byte is changed, and no other image.
const ALL_OF: &str = "MAPDEV_EVERY_BYTE_OF";

#[test]
fn a_wrong_byte_changes_for_us_what_it_changes_for_udev_and_stops_nobody() {
    private(
        module_path!(),
        "a_wrong_byte_changes_for_us_what_it_changes_for_udev_and_stops_nobody",
        || {
            let folder = Path::new("/run/images");
            let kit = kit(Duration::from_secs(60));
            let written = images::written(folder);
            let only = std::env::var(ALL_OF).ok();
            let (each, sample) = if only.is_some() { (1, 17) } else { STEPS };
            let (mut probed, mut compared, mut changed) = (0, 0, 0);
            let chosen =
                DAMAGED.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|o| o == *name));
            for (name, place) in chosen {
                let made = MADE.iter().find(|(known, _, _)| *known == name);
                let path = made.map_or_else(
                    || written.iter().find(|path| path.ends_with(name)).unwrap().clone(),
                    |(name, kib, commands)| images::make(folder, name, *kib, commands),
                );
                let disk = Attached::new(&path);
                // through the device: what is written to the file below may be seen late
                let path = format!("/dev/{}", disk.name);
                let node = OpenOptions::new().read(true).write(true).open(path).unwrap();
                let whole = ours(&kit, &disk.name, "blkid");
                let places: Vec<u64> = (0..AREA).chain(place..place + 1024).collect();
                for (count, at) in places.iter().enumerate().step_by(each) {
                    let mut byte = [0];
                    node.read_exact_at(&mut byte, *at).unwrap();
                    node.write_all_at(&[!byte[0]], *at).unwrap();
                    let mine = ours(&kit, &disk.name, "blkid");
                    probed += 1;
                    changed += usize::from(mine != whole);
                    if count % sample == 0 {
                        compared += 1;
                        node.sync_all().unwrap();
                        assert_eq!(mine, theirs(&disk.name, "blkid"), "{name}, byte {at}");
                    }
                    node.write_all_at(&byte, *at).unwrap();
                }
                assert_eq!(ours(&kit, &disk.name, "blkid"), whole, "{name}: as at first");
            }
            println!("{probed} damaged disks, {changed} say something else, {compared} compared");
            assert!(changed > 20 && compared > 50, "nearly nothing was damaged");
        },
    );
}

/// Words of a command, right and wrong.
const COMMANDS: &[&str] = &[
    "blkid --hint=abc=5 --noraid --offset=4096",
    "blkid -R -o 1024",
    "blkid -R -H foo -o1024",
    "blkid --offset=zz",
    "blkid --offset=-5",
    "blkid --offset=0x400",
    "blkid --offset=010",
    "blkid --offset=10K",
    "blkid --offset=+0",
    "blkid --offset=99999999999999",
    "blkid --offset",
    "blkid --bogus",
    "blkid extra -- --noraid",
    "blkid --hint=abc",
    "blkid --hint=session_offset=x",
    "blkid --hint=session_offset=65536",
    "blkid --noraid=3",
    "blkid --nor",
    "blkid --hint",
    "blkid -",
];

#[test]
fn options_mean_what_they_mean_to_udev() {
    private(module_path!(), "options_mean_what_they_mean_to_udev", || {
        let folder = Path::new("/run/images");
        let kit = kit(Duration::from_secs(60));
        let written = images::written(folder);
        let made = MADE.iter().filter(|(name, _, _)| matches!(*name, "ext4" | "iso"));
        let made = made.map(|(name, kib, commands)| images::make(folder, name, *kib, commands));
        for path in made.chain(written) {
            let disk = Attached::new(&path);
            for command in COMMANDS {
                let (mine, other) = (ours(&kit, &disk.name, command), theirs(&disk.name, command));
                assert_eq!(mine, other, "{}: {command}", path.display());
            }
        }
    });
}

#[test]
fn labels_of_any_bytes_are_written_as_udev_writes_them() {
    private(module_path!(), "labels_of_any_bytes_are_written_as_udev_writes_them", || {
        let image = images::make(Path::new("/run/images"), "ext2", 1024, "mke2fs -q $f");
        let disk = Attached::new(&image);
        let node = OpenOptions::new().write(true).open(format!("/dev/{}", disk.name)).unwrap();
        let kit = kit(Duration::from_secs(60));
        // every byte once, and some that belong together
        let mut labels: Vec<Vec<u8>> =
            (1..=255).collect::<Vec<u8>>().chunks(15).map(<[u8]>::to_vec).collect();
        for text in ["\u{e4}\u{20ac}\u{1f600}", "\u{fdd0}\u{ffff}\u{fffe}", " a \t b ", "\\x20 $"] {
            labels.push(text.as_bytes().to_vec());
        }
        labels.push(b"\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80\xe2\x82".to_vec());
        for label in labels {
            let mut field = [0; 16];
            field[..label.len()].copy_from_slice(&label);
            // the superblock's `s_volume_name`
            node.write_all_at(&field, 1024 + 120).unwrap();
            node.sync_all().unwrap();
            let (mine, mut other) = (ours(&kit, &disk.name, "blkid"), theirs(&disk.name, "blkid"));
            // udev prints a line end as it stands
            if let Some(lines) = other.as_mut().filter(|_| label.contains(&b'\n')) {
                lines.retain(|line| line.contains('='));
            }
            assert_eq!(mine, other, "{}", label.escape_ascii());
        }
    });
}

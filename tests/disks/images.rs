//! Images of disks: made by the programs that make real ones, or written byte by byte where there is no
//! small program, or it wants a driver.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A name, a size in KiB, and the shell's commands that fill the file `$f`.
pub(crate) const MADE: &[(&str, u64, &str)] = &[
    ("nothing", 2048, ""),
    ("nothing-tiny", 1024, ""),
    ("ext2", 4096, "mke2fs -q -t ext2 -L 'a b/c' -U 5c0b22d4-1f6d-4c3e-9a5b-000000000001 $f"),
    ("ext4", 8192, "mke2fs -q -t ext4 -L root $f"),
    ("ext4-journal", 8192, "mke2fs -q -O journal_dev $f"),
    ("btrfs", 122_880, "mkfs.btrfs -q -L 'vol %1' $f"),
    ("btrfs-long", 122_880, "mkfs.btrfs -q -L \"$(printf 'ä%.0s' $(seq 127))\" $f"),
    ("btrfs-blanks", 122_880, "mkfs.btrfs -q -L \"a$(printf ' %.0s' $(seq 100))b\" $f"),
    ("xfs", 307_200, "mkfs.xfs -q -L home $f"),
    ("fat12", 1440, "mkfs.vfat -n FLOPPY $f"),
    ("fat16", 16_384, "mkfs.vfat -F 16 -n 'A B' $f"),
    ("fat32", 65_536, "mkfs.vfat -F 32 $f"),
    ("exfat", 16_384, "mkfs.exfat -L stick $f"),
    ("ntfs", 16_384, "mkntfs -q -F -f -L 'Lokaler Datenträger' $f"),
    (
        "iso",
        0,
        "xorriso -as mkisofs -quiet -V 'Disc 1' -publisher 'A & B' -sysid LINUX -appid 'app ; id' -p prep -volset set -o $f $d/files",
    ),
    (
        "iso-hybrid",
        0,
        "xorriso -as mkisofs -quiet -J -R -V BOTH --protective-msdos-label -o $f $d/files",
    ),
    ("squashfs", 0, "mksquashfs $d/files $f -quiet -no-progress"),
    ("swap", 4096, "mkswap -q -L 'swap space' $f"),
    (
        "luks1",
        20_480,
        "printf x | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 $f -",
    ),
    (
        "luks2",
        20_480,
        "printf x | cryptsetup -q luksFormat --type luks2 --label 'my disk' --subsystem sub --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $f -",
    ),
    ("f2fs", 65_536, "mkfs.f2fs -q -l flash $f"),
    ("udf", 16_384, "mkudffs --label='Übung 1' --vsid=set --lvid='logical one' $f"),
    ("nilfs2", 140_000, "mkfs.nilfs2 -q -L log $f"),
    ("erofs", 0, "mkfs.erofs $f $d/files"),
    ("bcache", 16_384, "bcache-super-show $f && false || make-bcache -B $f"),
    ("minix", 2048, "mkfs.minix -3 $f"),
    ("cramfs", 0, "mkfs.cramfs -n small $d/files $f"),
    ("bfs", 2048, "mkfs.bfs -V vol $f"),
    (
        "gpt",
        40_960,
        "printf 'label: gpt\nsize=4096, name=\"EFI system\", type=uefi\nsize=8192, name=\"rôot / fs\", bootable\nsize=4096, type=swap, attrs=GUID:63\n' | sfdisk -q $f",
    ),
    (
        "dos",
        40_960,
        "printf 'label: dos\nsize=4096, type=c, bootable\nsize=8192, type=83\nsize=20480, type=5\nsize=4096, type=82\n' | sfdisk -q $f",
    ),
    ("dos-tiny", 1024, "printf 'label: dos\nstart=64, size=100\n' | sfdisk -q $f"),
    ("sgi", 40_960, "printf 'label: sgi\n' | sfdisk -q $f"),
    ("sun", 40_960, "printf 'label: sun\n' | sfdisk -q $f"),
    (
        "gpt-backup",
        40_960,
        "printf 'label: gpt\nsize=4096\n' | sfdisk -q $f && dd if=/dev/zero of=$f bs=512 seek=1 count=1 conv=notrunc",
    ),
    (
        "ext4-over-fat",
        16_384,
        "mkfs.vfat -F 16 $f && mke2fs -q -t ext4 -F $d/e 15360 && dd if=$d/e of=$f bs=1024 skip=1 seek=1 count=64 conv=notrunc && rm $d/e",
    ),
    (
        "swap-over-ext4",
        16_384,
        "mke2fs -q -t ext4 $f && truncate -s 1M $d/s && mkswap -q $d/s && dd if=$d/s of=$f bs=1024 skip=3 seek=3 count=1 conv=notrunc",
    ),
];

/// Makes an image in `folder`.
pub(crate) fn make(folder: &Path, name: &str, kib: u64, commands: &str) -> PathBuf {
    let files = folder.join("files");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("readme"), "text\n").unwrap();
    let path = folder.join(name);
    if kib > 0 {
        File::create(&path).unwrap().set_len(kib * 1024).unwrap();
    }
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).env("f", &path).env("d", folder).env("LC_ALL", "C.UTF-8");
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

/// What has no small program: bytes at places, from the end where negative.
pub(crate) fn written(folder: &Path) -> Vec<PathBuf> {
    let metadata = |version: u32| {
        let mut block = vec![0; 256];
        block[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        block[4..8].copy_from_slice(&version.to_le_bytes());
        block[16..32].copy_from_slice(b"0123456789abcdef");
        block[32..41].copy_from_slice(b"host:raid");
        block
    };
    let mut raid_1_2 = metadata(1);
    raid_1_2[128..136].copy_from_slice(&8_u64.to_le_bytes());
    raid_1_2[144..152].copy_from_slice(&8_u64.to_le_bytes());
    raid_1_2[168..184].copy_from_slice(b"device of a raid");
    let checksum = sum(&raid_1_2, 216);
    raid_1_2[216..220].copy_from_slice(&checksum.to_le_bytes());
    let mut raid_0_90 = vec![0; 4096];
    for (at, word) in [0xa92b_4efc_u32, 0, 90, 3].into_iter().enumerate() {
        raid_0_90[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    let intel = b"Intel Raid ISM Cfg Sig. 1.2.02".to_vec();
    let mut lvm = vec![0; 512];
    lvm[..8].copy_from_slice(b"LABELONE");
    lvm[8] = 1;
    lvm[20] = 32;
    lvm[24..32].copy_from_slice(b"LVM2 001");
    lvm[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyzABCDEF");
    let checksum = crc(&lvm[20..]);
    lvm[16..20].copy_from_slice(&checksum.to_le_bytes());
    let images: [(&str, i64, Vec<u8>); 4] = [
        ("raid-1.2", 4096, raid_1_2),
        ("raid-0.90", -65_536, raid_0_90),
        ("raid-intel", -1024, intel),
        ("lvm2", 512, lvm),
    ];
    let write = |(name, at, bytes): (&str, i64, Vec<u8>)| {
        let path = folder.join(name);
        let size = 4 << 20;
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        let place = if at < 0 { size.checked_add_signed(at) } else { u64::try_from(at).ok() };
        file.write_all_at(&bytes, place.unwrap()).unwrap();
        path
    };
    let mut paths: Vec<_> = images.into_iter().map(write).collect();
    // its last sectors are the partition's, and so is what they say
    let commands = "cp $d/raid-0.90 $f && printf 'label: dos\nstart=2048\n' | sfdisk -q $f";
    paths.push(make(folder, "raid-in-a-partition", 0, commands));
    paths
}

/// The checksum of a member's block of version 1, whose own place counts as 0.
fn sum(block: &[u8], place: usize) -> u32 {
    let words = block.chunks_exact(4).enumerate().filter(|(at, _)| at * 4 != place);
    let words = words.map(|(_, word)| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap()
}

/// LVM2's checksum of a label.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    bytes
        .iter()
        .fold(0xf597_a6cf, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

//! Modules made here, byte by byte, are read as the real ones are; damaged ones are named and left out.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use mapdev::modules::modinfo::{self, ModInfoError};
use mapdev::modules::scan::scan;

/// Writes relocatable ELF objects of either class and byte order with one section `.modinfo`.
#[derive(Clone, Copy, Debug)]
struct Elf {
    wide: bool,
    big: bool,
}

const KINDS: [Elf; 4] = [
    Elf { wide: false, big: false },
    Elf { wide: false, big: true },
    Elf { wide: true, big: false },
    Elf { wide: true, big: true },
];
const NATIVE: Elf = KINDS[2];

impl Elf {
    fn number(self, out: &mut Vec<u8>, value: u64, size: usize) {
        let bytes = value.to_le_bytes();
        let low = &bytes[..size];
        if self.big { out.extend(low.iter().rev()) } else { out.extend(low) }
    }

    fn word(self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    fn write(self, entries: &[&str]) -> Vec<u8> {
        let mut info: Vec<u8> = entries.join("\0").into_bytes();
        info.push(0);
        let names = b"\0.text\0.modinfo\0.shstrtab\0";
        let head = if self.wide { 64 } else { 52 };
        let table = head + info.len() + names.len();
        let mut out = b"\x7fELF".to_vec();
        out.extend([1 + u8::from(self.wide), 1 + u8::from(self.big), 1]);
        out.resize(16, 0);
        for (value, size) in [(1, 2), (62, 2), (1, 4), (0, self.word()), (0, self.word())] {
            self.number(&mut out, value, size);
        }
        self.number(&mut out, table as u64, self.word());
        let entry = if self.wide { 64 } else { 40 };
        for (value, size) in [(0, 4), (head, 2), (0, 2), (0, 2), (entry, 2), (4, 2), (3, 2)] {
            self.number(&mut out, value as u64, size);
        }
        assert_eq!(out.len(), head);
        out.extend(&info);
        out.extend(names);
        let names_at = head + info.len();
        let sections = [
            (0, 0, 0, 0),
            (1, 1, head, 0),
            (7, 1, head, info.len()),
            (16, 3, names_at, names.len()),
        ];
        for (name, kind, offset, size) in sections {
            self.number(&mut out, name, 4);
            self.number(&mut out, kind, 4);
            for value in [0, 0, offset, size] {
                self.number(&mut out, value as u64, self.word());
            }
            self.number(&mut out, 0, 4);
            self.number(&mut out, 0, 4);
            self.number(&mut out, 1, self.word());
            self.number(&mut out, 0, self.word());
        }
        out
    }
}

const TUN: [&str; 8] = [
    "alias=devname:net/tun",
    "alias=char-major-10-200",
    "alias=pci:v00001AF4d*",
    "license=GPL=1",
    "depends=a,b",
    "softdep=pre: c",
    "name=tun",
    "vermagic=6.1.0 SMP ",
];

#[test]
fn both_classes_and_byte_orders_are_read() {
    for kind in KINDS {
        let file = kind.write(&TUN);
        let info = modinfo::parse(&file).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        let names = info.devnames();
        let number = names[0].1.map(|number| number.to_string());
        assert_eq!(
            (names.len(), names[0].0, number.as_deref()),
            (1, &b"net/tun"[..], Some("c10:200"))
        );
        assert_eq!(info.modaliases().collect::<Vec<_>>(), [b"pci:v00001AF4d*"]);
        assert_eq!(info.depends().collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(info.softdeps().next(), Some(&b"pre: c"[..]));
        assert_eq!((info.name(), info.vermagic()), (Some(&b"tun"[..]), Some(&b"6.1.0 SMP "[..])));
        assert_eq!(info.all(b"license").next(), Some(&b"GPL=1"[..]));
        assert_eq!(info.entries().count(), TUN.len());
    }
}

#[test]
fn what_is_no_module_is_an_error_that_says_why() {
    assert!(matches!(modinfo::parse(b""), Err(ModInfoError::Header(_))));
    assert!(matches!(
        modinfo::parse(b"#!/bin/sh\n............................"),
        Err(ModInfoError::Header(_))
    ));
    let mut file = NATIVE.write(&TUN);
    let whole = file.len();
    file.truncate(whole - 1);
    assert_eq!(modinfo::parse(&file), Err(ModInfoError::Outside("the table of sections")));
    let mut file = NATIVE.write(&TUN);
    let at = file.windows(8).position(|window| window == b".modinfo").unwrap();
    file[at + 7] = b'x';
    assert_eq!(modinfo::parse(&file), Err(ModInfoError::Missing));
    // the size of .modinfo, third of four sections of 64 bytes, its sixth field
    let mut file = NATIVE.write(&TUN);
    file[whole - 2 * 64 + 32 + 7] = 0xff;
    assert_eq!(modinfo::parse(&file), Err(ModInfoError::Outside(".modinfo")));
}

/// xorshift64*: the same mutations each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits fit")
            % limit
    }
}

#[test]
fn ten_thousand_damaged_modules_neither_panic_nor_grow() {
    let (mut good, mut bad) = (0, 0);
    let mut random = Random(42);
    for round in 0..10_000_usize {
        let mut file = KINDS[round % 4].write(&TUN);
        let whole = file.len();
        if round % 3 == 0 {
            file.truncate(random.below(whole));
        }
        for _ in 0..round % 9 {
            if !file.is_empty() {
                // headers are at both ends, and there a bit means most
                let at = match random.below(3) {
                    0 => random.below(file.len()),
                    1 => random.below(file.len().min(64)),
                    _ => file.len() - 1 - random.below(file.len().min(256)),
                };
                file[at] ^= 1 << random.below(8);
            }
        }
        match modinfo::parse(&file) {
            Ok(info) => {
                good += 1;
                assert!(info.entries().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= whole);
                assert!(info.devnames().len() <= whole);
            }
            Err(error) => {
                bad += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad: the mutations show nothing");
}

/// A tree with the folder of modules of kernel `6.1`.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a folder can be made");
    let folder = root.path().join("lib/modules/6.1");
    fs::create_dir_all(folder.join("kernel/net")).expect("a folder can be made");
    fs::create_dir_all(folder.join("updates/dkms")).expect("a folder can be made");
    (root, folder)
}

fn shown(root: &Path) -> Vec<String> {
    let db = scan(root, "6.1");
    let line = |d: mapdev::modules::Devname<'_>| {
        let number = d.number.map_or("-".to_owned(), |number| number.to_string());
        let origin = if d.builtin { " builtin" } else { "" };
        format!("{} {} {number}{origin}", d.module, d.name.escape_ascii())
    };
    db.devnames().map(line).chain(db.problems().iter().map(ToString::to_string)).collect()
}

fn module(name: &str, number: u32) -> Vec<u8> {
    NATIVE.write(&[&format!("alias=devname:{name}"), &format!("alias=char-major-10-{number}")])
}

#[test]
fn every_packing_is_unpacked_whatever_the_file_is_called() {
    let (root, folder) = tree();
    let net = folder.join("kernel/net");
    fs::write(net.join("plain-a.ko"), module("a", 1)).unwrap();
    fs::write(net.join("b.ko.zst"), zstd::encode_all(&*module("b", 2), 3).unwrap()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&module("c", 3)).unwrap();
    fs::write(net.join("c.ko.gz"), gzip.finish().unwrap()).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&module("d", 4)).unwrap();
    fs::write(net.join("d.ko"), xz.finish().unwrap()).unwrap();
    fs::write(net.join("notes.txt"), "no module").unwrap();
    assert_eq!(shown(root.path()), ["plain_a a c10:1", "b b c10:2", "c c c10:3", "d d c10:4"]);
}

#[test]
fn one_bad_file_is_named_and_the_rest_stays() {
    let (root, folder) = tree();
    let net = folder.join("kernel/net");
    fs::write(net.join("a.ko"), module("a", 1)).unwrap();
    fs::write(net.join("cut.ko"), &module("x", 9)[..100]).unwrap();
    let packed = zstd::encode_all(&*module("x", 9), 3).unwrap();
    fs::write(net.join("half.ko.zst"), &packed[..packed.len() / 2]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, net.join("pipe.ko"), 0o600.into()).unwrap();
    std::os::unix::fs::symlink("gone", net.join("dangling.ko")).unwrap();
    let lines = shown(root.path());
    assert_eq!((lines.len(), &*lines[0]), (5, "a a c10:1"), "{lines:?}");
    for name in ["cut.ko: ", "half.ko.zst: zstd: ", "pipe.ko: ", "dangling.ko: "] {
        assert!(lines.iter().any(|line| line.contains(name)), "{name}: {lines:?}");
    }
}

#[test]
fn what_unpacks_to_more_than_a_module_can_be_is_left_out() {
    let (root, folder) = tree();
    let packed = zstd::encode_all(std::io::repeat(0).take(200 << 20), 1).unwrap();
    assert!(packed.len() < 1 << 20);
    fs::write(folder.join("kernel/bomb.ko.zst"), packed).unwrap();
    let lines = shown(root.path());
    assert!(
        lines.len() == 1 && lines[0].ends_with("bomb.ko.zst: larger than 128 MiB"),
        "{lines:?}"
    );
}

#[test]
fn updates_hold_before_the_kernels_own() {
    let (root, folder) = tree();
    fs::write(folder.join("kernel/net/x-y.ko"), module("old", 1)).unwrap();
    fs::write(folder.join("updates/dkms/x_y.ko"), module("new", 2)).unwrap();
    fs::create_dir_all(folder.join("build/deep")).unwrap();
    fs::write(folder.join("build/deep/z.ko"), module("sources", 3)).unwrap();
    assert_eq!(shown(root.path()), ["x_y new c10:2"]);
}

#[test]
fn built_in_modules_have_names_without_a_file() {
    let (root, folder) = tree();
    let list = "loop.alias=devname:loop-control\0loop.license=GPL\0loop.alias=char-major-10-237\0";
    fs::write(folder.join("modules.builtin.modinfo"), list).unwrap();
    fs::write(folder.join("kernel/net/a.ko"), module("a", 1)).unwrap();
    assert_eq!(shown(root.path()), ["a a c10:1", "loop loop-control c10:237 builtin"]);
    let db = scan(root.path(), "6.1");
    assert_eq!((db.len(), db.devname(b"loop-control").map(|d| d.builtin)), (2, Some(true)));
}

#[test]
fn links_to_folders_are_followed_and_a_loop_of_them_ends() {
    let (root, folder) = tree();
    for name in ["self", "again"] {
        std::os::unix::fs::symlink(".", folder.join("kernel").join(name)).unwrap();
    }
    fs::write(folder.join("kernel/a.ko"), module("a", 1)).unwrap();
    assert_eq!(shown(root.path()), ["a a c10:1"]);
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../../../elsewhere", folder.join("extra")).unwrap();
    fs::write(root.path().join("elsewhere/b.ko.zst"), module("b", 2)).unwrap();
    assert_eq!(shown(root.path()), ["a a c10:1", "b b c10:2"]);
}

#[test]
fn no_modules_or_a_release_that_is_a_path_is_an_empty_database() {
    let (root, _) = tree();
    for release in ["6.2", "", ".", "..", "../modules/6.1", "6.1/kernel"] {
        let db = scan(root.path(), release);
        assert_eq!((db.len(), db.problems().len()), (0, 1), "{release:?}");
    }
}

#[test]
fn an_object_of_the_installed_compiler_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("m.c"), dir.path().join("m.ko"));
    let text = "static const char a[] __attribute__((section(\".modinfo\"), used)) = \"alias=devname:cc\";\n\
                static const char b[] __attribute__((section(\".modinfo\"), used)) = \"alias=block-major-7-3\";\n\
                int f(void) { return 1; }\n";
    fs::write(&source, text).unwrap();
    let made = Command::new("cc").arg("-c").arg(&source).arg("-o").arg(&object).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return;
    }
    let file = fs::read(&object).unwrap();
    let info = modinfo::parse(&file).unwrap();
    let names = info.devnames();
    assert_eq!(names[0].1.map(|number| number.to_string()).as_deref(), Some("b7:3"));
}

//! Modules made here, byte by byte, are read as the real ones are; damaged ones are named and left out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod cache;
mod damage;
mod elf;
mod look_up;
mod random;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use mapdev::modules::modinfo::{self, ModInfoError};
use mapdev::modules::scan::scan;

use elf::{KINDS, NATIVE};

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

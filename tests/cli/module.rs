//! `mapdevctl module` on a tree made here, with neither bus nor daemon.

use std::fs;
use std::path::PathBuf;

use super::bus::{Ran, mapdevctl};
use super::elf::NATIVE;

struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.folder().join("kernel/net")).unwrap();
        fs::create_dir_all(tree.root.path().join("etc/modprobe.d")).unwrap();
        tree.module(
            "tun",
            &[
                "alias=devname:net/tun",
                "alias=char-major-10-200",
                "license=GPL\x1b[2J",
                "depends=tap-x",
            ],
        );
        tree.module("tap-x", &["alias=pci:v00001AF4d*", "depends=", "softdep=post: nosuch"]);
        fs::write(tree.folder().join("modules.builtin"), "kernel/drivers/base/loop-y.ko\n")
            .unwrap();
        let builtin = "loop-y.alias=devname:loop-control\0loop_y.parm=max: it\0other.alias=x\0";
        fs::write(tree.folder().join("modules.builtin.modinfo"), builtin).unwrap();
        tree
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("lib/modules/6.1")
    }

    fn module(&self, name: &str, info: &[&str]) {
        fs::write(self.folder().join(format!("kernel/net/{name}.ko")), NATIVE.write(info)).unwrap();
    }

    fn configure(&self, text: &str) {
        fs::write(self.root.path().join("etc/modprobe.d/a.conf"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let root = self.root.path().to_str().unwrap();
        // no bus is asked for anything
        let mut command =
            mapdevctl(&["--bus", "unix:path=/nonexistent/bus", "module", "--root", root]);
        let mut ran = Ran::of(command.args(arguments).output().unwrap());
        for text in [&mut ran.out, &mut ran.err] {
            *text = text.replace(root, "");
        }
        ran
    }
}

#[test]
fn a_module_is_found_by_all_that_it_serves() {
    let tree = Tree::new();
    let line = "tun\tunknown\tnet/tun c10:200\t/lib/modules/6.1/kernel/net/tun.ko\t-\n";
    for name in ["/dev/net/tun", "net/tun", "c10:200", "char-major-10-200", "tun"] {
        let ran = tree.run(&["lookup", name]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), line, ""), "{name}");
    }
    let ran = tree.run(&["lookup", "pci:v00001AF4d00001000sv0"]);
    assert!(ran.out.starts_with("tap_x\tunknown\t-\t"), "{ran:?}");
    let json = tree.run(&["lookup", "loop-control", "--json"]).json();
    assert_eq!((&json[0]["module"], &json[0]["state"]), (&"loop_y".into(), &"builtin".into()));
    assert_eq!(json[0]["nodes"][0]["name"], "loop-control");
    assert_eq!((&json[0]["file"], &json[0]["blacklisted"]), (&().into(), &false.into()));
}

#[test]
fn what_modprobe_d_says_of_a_module_is_shown() {
    let tree = Tree::new();
    tree.configure(
        "alias my-* tun\nblacklist tun\ninstall tap-x /bin/true \x1b[2J\nalias bad nosuch\n",
    );
    let ran = tree.run(&["lookup", "my-net"]);
    assert!(ran.out.ends_with("\talias my_* of modprobe.d; blacklisted\n"), "{ran:?}");
    let ran = tree.run(&["lookup", "tap-x"]);
    assert!(ran.out.ends_with("\tinstall command: /bin/true \\x1b[2J\n"), "{ran:?}");
    let ran = tree.run(&["lookup", "bad"]);
    assert_eq!(ran.out, "nosuch\tunknown\t-\t-\talias bad of modprobe.d; no such module\n");
    let json = tree.run(&["lookup", "my-net", "--json"]).json();
    assert_eq!(
        (&json[0]["configured_alias"], &json[0]["blacklisted"]),
        (&"my_*".into(), &true.into())
    );
}

#[test]
fn an_unknown_name_is_exit_code_3_with_the_nearest() {
    let tree = Tree::new();
    for arguments in [["lookup", "net/tunn"], ["info", "tum"], ["load", "tunn"]] {
        let ran = tree.run(&arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
        assert!(ran.error().contains("no module of 6.1 has or offers the name"), "{ran:?}");
        assert!(ran.error().contains("; did you mean ") && ran.error().contains("tun"), "{ran:?}");
    }
    assert_eq!(tree.run(&["lookup", "/dev/tun"]).code, Some(3), "a module's name is no node");
}

#[test]
fn the_list_tells_names_numbers_and_needs() {
    let tree = Tree::new();
    let all = "loop_y\tbuiltin\t1\tloop-control\t-\n\
               other\tbuiltin\t1\t-\t-\n\
               tap_x\tunknown\t1\t-\t-\n\
               tun\tunknown\t2\tnet/tun c10:200\ttap_x\n";
    assert_eq!(tree.run(&["list"]).out, all);
    let nodes = tree.run(&["list", "--nodes", "--json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    assert_eq!(nodes[1]["needs"], serde_json::json!(["tap_x"]));
    let node =
        serde_json::json!([{ "name": "net/tun", "type": "char", "major": 10, "minor": 200 }]);
    assert_eq!((&nodes[1]["nodes"], &nodes[1]["aliases"]), (&node, &2.into()));
}

#[test]
fn info_shows_every_key_and_no_escape_sequence() {
    let tree = Tree::new();
    let ran = tree.run(&["info", "tun"]);
    assert!(ran.out.contains("nodes\tnet/tun c10:200\nalias\tdevname:net/tun\n"), "{ran:?}");
    assert!(ran.out.contains("license\tGPL\\x1b[2J\ndepends\ttap-x\n"), "{ran:?}");
    let builtin = tree.run(&["info", "loop-y", "--json"]).json();
    let parm = serde_json::json!({ "key": "parm", "value": "max: it" });
    assert_eq!((&builtin["info"][1], &builtin["size"]), (&parm, &().into()));
    fs::write(tree.folder().join("kernel/net/torn-z.ko"), b"\x7fELF").unwrap();
    let ran = tree.run(&["info", "torn_z"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("/lib/modules/6.1/kernel/net/torn-z.ko: "), "{ran:?}");
}

#[test]
fn a_scan_counts_and_names_what_is_wrong() {
    let tree = Tree::new();
    let ran = tree.run(&["scan"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    for line in
        ["release\t6.1", "modules\t2", "builtin\t2", "nodes\t2", "aliases\t5", "cache\tnone"]
    {
        assert!(ran.out.lines().any(|shown| shown == line), "{line} in {}", ran.out);
    }
    fs::write(tree.folder().join("kernel/net/torn.ko"), "no module").unwrap();
    tree.configure("blacklist tun\n  aliass a b\n");
    let ran = tree.run(&["scan"]);
    assert_eq!((ran.code, ran.error()), (Some(1), "mapdevctl: there are 2 problems"));
    assert!(ran.out.contains("\n/lib/modules/6.1/kernel/net/torn.ko: "), "{ran:?}");
    assert!(ran.out.contains("\n/etc/modprobe.d/a.conf:2:3: error: one of alias, "), "{ran:?}");
    // who asks for it is told what is wrong, not that it is not there
    for arguments in [&["info", "torn"][..], &["lookup", "torn"], &["load", "--dry-run", "torn"]] {
        let ran = tree.run(arguments);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.error().starts_with("mapdevctl: /lib/modules/6.1/kernel/net/torn.ko: "),
            "{ran:?}"
        );
    }
}

#[test]
fn a_cache_is_kept_where_it_is_told_and_used_again() {
    let tree = Tree::new();
    let cache = tree.root.path().join("var/modules");
    let scan = |more: &[&str]| {
        let arguments = [&["scan", "--json", "--cache", cache.to_str().unwrap()], more].concat();
        tree.run(&arguments).json()
    };
    assert_eq!(scan(&[])["cache"], "/var/modules");
    let written = fs::read(&cache).unwrap();
    fs::write(&cache, "damaged").unwrap();
    assert_eq!(scan(&[])["modules"], 2);
    assert!(fs::read(&cache).unwrap().starts_with(&written[..8]));
    fs::remove_file(&cache).unwrap();
    scan(&["--anew"]);
    assert!(cache.is_file());
    let ran = tree.run(&["scan", "--cache", "/proc/nowhere/modules"]);
    assert!(ran.code == Some(0) && ran.out.contains("\ncache\tnot kept: "), "{ran:?}");
}

#[test]
fn a_dry_run_has_modprobes_form() {
    let tree = Tree::new();
    tree.configure("options tun a=1\ninstall tap-x echo $CMDLINE_OPTS\noptions tap_x b=1\n");
    let ran = tree.run(&["load", "--dry-run", "net/tun", "c=2"]);
    let wanted = "install echo $CMDLINE_OPTS b=1\n\
                  insmod /lib/modules/6.1/kernel/net/tun.ko a=1 c=2\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), wanted), "{ran:?}");
    let json = tree.run(&["load", "--dry-run", "--json", "tun"]).json();
    assert_eq!(json[0]["steps"][1]["action"], "insert");
    assert_eq!((&json[0]["alias"], &json[0]["blacklisted"]), (&().into(), &false.into()));
    let ran = tree.run(&["load", "--dry-run", "a[b"]);
    assert_eq!((ran.code, ran.error()), (Some(1), "mapdevctl: a `]` for each `[` wanted"));
}

#[test]
fn of_several_kernels_one_must_be_named() {
    let tree = Tree::new();
    fs::create_dir(tree.root.path().join("lib/modules/6.12")).unwrap();
    let ran = tree.run(&["list"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.error().ends_with("which kernel? there are: 6.1, 6.12; see --release"), "{ran:?}");
    assert_eq!(tree.run(&["list", "--release", "6.1"]).code, Some(0));
    let ran = tree.run(&["list", "--release", "6.2"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("/lib/modules/6.2: no folder of modules"), "{ran:?}");
}

#[test]
fn of_another_tree_nothing_is_unloaded() {
    let tree = Tree::new();
    let ran = tree.run(&["unload", "tun"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.error().ends_with("only the running kernel's modules can be unloaded"), "{ran:?}");
}

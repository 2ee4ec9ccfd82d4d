//! What the database answers.

use std::fs;

use mapdev::modules::ModuleDb;
use mapdev::modules::scan::scan;
use mapdev::uevent::Devnum;

use super::elf::NATIVE;
use super::tree;

fn db(modules: &[(&str, &[&str])], order: &str) -> ModuleDb {
    let (root, folder) = tree();
    for (name, info) in modules {
        fs::write(folder.join(format!("kernel/{name}.ko")), NATIVE.write(info)).unwrap();
    }
    fs::write(folder.join("modules.order"), order).unwrap();
    fs::write(folder.join("modules.builtin"), "kernel/drivers/base/in-kernel.ko\n").unwrap();
    scan(root.path(), "6.1")
}

fn names(modules: impl IntoIterator<Item = mapdev::modules::Module<'static>>) -> Vec<&'static str> {
    modules.into_iter().map(mapdev::modules::Module::name).collect()
}

/// Lives as long as the test's process, so that answers can be compared by name.
fn kept(modules: &[(&str, &[&str])], order: &str) -> &'static ModuleDb {
    Box::leak(Box::new(db(modules, order)))
}

#[test]
fn a_name_is_the_same_with_hyphens_and_underscores() {
    let db = kept(&[("snd-hda-intel", &["license=GPL"])], "");
    for name in ["snd_hda_intel", "snd-hda-intel", "snd-hda_intel"] {
        assert_eq!(db.module(name.as_bytes()).map(|module| module.name()), Some("snd_hda_intel"));
    }
    assert!(db.module(b"snd").is_none() && db.module(b"").is_none());
    let module = db.module(b"in_kernel").unwrap();
    assert!(module.is_builtin() && module.path().is_none());
    assert_eq!(db.len(), 2);
}

#[test]
fn a_modalias_finds_every_module_whose_pattern_fits() {
    let modules: &[(&str, &[&str])] = &[
        ("one", &["alias=pci:v00008086d00001533sv*sd*bc*sc*i*"]),
        ("all", &["alias=pci:v00008086d*"]),
        ("class", &["alias=pci:v*d*sv*sd*bc02sc00i*"]),
        ("set", &["alias=usb:v05ACp0[2-4][0-9A-F]?d*", "alias=usb:*"]),
        ("minus", &["alias=of:N*T*Cfoo,bar-baz", "alias=a[-]b"]),
        ("odd", &["alias=x[", "alias=", "alias=**"]),
    ];
    let db = kept(modules, "kernel/class.ko\nkernel/one.ko\n");
    let find = |alias: &str| names(db.by_modalias(alias.as_bytes()));
    let alias = "pci:v00008086d00001533sv00000000sd00000000bc02sc00i00";
    // as in modules.order, the rest by path
    assert_eq!(find(alias), ["class", "one", "all", "odd"]);
    assert_eq!(find("usb:v05ACp03Bxd1"), ["odd", "set"]);
    assert_eq!(find("of:NpinsTnCfoo,bar_baz"), ["minus", "odd"]);
    // within brackets the two are two
    assert_eq!((find("a-b"), find("a_b")), (vec!["odd"], vec!["odd"]));
    assert_eq!((find("x["), find("")), (vec!["odd"], vec!["odd"]));
}

#[test]
fn a_number_is_found_alone_and_in_a_range() {
    let modules: &[(&str, &[&str])] = &[
        ("sg", &["alias=char-major-21-*"]),
        ("tun", &["alias=devname:net/tun", "alias=char-major-10-200"]),
        ("loop", &["alias=block-major-7-*"]),
    ];
    let db = kept(modules, "");
    let find = |block, major, minor| names(db.by_number(Devnum { block, major, minor }));
    assert_eq!(find(false, 21, 3), ["sg"]);
    assert_eq!(find(false, 10, 200), ["tun"]);
    assert_eq!(find(true, 7, 255), ["loop"]);
    assert!(find(false, 7, 0).is_empty() && find(false, 10, 20).is_empty());
}

#[test]
fn what_is_needed_is_loaded_first_and_once() {
    let modules: &[(&str, &[&str])] = &[
        ("top", &["depends=left,right"]),
        ("left", &["depends=base"]),
        ("right", &["depends=base,in-kernel,gone"]),
        ("base", &["depends="]),
        ("hen", &["depends=egg"]),
        ("egg", &["depends=hen,base"]),
    ];
    let db = kept(modules, "");
    let order = names(db.module(b"top").unwrap().load_order());
    assert_eq!((order.first(), order.len()), (Some(&"base"), 3), "{order:?}");
    assert!(names(db.module(b"base").unwrap().load_order()).is_empty());
    // who needs himself cannot be loaded: the kernel will say so
    assert_eq!(names(db.module(b"hen").unwrap().load_order()), ["base", "egg"]);
}

#[test]
fn a_very_long_alias_costs_itself_alone() {
    let long = format!("alias=x{}", "*a".repeat(600));
    let hard = format!("alias=y{}b", "*a".repeat(300));
    let db = kept(&[("m", &[&long, &hard, "alias=z*"])], "");
    assert_eq!(db.problems().len(), 1, "{:?}", db.problems());
    assert_eq!(names(db.by_modalias(b"zz")), ["m"]);
    // a pattern made to try everything ends all the same
    let text = format!("y{}", "a".repeat(2000));
    assert!(db.by_modalias(text.as_bytes()).is_empty());
}

//! `.link` files made at random: the same file means an interface, and gives it the same name, as with
//! `udevadm test-builtin`. `MAPDEV_TEST_SEED` repeats a run.

use crate::interface::Made;
use crate::peer::{private, theirs};
use crate::random::Random;
use crate::table::{Case, ours};

const CASES: usize = 500;

const PROPERTIES: [&str; 8] = [
    "ID_PATH=pci-0000:01:00.0",
    "ID_NET_NAME_ONBOARD=eno1",
    "ID_NET_NAME_SLOT=ens3f0",
    "ID_NET_NAME_PATH=enp1s0f0np0",
    "ID_NET_NAME_MAC=enx020000000001",
    "ID_NET_NAME_FROM_DATABASE=from0",
    "ID_VENDOR=A Vendor",
    "ID_MODEL=m",
];

const MATCHES: [(&str, &[&str]); 14] = [
    (
        "OriginalName",
        &["v0", "v*", "*", "!v0", "!b0 x*", "b0", "v[0-9]", "v\\0", "\"v0\"", "a/b v0"],
    ),
    ("Driver", &["veth", "!veth", "bridge", "tun t*", "v* !veth", "'ve?h'", "\"", ""]),
    ("Type", &["ether", "bridge", "!bridge", "none", "e*", "loopback wlan"]),
    ("Kind", &["veth", "bridge", "!tun", "tun", "*", "?*"]),
    ("Path", &["pci-*", "*", "!pci-*", "usb", ""]),
    (
        "Property",
        &[
            "ID_MODEL=m",
            "ID_MODEL=?",
            "!ID_MODEL=m",
            "\"ID_VENDOR=A Vendor\"",
            "ID_MODEL=m ID_PATH=x",
            "X",
            "INTERFACE=v0",
        ],
    ),
    ("MACAddress", &["02:00:00:00:00:01", "foo", ""]),
    ("PermanentMACAddress", &["02:00:00:00:00:01", ""]),
    ("Host", &["*", "!*", "{host}", "{machine-id}", "x", ""]),
    ("Virtualization", &["yes", "no", "!kvm", "vm", "container", ""]),
    ("Architecture", &["native", "!native", "x86-64", "arm", ""]),
    ("KernelVersion", &[">4", "<5", ">= 4 !=x", "*", "!*", "$=[0-9]*", "\"> 4\" <99", "<", ""]),
    ("KernelCommandLine", &["no-such", "!no-such", ""]),
    ("Firmware", &["uefi", "!uefi", "foo", "device-tree", ""]),
];

const SETTINGS: [(&str, &[&str]); 6] = [
    ("Name", &["foo0", "bar1", "toolongtoolongtoo", "1", "a b", "", "x%"]),
    (
        "NamePolicy",
        &[
            "keep",
            "kernel",
            "keep kernel",
            "onboard path",
            "slot",
            "mac",
            "database mac",
            "path foo",
            "",
            "mac mac",
        ],
    ),
    ("Description", &["x"]),
    ("Nothing", &["1"]),
    ("AlternativeNamesPolicy", &["", "foo"]),
    ("MACAddressPolicy", &["none", "", "foo"]),
];

const NOISE: [&str; 7] = ["# comment", "; comment", "", "nonsense", "=x", "  ", "[X-Other]"];

fn one<'a>(random: &mut Random, list: &[&'a str]) -> &'a str {
    list[random.below(list.len())]
}

fn line(random: &mut Random, keys: &[(&str, &[&str])]) -> String {
    let (key, values) = keys[random.below(keys.len())];
    let value = one(random, values);
    let equals = one(random, &["=", "=", "=", " = ", "=\\\n", "= \\\n# between\n"]);
    format!("{key}{equals}{value}\n")
}

fn text(random: &mut Random) -> String {
    let mut text = String::new();
    for section in 0..2 + random.below(2) {
        let matches = section % 2 == 0;
        text.push_str(match (matches, random.below(25)) {
            (_, 0) => "[Other]\n",
            (true, _) => "[Match]\n",
            (false, _) => "[Link]\n",
        });
        let lines = if matches { 1 + random.below(2) } else { 1 + random.below(4) };
        for _ in 0..lines {
            if random.below(6) == 0 {
                text.push_str(one(random, &NOISE));
                text.push('\n');
            }
            text.push_str(&if matches { line(random, &MATCHES) } else { line(random, &SETTINGS) });
        }
    }
    match random.below(30) {
        0 => text.push_str("[Match\n"),
        1 => text.push_str("Alias={ff}\n"),
        2 => text = text.replace('\n', "{0d}\n"),
        _ => {}
    }
    text
}

fn case(random: &mut Random) -> Case {
    let mut files = Vec::new();
    for number in 0..2 + random.below(3) {
        let name = format!("{}0-x.link", 9 - number);
        if random.below(5) == 0 {
            files.push((format!("{name}.d/{}.conf", random.below(3)), text(random)));
        }
        files.push((name, text(random)));
    }
    let devices = ["v0", "b0", "t0", "veth0"];
    let properties = PROPERTIES.iter().filter(|_| random.below(2) == 0);
    let properties = properties.filter_map(|pair| pair.split_once('='));
    Case {
        name: String::new(),
        properties: properties.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        device: one(random, &devices).to_owned(),
        action: one(random, &["add", "add", "change", "bind", "move"]).to_owned(),
        files,
    }
}

fn differs(case: &Case, made: &Made) -> bool {
    case.write();
    case.remember(made.index);
    theirs(made.name, &case.action) != ours(case, made.name)
}

/// The same case with as few lines as still differ.
fn shrunk(case: &Case, made: &Made) -> Case {
    let mut case = case.clone();
    for file in 0..case.files.len() {
        let mut at = 0;
        while at < case.files[file].1.lines().count() {
            let mut less = case.clone();
            let lines = case.files[file].1.lines().enumerate().filter(|(line, _)| *line != at);
            less.files[file].1 = lines.map(|(_, line)| format!("{line}\n")).collect();
            if differs(&less, made) { case = less } else { at += 1 }
        }
    }
    case
}

#[test]
fn random_files_mean_and_name_what_udevadm_says() {
    private(module_path!(), "random_files_mean_and_name_what_udevadm_says", || {
        let mut random = Random::new();
        let made = ["v0", "b0", "t0", "veth0"].map(Made::new);
        let (mut found, mut named) = (0, 0);
        for number in 0..CASES {
            let case = case(&mut random);
            let made = made.iter().flatten().find(|made| made.name == case.device);
            let Some(made) = made else { continue };
            if differs(&case, made) {
                let small = shrunk(&case, made);
                println!("case {number}: {} {} {:?}", small.device, small.action, small.properties);
                small.files.iter().for_each(|(name, text)| println!("--- {name}\n{text}"));
                small.write();
                println!("theirs {:?}", theirs(made.name, &small.action));
                println!("ours   {:?}", ours(&small, made.name));
                panic!("case {number} differs");
            }
            let said = ours(&case, made.name).properties;
            found += usize::from(said.contains_key("ID_NET_LINK_FILE"));
            named += usize::from(said.get("ID_NET_NAME").is_some_and(|name| name != made.name));
        }
        println!("{CASES} cases, {found} with a file, {named} with another name");
        assert!(found > CASES / 5 && named > CASES / 50, "the cases say something");
    });
}

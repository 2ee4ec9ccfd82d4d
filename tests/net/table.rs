//! The cases of `tests/fixtures/net`, each done by both sides to an interface of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mapdev::builtin::{Builtin, Call, Kit, Pair, Ran};
use mapdev::device::{Device, Sysfs, replay};
use mapdev::net::{LinkFiles, Machine};
use mapdev::uevent::Action;

use crate::interface::Made;
use crate::peer::{Said, private, theirs};

const FOLDER: &str = "/etc/systemd/network";

const CASES: [&str; 4] = [
    include_str!("../fixtures/net/matches.txt"),
    include_str!("../fixtures/net/names.txt"),
    include_str!("../fixtures/net/settings.txt"),
    include_str!("../fixtures/net/syntax.txt"),
];

/// `.link` files, and the interface and event that they are used for.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) action: String,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) files: Vec<(String, String)>,
}

impl Case {
    /// `=== NAME`, then `--- device NAME [ACTION]`, `--- property KEY=VALUE` and `--- file NAME` with
    /// its lines; a line that ends in `$` has no newline, and `\x` is a byte.
    fn parse(text: &str) -> Self {
        let (name, rest) = text.split_once('\n').unwrap();
        let mut case = Self {
            name: name.to_owned(),
            device: "v0".to_owned(),
            action: "add".to_owned(),
            properties: Vec::new(),
            files: Vec::new(),
        };
        for line in rest.lines() {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            match words.as_slice() {
                ["---", "device", device] => {
                    let mut words = device.split(' ');
                    case.device = words.next().unwrap().to_owned();
                    case.action = words.next().unwrap_or("add").to_owned();
                }
                ["---", "property", pair] => {
                    let (key, value) = pair.split_once('=').unwrap();
                    case.properties.push((key.to_owned(), value.to_owned()));
                }
                ["---", "file", name] => case.files.push(((*name).to_owned(), String::new())),
                _ => {
                    if case.files.is_empty() {
                        case.files.push(("10-a.link".to_owned(), String::new()));
                    }
                    let text = &mut case.files.last_mut().unwrap().1;
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        case
    }

    /// Whether ethtool may set something, as far as its keys are known.
    fn concerns_ethtool(&self) -> bool {
        const OTHERS: [&str; 8] = [
            "MTU",
            "Queue",
            "GenericSegment",
            "Alias",
            "MACAddress",
            "Name",
            "Description",
            "SR-IOV",
        ];
        let (_, rest) = self.files.first().unwrap().1.split_once("[Link]").unwrap_or_default();
        !rest.trim().is_empty()
            && !OTHERS.iter().any(|key| rest.trim().starts_with(key) && !rest.contains("Offload="))
    }

    pub(crate) fn write(&self) {
        for entry in fs::read_dir(FOLDER).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        let id = fs::read_to_string("/etc/machine-id").unwrap();
        let host = rustix::system::uname();
        let host = host.nodename().to_str().unwrap();
        for (name, text) in &self.files {
            let path = Path::new(FOLDER).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // what no text file can hold is written as an escape
            let text = text.replace("{machine-id}", id.trim()).replace("{host}", host);
            fs::write(path, bytes(&text)).unwrap();
        }
    }

    /// The record from which the other side takes its properties.
    pub(crate) fn remember(&self, index: u32) {
        let pairs = self.properties.iter().map(|(key, value)| format!("E:{key}={value}\n"));
        let text = format!("I:1\n{}V:1\n", pairs.collect::<String>());
        fs::write(PathBuf::from(format!("/run/udev/data/n{index}")), text).unwrap();
    }
}

/// Replaces `{00}` to `{ff}` by the byte.
fn bytes(text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let byte = rest.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let closed = rest.get(at + 3..at + 4) == Some("}");
        all.extend_from_slice(&rest.as_bytes()[..at]);
        match byte.filter(|_| closed) {
            Some(byte) => all.push(byte),
            None => all.extend_from_slice(&rest.as_bytes()[at..at + 1]),
        }
        rest = &rest[if byte.is_some() && closed { at + 4 } else { at + 1 }..];
    }
    all.extend_from_slice(rest.as_bytes());
    all
}

fn action(word: &str) -> Action {
    match word {
        "add" => Action::Add,
        "change" => Action::Change,
        "move" => Action::Move,
        "bind" => Action::Bind,
        "online" => Action::Online,
        _ => panic!("{word}"),
    }
}

/// The builtin, which also does what the files say.
pub(crate) fn ours(case: &Case, name: &str) -> Said {
    let sysfs = Sysfs::new("/sys");
    let devpath = sysfs.follow(format!("/class/net/{name}").as_bytes()).unwrap();
    let uevent = replay::replay(&sysfs, &devpath, action(&case.action), 1).unwrap();
    let device = Device::new(sysfs, Arc::new(uevent));
    let kernel = device.uevent().properties().map(|(key, value)| (key.to_vec(), value.to_vec()));
    let further =
        case.properties.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes()));
    let properties: Vec<Pair> = kernel.chain(further).collect();
    let machine = Machine::read(Path::new("/"), Path::new("/sys"));
    let (links, problems) = LinkFiles::load(Path::new("/"), &machine);
    let kit = Kit::default();
    kit.set_links(&Arc::new(links));
    kit.allow_changes(true);
    let words = [b"net_setup_link".to_vec()];
    let call = Call { device: &device, properties: &properties, words: &words };
    let Ran::Done(pairs) = kit.run(Builtin::NetSetupLink, &call) else { panic!("it failed") };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let place = |problem: &mapdev::problem::Problem| {
        let file = problem.file.strip_prefix(FOLDER).unwrap().display().to_string();
        (problem.line > 0).then(|| format!("{file}:{}", problem.line))
    };
    let mut refused: Vec<_> = problems.iter().filter_map(place).collect();
    refused.sort();
    refused.dedup();
    Said { properties: pairs.into_iter().map(|(k, v)| (text(k), text(v))).collect(), refused }
}

/// `None` where the kernel has no interface of the case's kind.
fn differences(case: &Case) -> Option<Vec<String>> {
    case.write();
    let mut sides = Vec::new();
    for side in ["theirs", "ours"] {
        let made = Made::new(&case.device)?;
        case.remember(made.index);
        let said = match side {
            "theirs" => theirs(made.name, &case.action),
            _ => ours(case, made.name),
        };
        let mut state = made.state(case.concerns_ethtool());
        // an address by chance is only known to be of one station and nobody's
        if case.files.iter().any(|(_, text)| text.contains("MACAddressPolicy=random")) {
            let address = state.get_mut("address").unwrap();
            let first = u8::from_str_radix(&address[..2], 16).map_or(0, |byte| byte & 3);
            *address = format!("{first} {}", address.len());
        }
        sides.push((said, state));
    }
    let [(their_said, their_state), (our_said, our_state)] = <[_; 2]>::try_from(sides).unwrap();
    let mut found = Vec::new();
    if their_said.properties != our_said.properties {
        found.push(format!(
            "said: theirs {:?}, ours {:?}",
            their_said.properties, our_said.properties
        ));
    }
    // they count the lines of virtual functions elsewhere
    let functions = case.files.iter().any(|(_, text)| text.contains("[SR-IOV]"));
    if their_said.refused != our_said.refused && !functions {
        found
            .push(format!("refused: theirs {:?}, ours {:?}", their_said.refused, our_said.refused));
    }
    for (key, theirs) in &their_state {
        if our_state[key] != *theirs {
            found.push(format!("{key}: theirs {theirs}, ours {}", our_state[key]));
        }
    }
    Some(found)
}

#[test]
fn interfaces_are_set_as_udevadm_sets_them() {
    private(module_path!(), "interfaces_are_set_as_udevadm_sets_them", || {
        let only = std::env::var("MAPDEV_TEST_CASE").ok();
        let cases = CASES.iter().flat_map(|file| file.split("=== ").skip(1)).map(Case::parse);
        let cases: Vec<_> = cases
            .filter(|case| only.as_deref().is_none_or(|only| case.name.contains(only)))
            .collect();
        let (mut failed, mut skipped) = (0, 0);
        for case in &cases {
            let Some(found) = differences(case) else {
                skipped += 1;
                continue;
            };
            if !found.is_empty() {
                failed += 1;
                println!("=== {}\n{}", case.name, found.join("\n"));
            }
        }
        println!("{} cases, {failed} differ, {skipped} skipped", cases.len());
        assert_eq!(failed, 0);
        assert!(skipped * 2 <= cases.len(), "the kernel's veth interfaces wanted");
    });
}

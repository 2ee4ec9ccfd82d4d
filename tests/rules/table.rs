//! Cases of `tests/fixtures/rules`, each decided by us and by `udevadm test`: its answer is the right one.
//!
//! A case begins with `=== its name`. Lines of the form `--- word value` say the `device` (`disk`), the
//! `action` (`change`) and lines of the `record` before, and of the `parent`'s; `--- raw` that the text is escaped as in C;
//! `--- nothing` that the rules do nothing; and `--- apart` that on purpose we do not as systemd 252,
//! which does not know this or loses more than a line, but as `--- says`. All else is rules, in which
//! `@70@` stands for 70 letters.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mapdev::device::record::{Record, Records};
use mapdev::device::replay::replay;
use mapdev::device::{Device, Sysfs};
use mapdev::rules;
use mapdev::rules::Rules;
use mapdev::rules::event::Event;
use mapdev::rules::names::Names;
use mapdev::rules::plan::Plan;
use mapdev::uevent::Action;

use crate::answer::{self, Answer};
use crate::peer::private;
use crate::tree::{Tree, devpath};
use crate::world::doing;

#[derive(Debug, Default)]
pub(crate) struct Case {
    name: String,
    pub(crate) device: String,
    pub(crate) action: String,
    /// What is remembered of the device.
    pub(crate) record: String,
    /// What is remembered of the device above.
    parent: String,
    pub(crate) rules: Vec<u8>,
    raw: bool,
    nothing: bool,
    apart: bool,
    says: Vec<String>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rules");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            if let Some(name) = line.strip_prefix("=== ") {
                let (device, action) = ("disk".to_owned(), "change".to_owned());
                cases.push(Case { name: name.to_owned(), device, action, ..Case::default() });
            } else if let Some(header) = line.strip_prefix("--- ") {
                cases.last_mut().unwrap().header(header);
            } else if let Some(case) = cases.last_mut() {
                case.rules.extend_from_slice(line.as_bytes());
                case.rules.push(b'\n');
            }
        }
    }
    for case in &mut cases {
        case.rules = stretched(&case.rules);
        if case.raw {
            case.rules = unescaped(&case.rules);
        }
    }
    cases
}

impl Case {
    fn header(&mut self, header: &str) {
        let (word, value) = header.split_once(' ').unwrap_or((header, ""));
        match word {
            "device" => self.device = value.to_owned(),
            "action" => self.action = value.to_owned(),
            "record" => self.record.push_str(&format!("{value}\n")),
            "parent" => self.parent.push_str(&format!("{value}\n")),
            "raw" => self.raw = true,
            "nothing" => self.nothing = true,
            "apart" => self.apart = true,
            "says" => self.says.push(value.to_owned()),
            _ => panic!("{}: {header}", self.name),
        }
    }

    pub(crate) fn new(device: String, action: String, record: String) -> Self {
        Self { device, action, record, ..Self::default() }
    }

    /// The same device and event, with these rules.
    pub(crate) fn with(&self, rules: Vec<u8>) -> Self {
        Self {
            name: self.name.clone(),
            device: self.device.clone(),
            action: self.action.clone(),
            record: self.record.clone(),
            parent: self.parent.clone(),
            rules,
            ..Self::default()
        }
    }

    fn action(&self) -> Action {
        match self.action.as_str() {
            "add" => Action::Add,
            "change" => Action::Change,
            "remove" => Action::Remove,
            other => panic!("{}: {other}", self.name),
        }
    }
}

/// `@70@` stands for 70 letters.
fn stretched(text: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(text).unwrap();
    let parts = text.split('@').map(|part| match part.parse() {
        Ok(length) => "x".repeat(length),
        Err(_) => part.to_owned(),
    });
    parts.collect::<String>().into_bytes()
}

/// `\n`, `\r`, `\0`, `\\`, `\xHH`; a line's end itself counts for nothing.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'\n', _) => {}
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                out.push(u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = tail;
            }
            (b'\\', [escape, tail @ ..]) => {
                let known = b"n\nr\rt\t0\0\\\\";
                let at = known.chunks(2).find(|pair| pair[0] == *escape).unwrap();
                out.push(at[1]);
                rest = tail;
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// Of this network alone, and of no effect on anything else.
const TTL: &str = "/proc/sys/net/ipv4/ip_default_ttl";

/// A node in whose place systemd 252 has put a link of its name.
pub(crate) const GONE: &str = "gone";

fn node(device: &str, answer: &mut Answer) {
    let names =
        [("disk", "sdz"), ("partition", "sdz12"), ("bus", "bus/usb/001/001"), ("odd", "a/b0")];
    if let Some((_, name)) = names.iter().find(|(known, _)| *known == device) {
        let shown = match fs::metadata(Path::new("/dev").join(name)) {
            Ok(meta) => format!("{}:{} {:04o}", meta.uid(), meta.gid(), meta.mode() & 0o7777),
            Err(_) => GONE.to_owned(),
        };
        answer.insert("(node)".into(), shown);
    }
}

pub(crate) fn theirs(case: &Case, tree: &Tree) -> Answer {
    begin(case, tree);
    let (mut answer, log) = answer::theirs(devpath(&case.device), &case.action);
    if std::env::var("MAPDEV_TEST_CASE").is_ok_and(|name| name == case.name) {
        println!("{log}");
    }
    node(&case.device, &mut answer);
    let record = id(case).and_then(|id| fs::metadata(Path::new("/run/udev/data").join(id)).ok());
    answer.insert("(persist)".into(), record.is_some_and(|r| r.mode() & 0o1000 != 0).to_string());
    let text = id(case).and_then(|id| fs::read(Path::new("/run/udev/data").join(id)).ok());
    let record = text.map(|text| Record::parse(&text)).unwrap_or_default();
    answer::remember(&record, &mut answer);
    written(tree, &mut answer);
    answer
}

/// What rules have written to.
fn written(tree: &Tree, answer: &mut Answer) {
    answer.insert("(written)".into(), tree.writable());
    answer.insert("(ttl)".into(), fs::read_to_string(TTL).unwrap());
}

pub(crate) fn ours(case: &Case, tree: &Tree, names: &Names) -> Answer {
    begin(case, tree);
    let mut rules = Rules::default();
    rules.add(Path::new("50-test.rules"), &case.rules, names);
    let sysfs = Sysfs::new("/sys");
    let path = devpath(&case.device).as_bytes();
    let uevent = replay(&sysfs, path, case.action(), 0).unwrap();
    let device = Device::new(sysfs, Arc::new(uevent));
    let world = doing();
    let old = Records::open(Path::new("/run/udev/data")).unwrap().read(device.id());
    let begun = || Event::new(&device, &world, names, old.as_ref(), rules::decide(&device));
    let mut event = begun();
    let failed = rules.apply_plan(&Plan::new(&rules, &device), &mut event).is_err();
    let (mut answer, mut decision) = answer::ours(event);
    // every rule tried, one after the other, decides the same
    begin(case, tree);
    let mut event = begun();
    assert_eq!(rules.apply(&mut event).is_err(), failed, "{}", case.name);
    assert_eq!(answer::ours(event), (answer.clone(), decision.clone()), "{}", case.name);
    decision.finish();
    let removed = case.action == "remove";
    if device.devnum().is_some() {
        let (uid, gid) = (decision.owner.unwrap_or(0), decision.group.unwrap_or(0));
        let mode = decision.mode.unwrap_or(0o600);
        // the peer goes no further when rules have failed, and has nothing to settle on remove
        let (uid, gid, mode) = if removed || failed { (0, 0, 0o600) } else { (uid, gid, mode) };
        answer.insert("(node)".into(), format!("{uid}:{gid} {mode:04o}"));
    }
    let stays = !removed && !failed;
    answer.insert("(persist)".into(), (decision.persist && stays).to_string());
    let numbered = device.devnum().is_some();
    let links = decision.links.iter().filter(|_| numbered).map(|link| link.name.clone());
    let record = Record {
        links: links.collect(),
        link_priority: if numbered { decision.link_priority } else { 0 },
        initialized_usec: None,
        properties: decision.lasting_properties(),
        sticky_tags: decision.tags.sticky.clone(),
        current_tags: decision.tags.current.clone(),
        persist: decision.persist,
    };
    // rules that failed leave the record as it was, and a device that is gone has none
    let record = match (removed, failed) {
        (true, _) => Record::default(),
        (false, true) => Record { initialized_usec: None, ..old.clone().unwrap_or_default() },
        (false, false) => record,
    };
    // some devices of the tree have no id here: nothing was looked at
    let looked_at = id(case).map_or_else(Record::default, |_| Record::parse(&record.to_bytes()));
    answer::remember(&looked_at, &mut answer);
    written(tree, &mut answer);
    answer
}

fn id(case: &Case) -> Option<&'static str> {
    id_of(&case.device)
}

fn id_of(device: &str) -> Option<&'static str> {
    let ids = [
        ("disk", "b8:240"),
        ("partition", "b8:252"),
        ("bus", "c189:0"),
        ("odd", "c10:77"),
        ("net", "n77"),
        ("port", "+usb:1-1"),
    ];
    ids.iter().find(|(name, _)| *name == device).map(|(_, id)| *id)
}

/// The machine before the event.
fn begin(case: &Case, tree: &Tree) {
    drop(fs::remove_dir_all("/run/udev"));
    fs::create_dir_all("/run/udev/data").unwrap();
    if !case.record.is_empty() {
        let path = Path::new("/run/udev/data").join(id(case).unwrap());
        fs::write(path, &case.record).unwrap();
    }
    if !case.parent.is_empty() {
        let above = if case.device == "port" { "bus" } else { "disk" };
        let path = Path::new("/run/udev/data").join(id_of(above).unwrap());
        fs::write(path, &case.parent).unwrap();
    }
    // the one above the disk was seen before
    fs::write(
        "/run/udev/data/+usb:1-1",
        "E:ID_PORT=1\nE:ID_EMPTY=\nG:gone\nG:ported\nQ:ported\nV:1\n",
    )
    .unwrap();
    fs::write(
        "/run/props",
        "# c\n A = b c \nQ=\"q \"\nS='s'\nBAD='x\nE=\nEMPTY=\"\"\nNO=''\nLAST=1",
    )
    .unwrap();
    fs::write("/etc/udev/rules.d/50-test.rules", &case.rules).unwrap();
    tree.reset();
    fs::write(TTL, "64").unwrap();
}

#[test]
fn each_case_is_decided_as_udevadm_decides_it() {
    private(module_path!(), "each_case_is_decided_as_udevadm_decides_it", || {
        let mut mask = Command::new("mount");
        mask.args(["-t", "tmpfs", "tmpfs", "/usr/lib/udev/rules.d"]);
        assert!(mask.status().unwrap().success());
        let tree = Tree::mount();
        let names = Names::load(Path::new("/"));
        let (mut wrong, mut count) = (0, 0);
        let only = std::env::var("MAPDEV_TEST_CASE").ok();
        for case in
            cases().iter().filter(|case| only.as_ref().is_none_or(|only| *only == case.name))
        {
            let ours = ours(case, &tree, &names);
            let idle = self::ours(&case.with(Vec::new()), &tree, &names);
            let mut theirs = if case.apart { idle.clone() } else { theirs(case, &tree) };
            if case.apart {
                assert!(!case.says.is_empty(), "{}: what do we say?", case.name);
            } else if (idle == theirs) != case.nothing {
                println!(
                    "{}: a case must do something, unless it says that it does not",
                    case.name
                );
                wrong += 1;
            }
            if case.apart {
                // what is said of the properties is said of what is remembered of them
                for key in ["(links)", "(properties)"] {
                    theirs.insert(key.into(), ours[key].clone());
                }
            }
            for said in &case.says {
                let (key, value) = said.split_once('=').unwrap();
                theirs.insert(key.into(), value.into());
            }
            count += 1;
            if ours != theirs {
                wrong += 1;
                println!("=== {}\n{}", case.name, String::from_utf8_lossy(&case.rules));
                answer::differences(&ours, &theirs);
            }
        }
        println!("{count} cases, {wrong} wrong");
        assert_eq!(wrong, 0);
        assert!(only.is_some() || count >= 200, "only {count} cases were found");
    });
}

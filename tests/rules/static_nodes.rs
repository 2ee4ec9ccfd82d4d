//! What rules say of nodes without a device, beside what systemd-udevd does with them when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mapdev::rules::Rules;
use mapdev::rules::names::Names;
use mapdev::rules::static_node::StaticNode;
use rustix::fs::{CWD, FileType, Mode, makedev};

use crate::peer::{Daemon, private};

const RULES: &str = r#"
KERNEL=="no", MODE="0666", OPTIONS+="static_node=m/mode"
GROUP="7", OPTIONS+="static_node=group"
OWNER="daemon", OPTIONS+="static_node=owner"
GROUP="0", OPTIONS+="static_node=group-root"
OPTIONS+="static_node=before", OWNER="3", OWNER="5", MODE="4640", OPTIONS+="static_node=two"
OWNER="nobody-of-that-name", OPTIONS+="static_node=unknown"
OWNER="5", GROUP="5", OWNER="nobody-of-that-name", OPTIONS+="static_node=taken-back"
GROUP="%k", MODE="0", OPTIONS+="static_node=filled-in"
GROUP="7", OPTIONS+="static_node=again"
MODE="0611", OPTIONS+="static_node=again"
TAG+="uaccess", OPTIONS+="static_node=e/f.g"
TAG+="x", TAG-="y", TAG="z%k", OPTIONS+="static_node=tags"
MODE="0622", KRENEL=="a", OPTIONS+="static_node=bad-line"
OPTIONS+="static_node=", MODE="0633"
MODE="0622"
GOTO="end", OPTIONS+="static_node=beside-goto", MODE="0644"
OPTIONS+="static_node=jumped-over", MODE="0655"
LABEL="end"
"#;

/// What no rule speaks of.
const OTHERS: [&str; 2] = ["bad-line", "other"];

/// What a node begins with, so that each change shows.
const START: (u32, u32, u32) = (1, 1, 0o604);

#[test]
fn static_nodes_are_what_systemd_udevd_makes_of_them() {
    private(module_path!(), "static_nodes_are_what_systemd_udevd_makes_of_them", || {
        fs::write("/etc/udev/rules.d/50-test.rules", RULES).unwrap();
        let (rules, problems) = Rules::load(Path::new("/"), &Names::load(Path::new("/")));
        println!("{problems:#?}");
        let ours: Vec<_> =
            rules.static_nodes().iter().filter(|n| n.file.contains("50-test")).collect();
        assert_eq!(ours.len(), 16, "{ours:#?}");
        let shipped = rules.static_nodes().len() - ours.len();
        println!("{shipped} static nodes in the machine's own rules");
        assert!(Path::new("/usr/lib/udev/rules.d/50-udev-default.rules").exists() == (shipped > 5));
        let mut names: BTreeSet<String> = rules.static_nodes().iter().map(name).collect();
        names.extend(OTHERS.map(str::to_owned));
        names.remove("");
        names.iter().for_each(|name| make(name));
        let daemon = Daemon::start();
        let theirs: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), look(name))).collect();
        assert_eq!(theirs, expected(&rules, &names));
        assert_eq!(tags_on_disk(), tags(&rules));
        drop(daemon);
    });
}

fn name(node: &StaticNode) -> String {
    String::from_utf8(node.name.to_vec()).unwrap()
}

fn make(name: &str) {
    let path = Path::new("/dev").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), makedev(1, 3)).unwrap();
    chown(&path, Some(START.0), Some(START.1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(START.2)).unwrap();
}

fn look(name: &str) -> (u32, u32, u32) {
    let meta = fs::metadata(Path::new("/dev").join(name)).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// The nodes when each of our static nodes was applied in turn.
fn expected(rules: &Rules, names: &BTreeSet<String>) -> BTreeMap<String, (u32, u32, u32)> {
    let mut nodes: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), START)).collect();
    for node in rules.static_nodes() {
        let Some((uid, gid, mode)) = nodes.get_mut(&name(node)) else { continue };
        *uid = node.owner.unwrap_or(*uid);
        *gid = node.group.unwrap_or(*gid);
        *mode = node.mode.unwrap_or(*mode);
    }
    nodes
}

/// The links that the tags of the static nodes make, and where they lead.
fn tags(rules: &Rules) -> BTreeMap<PathBuf, PathBuf> {
    let mut links = BTreeMap::new();
    for node in rules.static_nodes().iter().filter(|node| !node.name.is_empty()) {
        for tag in &node.tags {
            let escaped = name(node).replace('/', "\\x2f").replace('.', "\\x2e");
            let tag = String::from_utf8(tag.to_vec()).unwrap();
            links.insert(Path::new(&tag).join(escaped), Path::new("/dev").join(name(node)));
        }
    }
    links
}

fn tags_on_disk() -> BTreeMap<PathBuf, PathBuf> {
    let mut links = BTreeMap::new();
    for tag in fs::read_dir("/run/udev/static_node-tags").unwrap().flatten() {
        for link in fs::read_dir(tag.path()).unwrap().flatten() {
            let name = Path::new(&tag.file_name()).join(link.file_name());
            links.insert(name, fs::read_link(link.path()).unwrap());
        }
    }
    links
}

//! Whole events: interfaces come, and each of both managers names and sets them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::interface::{ip, try_ip};
use crate::listen::{Announcement, Listener};
use crate::peer::private_with;

/// No nodes of the machine's, and no rules but the test's.
const ALONE: &str = "
mkdir /run/new
mount -t tmpfs -o mode=0755 tmpfs /run/new
mknod -m 0666 /run/new/null c 1 3
mount --move /run/new /dev
mount -t tmpfs tmpfs /etc/udev/rules.d
mount -t tmpfs tmpfs /usr/lib/udev/rules.d
mkdir -p /run/first /run/udev
";

const RULES: &str = r#"
SUBSYSTEM!="net", GOTO="end"
ACTION=="remove", GOTO="end"
ATTR{address}=="02:00:00:00:00:50", NAME="byrule0"
ATTR{address}=="02:00:00:00:00:51", NAME="12345"
IMPORT{builtin}="net_setup_link"
NAME=="", ENV{ID_NET_NAME}!="", NAME="$env{ID_NET_NAME}"
TAG+="systemd"
LABEL="end"
"#;

const FILES: [(&str, &str); 5] = [
    (
        "10-lan.link",
        "[Match]\nMACAddress=02:00:00:00:00:01\n[Link]\nName=lan0\nMTUBytes=1400\nAlternativeName=lan0 other0\nAlias=the lan\nTransmitQueueLength=50\nTCPSegmentationOffload=no\n",
    ),
    (
        "20-wan.link",
        "[Match]\nMACAddress=02:00:00:00:00:02\n[Link]\nNamePolicy=keep kernel\nName=wan0\nMACAddress=02:00:00:00:00:99\n",
    ),
    ("30-taken.link", "[Match]\nMACAddress=02:00:00:00:00:03\n[Link]\nName=veth1\nMTUBytes=1300\n"),
    ("40-up.link", "[Match]\nMACAddress=02:00:00:00:00:04\n[Link]\nName=up9\nMTUBytes=1350\n"),
    (
        "99-rest.link",
        "[Match]\nOriginalName=*\n[Link]\nNamePolicy=keep kernel database onboard slot path\nMACAddressPolicy=persistent\n",
    ),
];

/// What an interface is called at first, and how it is made.
const MADE: [(&str, &str); 7] = [
    ("veth0", "link add veth0 index 210 address 02:00:00:00:00:01 type veth peer name veth1"),
    ("mine0", "link add mine0 index 220 address 02:00:00:00:00:02 type veth peer name mine1"),
    ("veth7", "link add veth7 index 230 address 02:00:00:00:00:03 type veth peer name veth8"),
    ("br7", "link add br7 index 240 type bridge"),
    ("some0", "link add some0 index 250 address 02:00:00:00:00:50 type bridge"),
    ("some1", "link add some1 index 260 address 02:00:00:00:00:51 type bridge"),
    ("up0", "link add up0 index 270 up address 02:00:00:00:00:04 type bridge"),
];

struct Manager(Child);

impl Manager {
    /// Returns when it is ready.
    fn start(mut command: Command, name: &str) -> Self {
        let path = format!("/run/{name}");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        command.env("NOTIFY_SOCKET", path).stdin(Stdio::null()).stdout(Stdio::null());
        let manager = Self(command.env_remove("JOURNAL_STREAM").spawn().unwrap());
        let mut text = [0; 4096];
        loop {
            let length = socket.recv(&mut text).expect("wanted a manager that is ready");
            if text[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return manager;
            }
        }
    }

    fn theirs() -> Self {
        Self::start(Command::new("/usr/lib/systemd/systemd-udevd"), "theirs")
    }

    fn ours() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevd"));
        command.args(["--mode", "active", "--bus", "none", "--runtime", "/run/first"]);
        Self::start(command, "ours")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What is left of one interface.
type State = BTreeMap<String, String>;

/// Makes an interface and waits until its manager has told all of it.
fn made(words: &str, listener: &Listener) -> State {
    ip(words);
    let index = words.split(' ').skip_while(|word| *word != "index").nth(1).unwrap();
    let mut first: Option<Announcement> = None;
    let last = loop {
        let next = listener.next();
        let own = next.text("IFINDEX") == index && next.text("SUBSYSTEM") == "net";
        let failed = next.text("UDEV_WORKER_FAILED") == "1";
        let renames = next.text("ID_RENAMING") == "1" && !failed;
        match (own, next.text("ACTION").as_str()) {
            (true, "add") if renames => first = Some(next),
            (true, "add") => break next,
            (true, "move") => break next,
            _ => {}
        }
    };
    let mut state = State::new();
    for (when, told) in [("first", first.as_ref()), ("last", Some(&last))] {
        let keys = [
            "ACTION",
            "DEVPATH",
            "DEVPATH_OLD",
            "INTERFACE",
            "INTERFACE_OLD",
            "ID_RENAMING",
            "ID_NET_NAME",
            "UDEV_WORKER_ERRNO_NAME",
            "ID_NET_LINK_FILE",
            "ID_NET_DRIVER",
            "TAGS",
        ];
        for key in keys {
            state.insert(
                format!("{when} {key}"),
                told.map_or_else(String::new, |told| told.text(key)),
            );
        }
    }
    // 252 tells a name that the interface did not get
    let failed = last.text("UDEV_WORKER_FAILED") == "1";
    let name = last.text(if failed { "INTERFACE_OLD" } else { "INTERFACE" });
    let name = if name.is_empty() { last.text("INTERFACE") } else { name };
    let told: serde_json::Value =
        serde_json::from_str(&ip(&format!("-d -j link show {name}"))).unwrap();
    for key in ["ifname", "mtu", "txqlen", "ifalias", "altnames", "address"] {
        state.insert(key.to_owned(), told[0][key].to_string());
    }
    // there is none of an interface whose only event failed
    let record = fs::read_to_string(format!("/run/udev/data/n{index}")).unwrap_or_default();
    let mut lines: Vec<_> = record.lines().filter(|line| !line.starts_with("I:")).collect();
    lines.sort_unstable();
    state.insert("record".to_owned(), lines.join("\n"));
    let features = Command::new("ethtool").args(["-k", &name]).output().unwrap();
    let features = String::from_utf8(features.stdout).unwrap();
    state.insert("features".to_owned(), features.replace(&name, "it"));
    state
}

/// All interfaces, one after the other; all are gone at the end.
fn all(manager: impl Fn() -> Manager) -> Vec<State> {
    for entry in fs::read_dir("/run/udev/data").into_iter().flatten().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    let listener = Listener::new();
    let manager = manager();
    let states: Vec<_> = MADE.iter().map(|(_, words)| made(words, &listener)).collect();
    drop(manager);
    for name in ["lan0", "mine0", "veth7", "br7", "byrule0", "some1", "up0", "up9"] {
        drop(try_ip(&format!("link del {name}")));
    }
    states
}

#[test]
fn interfaces_are_named_and_set_as_systemd_udevd_does() {
    let test = "interfaces_are_named_and_set_as_systemd_udevd_does";
    private_with(module_path!(), test, ALONE, || {
        fs::write("/usr/lib/udev/rules.d/80-net.rules", RULES).unwrap();
        for (name, text) in FILES {
            fs::write(Path::new("/etc/systemd/network").join(name), text).unwrap();
        }
        let theirs = all(Manager::theirs);
        let ours = all(Manager::ours);
        let mut failed = false;
        for ((name, _), (theirs, ours)) in MADE.iter().zip(theirs.iter().zip(&ours)) {
            for (key, theirs) in theirs {
                // later versions take back what a name that was not given had changed
                let taken_back = *name == "veth7"
                    && ["DEVPATH", "INTERFACE", "RENAMING", "record"]
                        .iter()
                        .any(|part| key.contains(part));
                if ours[key] != *theirs && !taken_back {
                    failed = true;
                    println!("{name}: {key}: theirs {theirs:?}, ours {:?}", ours[key]);
                }
            }
        }
        assert!(!failed, "a difference");
        assert_eq!(
            (ours[0]["ifname"].as_str(), ours[0]["last ACTION"].as_str()),
            ("\"lan0\"", "move")
        );
    });
}

//! udev rules: they decide before policy, name their line, reach record and listeners, and are loaded
//! anew.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use rustix::process::Signal;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::sysfs::Device;

const RULES: &str = r#"# which line decides is told
KERNEL=="livec*", ATTR{uevent}=="MAJOR=4000*", OWNER="alice", GROUP="lab", TAG+="seat"
KERNEL=="livec1", SYMLINK+="live/rule", ENV{ID_LIVE}="$env{MINOR}", ENV{.SECRET}="1"
ENV{ID_LIVE}=="?*", OPTIONS+="link_priority=7", MODE="0604"
KERNEL=="livec1", PROGRAM=="/bin/sh -c 'echo $$DEVNAME $$ID_LIVE'", ENV{ID_SAID}="$result"
KERNEL=="livec1", ATTR{[module/book]note}="written"
"#;

const POLICY: &str = r#"schema = 1

[[rule]]
id = "lab"
match.property = { ID_LIVE = "1" }
set.mode = "0640"
"#;

fn rules(machine: &Machine, text: &str) {
    let folder = machine.root.join("etc/udev/rules.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("50-live.rules"), text).unwrap();
}

#[test]
fn rules_decide_before_policy_and_name_their_line() {
    private(module_path!(), "rules_decide_before_policy_and_name_their_line", |mut machine| {
        rules(&machine, RULES);
        machine.policy("50-lab.toml", POLICY);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let device = Device::new(
            "/devices/live/livec1",
            "live",
            &[("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1"), ("DEVMODE", "0666")],
        );
        let note = machine.sysfs.root().join("module/book/note");
        fs::create_dir_all(note.parent().unwrap()).unwrap();
        fs::write(&note, "old and long").unwrap();
        let number = machine.add(&device);
        let told = listener.until(number).pop().unwrap();
        let dev = machine.place.dev.clone();
        let look = || {
            let stat = fs::metadata(dev.join("livec1")).unwrap();
            (stat.uid(), stat.gid(), stat.mode() & 0o7777)
        };
        assert_eq!(look(), (1234, 4321, 0o640), "policy stands above the rules, and sees ID_LIVE");
        assert_eq!(fs::read_link(dev.join("live/rule")).unwrap().to_str(), Some("../livec1"));
        for (key, value) in [
            ("ID_LIVE", "1"),
            ("TAGS", ":seat:"),
            ("CURRENT_TAGS", ":seat:"),
            ("DEVLINKS", "/dev/live/rule"),
            ("ID_SAID", "/dev/livec1 1"),
            (".SECRET", "1"),
        ] {
            assert_eq!(told.text(key), value, "{key}");
        }
        let record = fs::read_to_string(machine.place.records.join("c4000:1")).unwrap();
        let record: Vec<_> = record.lines().filter(|line| !line.starts_with("I:")).collect();
        let wanted = [
            "S:live/rule",
            "L:7",
            "E:ID_LIVE=1",
            "E:ID_SAID=/dev/livec1 1",
            "G:seat",
            "Q:seat",
            "V:1",
        ];
        assert_eq!(record, wanted);

        for (attribute, line) in
            [("owner", 2), ("group", 2), ("mode", 4), ("links", 3), ("tags", 2), ("properties", 3)]
        {
            let story = bus.json(&["explain", "livec1", attribute]).to_string();
            let line = format!("\"line\":{line}");
            assert!(story.contains("50-live.rules") && story.contains(&line), "{story}");
        }
        assert_eq!(fs::read_to_string(&note).unwrap(), "written long");

        rules(&machine, "KERNEL==\"livec*\", GROUP=\"lab\"\nKRENEL==\"x\", MODE=\"0777\"\n");
        machine.policy("50-lab.toml", "schema = 1\n");
        daemon.signal(Signal::HUP);
        daemon.wait_ready(&manager, &bus);
        bus.settle();
        assert_eq!(look(), (1234, 4321, 0o604), "policy is gone, and rules hold for what comes");
        assert!(dev.join("live/rule").exists());
        listener.until(machine.change(&device));
        assert!(!dev.join("live").exists(), "a link that nobody wants stays");
        let log = daemon.log();
        assert!(log.contains("50-live.rules:2:1: error: unknown key KRENEL"), "{log}");
    });
}

const ONCE: &str = "ACTION==\"add\", KERNEL==\"livec*\", OWNER=\"alice\", GROUP=\"lab\"\n";

#[test]
fn what_a_login_did_to_a_node_outlives_what_rules_said_before() {
    private(
        module_path!(),
        "what_a_login_did_to_a_node_outlives_what_rules_said_before",
        |machine| {
            let mut machine = machine;
            rules(&machine, ONCE);
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let listener = Listener::new();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            let device = |minor: &str| {
                let name = format!("livec{minor}");
                let pairs = [("MAJOR", "4000"), ("MINOR", minor), ("DEVNAME", &name)];
                Device::new(&format!("/devices/live/{name}"), "live", &pairs)
            };
            let (first, second) = (device("1"), device("2"));
            let dev = machine.place.dev.clone();
            let look = |name: &str| {
                let stat = fs::metadata(dev.join(name)).unwrap();
                (stat.uid(), stat.gid(), stat.mode() & 0o7777)
            };
            listener.until(machine.add(&first));
            assert_eq!(look("livec1"), (1234, 4321, 0o660));

            chown(dev.join("livec1"), Some(7), Some(7)).unwrap();
            listener.until(machine.change(&first));
            assert_eq!(look("livec1"), (7, 7, 0o660), "no rule speaks of a change");
            let story = bus.json(&["explain", "livec1", "owner"]).to_string();
            assert!(story.contains("50-live.rules") && story.contains("1234"), "{story}");

            let reload = |text: &str| {
                rules(&machine, text);
                daemon.signal(Signal::HUP);
                daemon.wait_ready(&manager, &bus);
                bus.settle();
            };
            reload(&format!("# the same\n{ONCE}"));
            assert_eq!(look("livec1"), (7, 7, 0o660), "the rules say what they said before");
            reload(&ONCE.replace("OWNER=\"alice\", ", ""));
            assert_eq!(look("livec1"), (7, 7, 0o660), "new rules hold for what comes");
            reload(ONCE);
            daemon.stop();

            chown(dev.join("livec1"), Some(8), Some(8)).unwrap();
            machine.add(&second);
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            assert_eq!(look("livec1"), (8, 8, 0o660), "a restart takes nothing from anybody");
            assert_eq!(look("livec2"), (1234, 4321, 0o660), "and a new device has what rules say");
            daemon.stop();
        },
    );
}

//! udev rules: they decide before policy, name their line, reach record and listeners, and are loaded
//! anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

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
PROGRAM=="/bin/touch /run/live/touched", OWNER="root"
RUN+="/bin/touch /run/live/touched"
ATTR{uevent}="written"
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
        ] {
            assert_eq!(told.text(key), value, "{key}");
        }
        let record = fs::read_to_string(machine.place.records.join("c4000:1")).unwrap();
        let record: Vec<_> = record.lines().filter(|line| !line.starts_with("I:")).collect();
        let wanted = ["S:live/rule", "L:7", "E:ID_LIVE=1", "G:seat", "Q:seat", "V:1"];
        assert_eq!(record, wanted);

        for (attribute, line) in
            [("owner", 2), ("group", 2), ("mode", 4), ("links", 3), ("tags", 2), ("properties", 3)]
        {
            let story = bus.json(&["explain", "livec1", attribute]).to_string();
            let line = format!("\"line\":{line}");
            assert!(story.contains("50-live.rules") && story.contains(&line), "{story}");
        }
        let uevent = machine.sysfs.root().join("devices/live/livec1/uevent");
        assert!(fs::read_to_string(uevent).unwrap().starts_with("MAJOR"), "sysfs was written to");
        assert!(!machine.top.join("touched").exists(), "a program was run");

        rules(&machine, "KERNEL==\"livec*\", GROUP=\"lab\"\nKRENEL==\"x\", MODE=\"0777\"\n");
        machine.policy("50-lab.toml", "schema = 1\n");
        daemon.signal(Signal::HUP);
        daemon.wait_ready(&manager, &bus);
        bus.settle();
        assert_eq!(look(), (0, 4321, 0o666), "what no rule says goes back to the kernel's");
        assert!(!dev.join("live").exists(), "a link that nobody wants stays");
        let log = daemon.log();
        assert!(log.contains("50-live.rules:2:1: error: unknown key KRENEL"), "{log}");
    });
}

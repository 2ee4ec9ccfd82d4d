//! Policy files: they decide, each decision names its line, and a reload reaches every device.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::Signal;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::private;
use crate::sysfs::Device;

const POLICY: &str = r#"schema = 1

[[rule]]
id = "lab"
match.devname = "livec*"
set = { owner = "alice", group = "lab", mode = "0640", symlink = { add = ["live/lab"] } }
"#;

#[test]
fn policy_decides_names_its_line_and_is_loaded_anew() {
    private(module_path!(), "policy_decides_names_its_line_and_is_loaded_anew", |mut machine| {
        machine.policy("50-lab.toml", POLICY);
        machine.policy("40-broken.toml", "schema = 1\n[[rule]\n");
        let device = Device::new(
            "/devices/live/livec1",
            "live",
            &[("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1"), ("DEVMODE", "0666")],
        );
        machine.add(&device);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let dev = machine.place.dev.clone();
        let look = || {
            let stat = fs::metadata(dev.join("livec1")).unwrap();
            (stat.uid(), stat.gid(), stat.mode() & 0o7777)
        };
        assert_eq!(look(), (1234, 4321, 0o640));
        assert_eq!(fs::read_link(dev.join("live/lab")).unwrap().to_str(), Some("../livec1"));
        let log = daemon.log();
        assert!(log.contains("40-broken.toml:2"), "the broken file is not named: {log}");
        for attribute in ["owner", "group", "mode"] {
            let story = bus.json(&["explain", "livec1", attribute]).to_string();
            assert!(story.contains("50-lab.toml") && story.contains("\"line\":6"), "{story}");
        }

        let reload = |text: &str| {
            machine.policy("50-lab.toml", text);
            daemon.signal(Signal::HUP);
            daemon.wait_ready(&manager, &bus);
            bus.settle();
        };
        reload(&POLICY.replace("0640", "0600").replace("live/lab", "live/other"));
        assert_eq!(look(), (1234, 4321, 0o600));
        assert!(dev.join("live/other").is_symlink() && !dev.join("live/lab").is_symlink());
        let map = bus.json(&["map", "dump"]).to_string();
        assert!(map.contains("live/other") && !map.contains("live/lab"), "{map}");

        reload("schema = 1\n");
        assert_eq!(look(), (0, 0, 0o666), "what no rule sets goes back to what the kernel said");
        assert!(!dev.join("live").exists(), "a folder without links stays");
    });
}

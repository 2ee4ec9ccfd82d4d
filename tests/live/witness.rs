//! libudev as a second witness: the machine's own `udevadm monitor` hears what we announce.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::private;
use crate::sysfs::Device;

const POLICY: &str = r#"schema = 1

[[rule]]
id = "lab"
match.devname = "livec1"
set.symlink = { add = ["live/lab"] }
"#;

#[test]
fn udevadm_monitor_hears_our_announcements_with_their_links() {
    let name = "udevadm_monitor_hears_our_announcements_with_their_links";
    private(module_path!(), name, |mut machine| {
        machine.policy("50-lab.toml", POLICY);
        // /dev is no devtmpfs: without the daemon's socket libudev takes it that no manager runs
        symlink(machine.place.records.parent().unwrap(), "/run/udev").unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let _daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let mut monitor = Command::new("stdbuf")
            .args(["-oL", "udevadm", "monitor", "--udev", "--property"])
            .args(["--subsystem-match=block"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("wanted udevadm");
        let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines().map(Result::unwrap);
        // its heading comes when it listens
        lines.find(String::is_empty).unwrap();
        let number = [("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1")];
        machine.add(&Device::new("/devices/live/other", "livechar", &[]));
        machine.add(&Device::new("/devices/live/livec1", "block", &number));
        let told: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        assert!(told[0].ends_with("/devices/live/livec1 (block)"), "{told:#?}");
        for pair in ["ACTION=add", "DEVNAME=/dev/livec1", "DEVLINKS=/dev/live/lab", "LIVE_N=2"] {
            assert!(told.iter().any(|line| line == pair), "no {pair} in {told:#?}");
        }
        let _ = monitor.kill();
        let _ = monitor.wait();
    });
}

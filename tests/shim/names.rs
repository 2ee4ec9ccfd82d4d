//! Names before their devices: the daemon reads them from modules and policy, the kernel loads.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::c4_loads::{is_loaded, open_as, unload};
use super::daemon::Machine;

const POLICY: &str = r#"schema = 1
[[rule]]
id = "static"
match.devname = ["net/tun", "loop-control", "uinput", "mapdev-probe"]
set = { owner = "user", mode = "0600" }
[[rule]]
id = "zram"
match.devname = "zram0"
set = { owner = "user", mode = "0600", module = "zram" }
"#;

fn machine() -> Machine {
    let machine = Machine::new();
    machine.policy(POLICY);
    machine
}

#[test]
#[ignore = "in the virtual machine"]
fn c3_names_of_built_in_drivers_are_there_at_all_times() {
    let machine = machine();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let path = Path::new("/lib/modules").join(release.trim()).join("modules.builtin.modinfo");
    let text = fs::read(path).unwrap();
    let values = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let declared = values
        .filter_map(|value| value.split_once(".alias=devname:").map(|(_, name)| name.to_owned()));
    let declared: Vec<String> = declared.collect();
    let daemon = machine.start();
    for name in &declared {
        let stat =
            fs::symlink_metadata(machine.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(stat.file_type().is_char_device() || stat.file_type().is_block_device());
    }
    // those with a device as well, and without the daemon
    drop(daemon);
    for name in ["null", "zero", "full", "random", "kmsg", "tty", "console", "ptmx"] {
        assert!(fs::metadata(machine.path(name)).is_ok(), "{name}, beside {declared:?}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_the_daemon_names_what_modules_declare_and_opening_loads_it() {
    let machine = machine();
    let names = [
        ("net/tun", "tun"),
        ("loop-control", "loop"),
        ("uinput", "uinput"),
        ("mapdev-probe", "mapdev_probe"),
        ("zram0", "zram"),
    ];
    names.iter().for_each(|(_, module)| unload(module));
    let _daemon = machine.start();
    for (name, module) in names {
        let stat = fs::metadata(machine.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((stat.uid(), stat.mode() & 0o777), (1000, 0o600), "{name}");
        assert!(!is_loaded(module), "{name} was only looked at");
        assert!(!open_as(machine.path(name), 1001), "{name}, by somebody");
        assert!(!is_loaded(module), "no permission, no load");
        assert!(open_as(machine.path(name), 1000), "{name}");
        assert!(is_loaded(module), "{name}");
        machine.ask(&["settle"]);
        let stat = fs::metadata(machine.path(name)).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o777), (1000, 0o600), "{name}, loaded");
        assert_ne!(stat.rdev(), 0, "{name}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c2_a_name_outlives_its_device_and_comes_from_policy_at_once() {
    let machine = machine();
    unload("mapdev_probe");
    unload("zram");
    let _daemon = machine.start();
    assert!(open_as(machine.path("mapdev-probe"), 1000));
    machine.ask(&["settle"]);
    assert_ne!(fs::metadata(machine.path("mapdev-probe")).unwrap().rdev(), 0);
    unload("mapdev_probe");
    machine.ask(&["settle"]);
    let stat = fs::metadata(machine.path("mapdev-probe")).unwrap();
    assert_eq!((stat.rdev(), stat.uid()), (0, 1000), "without a number again");
    machine.policy(&POLICY.replace("zram0", "zram7"));
    machine.ask(&["reload"]);
    assert!(fs::metadata(machine.path("zram0")).is_err());
    assert!(fs::metadata(machine.path("zram7")).is_ok());
}

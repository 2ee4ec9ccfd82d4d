//! C6: chmod and chown of a name that has no device yet.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use super::c4_loads::unload;
use super::daemon::{Machine, module, wait};

fn as_it_is(path: &Path) -> (u32, u32, u32) {
    let stat = fs::metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.uid(), stat.gid())
}

fn hand(machine: &Machine, name: &str) -> (Value, Value) {
    let dump = machine.ask(&["map", "dump"]);
    let row = dump.as_array().unwrap().iter().find(|row| row["path"] == name).unwrap();
    (row["decided_by"].clone(), row["changed_by"].clone())
}

fn last_step(machine: &Machine, name: &str, attribute: &str) -> Value {
    let story = machine.ask(&["explain", name, attribute]);
    story["attributes"][0]["steps"].as_array().unwrap().last().cloned().unwrap_or_default()
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_a_name_without_a_device_is_changed_by_anybody_and_stays_so() {
    let machine = Machine::new();
    for module in ["uinput", "mapdev_probe"] {
        unload(module);
    }
    let daemon = machine.start();
    let (fixed, pending) = (machine.path("uinput"), machine.path("mapdev-probe"));
    fs::set_permissions(&fixed, fs::Permissions::from_mode(0o666)).unwrap();
    chown(&pending, Some(1000), Some(5)).unwrap();
    let me = format!("uid 0 (process {})", std::process::id());
    for name in ["uinput", "mapdev-probe"] {
        wait("who did it", || hand(&machine, name) == ("kernel".into(), me.clone().into()));
    }
    let step = last_step(&machine, "uinput", "mode");
    assert_eq!((&step["file"], &step["new"]), (&json!(me), &json!("0666")));
    assert_eq!(last_step(&machine, "uinput", "owner"), Value::Null);
    // killed, and back
    drop(daemon);
    let daemon = machine.start();
    assert_eq!((as_it_is(&fixed), as_it_is(&pending)), ((0o666, 0, 0), (0o600, 1000, 5)));
    assert_eq!(hand(&machine, "uinput"), ("kernel".into(), "somebody".into()));
    // policy that says one of them leaves the others; what it no longer says is the kernel's default again
    let rule = "schema = 1\n[[rule]]\nid = \"x\"\nmatch.devname = \"uinput\"\nset = { owner = \"user\" }\n";
    machine.policy(rule);
    machine.ask(&["reload"]);
    assert_eq!(as_it_is(&fixed), (0o666, 1000, 0));
    machine.policy("schema = 1\n");
    machine.ask(&["reload"]);
    assert_eq!(as_it_is(&fixed), (0o666, 0, 0));
    // its device has what was made of the name
    module("modprobe", "mapdev_probe");
    wait("the device", || machine.ask(&["info", "mapdev-probe"])["owner"] == 1000);
    assert_eq!(as_it_is(&pending), (0o600, 1000, 5));
    drop(daemon);
    unload("mapdev_probe");
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_what_a_rule_decides_of_a_device_is_nobodys_change_of_its_name() {
    let rules = Path::new("/etc/udev/rules.d/50-probe.rules");
    fs::create_dir_all(rules.parent().unwrap()).unwrap();
    fs::write(rules, "KERNEL==\"mapdev-probe\", MODE=\"0640\"\n").unwrap();
    let machine = Machine::new();
    unload("mapdev_probe");
    let daemon = machine.start();
    module("modprobe", "mapdev_probe");
    wait("the device", || machine.ask(&["info", "mapdev-probe"])["mode"] == 0o640);
    assert_eq!(hand(&machine, "mapdev-probe"), ("rule".into(), Value::Null));
    drop(daemon);
    unload("mapdev_probe");
    fs::remove_file(rules).unwrap();
}

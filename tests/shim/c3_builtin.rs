//! C3: names of drivers in the kernel are there at all times: before the daemon is ready, and after its end.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use super::daemon::{Machine, sorted};

/// Drivers of every kernel, which no module brings.
const NAMES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("tty", 5, 0),
    ("console", 5, 1),
    ("ptmx", 5, 2),
];

#[test]
#[ignore = "in the virtual machine"]
fn c3_names_of_built_in_drivers_are_there_at_all_times() {
    let machine = Machine::new();
    let look = |when: &str| {
        for (name, major, minor) in NAMES {
            let stat = fs::metadata(machine.path(name));
            let stat = stat.unwrap_or_else(|error| panic!("{name} {when}: {error}"));
            assert_eq!(stat.rdev(), rustix::fs::makedev(major, minor), "{name} {when}");
        }
        drop(File::open(machine.path("null")).unwrap());
    };
    let daemon = machine.start();
    look("with the daemon");
    let dump = machine.ask(&["map", "dump"]);
    let origin = |name: &str| {
        let row = dump.as_array().unwrap().iter().find(|row| row["path"] == name);
        row.unwrap_or_else(|| panic!("{name} is in the map"))["origin"].clone()
    };
    assert_eq!(origin("null"), serde_json::json!(["live"]));
    // what drivers of the kernel declare as modules do; not every kernel has such
    for name in &built_in() {
        let origin = origin(name);
        assert!(origin.as_array().unwrap().contains(&"builtin".into()), "{name}: {origin}");
        assert!(fs::symlink_metadata(machine.path(name)).is_ok(), "{name}");
    }
    let all = sorted(&machine.dev);
    drop(daemon);
    look("without the daemon");
    assert_eq!(sorted(&machine.dev), all);
    let _daemon = machine.start();
    look("after its return");
}

/// `devname:` aliases of `modules.builtin.modinfo`: NUL after each `MODULE.KEY=VALUE`.
fn built_in() -> Vec<String> {
    let release = rustix::system::uname().release().to_str().unwrap().to_owned();
    let text = fs::read(format!("/lib/modules/{release}/modules.builtin.modinfo")).unwrap();
    let lines = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let names = lines.filter_map(|line| Some(line.split_once("alias=devname:")?.1.to_owned()));
    names.collect()
}

//! What stands for a device where there is no daemon.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::bus::{Ran, mapdevctl};

const DEVPATH: &str = "/devices/virtual/mem/zed";

/// A sysfs with one device.
fn machine() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let sys = root.path();
    for folder in ["devices/virtual/mem/zed", "class/mem", "dev/char"] {
        fs::create_dir_all(sys.join(folder)).unwrap();
    }
    let device = sys.join(&DEVPATH[1..]);
    fs::write(device.join("uevent"), "MAJOR=240\nMINOR=7\nDEVNAME=no-such-zed\n").unwrap();
    symlink("../../../../class/mem", device.join("subsystem")).unwrap();
    symlink("../../devices/virtual/mem/zed", sys.join("class/mem/zed")).unwrap();
    symlink("../../devices/virtual/mem/zed", sys.join("dev/char/240:7")).unwrap();
    root
}

fn run(sys: &TempDir, arguments: &[&str]) -> Ran {
    let path = sys.path().to_str().unwrap();
    let more = ["--root", path, "--sysfs", path, "--json"];
    Ran::of(mapdevctl(&[arguments, &more].concat()).output().unwrap())
}

#[test]
fn a_device_is_named_by_its_path_the_kernels_path_or_its_number() {
    let sys = machine();
    let below = format!("{}{DEVPATH}", sys.path().display());
    for device in [&below, DEVPATH, "/sys/class/mem/zed", "/class/mem/zed", "c240:7"] {
        let ran = run(&sys, &["test", device]);
        assert_eq!(ran.json()["devpath"], DEVPATH, "{device}");
        let ran = run(&sys, &["test-builtin", "input_id", device]);
        assert_eq!(ran.json()["outcome"], "done", "{device}");
    }
    for device in ["/devices/virtual/mem/other", "/devices/../etc", "b240:7", "c240:8"] {
        assert_eq!(run(&sys, &["test", device]).code, Some(3), "{device}");
    }
}

#[test]
fn an_event_that_may_not_be_recorded_is_refused_with_the_path() {
    let sys = machine();
    let records = ["--records", "/sys/kernel/mapdev-none/data"];
    let gone = ["event", "--action=remove", "-pSUBSYSTEM=block", "/devices/gone"];
    for event in [["event", "--action=add", "-pA=b", DEVPATH], gone] {
        let ran = run(&sys, &[&event[..], &records].concat());
        assert_eq!(ran.code, Some(4), "{ran:?}");
        let begin = "mapdevctl: cannot handle the event: /sys/kernel/mapdev-none/data: ";
        assert!(ran.error().starts_with(begin), "{ran:?}");
    }
}

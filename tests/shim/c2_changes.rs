//! C2: the map is made at the start, from modules and devices, and follows both.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::c4_loads::{is_loaded, open_as, unload};
use super::daemon::{Machine, is_live, module, wait};
use super::world::absent;

const POLICY: &str = r#"schema = 1
[[rule]]
id = "probe"
match.devname = "mapdev-probe"
set = { owner = "user", mode = "0600" }
[[rule]]
id = "zram"
match.devname = "zram0"
set = { owner = "user", mode = "0600", module = "zram" }
"#;

/// The file of a module of the running kernel.
fn module_file(name: &str) -> PathBuf {
    let release = rustix::system::uname().release().to_str().unwrap().to_owned();
    Path::new("/lib/modules").join(release).join("extra").join(name)
}

#[test]
#[ignore = "in the virtual machine"]
fn c2_names_of_modules_are_there_from_the_start_and_follow_what_is_installed() {
    let machine = Machine::new();
    unload("mapdev_probe");
    let (file, away) = (module_file("mapdev_probe.ko"), Path::new("/run/mapdev_probe.ko"));
    let _daemon = machine.start();
    let path = machine.path("mapdev-probe");
    assert!(fs::symlink_metadata(&path).is_ok(), "when the daemon is ready");
    assert!(fs::symlink_metadata(machine.path("net/tun")).is_ok());
    assert!(!is_loaded("mapdev_probe") && !is_loaded("tun"), "nothing was loaded for it");
    fs::copy(&file, away).unwrap();
    fs::remove_file(&file).unwrap();
    wait("its end", || fs::symlink_metadata(&path).is_err());
    absent(fs::metadata(&path));
    fs::rename(away, &file).or_else(|_| fs::copy(away, &file).map(drop)).unwrap();
    wait("the name", || fs::symlink_metadata(&path).is_ok());
}

#[test]
#[ignore = "in the virtual machine"]
fn c2_a_name_comes_and_goes_with_its_device() {
    let machine = Machine::new();
    let _daemon = machine.start();
    unload("mapdev_probe");
    let path = machine.path("mapdev-probe");
    for _ in 0..3 {
        wait("its end", || !is_live(&path));
        module("modprobe", "mapdev_probe");
        wait("the node", || is_live(&path));
        let number = fs::read_to_string("/sys/class/misc/mapdev-probe/dev").unwrap();
        let stat = fs::metadata(&path).unwrap();
        assert_eq!(number.trim(), format!("10:{}", rustix::fs::minor(stat.rdev())));
        fs::File::open(&path).unwrap();
        module("rmmod", "mapdev_probe");
    }
    wait("its end", || !is_live(&path));
}

#[test]
#[ignore = "in the virtual machine"]
fn c2_a_name_outlives_its_device_and_comes_from_policy_at_once() {
    let machine = Machine::new();
    machine.policy(POLICY);
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

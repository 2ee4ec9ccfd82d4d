//! C5: what userspace decides comes by uevents, and what was before the daemon is replayed.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::daemon::{Machine, module, wait};

#[test]
#[ignore = "in the virtual machine"]
fn c5_what_was_before_the_daemon_is_replayed_with_owner_and_links() {
    let machine = Machine::new();
    let rule = "schema = 1\n[[rule]]\nid = \"probe\"\nmatch.devname = \"mapdev-probe\"\n\
        set = { owner = \"user\", mode = \"0640\", symlink = { add = [\"probe/of/tests\"] } }\n";
    machine.policy(rule);
    module("modprobe", "mapdev_probe");
    let _daemon = machine.start();
    let stat = fs::metadata(machine.path("mapdev-probe")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o777), (1000, 0o640));
    let link = machine.path("probe/of/tests");
    assert_eq!(fs::read_link(&link).unwrap().to_str().unwrap(), "../../mapdev-probe");
    assert_eq!(fs::metadata(&link).unwrap().rdev(), stat.rdev());
    module("rmmod", "mapdev_probe");
    wait("its end", || !link.exists() && !machine.path("probe").exists());
    module("modprobe", "mapdev_probe");
    wait("the link", || link.exists());
    module("rmmod", "mapdev_probe");
}

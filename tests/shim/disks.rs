//! C4 for disks, with the real daemon: whoever handles a disk's first event has its number, and so can
//! lock the disk and look at it.

use std::fs;
use std::path::Path;

use super::c4_loads::{is_loaded, open_as, unload};
use super::daemon::{Machine, is_live, module};
use super::world::device;

const POLICY: &str = r#"schema = 1
[[rule]]
id = "disk"
match.devname = "vda"
set = { owner = "user", mode = "0600", module = "virtio_blk" }
"#;

const RULES: &str = "/run/udev/rules.d/50-disk.rules";

#[test]
#[ignore = "in the virtual machine"]
fn the_first_event_of_a_disk_that_was_waited_for_tells_what_is_on_it() {
    module("modprobe", "virtio_pci");
    unload("virtio_blk");
    let machine = Machine::new();
    machine.policy(POLICY);
    fs::create_dir_all(Path::new(RULES).parent().unwrap()).unwrap();
    fs::write(RULES, "SUBSYSTEM==\"block\", KERNEL==\"vd*\", IMPORT{builtin}=\"blkid\"\n").unwrap();
    let _daemon = machine.start();
    let timeouts = device().stats().unwrap().timeouts;
    assert!(!is_live(&machine.path("vda")) && !is_loaded("virtio_blk"));
    assert!(open_as(machine.path("vda"), 1000));
    machine.ask(&["settle"]);
    fs::remove_file(RULES).unwrap();
    let number = fs::read_to_string("/sys/class/block/vda/dev").unwrap();
    let record = fs::read_to_string(format!("/run/udev/data/b{}", number.trim())).unwrap();
    assert!(record.lines().any(|line| line == "E:ID_FS_TYPE=ext2"), "{record}");
    assert_eq!(device().stats().unwrap().timeouts, timeouts, "nobody waited in vain");
}

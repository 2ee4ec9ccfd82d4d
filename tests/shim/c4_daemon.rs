//! C4 with the real daemon: it knows names and numbers from modinfo and policy, the kernel asks for the
//! module when somebody opens the name who may, and the daemon fills the number in.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::c4_loads::{is_loaded, open_as, unload};
use super::daemon::{Machine, wait};
use super::world::{absent, device, patient};

/// Name, module, minor number before the module is loaded (the major is 10), and what policy has to say
/// beside the owner.
const NAMES: [(&str, &str, u32, &str); 6] = [
    ("net/tun", "tun", 200, ""),
    ("loop-control", "loop", 237, ""),
    ("uinput", "uinput", 223, ""),
    // declares its name and no number
    ("mapdev-probe", "mapdev_probe", 0, ""),
    // declare nothing
    ("zram0", "zram", 0, ", module = \"zram\""),
    ("nvme-fabrics", "nvme_fabrics", 0, ", module = \"nvme-fabrics\""),
];

fn policy() -> String {
    let mut text = "schema = 1\n".to_owned();
    for (name, module, _, more) in NAMES {
        text += &format!(
            "[[rule]]\nid = \"{module}\"\nmatch.devname = \"{name}\"\n\
             set = {{ owner = \"user\", mode = \"0600\"{more} }}\n"
        );
    }
    text
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_opening_a_name_loads_no_module_that_modprobe_d_keeps_out() {
    let kept_out = std::path::Path::new("/etc/modprobe.d/kept-out.conf");
    fs::create_dir_all(kept_out.parent().unwrap()).unwrap();
    fs::write(kept_out, "blacklist mapdev_probe\nblacklist tun\n").unwrap();
    // its number does not come
    let limit = std::path::Path::new("/sys/module/mapdevfs/parameters/open_timeout_ms");
    let before = fs::read(limit).unwrap();
    fs::write(limit, "300").unwrap();
    let machine = Machine::new();
    NAMES.iter().for_each(|(_, module, ..)| unload(module));
    machine.policy(&policy());
    let daemon = machine.start();
    let opened = ["net/tun", "mapdev-probe"].map(|name| open_as(machine.path(name), 1000));
    let loaded = ["tun", "mapdev_probe"].map(is_loaded);
    fs::remove_file(kept_out).unwrap();
    fs::write(limit, before).unwrap();
    assert_eq!((opened, loaded), ([false; 2], [false; 2]));
    assert!(open_as(machine.path("mapdev-probe"), 1000), "it is kept out no more");
    drop(daemon);
    unload("mapdev_probe");
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_opening_a_name_loads_its_module_for_whom_policy_gave_it_to_and_nobody_else() {
    let machine = Machine::new();
    NAMES.iter().for_each(|(_, module, ..)| unload(module));
    machine.policy(&policy());
    let _daemon = machine.start();
    let timeouts = device().stats().unwrap().timeouts;
    for (name, module, minor, _) in NAMES {
        let path = machine.path(name);
        let stat = fs::metadata(&path).unwrap();
        let rdev = if minor == 0 { 0 } else { rustix::fs::makedev(10, minor) };
        assert_eq!((stat.rdev(), stat.uid(), stat.mode() & 0o777), (rdev, 1000, 0o600), "{name}");
        assert!(!is_loaded(module), "{name}: stat loads nothing");
        assert!(!open_as(path.clone(), 1001), "{name}: no permission");
        assert!(!is_loaded(module), "{name}: no permission, no load");
        let openers: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || open_as(path, 1000))
            })
            .collect();
        for opener in openers {
            assert!(opener.join().unwrap(), "{name}");
        }
        assert!(is_loaded(module), "{name}");
        assert!(!open_as(path.clone(), 1001), "{name}: still not his");
        wait("the device", || {
            machine.ask(&["settle"]);
            machine.ask(&["info", name])["initialized"] == true
        });
        let stat = fs::metadata(&path).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o777), (1000, 0o600), "{name} keeps its owner");
        assert_ne!(stat.rdev(), 0);
    }
    assert_eq!(device().stats().unwrap().timeouts, timeouts);
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_a_name_without_autoload_is_not_there_before_its_device() {
    let machine = Machine::new();
    unload("uinput");
    let rule = "schema = 1\n[[rule]]\nid = \"x\"\nmatch.devname = \"uinput\"\n\
        set.autoload = false\n";
    machine.policy(rule);
    let _daemon = machine.start();
    absent(fs::metadata(machine.path("uinput")));
    assert!(!open_as(machine.path("uinput"), 0) && !is_loaded("uinput"));
    super::daemon::module("modprobe", "uinput");
    wait("its device", || fs::metadata(machine.path("uinput")).is_ok());
    unload("uinput");
    wait("its end", || fs::symlink_metadata(machine.path("uinput")).is_err());
}

/// Events whose rules run a program that takes its time.
/// Fewer where the kernel is slower: each starts a program.
const STORM: u64 = 4000;
const RULES: &str = "/etc/udev/rules.d/50-slow.rules";

#[test]
#[ignore = "in the virtual machine"]
fn c4_a_number_comes_in_time_while_slow_events_wait() {
    let uuid = "00000000-0000-0000-0000-000000000001";
    let rule = "SUBSYSTEM==\"tty\", ENV{SYNTH_UUID}!=\"\", PROGRAM=\"/bin/sleep 1\"\n";
    fs::create_dir_all("/etc/udev/rules.d").unwrap();
    fs::write(RULES, rule).unwrap();
    let machine = Machine::new();
    unload("mapdev_probe");
    machine.policy(&policy());
    let daemon = machine.start();
    let timeouts = device().stats().unwrap().timeouts;
    let ttys: Vec<_> = fs::read_dir("/sys/class/tty").unwrap().flatten().collect();
    let storm = usize::try_from(STORM / patient(1).as_secs()).unwrap();
    for tty in ttys.iter().cycle().take(storm) {
        fs::write(tty.path().join("uevent"), format!("add {uuid}")).unwrap();
    }
    assert!(open_as(machine.path("mapdev-probe"), 1000));
    assert_eq!(device().stats().unwrap().timeouts, timeouts);
    // it would wait for the programs
    drop(daemon);
    fs::remove_file(RULES).unwrap();
    unload("mapdev_probe");
}

//! `kmod` and `net_driver`: drivers that devices ask for are loaded, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::manager::{self, Running, program, wait};
use super::uhid::{Device, KEYBOARD};
use super::{FACTS, same};

pub(crate) type Modules = BTreeSet<String>;

/// What each interface's driver is called.
pub(crate) type Interfaces = BTreeMap<String, Names>;

#[derive(Debug)]
pub(crate) struct Names {
    /// By net_driver, which systemd knows since 255.
    by_net_driver: Option<String>,
    /// By that or by net_setup_link.
    told: Option<String>,
}

/// What the manager has loaded for what was there, and for a keyboard that came.
pub(crate) fn modules(running: &Running) -> Modules {
    let device = Device::connect("Mapdev Keyboard", KEYBOARD);
    running.record(&device.event_device(), |_| true);
    // a device behind another wants its driver only when that one has its own
    wait("the card", || Path::new("/sys/class/net/eth0").exists());
    running.settle();
    manager::modules()
}

pub(crate) fn interfaces(running: &Running) -> Interfaces {
    program("modprobe", &["tun"]);
    program("tunctl", &["-t", "tap7"]);
    program("ip", &["link", "add", "veth7", "type", "veth"]);
    let names = |name: &str| {
        let path = Path::new("/sys/class/net").join(name);
        let record = running.record(&path, |it| it.property("ID_NET_DRIVER").is_some());
        let property = |key| record.property(key).map(str::to_owned);
        let (by_net_driver, told) = (property("MAPDEV_DRIVER"), property("ID_NET_DRIVER"));
        (name.to_owned(), Names { by_net_driver, told })
    };
    let found = ["eth0", "tap7", "veth7"].map(names).into();
    program("ip", &["link", "del", "veth7"]);
    program("tunctl", &["-d", "tap7"]);
    running.settle();
    found
}

#[test]
#[ignore = "in the virtual machine"]
fn drivers_are_loaded_for_what_is_there_and_what_comes() {
    let loaded = same(|facts| &facts.modules);
    // drivers of the card, the keyboard, its events, the other ports and the bus of sensors
    for wanted in ["virtio_net", "hid_generic", "evdev", "ahci", "psmouse", "i2c_i801"] {
        assert!(loaded.contains(wanted), "{wanted} is not loaded: {loaded:?}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn an_interface_has_the_name_of_its_driver() {
    let [theirs, ours] = &*FACTS;
    for (name, driver) in [("eth0", "virtio_net"), ("tap7", "tun"), ("veth7", "veth")] {
        let (their, our) = (&theirs.interfaces[name], &ours.interfaces[name]);
        assert_eq!(our.told.as_deref(), Some(driver));
        assert_eq!((&our.by_net_driver, &their.told), (&our.told, &our.told));
        // its rule is left out
        assert_eq!(their.by_net_driver, None);
    }
}

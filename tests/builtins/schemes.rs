//! What naming schemes newer than the installed udevadm's change: systemd.net-naming-scheme(7), section "History".
//!
//! Schemes up to v252 are compared with udevadm's on machines made at random; each change of v253 to v257 is here.

use std::path::Path;

use mapdev::builtin::Kit;

use crate::ask::{Answer, ours, private, theirs};
use crate::recording::Recording;

/// A card behind a bridge.
const MACHINE: &str = "\
P: /devices/pci0000:00/0000:00:02.0
E: SUBSYSTEM=pci
A: modalias=pci:v00008086d00001234sv00000000sd00000000bc06sc04i00

P: /devices/pci0000:00/0000:00:02.0/0000:05:00.0
E: SUBSYSTEM=pci
A: modalias=pci:v00008086d00001572sv00000000sd00000000bc02sc00i00

";
const CARD: &str = "/devices/pci0000:00/0000:00:02.0/0000:05:00.0";
const USB: &str = "/devices/platform/soc/usb1/1-1/1-1.4/1-1.4:1.0";

/// A network interface there, and more attributes of its device.
fn interface(of: &str, attributes: &str, devices: &str) -> (Recording, String) {
    let devpath = format!("{of}/net/eth0");
    let net = format!(
        "P: {devpath}\nE: SUBSYSTEM=net\nE: INTERFACE=eth0\nE: IFINDEX=2\nA: iflink=2\nA: ifindex=2\n\
         A: type=1\nA: address=54:ee:75:cb:1d:c0\nA: addr_assign_type=0\nA: dev_port=0\n{attributes}"
    );
    let text = format!("{devices}{net}\n");
    (Recording { lines: text.lines().map(str::to_owned).collect() }, devpath)
}

fn under(scheme: &str, devpath: &str) -> Answer {
    let line = format!("net.naming-scheme={scheme}");
    ours(devpath, &Kit::default().with_command_line(line.as_bytes()))
}

/// What the property is under each of these schemes; under v252, udevadm says the same.
fn property<const N: usize>(
    (recording, devpath): &(Recording, String),
    key: &str,
    schemes: [&str; N],
) -> [Option<String>; N] {
    recording.unpack(Path::new("/sys"));
    assert_eq!(under("v252", devpath), theirs(devpath, "net.naming-scheme=v252"));
    schemes.map(|scheme| under(scheme, devpath).remove(key))
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn schemes_behind_v252_change_what_they_say_they_change() {
    private(module_path!(), "schemes_behind_v252_change_what_they_say_they_change", || {
        // v253: USB that is not behind PCI has a name by its place
        let usb = format!("P: {USB}\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_interface\n\n");
        let there = interface(USB, "", &usb);
        let found = property(&there, "ID_NET_NAME_PATH", ["v252", "v253", "v257"]);
        assert_eq!(found, [None, some("enu1u4"), some("enu1u4")]);

        // v254: a virtual function's end on the switch, and v255, by which it is the default
        let port = "A: phys_port_name=pf0vf12\n";
        let there = interface(CARD, port, MACHINE);
        let found = property(&there, "ID_NET_NAME_PATH", ["v253", "v254", "v255"]);
        assert_eq!(found, [some("enp5s0npf0vf12"), some("enp5s0r12"), some("enp5s0r12")]);
        let there = interface(CARD, "A: phys_port_name=pf0sf1\n", MACHINE);
        let found = property(&there, "ID_NET_NAME_PATH", ["v253", "v255"]);
        assert_eq!(found, [some("enp5s0npf0sf1"), some("enp5s0npf0sf1")]);

        // v255: a bridge's slot no longer gives a name, though the card has several functions
        let config = format!("H: config={}80\n\n", "00".repeat(14));
        let slot = "A: ../../../bus/pci/slots/3/address=0000:00:02\n";
        let several = format!("{}{config}", MACHINE.trim_end().to_owned() + "\n");
        let there = interface(CARD, "", &several.replacen("\n\n", &format!("\n{slot}\n"), 1));
        let found = property(&there, "ID_NET_NAME_SLOT", ["v251", "v254", "v255", "v257"]);
        assert_eq!(found, [some("ens3f0"), some("ens3f0"), None, None]);

        // v257: the firmware's number of the slot
        let sun = "A: firmware_node/sun=7\n\n";
        let there = interface(CARD, "", &format!("{}{sun}", MACHINE.trim_end().to_owned() + "\n"));
        let found = property(&there, "ID_NET_NAME_SLOT", ["v255", "v257", "latest"]);
        assert_eq!(found, [None, some("ens7"), some("ens7")]);
        let sun = "A: firmware_node/sun=0\n\n";
        let there = interface(CARD, "", &format!("{}{sun}", MACHINE.trim_end().to_owned() + "\n"));
        assert_eq!(property(&there, "ID_NET_NAME_SLOT", ["v257"]), [None]);
    });
}

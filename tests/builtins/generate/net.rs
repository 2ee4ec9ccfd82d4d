//! Network interfaces on all buses that give one a name.

use super::Text;

pub(super) fn net(text: &mut Text<'_>) {
    match text.below(10) {
        0..=3 => {
            let parent = card(text);
            interfaces(text, &parent);
        }
        4 => virtual_function(text),
        5 | 6 => usb(text),
        7 => {
            let pci = text.pci();
            let core = text.of(&["bcma0:0", "bcma0:2", "bcma1:11", "bcma0", "bcma:3", "bcma0:x"]);
            let parent = format!("{pci}/{core}");
            text.device(&parent, "bcma");
            interfaces(text, &parent);
        }
        _ => firmware(text),
    }
    slots(text);
}

/// A PCI device with what its firmware says, and perhaps virtio on it.
fn card(text: &mut Text<'_>) -> String {
    let pci = text.pci();
    firmware_index(text);
    if text.one_in(8) {
        text.maybe("function_id", &["0x00000010", "00000010", "10", "0"]);
    }
    if !text.one_in(5) {
        return pci;
    }
    let path = format!("{pci}/virtio0");
    text.device(&path, "virtio");
    path
}

fn firmware_index(text: &mut Text<'_>) {
    if text.one_in(2) {
        text.maybe("acpi_index", &["0", "1", "3", "16383", "16384", "65535", "65536"]);
    }
    if text.one_in(2) {
        text.maybe("index", &["1", "2", "17"]);
    }
    if text.one_in(2) {
        text.maybe("label", &["Onboard LAN 1", "NIC1", "A label that is far too long for a name"]);
    }
}

/// One or two interfaces of a device.
fn interfaces(text: &mut Text<'_>, parent: &str) {
    for number in 0..=usize::from(text.one_in(4)) {
        let name = text.of(&["eth", "wlan", "eno"]);
        let path = format!("{parent}/net/{name}{number}");
        let kind = text.of(&["net", "net", "net:wlan", "net:wwan"]);
        text.device(&path, kind);
        text.property("INTERFACE", &format!("{name}{number}"));
        text.property("IFINDEX", &format!("{}", number + 2));
        let link = if text.one_in(10) { 7 } else { number + 2 };
        text.attribute("iflink", &link.to_string());
        text.maybe("type", &["1", "1", "1", "1", "32", "256", "772"]);
        text.maybe("addr_assign_type", &["0", "0", "0", "1", "3"]);
        text.maybe("address", ADDRESSES);
        text.maybe("dev_port", &["0", "0", "1", "12"]);
        if text.one_in(2) {
            text.maybe("dev_id", &["0x0", "0x1", "1", "a"]);
        }
        if text.one_in(3) {
            text.maybe("phys_port_name", &["p0", "p1", "pf0vf2", "p0s1", "longername"]);
        }
        text.ask(&path);
    }
}

const ADDRESSES: &[&str] = &[
    "54:ee:75:cb:1d:c0",
    "54:EE:75:CB:1D:C0",
    "00:00:00:00:00:00",
    "00:00:00:00:04:66",
    "0:1:2:3:4:5",
    "54-ee-75-cb-1d-c0",
    "54ee.75cb.1dc0",
    "54:ee:75:cb:1d",
    "54:ee:75:cb:1d:c0:11",
    "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0b:1d:09",
    "ff:ff:ff:ff:ff:ff",
];

fn virtual_function(text: &mut Text<'_>) {
    let root = "/devices/pci0000:00";
    text.device(root, "");
    let bridge = format!("{root}/0000:00:03.0");
    text.device(&bridge, "pci");
    let (whole, part) = (format!("{bridge}/0000:03:00.0"), format!("{bridge}/0000:03:10.2"));
    text.device(&whole, "pci");
    firmware_index(text);
    let number = text.of(&["0", "2", "12", "x", "007"]);
    text.link(&format!("virtfn{number}"), "../0000:03:10.2");
    if text.one_in(3) {
        text.link("virtfn9", "../0000:03:10.4");
    }
    text.device(&part, "pci");
    if !text.one_in(6) {
        text.link("physfn", "../0000:03:00.0");
    }
    firmware_index(text);
    interfaces(text, &part);
    interfaces(text, &whole);
}

fn usb(text: &mut Text<'_>) {
    let root = if text.one_in(5) {
        text.device("/devices/platform/soc", "platform");
        "/devices/platform/soc".to_owned()
    } else {
        text.pci()
    };
    let bus = format!("{root}/usb2");
    text.device(&bus, "usb:usb_device");
    let name = text.of(&["2-1", "2-1.4", "2-1.4.3", "2-1.4.3.2.1.1", "21"]);
    let device = format!("{bus}/{name}");
    text.device(&device, "usb:usb_device");
    let tail = text.of(&[":1.0", ":1.0", ":1.6", ":2.0", ":3.12", "", ":1", ":.", ".1:1"]);
    let interface = format!("{device}/{name}{tail}");
    let kind = text.of(&["usb:usb_interface", "usb:usb_interface", "usb:usb_device"]);
    text.device(&interface, kind);
    interfaces(text, &interface);
}

/// Buses that give a name without PCI.
fn firmware(text: &mut Text<'_>) {
    let (folder, subsystem, names): (&str, &str, &[&str]) = match text.below(8) {
        0 => (
            "/devices/qeth",
            "ccwgroup",
            &["0.0.f5f0", "0.0.0007", "0.1.00a0", "0.0.f5f", "0.12.f5f0"],
        ),
        1 => ("/devices/css0", "ccw", &["0.0.f5f0", "0.0.0600", "00000000"]),
        2 => ("/devices/vio", "vio", &["30000002", "3000001f", "30000000", "3000000", "300000ff0"]),
        3 | 4 => (
            "/devices/platform",
            "platform",
            &[
                "APMC0D05:00",
                "HISI00C1:0a",
                "QCOM8070:12",
                "PNP0D05:01",
                "HISI00c1:00",
                "soc",
                "abcd",
            ],
        ),
        5 => ("/devices/x", "netdevsim", &["netdevsim0", "netdevsim10", "netdevsim", "sim3"]),
        _ => ("/devices", "xen", &["vif-0", "vif-11", "vif-", "vif-x", "vbd-3", "vif-2x"]),
    };
    if folder != "/devices" {
        text.device(folder, "");
    }
    let name = text.of(names);
    let parent = format!("{folder}/{name}");
    text.device(&parent, subsystem);
    if text.one_in(2) {
        let up = "../".repeat(parent.matches('/').count() - 1);
        let node = text.of(&["soc/ethernet@1", "soc/ethernet@2", "ethernet"]);
        text.link("of_node", &format!("{up}../firmware/devicetree/base/{node}"));
        tree(text);
    }
    interfaces(text, &parent);
}

/// A device tree with aliases.
fn tree(text: &mut Text<'_>) {
    for node in ["soc/ethernet@1", "soc/ethernet@2", "ethernet"] {
        text.bare(&format!("/firmware/devicetree/base/{node}"));
        text.attribute("name", "x");
    }
    text.bare("/firmware/devicetree/base/aliases");
    let names =
        ["ethernet", "ethernet0", "ethernet1", "ethernet12", "serial0", "ethernetx", "ethernet01"];
    // which of two aliases of one node counts is not said
    let mut nodes = vec!["/soc/ethernet@1", "/soc/ethernet@2", "/ethernet", "ethernet", ""];
    for name in names {
        if text.one_in(3) && !nodes.is_empty() {
            let at = text.below(nodes.len());
            text.string(name, nodes.remove(at));
        }
    }
}

/// Slots of PCI in which some of the devices are.
fn slots(text: &mut Text<'_>) {
    let count = text.below(4);
    for _ in 0..count {
        let name = text.of(&["1", "2", "8", "0", "12-1", "x", "00000010", "17"]);
        text.bare(&format!("/bus/pci/slots/{name}"));
        let domain = text.of(&["0000", "0000", "0001"]);
        let (bus, slot) = (text.below(4), if text.one_in(2) { 0 } else { text.below(32) });
        text.maybe(
            "address",
            &[&format!("{domain}:{bus:02x}:{slot:02x}"), &format!("{domain}:{bus:02x}")],
        );
    }
    for bus in 0..4 {
        // some slot of a device that is there
        let address = if text.one_in(4) { text.some_pci() } else { None };
        if let Some(address) = address {
            text.bare(&format!("/bus/pci/slots/{}", 20 + bus));
            text.attribute("address", &address);
        }
    }
}

impl Text<'_> {
    /// A folder that is no device.
    fn bare(&mut self, path: &str) {
        self.lines.push(String::new());
        self.lines.push(format!("P: {path}"));
    }

    /// As device trees have them, ended by a NUL.
    fn string(&mut self, name: &str, value: &str) {
        self.lines.push(format!("A: {name}={value}\\x00"));
    }

    /// The address of a device, without its function.
    fn some_pci(&mut self) -> Option<String> {
        let paths: Vec<_> =
            self.lines.iter().filter(|line| line.starts_with("P: /devices/pci")).collect();
        let all: Vec<_> =
            paths.iter().flat_map(|path| path.split('/')).filter(|part| part.len() == 12).collect();
        let found = all.get(self.random.below(all.len().max(1)))?;
        Some(found.split('.').next()?.to_owned())
    }
}

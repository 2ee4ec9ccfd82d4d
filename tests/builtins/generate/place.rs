//! Devices on buses and transports that give them a place.

use super::Text;

pub(super) fn place(text: &mut Text<'_>) {
    match text.below(12) {
        0..=4 => scsi(text),
        5 => nvme(text),
        6 => chain(text),
        7 => serio(text),
        8 => tape(text),
        _ => chain(text),
    }
}

fn leaf(text: &mut Text<'_>, parent: &str) {
    let (name, kind) = [
        ("block/sda", "block:disk"),
        ("block/sda", "block:disk"),
        ("net/x0", "net"),
        ("tty/ttyX0", "tty"),
    ][text.below(4)];
    let path = format!("{parent}/{name}");
    text.device(&path, kind);
    text.maybe("nsid", &["1", "12"]);
    text.ask(&path);
    if kind == "block:disk" && text.one_in(3) {
        let part = format!("{path}/sda1");
        text.device(&part, "block:partition");
        text.ask(&part);
    }
}

fn scsi(text: &mut Text<'_>) {
    let pci = text.pci();
    let number = 4 + text.below(3);
    let host_parent = transport(text, &pci, number);
    let host = format!("{host_parent}/host{number}");
    text.device(&host, "scsi:scsi_host");
    if text.one_in(2) {
        let other = number - 1 - text.below(3);
        text.device(&format!("{host_parent}/host{other}"), "scsi:scsi_host");
    }
    let middle = match text.below(6) {
        0 => remote_port(text, &host, number),
        1 | 2 => end_device(text, &host, number),
        3 => session(text, &host),
        _ => host.clone(),
    };
    let target_number = text.below(3);
    let target = format!("{middle}/target{number}:0:{target_number}");
    let kind = if text.one_in(15) { "scsi" } else { "scsi:scsi_target" };
    text.device(&target, kind);
    if middle.contains("rport") {
        let path = format!("{target}/fc_transport/target{number}:0:{target_number}");
        text.device(&path, "fc_transport");
        text.maybe("port_name", &["0x500507680110a5d2"]);
    }
    let lun = text.of(&["0", "1", "255", "256", "4660", "74565"]);
    let bus = text.of(&["0", "0", "1"]);
    let unit = format!("{target}/{number}:{bus}:{target_number}:{lun}");
    text.device(&unit, "scsi:scsi_device");
    if text.one_in(20) {
        text.attribute("ieee1394_id", "0001c8ff:0:0");
    }
    text.ask(&unit);
    leaf(text, &unit);
}

/// What the host hangs on.
fn transport(text: &mut Text<'_>, pci: &str, number: usize) -> String {
    match text.below(5) {
        0 | 1 => {
            let port = format!("{pci}/ata{number}");
            text.device(&port, "");
            let class = format!("{port}/ata_port/ata{number}");
            text.device(&class, "ata_port");
            text.maybe("port_no", &["1", "4"]);
            port
        }
        2 => {
            let form = text.of(&["vmbus_0_12", "VMBUS:00/vmbus-1", "VMBUS:00/x"]);
            let path = format!("{pci}/{form}");
            let subsystem = text.of(&["vmbus", "acpi"]);
            text.device(&path, subsystem);
            text.maybe(
                "device_id",
                &[
                    "{f8b3781a-1e82-4818-a1c3-63d806ec15bb}",
                    "{f8b3781b-1e82-4818-a1c363d806ec15bb}",
                    "{f8}",
                ],
            );
            path
        }
        3 => {
            let path = format!("{pci}/virtio1");
            text.device(&path, "virtio");
            path
        }
        _ => pci.to_owned(),
    }
}

fn remote_port(text: &mut Text<'_>, host: &str, number: usize) -> String {
    let path = format!("{host}/rport-{number}:0-1");
    text.device(&path, "");
    path
}

fn end_device(text: &mut Text<'_>, host: &str, number: usize) -> String {
    let mut above = host.to_owned();
    if text.one_in(2) {
        let port = format!("{host}/port-{number}:0");
        text.device(&port, "");
        above = format!("{port}/expander-{number}:0");
        text.device(&above, "");
        let class = format!("{above}/sas_device/expander-{number}:0");
        text.device(&class, "sas_device");
        text.maybe("sas_address", &["0x500065b36789abff"]);
    }
    let port = format!("{above}/port-{number}:0:4");
    text.device(&port, "");
    text.device(&format!("{port}/sas_port/port-{number}:0:4"), "sas_port");
    text.maybe("num_phys", &["1", "1", "1", "4"]);
    let path = format!("{port}/end_device-{number}:0:4");
    text.device(&path, "");
    text.device(&format!("{path}/sas_device/end_device-{number}:0:4"), "sas_device");
    text.maybe("sas_address", &["0x5000c50054e4e8b1"]);
    text.maybe("phy_identifier", &["4", "0"]);
    path
}

fn session(text: &mut Text<'_>, host: &str) -> String {
    let path = format!("{host}/session3");
    text.device(&path, "");
    text.device(&format!("{path}/iscsi_session/session3"), "iscsi_session");
    text.maybe("targetname", &["iqn.2001-04.com.example:storage.disk2"]);
    let connection = format!("{path}/connection3:0");
    text.device(&connection, "");
    text.device(&format!("{connection}/iscsi_connection/connection3:0"), "iscsi_connection");
    text.maybe("persistent_address", &["192.168.1.9", "fe80::1"]);
    text.maybe("persistent_port", &["3260"]);
    path
}

fn nvme(text: &mut Text<'_>) {
    let parent = if text.one_in(3) {
        text.device("/devices/virtual/nvme-subsystem/nvme-subsys0", "nvme-subsystem");
        "/devices/virtual/nvme-subsystem/nvme-subsys0".to_owned()
    } else {
        let pci = text.pci();
        let path = format!("{pci}/nvme/nvme0");
        text.device(&path, "nvme");
        text.ask(&path);
        path
    };
    let path = format!("{parent}/nvme0n1");
    text.device(&path, "block:disk");
    text.maybe("nsid", &["1", "2"]);
    text.ask(&path);
    let part = format!("{path}/nvme0n1p1");
    text.device(&part, "block:partition");
    text.ask(&part);
}

/// Some buses one after the other.
fn chain(text: &mut Text<'_>) {
    const BUSES: &[(&str, &str)] = &[
        ("platform", "fe310000.mmc"),
        ("platform", "soc"),
        ("acpi", "PNP0A03:00"),
        ("amba", "f0000000.uart"),
        ("xen", "vbd-51712"),
        ("ccw", "0.0.0200"),
        ("ccwgroup", "0.0.f5f0"),
        ("scm", "0000000000000001"),
        ("iucv", "netiucv0"),
        ("ap", "00.0005"),
        ("cciss", "c0d1"),
        ("cciss", "c1d2p3"),
        ("cciss", "x"),
        ("bcma", "bcma0:3"),
        ("bcma", "bcma0"),
        ("virtio", "virtio3"),
        ("spi", "spi0.1"),
        ("spi", "spi"),
        ("mmc", "mmc0:0001"),
        ("usb:usb_device", "1-2"),
        ("usb:usb_interface", "1-2:1.0"),
        ("usb:usb_device", "usb1"),
        ("usb", "1-9"),
        ("hid", "0003:046D:C52B.0001"),
        ("", "wlan"),
    ];
    let mut path = if text.one_in(2) { text.pci() } else { "/devices/x".to_owned() };
    if path == "/devices/x" {
        text.device("/devices/x", "");
    }
    for _ in 0..=text.below(4) {
        let (subsystem, name) = BUSES[text.below(BUSES.len())];
        path = format!("{path}/{name}");
        text.device(&path, subsystem);
        if subsystem == "ap" {
            text.maybe("type", &["11"]);
            text.maybe("ap_functions", &["0x92000000"]);
        }
        if !subsystem.is_empty() {
            text.ask(&path);
        }
    }
    leaf(text, &path);
}

fn serio(text: &mut Text<'_>) {
    text.device("/devices/platform/i8042", "platform");
    let mut path = "/devices/platform/i8042/serio1".to_owned();
    text.device(&path, "serio");
    if text.one_in(3) {
        path = format!("{path}/serio2");
        text.device(&path, "serio");
    }
    let input = format!("{path}/input/input5");
    text.device(&input, "input");
    text.ask(&input);
}

fn tape(text: &mut Text<'_>) {
    let pci = text.pci();
    let unit = format!("{pci}/host3/target3:0:0/3:0:0:0");
    text.device(&format!("{pci}/host3"), "scsi:scsi_host");
    text.device(&format!("{pci}/host3/target3:0:0"), "scsi:scsi_target");
    text.device(&unit, "scsi:scsi_device");
    let name =
        text.of(&["st0", "nst0", "st0l", "nst0m", "nst0a", "stl", "nstm0", "sta", "nst", "st"]);
    let path = format!("{unit}/scsi_tape/{name}");
    text.device(&path, "scsi_tape");
    text.ask(&path);
}

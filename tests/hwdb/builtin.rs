//! The builtin `hwdb` on made devices and on the machine's, beside `udevadm test-builtin`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use mapdev::builtin::{Builtin, Call, Kit, Ran};
use mapdev::clean::words;
use mapdev::coldplug;
use mapdev::device::{Device, Sysfs};

use crate::peer::private;

const CONTROLLER: &str = "/devices/pci0/0000:00:14.0";

/// Below each other: devpath behind the controller's, subsystem with its folder, `uevent` file.
const DEVICES: [(&str, &str, &str); 8] = [
    ("", "bus/pci", "MODALIAS=pci:v00008086d00001237sv00001AF4sd00001100bc06sc00i00\n"),
    ("/usb1", "bus/usb", "DEVTYPE=usb_device\nMAJOR=189\nMINOR=0\nDEVNAME=bus/usb/001/001\n"),
    ("/usb1/1-1:1.0", "bus/usb", "DEVTYPE=usb_interface\nMODALIAS=usb:v1D6Bp0002d0510dc09ic09\n"),
    ("/usb1/1-1:1.0/input0", "class/input", "PRODUCT=3/46d\n"),
    ("/usb1/1-1:1.0/input0/event0", "class/input", "MAJOR=13\nMINOR=64\nDEVNAME=input/event0\n"),
    ("/usb1/plain", "", "MODALIAS=usb:v1D6Bp0002\n"),
    ("/usb1/plain/net0", "class/net", "INTERFACE=net0\nIFINDEX=5\nMODALIAS=x\n"),
    ("/usb1/bare", "bus/usb", "DEVTYPE=usb_device\n"),
];

const COMMANDS: [&str; 36] = [
    "hwdb -spci --subsystem=usb",
    "hwdb - usb:v1D6Bp0002",
    "hwdb",
    "hwdb --subsystem=usb",
    "hwdb --subsystem=pci",
    "hwdb --subsystem=net",
    "hwdb --sub=pci",
    "hwdb --s pci",
    "hwdb -s pci",
    "hwdb -spci -fID_V*",
    "hwdb --subsystem pci --filter ID_[MP]*",
    "hwdb --filter=*_V*",
    "hwdb --filter=",
    "hwdb '--filter=ID\\_V*' --subsystem=pci",
    "hwdb --filter=X* --subsystem=pci",
    "hwdb usb:v1D6Bp0002",
    "hwdb 'usb:v1D6Bp0002' --filter=ID_V*",
    "hwdb v1D6Bp0002 --lookup-prefix=usb:",
    "hwdb -pusb: v1D6Bp0002",
    "hwdb --lookup-prefix=usb:v1D6B",
    "hwdb --lookup-prefix= --subsystem=pci",
    "hwdb --bogus usb:v1D6Bp0002",
    "hwdb --bogus=usb:v1D6B usb:v1D6Bp0002",
    "hwdb -x usb:v1D6Bp0002",
    "hwdb usb:v1D6Bp0002 --filter",
    "hwdb -- usb:v1D6Bp0002",
    "hwdb nothing usb:v1D6Bp0002",
    "hwdb ''",
    "hwdb --device=+pci:0000:00:14.0",
    "hwdb --device=+pci:0000:00:14.1",
    "hwdb -d c189:0",
    "hwdb --device=c189:1",
    "hwdb --device=b189:0",
    "hwdb --device=nonsense",
    "hwdb --device=+pci:0000:00:14.0 usb:v1D6Bp0002",
    "hwdb --subsystem=input --lookup-prefix=evdev:",
];

fn make_tree(root: &Path) {
    let put = |path: String, content: &str| {
        let path = root.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let link = |path: String, target: &str| {
        let path = root.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    };
    put("/devices/pci0/uevent".to_owned(), "");
    for (below, folder, uevent) in DEVICES {
        let devpath = format!("{CONTROLLER}{below}");
        put(format!("{devpath}/uevent"), uevent);
        if folder.is_empty() {
            continue;
        }
        let up = "../".repeat(devpath.matches('/').count());
        link(format!("{devpath}/subsystem"), &format!("{up}{folder}"));
        let name = devpath.rsplit('/').next().unwrap();
        let home = match folder.strip_prefix("bus/") {
            Some(_) => format!("/{folder}/devices/{name}"),
            None => format!("/{folder}/{name}"),
        };
        let up = "../".repeat(home.matches('/').count() - 1);
        link(home, &format!("{up}{}", &devpath[1..]));
    }
    let usb = format!("{CONTROLLER}/usb1");
    for (name, content) in [("idVendor", "046d\n"), ("idProduct", "c52b\n"), ("product", "A b\n")] {
        put(format!("{usb}/{name}"), content);
    }
    link("/dev/char/189:0".to_owned(), &format!("../..{usb}"));
    fs::create_dir_all(root.join("dev/block")).unwrap();
    let mounted = Command::new("mount").arg("--bind").arg(root).arg("/sys").status();
    assert!(mounted.unwrap().success());
}

fn theirs(command: &str, devpath: &str) -> Option<String> {
    let mut udevadm = Command::new("udevadm");
    udevadm.args(["test-builtin", command, &format!("/sys{devpath}")]);
    udevadm.env_clear().env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
    let output = udevadm.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn ours(kit: &Kit, command: &str, devpath: &str) -> Option<String> {
    let device = Device::at(&Sysfs::new("/sys"), devpath.as_bytes()).unwrap();
    let properties = device.uevent().properties();
    let properties: Vec<_> =
        properties.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let words = words(command.as_bytes());
    let call = Call { device: &device, properties: &properties, words: &words };
    match kit.run(Builtin::Hwdb, &call) {
        Ran::Done(pairs) => {
            let line = |(key, value): &(Vec<u8>, Vec<u8>)| {
                format!("{}={}\n", str::from_utf8(key).unwrap(), str::from_utf8(value).unwrap())
            };
            Some(pairs.iter().map(line).collect())
        }
        Ran::Failed => None,
        other @ (Ran::Broken(_) | Ran::Skipped) => panic!("{other:?}"),
    }
}

/// How many answers differ; each is shown.
fn compare(asked: impl Iterator<Item = (String, String)>, found_at_least: usize) {
    let kit = Kit::default();
    let (mut count, mut found, mut wrong) = (0, 0, 0);
    for (command, devpath) in asked {
        let (ours, theirs) = (ours(&kit, &command, &devpath), theirs(&command, &devpath));
        count += 1;
        found += usize::from(theirs.is_some());
        if ours != theirs {
            wrong += 1;
            println!("{command} of {devpath}:\n  ours {ours:?}\n  theirs {theirs:?}");
        }
    }
    println!("{count} questions, {found} with an answer, {wrong} differ");
    assert!(wrong == 0 && found >= found_at_least);
}

#[test]
fn every_option_is_understood_as_udevadm_does() {
    private(module_path!(), "every_option_is_understood_as_udevadm_does", || {
        make_tree(Path::new("/run/tree"));
        let devices = DEVICES.map(|(below, ..)| format!("{CONTROLLER}{below}"));
        let asked = COMMANDS.iter().flat_map(|command| {
            devices.iter().map(|devpath| ((*command).to_owned(), devpath.clone()))
        });
        compare(asked, 100);
    });
}

#[test]
fn the_machines_devices_are_known_as_udevadm_knows_them() {
    private(module_path!(), "the_machines_devices_are_known_as_udevadm_knows_them", || {
        let paths = coldplug::devpaths(&Sysfs::new("/sys")).into_values().flatten();
        let paths = paths.filter(|path| path.starts_with(b"/devices"));
        let asked = paths.map(|path| ("hwdb".to_owned(), String::from_utf8(path).unwrap()));
        compare(asked, 1);
    });
}

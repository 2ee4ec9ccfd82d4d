//! One device's answers, from our builtins and from udevadm's.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use mapdev::builtin::{Builtin, Call, Kit, Ran};
use mapdev::device::replay::replay;
use mapdev::device::{Device, Sysfs};
use mapdev::uevent::Action;

use crate::peer;

/// Which builtins, in the order of the rules.
pub(crate) const ASKED: [Builtin; 5] =
    [Builtin::InputId, Builtin::PathId, Builtin::UsbId, Builtin::NetId, Builtin::Hwdb];

/// Our own empty `/sys` that `/proc` has the device tree of, and no rules but ours.
const PREPARE: &str = "
mkdir /run/proc
mount --bind /proc /run/proc
mount -t tmpfs tmpfs /proc
for entry in /run/proc/*; do ln -s $entry /proc/; done
rm -f /proc/device-tree
ln -s /sys/firmware/devicetree/base /proc/device-tree
mount -t tmpfs tmpfs /sys
mount -t tmpfs tmpfs /usr/lib/udev/rules.d
";

/// Properties, and for each builtin whether it worked.
pub(crate) type Answer = BTreeMap<String, String>;

/// Runs the test again where `/sys` is empty and its own; `body` runs there.
pub(crate) fn private(module: &str, test: &str, body: impl FnOnce()) {
    peer::private_with(module, test, PREPARE, || {
        fs::write("/etc/udev/rules.d/50-ask.rules", rules()).unwrap();
        body();
    });
}

fn rules() -> String {
    let lines = ASKED.iter().map(|builtin| {
        let name = builtin.name();
        format!("IMPORT{{builtin}}==\"{name}\", ENV{{RAN_{name}}}=\"1\"\n")
    });
    lines.collect()
}

/// What the kernel says of the device, which builtins do not.
fn ours_too(device: &Device) -> Vec<String> {
    let known = device.uevent().properties();
    known.map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}

fn device(devpath: &str) -> Device {
    let sysfs = Sysfs::new("/sys");
    let uevent = replay(&sysfs, devpath.as_bytes(), Action::Add, 0);
    let uevent = uevent.unwrap_or_else(|| panic!("no device {devpath}"));
    Device::new(sysfs, Arc::new(uevent))
}

pub(crate) fn ours(devpath: &str, kit: &Kit) -> Answer {
    let device = device(devpath);
    let known: Vec<_> =
        device.uevent().properties().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    let mut answer = Answer::new();
    for builtin in ASKED {
        let words = [builtin.name().as_bytes().to_vec()];
        let call = Call { device: &device, properties: &known, words: &words };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Ran::Done(pairs) = kit.run(builtin, &call) {
            answer.extend(pairs.iter().map(|(key, value)| (text(key), text(value))));
            answer.insert(format!("RAN_{}", builtin.name()), "1".into());
        }
    }
    answer
}

pub(crate) fn theirs(devpath: &str, command_line: &str) -> Answer {
    let mut command = Command::new("udevadm");
    command.args(["test", "--action", "add", &format!("/sys{devpath}")]);
    command.env_clear().env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
    command.env("SYSTEMD_PROC_CMDLINE", command_line);
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("DEVPATH="), "{devpath}: {}", String::from_utf8_lossy(&output.stderr));
    let known = ours_too(&device(devpath));
    let own = ["DEVPATH", "ACTION", "SUBSYSTEM", "SEQNUM", "USEC_INITIALIZED", "DEVNAME"];
    let pairs = out.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.filter(|(key, _)| !own.contains(key) && !known.iter().any(|k| k == key));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// How the answers differ, a line for each property.
pub(crate) fn differences(ours: &Answer, theirs: &Answer) -> Vec<String> {
    let mut keys: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    keys.sort();
    keys.dedup();
    let differ = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
    differ
        .map(|key| format!("{key}: ours {:?}, udevadm's {:?}", ours.get(key), theirs.get(key)))
        .collect()
}

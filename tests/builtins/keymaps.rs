//! `keyboard` with the keymaps of other machines that the hardware database holds: which keys udev sets, and
//! which it has the port release, is what we say that we would do. A real keyboard: `tests/devices`.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev};

use crate::ask::private;
use crate::recording::Recording;

const DATABASE: &str = "/usr/lib/udev/hwdb.d/60-keyboard.hwdb";

/// One keymap of so many is tried, and so many there must be.
const STRIDE: usize = 4;
const EACH: usize = 50;

/// A keyboard at a port; its node is a device that knows no keys, so that udev tells of each that it cannot set.
const KEYBOARD: &str = "\
P: /devices/platform/i8042/serio0
E: SUBSYSTEM=serio
A: force_release=12\\n

P: /devices/platform/i8042/serio0/input/input0
E: SUBSYSTEM=input

P: /devices/platform/i8042/serio0/input/input0/event0
N: input/event0
E: SUBSYSTEM=input
E: MAJOR=1
E: MINOR=3
";
const PORT: &str = "/sys/devices/platform/i8042/serio0/force_release";
const EVENT: &str = "/sys/devices/platform/i8042/serio0/input/input0/event0";

/// Scan codes with their keys, and what is released: both in order.
type Keys = (Vec<(u32, u32)>, String);

/// The properties of each entry of the database.
fn keymaps() -> Vec<Vec<String>> {
    let text = fs::read_to_string(DATABASE).unwrap();
    let entries = text.split("\n\n").map(|entry| {
        let lines = entry.lines().filter_map(|line| line.strip_prefix(" KEYBOARD_KEY_"));
        let values = lines.map(|line| line.split('#').next().unwrap_or_default().trim_end());
        values.map(|value| format!("KEYBOARD_KEY_{value}")).collect::<Vec<_>>()
    });
    entries.filter(|entry| !entry.is_empty()).collect()
}

fn hexadecimal(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn theirs() -> Keys {
    let mut command = Command::new("udevadm");
    command.args(["test-builtin", "keyboard", EVENT]).env_clear();
    command.env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0").env("SYSTEMD_LOG_LEVEL", "debug");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    // mapping scan code 58 (0x3a) to key code 29 (0x1d)
    let lines = told.lines().filter_map(|line| line.split_once(": mapping scan code "));
    let keys = lines.map(|(_, rest)| {
        let (scan, rest) = rest.split_once(" (").unwrap();
        let (_, key) = rest.split_once("to key code ").unwrap();
        (scan.parse().unwrap(), key.split(' ').next().unwrap().parse().unwrap())
    });
    (keys.collect(), fs::read_to_string(PORT).unwrap().trim_end().to_owned())
}

fn ours() -> Keys {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    let output = command.args(["test-builtin", "keyboard", EVENT]).env_clear().output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut keys, mut releases) = (Vec::new(), "12".to_owned());
    for line in told.lines().filter_map(|line| line.strip_prefix("# scan code ")) {
        match line.split_once(" becomes key ") {
            Some((scan, key)) => keys.push((hexadecimal(scan), key.parse().unwrap())),
            None => {
                let scan = line.strip_suffix(" is released by the kernel").unwrap();
                releases.push_str(&format!(",{}", hexadecimal(scan)));
            }
        }
    }
    (keys, releases)
}

#[test]
fn keymaps_of_other_machines_are_set_as_udevadm_sets_them() {
    private(module_path!(), "keymaps_of_other_machines_are_set_as_udevadm_sets_them", || {
        let recording = Recording { lines: KEYBOARD.lines().map(str::to_owned).collect() };
        fs::create_dir_all("/dev/input").unwrap();
        fs::create_dir_all("/run/udev/data").unwrap();
        let null = makedev(1, 3);
        let node = Path::new("/dev/input/event0");
        rustix::fs::mknodat(CWD, node, FileType::CharacterDevice, Mode::RWXU, null).unwrap();
        let (mut count, mut wrong, mut keys, mut released) = (0, 0, 0, 0);
        for keymap in keymaps().into_iter().step_by(STRIDE) {
            recording.unpack(Path::new("/sys"));
            let lines: String = keymap.iter().map(|pair| format!("E:{pair}\n")).collect();
            fs::write("/run/udev/data/c1:3", format!("I:1\n{lines}V:1\n")).unwrap();
            let (our, their) = (ours(), theirs());
            count += 1;
            keys += their.0.len();
            released += usize::from(their.1 != "12");
            if our != their {
                wrong += 1;
                println!("{keymap:?}\n  ours {our:?}\n  theirs {their:?}");
            }
        }
        println!("{count} keymaps of {keys} keys, {released} with keys to release; {wrong} differ");
        assert_eq!(wrong, 0);
        assert!(count >= EACH && keys >= 2 * EACH && released > 0, "nearly nothing was set");
    });
}

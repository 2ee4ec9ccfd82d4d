//! `mapdevctl test-builtin` beside `udevadm test-builtin`: what both print of recorded devices, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::ask::private;
use crate::recordings::all;

/// As rules have them; one of each name is counted.
const COMMANDS: [&str; 8] = [
    "input_id",
    "path_id",
    "usb_id",
    "net_id",
    "hwdb",
    "hwdb --subsystem=usb",
    "keyboard",
    "btrfs ready /dev/null",
];

/// Each command is tried on one of so many devices.
const STRIDE: usize = 4;

/// How many answers of each command but the last two must hold a property.
const EACH: usize = 3;

/// Whether it succeeded, and its properties; lines of a tool's own begin with `#`.
type Said = (bool, BTreeSet<String>);

fn said(program: &str, command: &str, devpath: &str) -> Said {
    let mut run = Command::new(program);
    run.args(["test-builtin", command, &format!("/sys{devpath}")]).env_clear();
    let output = run.env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = out.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
    (output.status.success(), pairs.map(str::to_owned).collect())
}

#[test]
fn builtins_are_tried_as_by_udevadm() {
    private(module_path!(), "builtins_are_tried_as_by_udevadm", || {
        let (mut count, mut wrong) = (0, 0);
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, recording) in all() {
            recording.unpack(Path::new("/sys"));
            for devpath in recording.devpaths() {
                count += 1;
                let asked = COMMANDS.iter().enumerate();
                for (_, command) in asked.filter(|(at, _)| (count + at) % STRIDE == 0) {
                    let ours = said(env!("CARGO_BIN_EXE_mapdevctl"), command, &devpath);
                    let theirs = said("udevadm", command, &devpath);
                    *results.entry(command).or_default() += usize::from(!theirs.1.is_empty());
                    if ours != theirs {
                        wrong += 1;
                        println!(
                            "{name} {devpath} {command}\n  ours {ours:?}\n  theirs {theirs:?}"
                        );
                    }
                }
            }
        }
        println!("{count} devices, {wrong} answers differ; with properties: {results:?}");
        assert_eq!(wrong, 0);
        assert!(COMMANDS[..6].iter().all(|command| results[command] >= EACH), "too few results");
    });
}

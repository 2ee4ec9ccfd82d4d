//! Recorded devices under the rules that the machine has: `mapdevctl test` beside `udevadm test`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::ask::{differences, private};
use crate::recordings::all;

type Answer = BTreeMap<String, String>;

/// Lists without order are sorted; what is only the run's is left out.
fn comparable(pairs: impl Iterator<Item = (String, String)>, runs: Vec<String>) -> Answer {
    let own = ["USEC_INITIALIZED", "SEQNUM", "SYNTH_UUID", "UDEV_DATABASE_VERSION"];
    let mut answer = Answer::new();
    for (key, value) in pairs.filter(|(key, _)| !own.contains(&key.as_str())) {
        let list = matches!(key.as_str(), "DEVLINKS" | "TAGS" | "CURRENT_TAGS");
        let parts: BTreeSet<_> = value.split([' ', ':']).filter(|_| list).collect();
        let sorted = parts.into_iter().collect::<Vec<_>>().join(" ");
        answer.insert(key, if list { sorted } else { value });
    }
    answer.insert("(run)".into(), runs.join("; "));
    answer
}

fn theirs(devpath: &str) -> Answer {
    let mut command = Command::new("udevadm");
    command.args(["test", "--action", "add", &format!("/sys{devpath}")]);
    command.env_clear().env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let runs = out.lines().filter_map(|line| line.strip_prefix("run: '")?.strip_suffix('\''));
    let runs = runs.map(str::to_owned).collect();
    let pairs = out.lines().filter(|line| !line.starts_with("run: "));
    let pairs = pairs.filter_map(|line| line.split_once('='));
    comparable(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())), runs)
}

fn ours(devpath: &str) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    command.args(["test", "--json", &format!("/sys{devpath}")]).env_clear();
    let document: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let runs = document["run"].as_array().unwrap().iter().map(|run| text(&run["command"]));
    let pairs = document["properties"].as_object().unwrap().iter();
    comparable(pairs.map(|(key, value)| (key.clone(), text(value))), runs.collect())
}

#[test]
fn recorded_devices_are_decided_by_the_machines_rules_as_udevadm_decides_them() {
    let name = "recorded_devices_are_decided_by_the_machines_rules_as_udevadm_decides_them";
    private(module_path!(), name, || {
        let shown = Command::new("umount").arg("/usr/lib/udev/rules.d").status().unwrap();
        assert!(shown.success());
        fs::remove_file("/etc/udev/rules.d/50-ask.rules").unwrap();
        let (mut count, mut wrong, mut tagged) = (0, 0, 0);
        for (name, recording) in all() {
            recording.unpack(Path::new("/sys"));
            for devpath in recording.devpaths() {
                let (our, their) = (ours(&devpath), theirs(&devpath));
                count += 1;
                tagged += usize::from(their.contains_key("TAGS"));
                let found = differences(&our, &their);
                if !found.is_empty() {
                    wrong += 1;
                    println!("{name} {devpath}\n    {}", found.join("\n    "));
                }
            }
        }
        println!("{count} devices, {tagged} with tags, {wrong} differ");
        assert_eq!(wrong, 0);
        assert!(count >= 100 && tagged >= 50, "nearly nothing was decided");
    });
}

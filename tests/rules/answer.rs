//! What became of an event, from us and from `udevadm test`, in one form.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use mapdev::device::record::Record;
use mapdev::rules::decision::Decision;
use mapdev::rules::event::Event;

use crate::world::COMMAND_LINE;

/// Properties, and in parentheses what else there is.
pub(crate) type Answer = BTreeMap<String, String>;

/// Lists without order are sorted; what is only the run's is left out.
fn comparable(pairs: impl Iterator<Item = (String, String)>) -> Answer {
    let own = ["USEC_INITIALIZED", "SEQNUM", "SYNTH_UUID", "UDEV_DATABASE_VERSION"];
    let mut answer = Answer::new();
    for (key, value) in pairs.filter(|(key, _)| !own.contains(&key.as_str())) {
        let separator = match key.as_str() {
            "DEVLINKS" => " ",
            "TAGS" | "CURRENT_TAGS" => ":",
            _ => "",
        };
        let sorted = if separator.is_empty() {
            value
        } else {
            let items: BTreeSet<_> = value.split(separator).collect();
            items.into_iter().collect::<Vec<_>>().join(separator)
        };
        answer.insert(key, sorted);
    }
    answer
}

/// Properties and what is to be run; and what was logged.
pub(crate) fn theirs(devpath: &str, action: &str) -> (Answer, String) {
    let mut command = Command::new("udevadm");
    command.args(["test", "--action", action, &format!("/sys{devpath}")]);
    command.env_clear().env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0").stderr(Stdio::piped());
    // labels are told in its log alone, where no security module takes them
    command.env("SYSTEMD_PROC_CMDLINE", COMMAND_LINE).env("SYSTEMD_LOG_LEVEL", "debug");
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut runs = String::new();
    let mut pairs = Vec::new();
    for line in out.lines() {
        if let Some(run) = line.strip_prefix("run: ") {
            runs.push_str(&format!("{run} "));
        } else if let Some((key, value)) = line.split_once('=') {
            pairs.push((key.to_owned(), value.to_owned()));
        }
    }
    let mut answer = comparable(pairs.into_iter());
    answer.insert("(run)".into(), runs);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let labels = log.lines().filter_map(|line| line.split_once(" SECLABEL{"));
    // behind the rule's place; other messages quote what a rule says
    let labels =
        labels.filter(|(head, _)| head.rsplit(' ').next().is_some_and(|w| w.contains(".rules:")));
    labels_of(labels.map(|(_, label)| label.replace("}='", "=")), &mut answer);
    (answer, log)
}

/// Properties and what is to be run; and all that was decided.
pub(crate) fn ours(event: Event<'_>) -> (Answer, Decision) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = event.properties().into_iter().map(|(key, value)| (text(&key), text(&value)));
    let mut answer = comparable(pairs);
    let decision = event.finish();
    let runs = decision.run.iter().map(|run| format!("'{}' ", text(&run.command)));
    answer.insert("(run)".into(), runs.collect());
    let labels = decision.seclabels.iter();
    labels_of(
        labels.map(|(module, label)| format!("{}={}'", text(module), text(label))),
        &mut answer,
    );
    (answer, decision)
}

fn labels_of(labels: impl Iterator<Item = String>, answer: &mut Answer) {
    let labels: Vec<_> = labels.collect();
    if !labels.is_empty() {
        answer.insert("(labels)".into(), labels.join(" "));
    }
}

/// What is remembered of the device.
pub(crate) fn remember(record: &Record, answer: &mut Answer) {
    let mut put = |key: &str, list: &[Vec<u8>]| {
        // a tag that is empty costs udev the device's properties, and is none to us
        let list = list.iter().filter(|entry| !entry.is_empty());
        let mut list: Vec<_> = list.map(|entry| String::from_utf8_lossy(entry)).collect();
        list.sort();
        answer.insert(key.to_owned(), list.join(" "));
    };
    put("(links)", &record.links);
    put("(sticky)", &record.sticky_tags);
    put("(current)", &record.current_tags);
    let pairs = record.properties.iter().map(|(key, value)| [key, value.as_slice()].join(&b'='));
    put("(properties)", &pairs.collect::<Vec<_>>());
    answer.insert("(priority)".into(), record.link_priority.to_string());
}

pub(crate) fn differences(ours: &Answer, theirs: &Answer) {
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for key in keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key)) {
        println!("    {key}: ours {:?}, udevadm's {:?}", ours.get(key), theirs.get(key));
    }
}

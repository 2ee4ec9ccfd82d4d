//! `mapdevctl test`: what rules and policy would decide for a device, found without a daemon.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::escape;
use super::failure::{Exit, Failure};
use super::output::{Output, Tone};
use super::values;
use crate::builtin::Pair;
use crate::config::Config;
use crate::device::record::Records;
use crate::device::replay::replay;
use crate::device::{Device, Sysfs};
use crate::exec::Programs;
use crate::net::{self, LinkFiles};
use crate::policy::{Policy, apply};
use crate::rules::decision::{Attribute, Decision, Source};
use crate::rules::event::Event;
use crate::rules::machine::Machine;
use crate::rules::names::Names;
use crate::rules::{self, Rules};
use crate::uevent::{Action, action_name};

/// Where udev remembers devices.
pub(super) const RECORDS: &str = "/run/udev/data";

/// Where in sysfs is what the kernel tells of.
const TOLD: [&str; 7] = ["devices", "module", "bus", "class", "firmware", "fs", "kernel"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, a link to one, a path below /sys or as the kernel tells it, or a number such as c10:200
    device: PathBuf,

    /// What happens to the device
    #[arg(long, default_value = "add", value_parser = action)]
    action: Action,

    /// Look for rules, policy, users and groups below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// Run no programs: a rule ends where it waits for what one says
    #[arg(long)]
    no_programs: bool,

    /// In the place of /sys
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,
}

pub(super) fn action(word: &str) -> Result<Action, String> {
    let all = [
        Action::Add,
        Action::Remove,
        Action::Change,
        Action::Move,
        Action::Online,
        Action::Offline,
        Action::Bind,
        Action::Unbind,
    ];
    let names = all.map(action_name).join(", ");
    let known = all.into_iter().find(|action| action_name(*action) == word);
    known.ok_or_else(|| format!("one of {names} wanted"))
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let sysfs = Sysfs::new(&args.sysfs);
    let uevent = devpath(&sysfs, &args.sysfs, &args.device)
        .and_then(|devpath| replay(&sysfs, &devpath, args.action, sysfs.seqnum()));
    let Some(uevent) = uevent else {
        let shown = escape::bytes(args.device.as_os_str().as_bytes());
        return Err(Failure::new(Exit::NoSuchDevice, format!("{shown} is no device in sysfs")));
    };
    let device = Device::new(sysfs, Arc::new(uevent));
    let names = Names::load(&args.root);
    // mistakes in the files are what `verify` is for
    let (rules, _) = Rules::load(&args.root, &names);
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let (config, _) = Config::load(&args.root, &command_line);
    let (policy, _) = Policy::load(&config.policy_folders(), &names);
    let records = Records::at(Path::new(RECORDS));
    let old = records.read(device.id());
    let machine = Machine::new(records).below(&args.root, Path::new("/dev"));
    let programs = Programs::from(&config);
    let machine = if args.no_programs { machine } else { machine.running(programs) };
    let (links, _) = LinkFiles::load(&args.root, &net::Machine::read(&args.root, &args.sysfs));
    machine.set_links(&Arc::new(links));
    let mut event = Event::new(&device, &machine, &names, old.as_ref(), rules::decide(&device));
    let ended = rules.apply(&mut event);
    let properties = event.properties();
    let mut decision = event.finish();
    apply::policy(&policy, &device, &mut decision);
    decision.finish();
    let told = if output.is_json() {
        output.json(&document(&device, &properties, &decision))
    } else {
        lines(&properties, &decision, output)
    };
    told?;
    ended.map_err(|failed| Failure::failed(format!("the rules ended early: {failed}")))
}

/// The device below sysfs that a path there, a devpath, a node, a link to one or a device's id stands for.
pub(super) fn devpath(sysfs: &Sysfs, root: &Path, device: &Path) -> Option<Vec<u8>> {
    if let Some(below) = below(root, device) {
        let path = fs::canonicalize(root.join(below)).ok()?;
        let below = path.strip_prefix(fs::canonicalize(root).ok()?).ok()?.to_owned();
        return Some([b"/", below.as_os_str().as_bytes()].concat());
    }
    let Ok(meta) = fs::metadata(Path::new("/dev").join(device)) else {
        let found = Device::by_id(sysfs, device.as_os_str().as_bytes())?;
        return Some(found.uevent().devpath().to_vec());
    };
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => "block",
        kind if kind.is_char_device() => "char",
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    sysfs.follow(format!("/dev/{kind}/{major}:{minor}").as_bytes())
}

/// What a path of sysfs, or a devpath as the kernel tells it, names below the root of sysfs.
pub(super) fn below<'a>(root: &Path, device: &'a Path) -> Option<&'a Path> {
    let below = device.strip_prefix("/sys").or_else(|_| device.strip_prefix(root));
    let told = |path: &&Path| TOLD.iter().any(|folder| path.starts_with(folder));
    below.ok().or_else(|| device.strip_prefix("/").ok().filter(told))
}

fn document(device: &Device, properties: &[Pair], decision: &Decision) -> Value {
    let text = |bytes: &[u8]| values::utf8(bytes);
    let map = |pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>| {
        pairs.map(|(key, value)| (text(key), text(value).into())).collect::<Map<_, _>>()
    };
    let pairs = |(key, value): &'_ Pair| (key.clone(), value.clone());
    let seclabels: Vec<Pair> = decision.seclabels.iter().map(pairs).collect();
    let written = |sysctl: bool| {
        let all =
            decision.writes.iter().map(|write| (write.path.as_slice(), write.value.as_slice()));
        map(&mut all.filter(|(path, _)| path.starts_with(b"/proc/sys/") == sysctl))
    };
    let run = decision.run.iter().map(|run| {
        let builtin = run.builtin.map(|builtin| builtin.name());
        json!({ "command": text(&run.command), "builtin": builtin, "by": run.source.to_string() })
    });
    let skipped = decision
        .skipped
        .iter()
        .map(|skipped| json!({ "what": text(&skipped.what), "by": skipped.source.to_string() }));
    let asked = decision.asked.iter().map(|asked| {
        let outcome = asked.outcome.to_string();
        json!({ "command": text(&asked.command), "outcome": outcome, "by": asked.source.to_string() })
    });
    let steps = decision.steps.iter().map(|step| {
        json!({
            "attribute": step.attribute.name(), "source": step.source.kind(),
            "by": step.source.to_string(), "operation": step.operation,
            "old": step.old, "new": step.new,
        })
    });
    json!({
        "devpath": text(device.uevent().devpath()),
        "properties": map(&mut properties.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))),
        "symlinks": decision.links.iter().map(|link| text(&link.name)).collect::<Vec<_>>(),
        "tags": decision.tags.current.iter().map(|tag| text(tag)).collect::<Vec<_>>(),
        "owner": decision.owner,
        "group": decision.group,
        "mode": decision.mode.map(|mode| format!("{mode:04o}")),
        "run": run.collect::<Vec<_>>(),
        "seclabel": map(&mut seclabels.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))),
        "sysattrs": written(false),
        "sysctl": written(true),
        "programs": asked.collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
    })
}

/// A word, what it is about, and who wanted it: three columns.
fn lines(properties: &[Pair], decision: &Decision, output: &mut Output<'_>) -> std::io::Result<()> {
    let mut line = |word: &str, value: &str, source: Option<&Source>| {
        let source = source.map(|source| escape::text(&source.to_string())).unwrap_or_default();
        if output.is_terminal() {
            let word = output.paint(Tone::Heading, &format!("{word:>9}"));
            let source = output.paint(Tone::Faint, &source);
            return output.line(format!("{word}  {value}  {source}").trim_end());
        }
        output.line(&format!("{word}\t{value}\t{source}"))
    };
    for (key, value) in properties {
        let shown = format!("{}={}", escape::bytes(key), escape::bytes(value));
        let prefix = format!("{}=", key.escape_ascii());
        let mut steps = decision.explain(Attribute::Property);
        let by = steps.by_ref().filter(|step| step.new.starts_with(&prefix)).last();
        line("property", &shown, by.map(|step| &step.source))?;
    }
    let node = [
        (Attribute::Owner, decision.owner.map(|id| id.to_string())),
        (Attribute::Group, decision.group.map(|id| id.to_string())),
        (Attribute::Mode, decision.mode.map(|mode| format!("{mode:04o}"))),
    ];
    for (attribute, value) in node {
        if let Some(value) = value {
            line(attribute.name(), &value, decision.source(attribute))?;
        }
    }
    for link in &decision.links {
        let name = link.name.escape_ascii().to_string();
        let has = |shown: &str| shown.split(' ').any(|word| word == name);
        let mut steps = decision.explain(Attribute::Link);
        let by = steps.by_ref().filter(|step| has(&step.new) && !has(&step.old)).last();
        line("link", &escape::bytes(&link.name), by.map(|step| &step.source))?;
    }
    for write in &decision.writes {
        let shown = format!("{} {}", escape::bytes(&write.path), escape::bytes(&write.value));
        line("write", &shown, Some(&write.source))?;
    }
    for run in &decision.run {
        let word = if run.builtin.is_some() { "builtin" } else { "run" };
        line(word, &escape::bytes(&run.command), Some(&run.source))?;
    }
    for asked in &decision.asked {
        let shown = format!("{}: {}", escape::bytes(&asked.command), asked.outcome);
        line("program", &escape::text(&shown), Some(&asked.source))?;
    }
    for skipped in &decision.skipped {
        line("skipped", &escape::bytes(&skipped.what), Some(&skipped.source))?;
    }
    Ok(())
}

//! `mapdevctl test-builtin`: what a builtin of rules says of a device, without a daemon and without doing anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::escape;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::test;
use super::values::utf8;
use crate::builtin::{Builtin, Call, Kit, Pair, Ran, keyboard};
use crate::clean::words;
use crate::config::Config;
use crate::device::record::Records;
use crate::device::{Device, Sysfs};
use crate::net::{self, LinkFiles};
use crate::probe::Probe;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The builtin, with its options as in a rule: "hwdb --subsystem=usb"
    command: String,

    /// A node, a link to one, a path below /sys or as the kernel tells it, or a number such as c10:200
    device: PathBuf,

    /// Look for the hardware database and .link files below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// In the place of /sys
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let words = words(args.command.as_bytes());
    let Some(builtin) = words.first().and_then(|_| Builtin::of_command(args.command.as_bytes()))
    else {
        let names = Builtin::ALL.map(Builtin::name).join(", ");
        return Err(Failure::new(Exit::Usage, format!("a builtin wanted, one of {names}")));
    };
    let sysfs = Sysfs::new(&args.sysfs);
    let device = test::devpath(&sysfs, &args.sysfs, &args.device);
    let Some(device) = device.and_then(|devpath| Device::at(&sysfs, &devpath)) else {
        let shown = escape::text(&args.device.to_string_lossy());
        return Err(Failure::new(Exit::NoSuchDevice, format!("{shown} is no device in sysfs")));
    };
    let properties = properties(&device);
    let call = Call { device: &device, properties: &properties, words: &words };
    let kit = Kit::below(&args.root, Path::new("/dev")).probing(Probe::of(&Config::default()));
    if builtin == Builtin::NetSetupLink {
        let machine = net::Machine::read(&args.root, &args.sysfs);
        kit.set_links(&Arc::new(LinkFiles::load(&args.root, &machine).0));
    }
    let (outcome, found) = match kit.run(builtin, &call) {
        Ran::Done(found) => ("done", found),
        Ran::Broken(found) => ("failed", found),
        Ran::Failed => ("failed", Vec::new()),
        Ran::Skipped => ("skipped", Vec::new()),
    };
    let plan = keyboard::Plan::of(&properties);
    let steps = if builtin == Builtin::Keyboard { told(&plan) } else { Vec::new() };
    if output.is_json() {
        let pairs = found.iter().map(|(key, value)| (utf8(key), Value::from(utf8(value))));
        output.json(&json!({
            "builtin": builtin.name(),
            "outcome": outcome,
            "properties": pairs.collect::<Map<_, _>>(),
            "would": steps,
        }))?;
    } else {
        for (key, value) in &found {
            output.line(&format!("{}={}", escape::bytes(key), escape::bytes(value)))?;
        }
        for step in &steps {
            output.line(&escape::text(step))?;
        }
        if outcome == "skipped" {
            output.line(&format!(
                "# {} changes the machine, and is not tried here",
                builtin.name()
            ))?;
        }
    }
    match outcome {
        "failed" => Err(Failure::failed(format!("{} found nothing", builtin.name()))),
        _ => Ok(()),
    }
}

/// What the kernel says of the device, and what is remembered of it.
fn properties(device: &Device) -> Vec<Pair> {
    let said = device.uevent().properties();
    let mut properties: Vec<Pair> =
        said.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let record = Records::at(Path::new(test::RECORDS)).read(device.id()).unwrap_or_default();
    properties.retain(|(key, _)| record.properties.iter().all(|(known, _)| known != key));
    properties.extend(record.properties);
    properties
}

/// What the properties want of a keyboard, one line each.
fn told(plan: &keyboard::Plan) -> Vec<String> {
    let step = |step: &keyboard::Step| match step {
        keyboard::Step::Key(scan, code) => {
            Some(format!("# scan code {scan:#x} becomes key {code}"))
        }
        keyboard::Step::Axis(axis, limits) => {
            let shown =
                limits.map(|limit| limit.map(|limit| limit.to_string()).unwrap_or_default());
            Some(format!("# axis {axis:#x} becomes {}", shown.join(":")))
        }
        keyboard::Step::Sensitivity(value) => Some(format!("# sensitivity becomes {value}")),
        keyboard::Step::Open => None,
    };
    let release = |scan: &u32| format!("# scan code {scan:#x} is released by the kernel");
    let problem = |problem: &String| format!("# {problem}");
    let steps = plan.steps.iter().filter_map(step);
    let rest = plan.releases.iter().map(release).chain(plan.problems.iter().map(problem));
    steps.chain(rest).collect()
}

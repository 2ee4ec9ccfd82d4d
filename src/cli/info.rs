//! `mapdevctl info DEVICE`: all that the daemon knows of one device.

use std::collections::BTreeMap;

use super::escape;
use super::failure::Failure;
use super::mode;
use super::output::{Output, Tone};
use super::session::{INSPECT, Session};
use super::values::{self, Properties};

const ORDER: [&str; 19] = [
    "Node",
    "SysPath",
    "Subsystem",
    "Type",
    "Major",
    "Minor",
    "Owner",
    "OwnerName",
    "Group",
    "GroupName",
    "Mode",
    "Acl",
    "Origin",
    "ChangedBy",
    "Symlinks",
    "Tags",
    "Seat",
    "Module",
    "ModuleState",
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, a link to one, a path below /sys, or a number such as c10:200
    device: String,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let path = session.resolve(&args.device).await?;
    let device = session.device_properties(&path).await?;
    let udev = session.device(&path).await?.get_properties().await;
    let udev = udev.map_err(|error| Failure::of_call(error, INSPECT))?;
    let udev: BTreeMap<String, Vec<u8>> = udev.into_iter().collect();
    if output.is_json() {
        let mut json = device.json();
        json.insert("path".to_owned(), path.as_str().into());
        let pairs = udev.iter().map(|(key, value)| (key.clone(), values::utf8(value).into()));
        json.insert("properties".to_owned(), serde_json::Value::Object(pairs.collect()));
        return Ok(output.json(&json)?);
    }
    let names = device.names(&ORDER);
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for name in names {
        let line = if output.is_terminal() {
            let label = output.paint(Tone::Heading, &format!("{name:>width$}"));
            format!("{label}: {}", shown(&device, name))
        } else {
            format!("{name}\t{}", shown(&device, name))
        };
        output.line(line.trim_end_matches(' '))?;
    }
    if output.is_terminal() && !udev.is_empty() {
        output.line("")?;
    }
    for (key, value) in &udev {
        let value = escape::bytes(values::trimmed(value));
        output.line(&format!("{}={value}", escape::text(key)))?;
    }
    Ok(())
}

fn shown(device: &Properties, name: &str) -> String {
    match (name, device.small(name)) {
        ("Mode", Some(bits)) => mode::octal(bits),
        _ => device.text(name),
    }
}

//! `mapdevctl event`: one event from start to end, without a daemon.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::escape;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::test::{action, below, devpath};
use super::values;
use crate::config::Config;
use crate::device::Sysfs;
use crate::device::replay::replay;
use crate::dispatch::foreground;
use crate::uevent::{Action, Origin, Uevent, action_name, parse};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, a link to one, a path below /sys or as the kernel tells it (/devices/...), or a number such as
    /// c10:200; of a device that has gone, the path
    device: PathBuf,

    /// What happens to the device
    #[arg(long, value_parser = action)]
    action: Action,

    /// A property of the kernel's message that sysfs does not have, such as DISK_EJECT_REQUEST=1; of a device
    /// that has gone, all of them: SUBSYSTEM, and where there are such, MAJOR, MINOR, DEVNAME, DEVTYPE
    #[arg(long = "property", short, value_name = "KEY=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,

    /// Look for configuration, rules, policy, users and groups below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// In the place of /sys
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,

    /// In the place of /dev
    #[arg(long, value_name = "DIR", default_value = "/dev")]
    dev: PathBuf,

    /// In the place of /run/udev/data; tags and claims on links are kept beside it
    #[arg(long, value_name = "DIR", default_value = "/run/udev/data")]
    records: PathBuf,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE wanted")?;
    // programs of rules know the node by its whole path, the kernel does not
    let value = value.strip_prefix("/dev/").filter(|_| key == "DEVNAME").unwrap_or(value);
    match parse::fault(key.as_bytes(), value.as_bytes()) {
        Some(fault) => Err(fault.to_string()),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

/// What the kernel would say: as sysfs has it, and as the caller does.
fn uevent(args: &Args) -> Result<Uevent, Failure> {
    let sysfs = Sysfs::new(&args.sysfs);
    let given = args.properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    let given: Vec<_> = given.collect();
    let synthetic = |devpath: &[u8], properties: &[(&[u8], &[u8])]| {
        Uevent::synthetic(Origin::Coldplug, args.action, devpath, sysfs.seqnum(), properties)
    };
    let found = devpath(&sysfs, &args.sysfs, &args.device)
        .and_then(|devpath| replay(&sysfs, &devpath, args.action, sysfs.seqnum()));
    if let Some(found) = found {
        let said =
            found.properties().filter(|(key, _)| given.iter().all(|(other, _)| other != key));
        let properties: Vec<_> = said.chain(given.iter().copied()).collect();
        return Ok(synthetic(found.devpath(), &properties));
    }
    let shown = escape::bytes(args.device.as_os_str().as_bytes());
    let absent = |what: &str| {
        Failure::new(Exit::NoSuchDevice, format!("{shown} is no device in sysfs{what}"))
    };
    let gone = gone(&args.sysfs, &args.device).filter(|_| args.action == Action::Remove);
    let devpath = gone.ok_or_else(|| absent(""))?;
    if given.iter().all(|(key, _)| *key != b"SUBSYSTEM") {
        return Err(absent(
            "; of one that has gone, --property SUBSYSTEM=... is wanted, as the kernel said it",
        ));
    }
    Ok(synthetic(&devpath, &given))
}

/// The devpath that a path of sysfs stands for, if nothing is there.
fn gone(root: &Path, device: &Path) -> Option<Vec<u8>> {
    let devpath = [b"/", below(root, device)?.as_os_str().as_bytes()].concat();
    parse::is_devpath(&devpath).then_some(devpath)
}

fn unhandled(error: &io::Error) -> Failure {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let refused = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem);
    let exit = if refused { Exit::Refused } else { Exit::Failed };
    Failure::new(exit, escape::text(&format!("cannot handle the event: {error}")))
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let uevent = uevent(args)?;
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    // mistakes in the files are the daemon's to tell
    let (config, _) = Config::load(&args.root, &command_line);
    let config = Config {
        sysfs: args.sysfs.clone(),
        dev: args.dev.clone(),
        records: Some(args.records.clone()),
        ..config
    };
    // what programs make is readable, whoever started us
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let handled = foreground::handle(&config, &uevent).map_err(|error| unhandled(&error))?;
    if output.is_json() {
        output.json(&json!({
            "action": action_name(args.action),
            "devpath": values::utf8(uevent.devpath()),
            "failed": handled.failed,
            "problems": handled.problems,
        }))?;
    } else {
        for problem in &handled.problems {
            // where standard error is closed too, the exit code still tells
            let _ = writeln!(io::stderr(), "mapdevctl: {}", escape::text(problem));
        }
    }
    if handled.failed {
        return Err(Failure::failed("the rules ended early, and nothing was changed".to_owned()));
    }
    Ok(())
}

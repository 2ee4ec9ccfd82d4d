//! `mapdevctl event`: one event from start to end, without a daemon.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::json;

use super::escape;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::test::{action, devpath};
use super::values;
use crate::config::Config;
use crate::device::Sysfs;
use crate::device::replay::replay;
use crate::dispatch::foreground;
use crate::uevent::{Action, action_name};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A path below /sys, a node, or a link to one
    device: PathBuf,

    /// What happens to the device
    #[arg(long, value_parser = action)]
    action: Action,

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

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let sysfs = Sysfs::new(&args.sysfs);
    let uevent = devpath(&sysfs, &args.sysfs, &args.device)
        .and_then(|devpath| replay(&sysfs, &devpath, args.action, sysfs.seqnum()));
    let Some(uevent) = uevent else {
        let shown = escape::bytes(args.device.as_os_str().as_bytes());
        return Err(Failure::new(Exit::NoSuchDevice, format!("{shown} is no device in sysfs")));
    };
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
    let handled = foreground::handle(&config, &uevent)
        .map_err(|error| Failure::failed(format!("cannot handle the event: {error}")))?;
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
            let _ = writeln!(std::io::stderr(), "mapdevctl: {}", escape::text(problem));
        }
    }
    if handled.failed {
        return Err(Failure::failed("the rules ended early, and nothing was changed".to_owned()));
    }
    Ok(())
}

//! `mapdevctl shim status|attach|detach`: the kernel module, asked directly and by root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Subcommand;
use rustix::mount::{UnmountFlags, unmount};
use serde_json::json;

use super::escape;
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::map::control::ShimStats;
use crate::map::shim::{self, Shim};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show whether the kernel serves the map, where it is mounted, and the module's counts
    ///
    /// Exit code 1 if the module is not loaded.
    Status,
    /// Mount the map on a directory, and load the module for it
    ///
    /// The daemon publishes its map by itself, in active mode. All mounts show the same.
    Attach {
        /// An empty directory; not /dev itself
        place: PathBuf,
    },
    /// Unmount the map from a directory
    Detach { place: PathBuf },
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.what {
        What::Status => status(output),
        What::Attach { place } => attach(place),
        What::Detach { place } => detach(place),
    }
}

fn failed(what: String, error: &io::Error) -> Failure {
    let refused = error.kind() == io::ErrorKind::PermissionDenied;
    let (exit, advice) =
        if refused { (Exit::Refused, "; try it as root") } else { (Exit::Failed, "") };
    Failure::new(exit, format!("{what}: {}{advice}", escape::text(&error.to_string())))
}

fn status(output: &mut Output<'_>) -> Result<(), Failure> {
    let opened = Shim::open(Path::new(shim::DEVICE));
    let opened = opened.map_err(|error| failed(format!("cannot open {}", shim::DEVICE), &error))?;
    let Some(shim) = opened else {
        return Err(Failure::failed("the module mapdevfs is not loaded; try: modprobe mapdevfs"));
    };
    let stats = shim.stats();
    let stats = stats.map_err(|error| failed("the module does not answer".to_owned(), &error))?;
    let mounts = mounts(&fs::read("/proc/self/mountinfo").unwrap_or_default());
    if output.is_json() {
        let counts: serde_json::Map<_, _> = counts(&stats)
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        let mounts: Vec<_> = mounts.iter().map(|place| escape::bytes(place)).collect();
        let published = stats.entries > 0;
        let publisher = stats.publisher == 1;
        let document = json!({
            "published": published, "publisher": publisher, "mounts": mounts, "counts": counts,
        });
        return Ok(output.json(&document)?);
    }
    let word = match (stats.entries > 0, stats.publisher == 1) {
        (true, true) => "served",
        (true, false) => "served; the daemon is gone",
        (false, _) => "none",
    };
    line(output, "map", word)?;
    for place in mounts {
        line(output, "mounted on", &escape::bytes(&place))?;
    }
    for (name, count) in counts(&stats) {
        line(output, name, &count.to_string())?;
    }
    Ok(())
}

fn line(output: &mut Output<'_>, label: &str, value: &str) -> Result<(), Failure> {
    let line = match output.is_terminal() {
        true => format!("{label:>18}: {value}"),
        false => format!("{label}\t{value}"),
    };
    Ok(output.line(&line)?)
}

fn counts(stats: &ShimStats) -> [(&'static str, u64); 17] {
    [
        ("generation", stats.gen_),
        ("attribute changes", stats.chg),
        ("bytes", stats.len),
        ("capacity", stats.entries.into()),
        ("lookups", stats.lookups),
        ("revalidations", stats.revalidations),
        ("invalidations", stats.invalidations),
        ("busy looks", stats.busy),
        ("pending opens", stats.pending_opens),
        ("module loads", stats.loads),
        ("timeouts", stats.timeouts),
        ("publications", stats.publishes),
        ("syncs", stats.syncs),
        ("notifications", stats.notifies),
        ("changes told", stats.events),
        ("overflows", stats.overflows),
        ("collisions", stats.collisions),
    ]
}

/// Mount points of the file system; octal escapes as in the file.
fn mounts(mountinfo: &[u8]) -> Vec<Vec<u8>> {
    let of_line = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ');
        let place = words.nth(4)?.to_vec();
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        (kind == shim::FILE_SYSTEM.as_bytes()).then_some(place)
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(of_line).collect()
}

fn attach(place: &Path) -> Result<(), Failure> {
    let shown = escape::bytes(place.as_os_str().as_bytes());
    let full = fs::canonicalize(place).map_err(|error| failed(shown.clone(), &error))?;
    if full == Path::new("/dev") {
        return Err(Failure::new(
            Exit::Refused,
            "/dev itself cannot be switched while programs use it; mount the map somewhere else",
        ));
    }
    if !is_known() {
        let loaded = Command::new("modprobe").arg(shim::FILE_SYSTEM).status();
        let loaded = loaded.map_err(|error| failed("cannot run modprobe".to_owned(), &error))?;
        if !loaded.success() {
            return Err(Failure::failed(
                "the module mapdevfs cannot be loaded; is it installed for this kernel?",
            ));
        }
    }
    shim::mount_at(&full).map_err(|error| failed(format!("cannot mount on {shown}"), &error))
}

fn is_known() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(shim::FILE_SYSTEM))
}

fn detach(place: &Path) -> Result<(), Failure> {
    let shown = escape::bytes(place.as_os_str().as_bytes());
    if !shim::is_mounted_on(place) {
        return Err(Failure::failed(format!("the map is not mounted on {shown}")));
    }
    unmount(OsStr::from_bytes(place.as_os_str().as_bytes()), UnmountFlags::empty())
        .map_err(|error| failed(format!("cannot unmount {shown}"), &error.into()))
}

#[cfg(test)]
mod tests {
    use super::mounts;

    #[test]
    fn mount_points_are_found_behind_optional_fields() {
        let text = b"21 1 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw\n\
            36 21 0:30 / /mnt/a\\040b rw - mapdevfs none rw\n\
            37 21 0:30 / /mnt/c rw shared:3 master:4 - mapdevfs none rw\n\
            38 21 0:31 / /mnt/mapdevfs rw - tmpfs mapdevfs rw\n";
        assert_eq!(mounts(text), [&b"/mnt/a\\040b"[..], b"/mnt/c"]);
    }
}

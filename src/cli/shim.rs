//! `mapdevctl shim status|attach|detach`: the kernel module, asked directly and by root.

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
use crate::switch::{self, Refused, Wanted, mounts};

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
    /// Mount the map on a directory, or in devtmpfs's place on /dev; loads the module for it
    ///
    /// The daemon publishes its map by itself, in active mode. All mounts show the same. On /dev, what
    /// userspace made and all that is mounted there is taken along; if something cannot be, it is
    /// listed, and nothing is changed.
    Attach {
        /// /dev, or an empty directory
        place: PathBuf,
    },
    /// Unmount the map from a directory; on /dev, devtmpfs takes its place again
    Detach {
        /// Where it is mounted
        place: PathBuf,
    },
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.what {
        What::Status => status(output),
        What::Attach { place } => attach(place, output),
        What::Detach { place } => detach(place, output),
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
    let mounts = mount_points();
    let shown = |place: &PathBuf| escape::bytes(place.as_os_str().as_bytes());
    if output.is_json() {
        let counts: serde_json::Map<_, _> = counts(&stats)
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        let mounts: Vec<_> = mounts.iter().map(shown).collect();
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
    for place in &mounts {
        line(output, "mounted on", &shown(place))?;
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

/// Where the file system is seen.
fn mount_points() -> Vec<PathBuf> {
    let all = mounts::read().unwrap_or_default();
    let ours = all.iter().filter(|mount| mount.kind == shim::FILE_SYSTEM.as_bytes());
    let seen = ours.filter(|mount| mounts::top(&all, &mount.place) == Some(*mount));
    seen.map(|mount| mount.place.clone()).collect()
}

/// The file system that is seen at a place, and the one beneath it.
fn kinds(place: &Path) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let all = mounts::read().unwrap_or_default();
    let top = mounts::top(&all, place);
    let beneath = top.and_then(|top| mounts::beneath(&all, top));
    (top.map(|top| top.kind.clone()), beneath.map(|mount| mount.kind.clone()))
}

fn attach(place: &Path, output: &mut Output<'_>) -> Result<(), Failure> {
    let shown = escape::bytes(place.as_os_str().as_bytes());
    let full = fs::canonicalize(place).map_err(|error| failed(shown.clone(), &error))?;
    if !is_known() {
        let loaded = Command::new("modprobe").arg(shim::FILE_SYSTEM).status();
        let loaded = loaded.map_err(|error| failed("cannot run modprobe".to_owned(), &error))?;
        if !loaded.success() {
            return Err(Failure::failed(
                "the module mapdevfs cannot be loaded; is it installed for this kernel?",
            ));
        }
    }
    let devtmpfs = kinds(&full).0.is_some_and(|kind| kind == b"devtmpfs");
    if full == Path::new("/dev") || devtmpfs {
        return take_along(&full, Wanted::Map, output);
    }
    shim::mount_at(&full).map_err(|error| failed(format!("cannot mount on {shown}"), &error))
}

/// Switches, and tells what became of what was there.
fn take_along(place: &Path, wanted: Wanted, output: &mut Output<'_>) -> Result<(), Failure> {
    let shown = escape::bytes(place.as_os_str().as_bytes());
    let done = switch::switch(place, Path::new("/sys"), wanted, switch::AWAIT).map_err(
        |error| match error {
            Refused::Io(what, error) => {
                failed(format!("{shown} stays as it is: cannot {what}"), &error)
            }
            busy @ Refused::Busy => Failure::failed(format!("{shown} stays as it is: {busy}")),
            Refused::Cannot(names) => {
                let names: Vec<String> = names.iter().map(|name| escape::text(name)).collect();
                let list = names.join("\n  ");
                Failure::failed(format!(
                    "{shown} stays as it is; what cannot be carried:\n  {list}"
                ))
            }
        },
    )?;
    let switch::Done { switched, carried, mounted, late } = done;
    if output.is_json() {
        let document = json!({
            "switched": switched, "carried": carried, "mounted": mounted, "late": late,
        });
        output.json(&document)?;
    } else if switched {
        line(output, "names carried", &carried.to_string())?;
        line(output, "mounts carried", &mounted.to_string())?;
    }
    match late.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "{shown} is switched, but something came too late:\n  {}",
            escape::text(&late.join("\n  "))
        ))),
    }
}

fn is_known() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(shim::FILE_SYSTEM))
}

fn detach(place: &Path, output: &mut Output<'_>) -> Result<(), Failure> {
    let shown = escape::bytes(place.as_os_str().as_bytes());
    let full = fs::canonicalize(place).map_err(|error| failed(shown.clone(), &error))?;
    let (top, beneath) = kinds(&full);
    if top.is_none_or(|kind| kind != shim::FILE_SYSTEM.as_bytes()) {
        return Err(Failure::failed(format!("the map is not mounted on {shown}")));
    }
    if full == Path::new("/dev") || beneath.is_some_and(|kind| kind == b"devtmpfs") {
        return take_along(&full, Wanted::Devtmpfs, output);
    }
    unmount(full.as_os_str(), UnmountFlags::empty())
        .map_err(|error| failed(format!("cannot unmount {shown}"), &error.into()))
}

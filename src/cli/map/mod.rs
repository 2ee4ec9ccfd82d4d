//! `mapdevctl map dump|stats|verify`: reads the shared map itself, through the daemon's read-only
//! descriptor and without privilege.

mod dump;

use std::collections::HashMap;

use clap::Subcommand;
use serde_json::json;

use super::escape;
use super::failure::Failure;
use super::output::Output;
use super::session::{INSPECT, Session};
use crate::map::{Entry, MapReader, Stats, Walk};

/// How often a map that was replaced while we looked is asked for anew.
const TRIES: u32 = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every name of the map, much as ls -l would
    ///
    /// The origin is `builtin` (a driver of the kernel), `module` (one that is not loaded),
    /// `live` (a device is there) and `pending` (the number comes when the module is loaded). Of a name
    /// that a module serves, the module and whether it is loaded; then who decided owner, group or mode
    /// last, or who changed them in the kernel.
    Dump {
        /// Show owners and groups as numbers
        #[arg(long, short)]
        numeric: bool,
    },
    /// Show how full the map is
    Stats,
    /// Check the map; exit code 1 if anything is wrong with it
    Verify,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.what {
        What::Dump { numeric } => {
            dump::show(session, &entries(session).await?, *numeric, output).await
        }
        What::Stats => show_stats(&current(session).await?.stats(), output),
        What::Verify => verify(session, output).await,
    }
}

async fn open(session: &Session) -> Result<MapReader, Failure> {
    let answer = session.manager().await?.get_map().await;
    let (fd, _generation) = answer.map_err(|error| Failure::of_call(error, INSPECT))?;
    MapReader::open(fd.into()).map_err(|error| {
        let why = escape::text(&error.to_string());
        Failure::failed(format!(
            "the daemon's map cannot be read ({why}); are mapdevctl and mapdevd of one version?"
        ))
    })
}

/// A map that was not replaced at the moment of looking.
async fn current(session: &Session) -> Result<MapReader, Failure> {
    for _ in 0..TRIES {
        let reader = open(session).await?;
        if !reader.is_replaced() {
            return Ok(reader);
        }
    }
    Err(too_busy())
}

fn too_busy() -> Failure {
    Failure::failed("the map changed at every look; wait with mapdevctl settle, then try again")
}

/// All names, sorted by path.
async fn entries(session: &Session) -> Result<Vec<(Vec<u8>, Entry)>, Failure> {
    for _ in 0..TRIES {
        if let Walk::Found(mut all) = current(session).await?.walk() {
            all.sort_by(|a, b| a.0.cmp(&b.0));
            return Ok(all);
        }
    }
    Err(too_busy())
}

async fn verify(session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut reader = current(session).await?;
    let mut problems = reader.verify();
    // what a replaced map looks like says nothing about the one in force
    for _ in 0..TRIES {
        if !reader.is_replaced() {
            break;
        }
        reader = current(session).await?;
        problems = reader.verify();
    }
    if output.is_json() {
        let generation = reader.generation();
        output.json(&json!({ "generation": generation, "problems": problems }))?;
    } else {
        problems.iter().try_for_each(|problem| output.line(&escape::text(problem)))?;
    }
    match problems.len() {
        0 if output.is_terminal() && !output.is_json() => Ok(output.line("the map is sound")?),
        0 => Ok(()),
        1 => Err(Failure::failed("the map has 1 problem")),
        several => Err(Failure::failed(format!("the map has {several} problems"))),
    }
}

fn show_stats(stats: &Stats, output: &mut Output<'_>) -> Result<(), Failure> {
    let figures: [(&str, u64); 11] = [
        ("generation", stats.generation),
        ("attribute_changes", stats.attribute_changes),
        ("entries", stats.entries.into()),
        ("capacity", stats.capacity.into()),
        ("directories", stats.directories.into()),
        ("links", stats.links.into()),
        ("pending", stats.pending.into()),
        ("buckets", stats.buckets.into()),
        ("tombstones", stats.tombstones.into()),
        ("strings_len", stats.strings_len),
        ("total_len", stats.total_len),
    ];
    if output.is_json() {
        let figures: HashMap<&str, u64> = figures.into();
        return Ok(output.json(&figures)?);
    }
    for (name, figure) in figures {
        let name = name.replace('_', " ");
        let line = if output.is_terminal() {
            format!("{name:>17}: {figure}")
        } else {
            format!("{name}\t{figure}")
        };
        output.line(&line)?;
    }
    Ok(())
}

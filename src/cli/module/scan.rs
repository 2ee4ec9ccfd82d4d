//! `mapdevctl module scan`: reads what changed, and says what is there and what is wrong.

use std::time::Instant;

use serde_json::{Value, json};

use super::World;
use crate::cli::escape;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read every file, whatever the cache knows
    #[arg(long)]
    anew: bool,
}

pub(super) fn run(
    world: &super::Args,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let world = World::read(world, args.anew)?;
    let took = begun.elapsed();
    let problems = problems(&world);
    let loadable = world.db.modules().filter(|module| !module.is_builtin()).count();
    let counts = [
        ("modules", loadable),
        ("builtin", world.db.len() - loadable),
        ("nodes", world.db.devnames().len()),
        ("aliases", world.db.modules().map(|module| module.aliases().count()).sum()),
        ("problems", problems.len()),
    ];
    let cache = world.cache.as_ref().filter(|_| world.uncached.is_none());
    let cache = cache.map(|file| file.to_string_lossy().into_owned());
    if output.is_json() {
        let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count.into()));
        let mut document: serde_json::Map<String, Value> = counts.collect();
        document.insert("release".to_owned(), world.db.release().into());
        document.insert("folder".to_owned(), world.db.folder().to_string_lossy().into());
        document.insert("cache".to_owned(), json!(cache));
        document.insert("milliseconds".to_owned(), json!(took.as_secs_f64() * 1e3));
        document.insert("problems".to_owned(), json!(problems));
        output.json(&document)?;
    } else {
        let mut rows = vec![
            ("release", escape::text(world.db.release())),
            ("folder", escape::text(&world.db.folder().to_string_lossy())),
        ];
        rows.extend(counts.map(|(name, count)| (name, count.to_string())));
        rows.push(("time", format!("{:.1} ms", took.as_secs_f64() * 1e3)));
        let uncached = world.uncached.as_ref().map(|problem| format!("not kept: {problem}"));
        let cache = cache.or(uncached).unwrap_or_else(|| "none".to_owned());
        rows.push(("cache", escape::text(&cache)));
        for (label, value) in rows {
            let line = if output.is_terminal() {
                format!("{label:>8}: {value}")
            } else {
                format!("{label}\t{value}")
            };
            output.line(&line)?;
        }
        problems.iter().try_for_each(|problem| output.line(&escape::text(problem)))?;
    }
    match problems.len() {
        0 => Ok(()),
        1 => Err(Failure::failed("there is 1 problem")),
        several => Err(Failure::failed(format!("there are {several} problems"))),
    }
}

/// Files of modules that cannot be read, then mistakes in modprobe.d.
fn problems(world: &World) -> Vec<String> {
    let modules = world.db.problems().iter().map(ToString::to_string);
    modules.chain(world.config.problems().iter().map(ToString::to_string)).collect()
}

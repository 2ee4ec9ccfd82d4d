//! `mapdevctl module info MODULE`: all that a module says of itself.

use std::ffi::OsStr;

use serde_json::{Value, json};

use super::{World, file_json, file_shown, nodes_json, nodes_shown};
use crate::cli::escape;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Tone};
use crate::cli::values::utf8;
use crate::modules::{Description, Module};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A module's name
    module: String,
}

pub(super) fn run(world: &World, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let Some(module) = world.module(args.module.as_bytes()) else {
        return Err(broken(world, &args.module).unwrap_or_else(|| world.not_found(&args.module)));
    };
    let described = module.describe().map_err(|problem| shown(&problem.to_string()))?;
    if output.is_json() {
        return Ok(output.json(&as_json(world, module, &described))?);
    }
    let mut rows = vec![
        ("module".to_owned(), escape::text(module.name())),
        ("state".to_owned(), world.state_shown(module.name().as_bytes()).to_owned()),
        ("file".to_owned(), file_shown(Some(module))),
    ];
    if let Some((on_disk, unpacked)) = described.sizes {
        let size = if on_disk == unpacked {
            format!("{on_disk} bytes")
        } else {
            format!("{on_disk} bytes, unpacked {unpacked}")
        };
        rows.push(("size".to_owned(), size));
    }
    let nodes = nodes_shown(module);
    if !nodes.is_empty() {
        rows.push(("nodes".to_owned(), nodes));
    }
    let said = described.info.iter().map(|(key, value)| (escape::bytes(key), escape::bytes(value)));
    rows.extend(said);
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, value) in rows {
        let line = if output.is_terminal() {
            format!("{}: {value}", output.paint(Tone::Heading, &format!("{label:>width$}")))
        } else {
            format!("{label}\t{value}")
        };
        output.line(&line)?;
    }
    Ok(())
}

/// What is wrong with the file that would be the module's.
pub(super) fn broken(world: &World, name: &str) -> Option<Failure> {
    let folded = |name: &str| name.replace('-', "_");
    let of_module = |file: &OsStr| {
        let file = file.to_string_lossy();
        file.split_once(".ko").is_some_and(|(stem, _)| folded(stem) == folded(name))
    };
    let mut problems = world.db.problems().iter();
    let problem = problems.find(|problem| problem.file.file_name().is_some_and(of_module))?;
    Some(shown(&problem.to_string()))
}

fn shown(problem: &str) -> Failure {
    Failure::failed(escape::text(problem))
}

fn as_json(world: &World, module: Module<'_>, described: &Description) -> Value {
    let pair =
        |(key, value): &(Vec<u8>, Vec<u8>)| json!({ "key": utf8(key), "value": utf8(value) });
    json!({
        "module": module.name(),
        "state": world.state_shown(module.name().as_bytes()),
        "file": file_json(Some(module)),
        "size": described.sizes.map(|(on_disk, _)| on_disk),
        "size_unpacked": described.sizes.map(|(_, unpacked)| unpacked),
        "nodes": nodes_json(module),
        "info": described.info.iter().map(pair).collect::<Vec<_>>(),
    })
}

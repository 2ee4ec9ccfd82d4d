//! `mapdevctl module list`: every module of a kernel.

use serde_json::{Value, json};

use super::{World, file_json, nodes_json, nodes_shown, or_dash};
use crate::cli::escape;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::table::Table;
use crate::modules::Module;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only modules that declare names below /dev
    #[arg(long)]
    nodes: bool,
}

pub(super) fn run(world: &World, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let all = world.db.modules();
    let modules = all.filter(|module| !args.nodes || module.devnames().next().is_some());
    if output.is_json() {
        let all: Value = modules.map(|module| as_json(world, module)).collect();
        return Ok(output.json(&all)?);
    }
    let mut table = Table::new(&["MODULE", "STATE", ">ALIASES", "NODES", "NEEDS"]);
    for module in modules {
        let needs = needs(module).join(",");
        table.push([
            escape::text(module.name()),
            world.state_shown(module.name().as_bytes()).to_owned(),
            module.aliases().count().to_string(),
            or_dash(nodes_shown(module)),
            or_dash(escape::text(&needs)),
        ]);
    }
    Ok(table.print(output)?)
}

/// In the order in which they are loaded.
fn needs(module: Module<'_>) -> Vec<&str> {
    module.load_order().map(Module::name).collect()
}

fn as_json(world: &World, module: Module<'_>) -> Value {
    json!({
        "module": module.name(),
        "builtin": module.is_builtin(),
        "state": world.state_shown(module.name().as_bytes()),
        "aliases": module.aliases().count(),
        "nodes": nodes_json(module),
        "needs": needs(module),
        "file": file_json(Some(module)),
    })
}

//! `mapdevctl module lookup NAME`: the modules that would be loaded for it.

use serde_json::{Value, json};

use super::{World, file_json, file_shown, nodes_json, nodes_shown, or_dash};
use crate::cli::escape;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::table::Table;
use crate::cli::values::utf8;
use crate::modules::modprobe::{Request, Target};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A node (/dev/net/tun, or net/tun for short), a device number (c10:200), a modalias, an alias
    /// or a module
    name: String,
}

pub(super) fn run(world: &World, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let plan = world.plan(&args.name, &Request::default())?;
    if output.is_json() {
        let all: Value = plan.targets.iter().map(|target| as_json(world, target)).collect();
        return Ok(output.json(&all)?);
    }
    let mut table = Table::new(&["MODULE", "STATE", "NODES", "FILE", "REMARKS"]);
    for target in &plan.targets {
        let module = world.module(&target.module);
        table.push([
            escape::bytes(&target.module),
            world.state_shown(&target.module).to_owned(),
            or_dash(module.map(nodes_shown).unwrap_or_default()),
            file_shown(module),
            or_dash(remarks(world, target).join("; ")),
        ]);
    }
    Ok(table.print(output)?)
}

/// The alias of modprobe.d by which the module came, not one of its own.
fn configured<'t>(world: &World, target: &'t Target) -> Option<&'t [u8]> {
    let alias = target.alias.as_deref()?;
    let mut all = world.config.aliases_of(alias).filter(|(_, module)| *module == target.module);
    all.any(|(pattern, _)| pattern == alias).then_some(alias)
}

fn remarks(world: &World, target: &Target) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(alias) = configured(world, target) {
        remarks.push(format!("alias {} of modprobe.d", escape::bytes(alias)));
    }
    if world.module(&target.module).is_none() {
        remarks.push("no such module".to_owned());
    }
    if world.config.is_blacklisted(&target.module) {
        remarks.push("blacklisted".to_owned());
    }
    if world.config.is_refused(&target.module) {
        remarks.push("refused by the kernel (module_blacklist=)".to_owned());
    }
    if let Some(command) = world.config.install_command(&target.module) {
        remarks.push(format!("install command: {}", escape::bytes(command.trim_ascii())));
    }
    remarks
}

fn as_json(world: &World, target: &Target) -> Value {
    let module = world.module(&target.module);
    json!({
        "module": utf8(&target.module),
        "state": world.state_shown(&target.module),
        "nodes": module.map(nodes_json),
        "file": file_json(module),
        "configured_alias": configured(world, target).map(utf8),
        "blacklisted": world.config.is_blacklisted(&target.module),
        "refused": world.config.is_refused(&target.module),
        "install_command": world.config.install_command(&target.module).map(utf8),
    })
}

//! `mapdevctl module unload NAME`: removes a module as modprobe -r does.

use std::path::Path;

use super::World;
use crate::cli::escape;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::modules::modprobe::{Gone, Loader, PlanError, Removal, RemoveError};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A module, an alias or a modalias
    name: String,

    /// Mind neither remove commands nor soft dependencies: for use in such a command
    #[arg(long, short = 'i')]
    ignore_remove: bool,
}

pub(super) fn run(world: &World, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    if !world.running {
        return Err(Failure::new(Exit::Usage, "only the running kernel's modules can be unloaded"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Refused, "unloading a module needs root; try it with sudo"));
    }
    let sysfs = Path::new("/sys");
    let loader = Loader { db: &world.db, sysfs, command_time: Loader::COMMAND_TIME };
    match loader.remove(&world.config, args.name.as_bytes(), args.ignore_remove) {
        Ok(done) => super::tell(done.iter().map(told), output),
        Err(RemoveError::Name(PlanError::NotFound)) => Err(world.not_found(&args.name)),
        Err(error) => {
            if let RemoveError::Module { module, why, done } = &error {
                let kept = (module.clone(), "kept", Some(why.to_string()));
                super::tell(done.iter().map(told).chain([kept]), output)?;
            }
            Err(Failure::failed(escape::text(&error.to_string())))
        }
    }
}

fn told(gone: &Gone) -> (Vec<u8>, &'static str, Option<String>) {
    let (word, why) = match &gone.outcome {
        Removal::Removed => ("removed", None),
        Removal::NotLoaded => ("not loaded", None),
        Removal::CommandRan => ("command ran", None),
        Removal::Kept(why) => ("kept", Some(why.to_string())),
    };
    (gone.module.clone(), word, why)
}

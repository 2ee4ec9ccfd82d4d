//! `mapdevctl module load NAME`: loads a module as modprobe does, or shows what would be done.

use std::path::Path;

use rustix::process::geteuid;
use serde_json::{Value, json};

use super::World;
use crate::cli::escape;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::proxy::Options;
use crate::cli::session::Session;
use crate::cli::values::utf8;
use crate::modules::modprobe::{
    Action, Blacklist, Done, Loader, Outcome, Plan, Request, Step, Why,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A module, an alias, a modalias, a node (/dev/net/tun) or a device number (c10:200)
    name: String,

    /// Options for the module, after those of modprobe.d
    #[arg(value_name = "OPTION=VALUE")]
    options: Vec<String>,

    /// Show what would be done, in the form of modprobe --show-depends
    #[arg(long)]
    dry_run: bool,

    /// Honour blacklists also for a module that is asked for by its name
    #[arg(long, short = 'b')]
    blacklist: bool,

    /// Run no install command of the module: for use in that very command
    #[arg(long, short = 'i')]
    ignore_install: bool,
}

impl Args {
    /// What it can be asked for: the machine's modules, with the options of modprobe.d.
    pub(super) fn is_for_the_daemon(&self, root: &Path) -> bool {
        let plain = self.options.is_empty() && !self.ignore_install && root == Path::new("/");
        plain && !self.dry_run && !geteuid().is_root()
    }
}

/// Lets the daemon load it, if polkit allows that.
pub(super) async fn ask(
    session: &Session,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let asked = session.modules().await?.load(&args.name, Options::new()).await;
    asked.map_err(|error| Failure::of_call(error, Some("org.mapdev1.load-module")))?;
    let name = args.name.as_bytes().to_vec();
    super::tell([(name, "loaded by the daemon", None)].into_iter(), output)
}

pub(super) fn run(world: &World, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let options = args.options.join(" ");
    let request = Request {
        name: b"",
        options: options.as_bytes(),
        blacklist: if args.blacklist { Blacklist::Names } else { Blacklist::Aliases },
        ignore_install: args.ignore_install,
    };
    let plan = world.plan(&args.name, &request)?;
    if args.dry_run {
        return show(&plan, output);
    }
    if !geteuid().is_root() {
        let what = "loading with options of one's own, or from another tree, needs root: try it with \
                    sudo, or see --dry-run";
        return Err(Failure::new(Exit::Refused, what));
    }
    let sysfs = Path::new("/sys");
    let loader = Loader { db: &world.db, sysfs, command_time: Loader::COMMAND_TIME };
    match loader.load(&plan) {
        Ok(done) => super::tell(done.iter().map(told), output),
        Err(error) => {
            let failed = (error.module.clone(), "failed", Some(error.why.to_string()));
            super::tell(error.done.iter().map(told).chain([failed]), output)?;
            let refused = matches!(error.why, Why::Refused);
            let exit = if refused { Exit::Refused } else { Exit::Failed };
            Err(Failure::new(exit, escape::text(&error.to_string())))
        }
    }
}

fn show(plan: &Plan, output: &mut Output<'_>) -> Result<(), Failure> {
    if output.is_json() {
        let targets = plan.targets.iter().map(|target| {
            json!({
                "module": utf8(&target.module),
                "alias": target.alias.as_deref().map(utf8),
                "blacklisted": target.blacklisted,
                "steps": target.steps.iter().map(step_json).collect::<Value>(),
            })
        });
        return Ok(output.json(&targets.collect::<Value>())?);
    }
    let shown = plan.show_depends();
    let mut lines = shown.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.try_for_each(|line| output.line(&escape::bytes(line)))?)
}

fn step_json(step: &Step) -> Value {
    let (action, what) = match &step.action {
        Action::Insert(path) => ("insert", Some(path.to_string_lossy().into_owned())),
        Action::Command(command) => ("command", Some(utf8(command))),
        Action::Builtin => ("builtin", None),
        Action::Missing => ("missing", None),
    };
    json!({
        "module": utf8(&step.module), "action": action, "what": what,
        "options": utf8(&step.options), "required": step.required, "refused": step.refused,
    })
}

fn told(done: &Done) -> (Vec<u8>, &'static str, Option<String>) {
    let (word, why) = match &done.outcome {
        Outcome::Loaded => ("loaded", None),
        Outcome::AlreadyLoaded => ("already loaded", None),
        Outcome::Builtin => ("builtin", None),
        Outcome::CommandRan => ("command ran", None),
        Outcome::Blacklisted => ("blacklisted", None),
        Outcome::Failed(why) => ("failed", Some(why.to_string())),
    };
    (done.module.clone(), word, why)
}

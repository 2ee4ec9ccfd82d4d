//! Loads modules for callers, beside the events: that takes as long as a driver's start does.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::oneshot;
use tracing::info;

use super::Dispatch;
use super::command::LoadError;
use crate::config::{Config, Mode};
use crate::modules::ModuleDb;
use crate::modules::modprobe::{self, Loader, Outcome, Plan, Request};

/// Callers whose modules are loaded at once; a driver that hangs holds one place for good.
const LOADS_MAX: usize = 8;

/// How many are under way.
pub(super) type Loads = Arc<AtomicUsize>;

impl Dispatch {
    /// Loads what a name or modalias stands for; checks only, if `dry_run`.
    pub(super) fn load(
        &self,
        name: Vec<u8>,
        dry_run: bool,
        reply: oneshot::Sender<Result<(), LoadError>>,
    ) {
        if self.config.mode == Mode::Shadow && !dry_run {
            // a caller that has gone is no error, here and below
            drop(reply.send(Err(LoadError::Shadow)));
            return;
        }
        if self.loads.fetch_add(1, Ordering::Relaxed) >= LOADS_MAX {
            self.loads.fetch_sub(1, Ordering::Relaxed);
            drop(reply.send(Err(LoadError::Busy)));
            return;
        }
        let (modules, config) = (self.book.modules.clone(), self.config.clone());
        let loads = self.loads.clone();
        let work = move || {
            let done = plan(&modules, &config, &name).and_then(|plan| {
                if dry_run { Ok(()) } else { carry_out(&modules, &config, &plan) }
            });
            loads.fetch_sub(1, Ordering::Relaxed);
            drop(reply.send(done));
        };
        // not of the runtime's pool: a driver that hangs must not hold up the daemon's end
        if thread::Builder::new().name("load".to_owned()).spawn(work).is_err() {
            // its answer is dropped, and the caller told that we are busy
            self.loads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn plan(modules: &ModuleDb, config: &Config, name: &[u8]) -> Result<Plan, LoadError> {
    let cmdline = fs::read("/proc/cmdline").unwrap_or_default();
    let said = modprobe::Config::read(&config.root, &cmdline);
    let request = Request { name, ..Request::default() };
    let plan = modprobe::plan(modules, &said, &request)
        .map_err(|error| LoadError::NoModule(error.to_string()))?;
    if plan.targets.iter().all(|target| target.blacklisted) {
        let what = "modprobe.d or the kernel's command line has it on the blacklist";
        return Err(LoadError::NoModule(what.to_owned()));
    }
    Ok(plan)
}

fn carry_out(modules: &ModuleDb, config: &Config, plan: &Plan) -> Result<(), LoadError> {
    let loader = Loader { db: modules, sysfs: &config.sysfs, command_time: Loader::COMMAND_TIME };
    let done = loader.load(plan).map_err(|error| LoadError::Failed(error.to_string()))?;
    for step in done {
        let module = step.module.escape_ascii().to_string();
        match step.outcome {
            Outcome::Loaded => info!("{module}: loaded"),
            Outcome::CommandRan => info!("{module}: its install command was run"),
            Outcome::Failed(why) => info!("{module}: left out, a soft dependency: {why}"),
            Outcome::AlreadyLoaded | Outcome::Builtin | Outcome::Blacklisted => {}
        }
    }
    Ok(())
}

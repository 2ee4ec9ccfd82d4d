//! Stage 3e: `kmod load [MODULE…]`: loads modules, without any the one that the device asks for.
//!
//! What becomes of a module does not decide whether it worked, as under udev.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::builtin::{Call, Pair, Ran};
use crate::exec::{Pause, Waiting};
use crate::modules::ModuleDb;
use crate::modules::modprobe::{self, Blacklist, Config, Loader, Outcome, Plan, Request};

/// How long modprobe.d is taken for what it was. A coldplug asks for some hundred modules.
const TRUST: Duration = Duration::from_secs(3);

/// Which modules there are, and what modprobe.d says of them.
#[derive(Clone, Debug)]
pub(super) struct Modules {
    root: PathBuf,
    db: RefCell<Arc<ModuleDb>>,
    config: RefCell<Option<(Instant, Arc<Config>)>>,
    /// Who is told when the kernel lets one wait for a module.
    pause: Option<Arc<dyn Pause>>,
}

impl Modules {
    /// None, before they are told.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, db: RefCell::default(), config: RefCell::default(), pause: None }
    }

    pub(super) fn with_pause(self, pause: Arc<dyn Pause>) -> Self {
        Self { pause: Some(pause), ..self }
    }

    pub(super) fn refresh(&self, db: &Arc<ModuleDb>) {
        self.db.replace(db.clone());
        self.config.replace(None);
    }

    fn config(&self) -> Arc<Config> {
        let mut kept = self.config.borrow_mut();
        if let Some((read, config)) = &*kept
            && read.elapsed() < TRUST
        {
            return config.clone();
        }
        let cmdline = fs::read("/proc/cmdline").unwrap_or_default();
        let config = Arc::new(Config::read(&self.root, &cmdline));
        *kept = Some((Instant::now(), config.clone()));
        config
    }

    fn plan(&self, name: &[u8]) -> Option<Plan> {
        let request = Request { name, blacklist: Blacklist::Names, ..Request::default() };
        let plan = modprobe::plan(&self.db.borrow(), &self.config(), &request);
        plan.inspect_err(|error| debug!("kmod: {error}")).ok()
    }

    fn load(&self, name: &[u8], call: &Call<'_>) {
        let Some(plan) = self.plan(name) else { return };
        let sysfs = call.device.sysfs().syspath(b"");
        let db = self.db.borrow();
        let loader = Loader { db: &db, sysfs: &sysfs, command_time: Loader::COMMAND_TIME };
        let pause = self.pause.as_deref().filter(|_| loader.has_work(&plan));
        let _waiting = pause.map(Waiting::begin);
        let done = loader.load(&plan).unwrap_or_else(|error| {
            warn!("kmod: {error}");
            error.done
        });
        for step in done {
            let module = step.module.escape_ascii();
            match step.outcome {
                Outcome::Loaded => info!("kmod: {module}: loaded"),
                Outcome::CommandRan => info!("kmod: {module}: its install command was run"),
                Outcome::Failed(why) => info!("kmod: {module}: left out: {why}"),
                Outcome::AlreadyLoaded | Outcome::Builtin | Outcome::Blacklisted => {}
            }
        }
    }
}

/// Loads what was asked for; without `modules` it says only whether it can be asked so.
pub(super) fn run(modules: Option<&Modules>, call: &Call<'_>) -> Ran<Vec<Pair>> {
    let Some(names) = names(call) else { return Ran::Failed };
    for name in names {
        if let Some(modules) = modules {
            modules.load(name, call);
        }
    }
    Ran::Done(Vec::new())
}

/// What is to be loaded; `None` if the command has another form.
fn names<'a>(call: &'a Call<'_>) -> Option<Vec<&'a [u8]>> {
    match call.words {
        [_, load] if load == b"load" => Some(vec![call.property(b"MODALIAS")?]),
        [_, load, names @ ..] if load == b"load" => Some(names.iter().map(Vec::as_slice).collect()),
        _ => None,
    }
}

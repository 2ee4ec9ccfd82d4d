//! `mapdevctl module`: which module serves which name, and loading, without the daemon.
//!
//! The same files are read as by the daemon, through its cache where there is one.

mod info;
mod list;
mod load;
mod lookup;
mod scan;
mod unload;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::escape;
use super::failure::{Exit, Failure};
use super::nearest;
use super::output::Output;
use super::session::Session;
use super::table::Table;
use super::values::utf8;
use crate::config::{Config as Settings, Mode};
use crate::device::DeviceId;
use crate::modules::modprobe::{Config, Plan, PlanError, Request, State, plan};
use crate::modules::scan::{self as reading, running_release};
use crate::modules::{Module, ModuleDb, ScanProblem, cache, number_alias};
use crate::uevent::Devnum;

/// The time between two lines of progress: as often as an eye reads.
const PROGRESS_TIME: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,

    /// The tree that holds lib/modules and modprobe.d
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// The kernel, as in lib/modules [default: the running one, or the only one of another tree]
    #[arg(long, global = true, value_name = "RELEASE")]
    release: Option<String>,

    /// Keep what was read in this file [default: the daemon's; none for another tree]
    #[arg(long, global = true, value_name = "FILE")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show which modules would be loaded for a name
    ///
    /// Aliases and blacklists of modprobe.d count. Exits with code 3 if there is no such module.
    Lookup(lookup::Args),
    /// List the modules, with the names below /dev that they declare
    List(list::Args),
    /// Show all that a module says of itself
    Info(info::Args),
    /// Read the modules that changed, and show what is wrong in any file
    ///
    /// Exits with code 1 if anything is wrong.
    Scan(scan::Args),
    /// Load a module, and what it needs before it
    ///
    /// Does what modprobe does: aliases, blacklists, options, soft dependencies and install commands
    /// of modprobe.d and of the kernel's command line count. Without root, the daemon is asked, and
    /// polkit decides.
    Load(load::Args),
    /// Remove a module from the kernel, and what nobody else needs
    ///
    /// Does what modprobe -r does: soft dependencies and remove commands of modprobe.d count.
    Unload(unload::Args),
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.what {
        What::Lookup(what) => lookup::run(&World::open(args)?, what, output),
        What::List(what) => list::run(&World::open(args)?, what, output),
        What::Info(what) => info::run(&World::open(args)?, what, output),
        What::Scan(what) => scan::run(args, what, output),
        What::Load(what) => load::run(&World::open(args)?, what, output),
        What::Unload(what) => unload::run(&World::open(args)?, what, output),
    }
}

impl Args {
    /// Loading is for root, or for whom polkit allows it.
    pub(super) fn is_for_the_daemon(&self) -> bool {
        matches!(&self.what, What::Load(load) if load.is_for_the_daemon(&self.root))
    }
}

pub async fn ask_the_daemon(
    session: &Session,
    args: &Args,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    match &args.what {
        What::Load(what) => load::ask(session, what, output).await,
        What::Lookup(_) | What::List(_) | What::Info(_) | What::Scan(_) | What::Unload(_) => Ok(()),
    }
}

/// A tree of modules and what is configured for it.
#[derive(Debug)]
struct World {
    db: ModuleDb,
    config: Config,
    /// It is the running kernel's, so that states can be told.
    running: bool,
    /// What could not be done for the cache.
    uncached: Option<ScanProblem>,
    cache: Option<PathBuf>,
}

impl World {
    fn open(args: &Args) -> Result<Self, Failure> {
        let world = Self::read(args, false)?;
        if world.db.folder().as_os_str().is_empty() {
            let said = world.db.problems().first().map(ToString::to_string).unwrap_or_default();
            return Err(Failure::failed(format!(
                "{}; see --root and --release",
                escape::text(&said)
            )));
        }
        Ok(world)
    }

    /// `anew`: reads every file, whatever the cache knows.
    fn read(args: &Args, anew: bool) -> Result<Self, Failure> {
        let root = std::path::absolute(&args.root);
        let root = root.map_err(|error| Failure::new(Exit::Usage, format!("--root: {error}")))?;
        let release = match &args.release {
            Some(release) => release.clone(),
            None => default_release(&root)?,
        };
        let is_machine = root == Path::new("/");
        let running = is_machine && running_release().is_ok_and(|own| own == release);
        let cache = args.cache.clone().or_else(|| usual_cache(&release).filter(|_| running));
        let progress = Progress::new();
        let (db, uncached) = match &cache {
            Some(file) if !anew => {
                cache::open(&root, &release, file, &|read, of| progress.show(read, of))
            }
            _ => {
                let show = |read, of| progress.show(read, of);
                let db = reading::update(&root, &release, None, &show).unwrap_or_default();
                let kept = cache.as_deref().map_or(Ok(()), |file| cache::write(&db, file));
                let file = cache.clone().unwrap_or_default();
                (db, kept.err().map(|error| ScanProblem { file, what: error.to_string() }))
            }
        };
        progress.end();
        let cmdline =
            if running { fs::read("/proc/cmdline").unwrap_or_default() } else { Vec::new() };
        let config = Config::read(&root, &cmdline);
        Ok(Self { db, config, running, uncached, cache })
    }

    /// What is to be done for a name that somebody typed: a module, an alias, a modalias, a name below
    /// /dev or a device number.
    fn plan(&self, name: &str, request: &Request<'_>) -> Result<Plan, Failure> {
        let tries = [Some(name.to_owned()), self.alias_of_node(name)];
        // what begins like a node or a number is nothing else
        let explicit = name.starts_with("/dev/") || parse_devnum(name).is_some();
        for name in tries.iter().skip(usize::from(explicit)).flatten() {
            match plan(&self.db, &self.config, &Request { name: name.as_bytes(), ..*request }) {
                Err(PlanError::NotFound) => {}
                Ok(plan) => return Ok(plan),
                Err(error) => return Err(Failure::failed(escape::text(&error.to_string()))),
            }
        }
        Err(info::broken(self, name).unwrap_or_else(|| self.not_found(name)))
    }

    /// The alias by which the kernel asks for a node's module.
    fn alias_of_node(&self, name: &str) -> Option<String> {
        if let Some(number) = parse_devnum(name) {
            return Some(number_alias(number));
        }
        let node = name.strip_prefix("/dev/").unwrap_or(name);
        if self.db.devname(node.as_bytes()).is_some() {
            return Some(format!("devname:{node}"));
        }
        if !self.running || node.len() == name.len() {
            return None;
        }
        let stat = rustix::fs::stat(name).ok()?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let block = kind == rustix::fs::FileType::BlockDevice;
        let is_node = block || kind == rustix::fs::FileType::CharacterDevice;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        is_node.then(|| number_alias(Devnum { block, major, minor }))
    }

    fn not_found(&self, name: &str) -> Failure {
        let modules = self.db.modules().map(|module| module.name());
        let nodes = self.db.devnames().filter_map(|node| std::str::from_utf8(node.name).ok());
        let near = nearest::names(name, modules.chain(nodes));
        let hint = match near.as_slice() {
            [] => "; see mapdevctl module list".to_owned(),
            near => format!("; did you mean {}?", near.join(" or ")),
        };
        let (name, release) = (escape::text(name), escape::text(self.db.release()));
        let message = format!("no module of {release} has or offers the name {name}{hint}");
        Failure::new(Exit::NoSuchDevice, message)
    }

    /// `None` where it cannot be told.
    fn state(&self, module: &[u8]) -> Option<State> {
        if self.running {
            return Some(State::of(&self.db, Path::new("/sys"), module));
        }
        let builtin = self.db.module(module)?.is_builtin() && self.db.loadable(module).is_none();
        builtin.then_some(State::Builtin)
    }

    fn state_shown(&self, module: &[u8]) -> &'static str {
        self.state(module).map_or("unknown", State::name)
    }

    /// With a file rather than as a part of the kernel.
    fn module(&self, name: &[u8]) -> Option<Module<'_>> {
        self.db.loadable(name).or_else(|| self.db.module(name))
    }
}

/// The running kernel's; in another tree the only one there is.
fn default_release(root: &Path) -> Result<String, Failure> {
    if root == Path::new("/") {
        let own = running_release();
        return own.map_err(|error| Failure::failed(format!("which kernel runs? {error}")));
    }
    let entries = fs::read_dir(root.join("lib/modules"));
    let entries = entries.or_else(|_| fs::read_dir(root.join("usr/lib/modules")));
    let entries = entries.map_err(|error| {
        let folder = root.join("lib/modules");
        Failure::failed(format!("{}: {error}", escape::text(&folder.to_string_lossy())))
    })?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut found: Vec<_> = folders.map(|entry| entry.file_name().display().to_string()).collect();
    found.sort_unstable();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        all => {
            let all =
                if all.is_empty() { "none".to_owned() } else { escape::text(&all.join(", ")) };
            Err(Failure::new(Exit::Usage, format!("which kernel? there are: {all}; see --release")))
        }
    }
}

/// Where the daemon keeps what it read; if it never ran, where it would, and only root may.
fn usual_cache(release: &str) -> Option<PathBuf> {
    let [active, shadow] = [Mode::Active, Mode::Shadow]
        .map(|mode| Settings { mode, ..Settings::default() }.module_cache(release));
    if let Some(found) = [&active, &shadow].into_iter().find(|file| file.exists()) {
        return Some(found.clone());
    }
    rustix::process::geteuid().is_root().then_some(active)
}

fn parse_devnum(text: &str) -> Option<Devnum> {
    DeviceId::from_bytes(text.as_bytes())?.devnum()
}

/// `net/tun c10:200, vhost-net c10:238`
fn nodes_shown(module: Module<'_>) -> String {
    let node = |(name, number): (&[u8], Option<Devnum>)| match number {
        Some(number) => format!("{} {number}", escape::bytes(name)),
        None => escape::bytes(name),
    };
    module.devnames().map(node).collect::<Vec<_>>().join(", ")
}

fn nodes_json(module: Module<'_>) -> Value {
    let node = |(name, number): (&[u8], Option<Devnum>)| {
        json!({
            "name": utf8(name),
            "type": number.map(|number| if number.block { "block" } else { "char" }),
            "major": number.map(|number| number.major),
            "minor": number.map(|number| number.minor),
        })
    };
    module.devnames().map(node).collect()
}

/// Where the module's file is; `-` for a part of the kernel.
fn file_shown(module: Option<Module<'_>>) -> String {
    let path = module.and_then(Module::path);
    path.map_or("-".to_owned(), |path| escape::text(&path.to_string_lossy()))
}

fn file_json(module: Option<Module<'_>>) -> Option<String> {
    Some(module?.path()?.to_string_lossy().into_owned())
}

/// What became of each module, and why where it is not what was wanted.
fn tell(
    rows: impl Iterator<Item = (Vec<u8>, &'static str, Option<String>)>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if output.is_json() {
        let rows = rows.map(|(module, outcome, why)| {
            json!({ "module": utf8(&module), "outcome": outcome, "why": why })
        });
        return Ok(output.json(&rows.collect::<Value>())?);
    }
    let mut table = Table::new(&["MODULE", "OUTCOME", "WHY"]);
    for (module, outcome, why) in rows {
        let why = why.map_or("-".to_owned(), |why| escape::text(&why));
        table.push([escape::bytes(&module), outcome.to_owned(), why]);
    }
    Ok(table.print(output)?)
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// One line on the terminal that says how far reading is; where there is no terminal, nothing.
struct Progress {
    terminal: bool,
    shown: Mutex<Option<Instant>>,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: Mutex::new(None) }
    }

    fn show(&self, read: usize, of: usize) {
        if !self.terminal {
            return;
        }
        // another thread is writing: this step need not be seen
        let Ok(mut shown) = self.shown.try_lock() else { return };
        if shown.is_none_or(|last| last.elapsed() >= PROGRESS_TIME) {
            *shown = Some(Instant::now());
            let _ = write!(io::stderr(), "\rreading modules: {read} of {of}\x1b[K");
        }
    }

    fn end(&self) {
        if self.shown.lock().is_ok_and(|shown| shown.is_some()) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{number_alias, parse_devnum};

    #[test]
    fn a_device_number_is_what_the_kernel_asks_for() {
        let alias = |text| parse_devnum(text).map(number_alias);
        assert_eq!(alias("c10:200").unwrap(), "char-major-10-200");
        assert_eq!(alias("b7:0").unwrap(), "block-major-7-0");
        for text in ["", "c", "c10", "x1:2", "cpu:x", "c-1:2", "é1:2"] {
            assert_eq!(alias(text), None, "{text}");
        }
    }
}

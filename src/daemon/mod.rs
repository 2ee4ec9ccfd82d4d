//! Starts the tasks, waits for signals, stops the tasks.
//!
//! Signals have the main thread. Dispatch has threads and a runtime of its own (`dispatch/lead.rs`), and so
//! has the bus, so that no caller can hold up an event.

pub mod args;
mod background;
mod logs;
mod modules;
mod present;
mod systemd;

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::bus::accounts::Files;
use crate::bus::{Bus, BusConfig, BusError};
use crate::config::{Config, Mode};
use crate::control::{self, Control};
use crate::dispatch::command::{Command, NOTICES_MAX, Notice};
use crate::dispatch::lead::Lead;
use crate::dispatch::{self, OTHER_MANAGER, Parts, Ready, Rival};
use crate::map::MapWriter;
use crate::modules::{ModuleDb, cache, scan};
use crate::uevent::socket::{KernelSocket, Options};
use args::Args;
use logs::LogHandle;

/// Names that a first map has room for; it grows by itself.
const MAP_ENTRIES: u32 = 1024;

/// What the daemon cannot go on without.
#[derive(Debug)]
pub enum Fatal {
    /// What was tried, and how it failed.
    Io(&'static str, io::Error),
    /// Another device manager answers on this machine.
    OtherManager(String),
    Bus(BusError),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
            Self::OtherManager(what) => f.write_str(what),
            Self::Bus(error) => write!(f, "bus: {error}"),
        }
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Bus(error) => Some(error),
            Self::OtherManager(_) => None,
        }
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What it cannot go on without.
pub fn run(args: &Args) -> Result<(), Fatal> {
    let started = Instant::now();
    let (config, problems) = args.config();
    if args.background {
        return in_background(&config);
    }
    let log = logs::start(&config.log_level);
    problems.into_iter().for_each(|problem| warn!("{problem}"));
    // what programs make is readable, whoever started us
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if config.mode == Mode::Active {
        refuse_second_manager()?;
    }
    let io = |what| move |error| Fatal::Io(what, error);
    let control = open_control(&config);
    let kept = systemd::take_descriptors();
    std::fs::create_dir_all(&config.runtime).map_err(io("make the runtime folder"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io("start the runtime"))?;
    // outlives the tasks: a runtime cannot be dropped by one
    let lead = Lead::new().map_err(io("start the runtime"))?;
    runtime.block_on(async {
        let modules = tokio::task::spawn_blocking({
            let config = config.clone();
            move || read_modules(&config)
        });
        let socket = {
            let _context = lead.enter();
            open_socket(kept.socket, config.receive_buffer)
                .map_err(io("listen to the kernel's uevents"))?
        };
        dispatch::log_socket(&socket, config.receive_buffer);
        // the kernel's is the one in force; the service manager may have the one before it
        let kept = [kept_by_kernel(&config), kept.map];
        let map = open_map(kept).map_err(io("make the map"))?;
        let modules = modules.await.map_err(|error| Fatal::Io("read the modules", error.into()))?;
        Daemon::start(
            config,
            args.present,
            log,
            Given { lead: &lead, socket, control, map, modules },
            started,
        )?
        .run()
        .await
    })
}

/// Prints the daemon's process id when it is ready.
fn in_background(config: &Config) -> Result<(), Fatal> {
    if config.mode == Mode::Shadow {
        return Err(Fatal::Io("run in the background", io::Error::other("the mode is shadow")));
    }
    let failed = |error| Fatal::Io("run in the background", error);
    std::fs::create_dir_all(&config.runtime).map_err(failed)?;
    let id = background::start(&config.runtime).map_err(failed)?;
    writeln!(io::stdout(), "{id}").map_err(failed)
}

/// Two managers would undo each other's work on /dev.
fn refuse_second_manager() -> Result<(), Fatal> {
    let Rival::Answers(process) = Rival::look() else { return Ok(()) };
    let who = process.map(|id| format!(" (process {id})")).unwrap_or_default();
    Err(Fatal::OtherManager(format!(
        "another device manager{who} answers at {OTHER_MANAGER}; stop it first \
         (systemctl stop systemd-udevd), or run in shadow mode (--mode shadow)"
    )))
}

/// From here on udev's clients believe that somebody tells them of devices.
fn open_control(config: &Config) -> Option<OwnedFd> {
    let path = config.udev_folder().join("control");
    let socket = (config.mode == Mode::Active).then(|| control::bind_at(&path))?;
    let told = |error: &io::Error| warn!("{}: {error}; udevadm finds nobody", path.display());
    socket.inspect_err(told).ok()
}

fn open_socket(kept: Option<OwnedFd>, receive_buffer: usize) -> io::Result<KernelSocket> {
    let options = Options { receive_buffer };
    match kept {
        Some(fd) => {
            info!("listening on the socket that the service manager kept");
            KernelSocket::adopt(fd, &options)
        }
        None => KernelSocket::open(&options),
    }
}

/// The memory of an earlier run's map, if the kernel serves it still.
fn kept_by_kernel(config: &Config) -> Option<OwnedFd> {
    let shim =
        dispatch::shim(config).inspect_err(|error| warn!("the kernel's map: {error}")).ok()??;
    let memory = shim.memory().inspect_err(|error| warn!("the kernel's map: {error}"));
    memory.ok().flatten().inspect(|_| info!("the kernel has kept the map of the last run"))
}

/// The map of an earlier run if the service manager or the kernel kept it whole, else a new one.
fn open_map(kept: [Option<OwnedFd>; 2]) -> io::Result<MapWriter> {
    for fd in kept.into_iter().flatten() {
        match MapWriter::adopt(fd) {
            Ok(map) => {
                info!(generation = map.generation(), "goes on with the map of the last run");
                return Ok(map);
            }
            Err(error) => warn!("a kept map cannot be used: {error}"),
        }
    }
    MapWriter::create(MAP_ENTRIES)
}

/// Those of the running kernel; a cache that cannot be used only costs time.
fn read_modules(config: &Config) -> ModuleDb {
    match scan::running_release() {
        Ok(release) => {
            let file = config.module_cache(&release);
            let (modules, problem) = cache::open(&config.root, &release, &file, &|_, _| ());
            if let Some(problem) = problem {
                info!("modules: {problem}");
            }
            modules
        }
        Err(error) => {
            warn!("cannot tell the running kernel's release: {error}");
            ModuleDb::default()
        }
    }
}

struct Given<'a> {
    lead: &'a Lead,
    socket: KernelSocket,
    /// In active mode: where udevadm asks.
    control: Option<OwnedFd>,
    map: MapWriter,
    modules: ModuleDb,
}

/// The tasks and what ties them together.
struct Daemon {
    dispatch: oneshot::Receiver<io::Result<()>>,
    bus: Option<oneshot::Receiver<Result<(), BusError>>>,
    presenter: Option<std::thread::JoinHandle<()>>,
    ready: oneshot::Receiver<Ready>,
    stop: watch::Sender<bool>,
    commands: mpsc::Sender<Command>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Daemon {
    fn start(
        config: Config,
        present: bool,
        log: LogHandle,
        given: Given<'_>,
        started: Instant,
    ) -> Result<Self, Fatal> {
        let io = |what| move |error| Fatal::Io(what, error);
        let catch = |kind| signal(kind).map_err(io("catch signals"));
        let (terminate, interrupt) =
            (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let hangup = catch(SignalKind::hangup())?;
        for problem in given.modules.problems() {
            info!("modules: {problem}");
        }
        let (stop, stopped) = watch::channel(false);
        let (commands, listening) = dispatch::commands();
        let (ready, is_ready) = oneshot::channel();
        let log = Arc::new(log);
        if let Some(socket) = given.control {
            let control = Control::new(socket, commands.clone(), log.clone(), stop.clone());
            tokio::spawn(control.map_err(io("wait for udevadm"))?.run());
        }
        let mut notices = Vec::new();
        let mut listener = || {
            let (sender, receiver) = mpsc::channel::<Notice>(NOTICES_MAX);
            notices.push(sender);
            receiver
        };
        let bus = match config.bus.as_deref() {
            Some("none") => None,
            address => {
                let bus_config = BusConfig {
                    address: address.filter(|address| *address != "system").map(Into::into),
                    log_target: log.target().to_owned(),
                    features: features(config.mode),
                    ..BusConfig::default()
                };
                let accounts = Arc::new(Files::load(config.root.clone()));
                let bus = Bus::new(bus_config, commands.clone(), listener(), accounts, log);
                Some(bus.start(stopped.clone()).map_err(io("start the bus"))?)
            }
        };
        let presenter = if present {
            let heading = present::Heading::of(&config, started);
            Some(present::Presenter::start(heading, listener()).map_err(io("start a thread"))?)
        } else {
            None
        };
        let db = Arc::new(given.modules);
        modules::start(&config, db.clone(), commands.clone(), stopped.clone())
            .map_err(io("watch the modules"))?;
        let parts = Parts {
            config,
            socket: given.socket,
            map: given.map,
            modules: db,
            commands: listening,
            notices,
            ready,
            keep_map: systemd::keep_map,
            stop: stopped,
        };
        let dispatch = given.lead.start(parts).map_err(io("start dispatch"))?;
        Ok(Self {
            dispatch,
            bus,
            presenter,
            ready: is_ready,
            stop,
            commands,
            terminate,
            interrupt,
            hangup,
        })
    }

    async fn run(mut self) -> Result<(), Fatal> {
        let mut bus = self.bus.take();
        let mut waiting = true;
        let ended = loop {
            tokio::select! {
                ended = &mut self.dispatch => break ended,
                result = ended_bus(&mut bus) => {
                    // what can be served without a bus is served; only a bad address is our user's
                    let BusFailed(error) = result;
                    error!("bus: {error}; going on without it");
                    bus = None;
                }
                ready = &mut self.ready, if waiting => {
                    waiting = false;
                    if let Ok(ready) = ready {
                        systemd::ready(&ready);
                    }
                }
                _ = self.terminate.recv() => self.stop(),
                _ = self.interrupt.recv() => self.stop(),
                _ = self.hangup.recv() => self.reload(!waiting).await,
            }
        };
        self.stop();
        if let Some(presenter) = self.presenter.take() {
            drop(presenter.join());
        }
        match ended {
            Ok(result) => result.map_err(|error| Fatal::Io("hear the kernel", error)),
            Err(_) => Err(Fatal::Io("run dispatch", io::Error::other("it ended without a word"))),
        }
    }

    fn stop(&self) {
        systemd::stopping();
        self.stop.send_replace(true);
    }

    /// `is_ready`: before that, a READY for the reload would be one for the start.
    async fn reload(&self, is_ready: bool) {
        if is_ready {
            systemd::reloading();
        }
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Reload(reply)).await.is_ok() {
            // a dispatch that has ended is noticed by the loop
            drop(answer.await);
        }
        if is_ready {
            systemd::reloaded();
        }
    }
}

struct BusFailed(BusError);

async fn ended_bus(bus: &mut Option<oneshot::Receiver<Result<(), BusError>>>) -> BusFailed {
    loop {
        match bus {
            Some(end) => match end.await {
                Ok(Err(error)) => return BusFailed(error),
                Ok(Ok(())) | Err(_) => *bus = None,
            },
            None => std::future::pending().await,
        }
    }
}

/// What this build and mode can do, in words that stay.
fn features(mode: Mode) -> Vec<String> {
    let mut words = vec!["coldplug", "map", "modinfo", "modules", "policy", "grants"];
    if mode == Mode::Active {
        words.extend(["nodes", "links", "announce"]);
    }
    words.into_iter().map(ToOwned::to_owned).collect()
}

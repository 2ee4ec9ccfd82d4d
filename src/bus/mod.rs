//! Stage 9: the D-Bus service `org.mapdev1`.
//!
//! It runs on a thread of its own and talks to dispatch through two bounded channels only, so that
//! no event ever waits for the bus. "Who may call what" is in `polkit`, "what is there" in
//! `surface`; a call goes through `serve` (who is it) and `call` (may it) to the object's file.

pub mod accounts;
mod call;
mod charges;
mod device;
pub mod errors;
pub mod logs;
mod manager;
mod modules;
pub mod path;
pub mod polkit;
mod serve;
mod signals;
mod standard;
pub mod surface;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use zbus::{Address, Connection, connection};

pub use accounts::Accounts;
pub use charges::{PER_CALLER, PER_USER};
pub use logs::Log;
pub use signals::{EVENTS_PER_SECOND, SUBSCRIBERS_MAX};

use crate::dispatch::command::{Command, Notice};
use errors::Refusal;
use serve::End;

/// Our name on the bus.
pub const BUS_NAME: &str = "org.mapdev1";

/// The first and the longest pause between two attempts to reach the bus.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long the bus may take to let us in; it is on this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What the bus side has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusConfig {
    /// A D-Bus address; `None` is the system bus.
    pub address: Option<String>,
    /// Where the log goes, in the words of org.freedesktop.LogControl1(5).
    pub log_target: String,
    pub syslog_identifier: String,
    /// What this build and configuration can do, for `Features`.
    pub features: Vec<String>,
}

impl Default for BusConfig {
    fn default() -> Self {
        let (log_target, syslog_identifier) = ("console".to_owned(), "mapdevd".to_owned());
        Self { address: None, log_target, syslog_identifier, features: Vec::new() }
    }
}

/// What ends the bus side.
#[derive(Debug)]
pub enum BusError {
    /// The address is none.
    Address { address: String, source: zbus::Error },
    /// Dispatch took no more requests, or sent no more notices.
    DispatchGone,
    /// The thread's runtime could not be made.
    Runtime(io::Error),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, .. } => {
                write!(f, "wanted a D-Bus address such as unix:path=/run/bus, got '{address}'")
            }
            Self::DispatchGone => f.write_str("dispatch ended before the bus did"),
            Self::Runtime(_) => f.write_str("could not make the runtime of the bus"),
        }
    }
}

impl std::error::Error for BusError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { source, .. } => Some(source),
            Self::Runtime(source) => Some(source),
            Self::DispatchGone => None,
        }
    }
}

/// What every call may need.
#[derive(Debug)]
struct World {
    connection: Connection,
    commands: mpsc::Sender<Command>,
    config: Arc<BusConfig>,
    accounts: Arc<dyn Accounts>,
    log: Arc<dyn Log>,
    large: Arc<Semaphore>,
}

impl World {
    /// Leave to make an answer that tells of all devices: these are megabytes, made one at a time.
    async fn large(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.large.clone().acquire_owned().await.map_err(|_| Refusal::stopping())
    }
}

/// The D-Bus side of the daemon.
#[derive(Debug)]
pub struct Bus {
    config: Arc<BusConfig>,
    commands: mpsc::Sender<Command>,
    notices: mpsc::Receiver<Notice>,
    accounts: Arc<dyn Accounts>,
    log: Arc<dyn Log>,
}

impl Bus {
    #[must_use]
    pub fn new(
        config: BusConfig,
        commands: mpsc::Sender<Command>,
        notices: mpsc::Receiver<Notice>,
        accounts: Arc<dyn Accounts>,
        log: Arc<dyn Log>,
    ) -> Self {
        Self { config: Arc::new(config), commands, notices, accounts, log }
    }

    /// Runs on a thread of its own; what comes back is the end of it.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(
        self,
        stop: watch::Receiver<bool>,
    ) -> io::Result<oneshot::Receiver<Result<(), BusError>>> {
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("bus".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = match runtime {
                Ok(runtime) => runtime.block_on(self.run(stop)),
                Err(error) => Err(BusError::Runtime(error)),
            };
            // nobody waits for it any more when the daemon is already ending
            ended.send(result).ok();
        })?;
        Ok(end)
    }

    /// Connects when the bus appears, serves, and begins anew when the connection is lost.
    ///
    /// # Errors
    /// When the address is none, or dispatch ends before `stop`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), BusError> {
        let address = self.address()?;
        tokio::select! {
            // stopping comes first: dispatch ends at the same time
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            error = self.serve_for_ever(address) => Err(error),
        }
    }

    fn address(&self) -> Result<Option<Address>, BusError> {
        let Some(address) = &self.config.address else { return Ok(None) };
        let parsed = Address::try_from(address.as_str());
        let wrong = |source| BusError::Address { address: address.clone(), source };
        parsed.map(Some).map_err(wrong)
    }

    async fn serve_for_ever(&mut self, address: Option<Address>) -> BusError {
        let mut pause = PAUSES.0;
        let mut told = String::new();
        loop {
            let mut claimed = false;
            let ended = match self.connect(address.clone()).await {
                Err(End::DispatchGone) => return BusError::DispatchGone,
                Err(end) => end,
                Ok(connection) => self.serve(connection, &mut claimed).await,
            };
            let why = match ended {
                End::DispatchGone => return BusError::DispatchGone,
                End::NameTaken => format!("the name {BUS_NAME} belongs to somebody else"),
                End::Lost(why) => why,
            };
            if claimed {
                pause = PAUSES.0;
                told.clear();
            }
            // the same trouble every few seconds is one trouble
            if why != told {
                tracing::warn!("not on the bus, will try again: {why}");
                told = why;
            }
            if drained(&mut self.notices, tokio::time::sleep(pause)).await.is_none() {
                return BusError::DispatchGone;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(&mut self, address: Option<Address>) -> Result<Connection, End> {
        let builder = match address {
            Some(address) => connection::Builder::address(address),
            None => connection::Builder::system(),
        };
        let built = tokio::time::timeout(CONNECT_LIMIT, builder.build());
        match drained(&mut self.notices, built).await {
            None => Err(End::DispatchGone),
            Some(Ok(Ok(connection))) => Ok(connection),
            Some(Ok(Err(error))) => Err(End::Lost(error.to_string())),
            Some(Err(_)) => Err(End::Lost("the bus did not let us in in time".to_owned())),
        }
    }

    async fn serve(&mut self, connection: Connection, claimed: &mut bool) -> End {
        let world = World {
            connection,
            commands: self.commands.clone(),
            config: self.config.clone(),
            accounts: self.accounts.clone(),
            log: self.log.clone(),
            large: Arc::new(Semaphore::new(1)),
        };
        serve::serve(Arc::new(world), &mut self.notices, claimed).await
    }
}

/// Waits for `future` and drops what dispatch tells meanwhile; `None` if dispatch has ended.
async fn drained<F: Future>(notices: &mut mpsc::Receiver<Notice>, future: F) -> Option<F::Output> {
    tokio::pin!(future);
    loop {
        tokio::select! {
            output = &mut future => return Some(output),
            notice = notices.recv() => drop(notice?),
        }
    }
}

/// The introspection of our own interfaces, as it is checked in below `dbus/`.
#[must_use]
pub fn introspection() -> Vec<(&'static str, String)> {
    let own = [surface::MANAGER, surface::DEVICE, surface::MODULES];
    own.into_iter().map(|name| (name, surface::xml(&[name], &[]))).collect()
}

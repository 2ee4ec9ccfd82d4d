//! Stage 3d: a [`Device`] in, what its disk says of itself out, read by a process in a sandbox.
//!
//! A disk's contents are written by whoever made the disk, and reading them may take for ever. So
//! `mapdev-probe` reads them, which can do nothing else; the one who asks waits for a limited time.

mod asking;
mod facts;
mod helper;
pub mod protocol;

use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::asking::{Kept, Patience, Task};
use self::protocol::{Found, Question, Refusal};

use crate::config::Config;
use crate::device::Device;
use crate::exec::Pause;

/// Where a package puts the helper.
const INSTALLED: &str = "/usr/lib/mapdev/mapdev-probe";

/// Helpers at one time, of all clones: one for each that asks, the rest for those that do not end.
const HELPERS_MAX: usize = 64;

/// Why nothing is known of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The device has no node that can be opened.
    NoNode(String),
    /// What is at the node's place is not there, or is not the device: it comes or goes just now.
    Absent(String),
    /// libblkid gave no finding.
    Refused(Refusal),
    /// Neither the device nor its contents answered in time; who read it was ended.
    TimeUp(Duration),
    /// The helper died of it, twice if it had read other disks before.
    Died(String),
    /// No helper can be had.
    NoHelper(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode(what) | Self::Absent(what) => {
                write!(f, "the device cannot be opened: {what}")
            }
            Self::Refused(Refusal::Hint) => write!(f, "libblkid knows no such hint"),
            Self::Refused(Refusal::Device) => write!(f, "libblkid cannot use the device"),
            Self::Refused(Refusal::Contents) => {
                write!(f, "the device cannot be read, or there is more than one thing on it")
            }
            Self::TimeUp(limit) => {
                write!(f, "the disk did not answer within {limit:?}; its probe was ended")
            }
            Self::Died(what) => write!(f, "the probe died of the disk: {what}"),
            Self::NoHelper(what) => write!(f, "no probe: {what}"),
        }
    }
}

/// Asks a helper about disks, and keeps it for the next question. Clones have helpers in common, so that
/// there are no more than were ever asked at once.
#[derive(Clone, Debug)]
pub struct Probe {
    program: Arc<Path>,
    dev: Arc<Path>,
    limit: Duration,
    /// When the time of the event at hand is up.
    until: Cell<Option<Instant>>,
    /// Who is told when a disk lets one wait.
    pause: Option<Arc<dyn Pause>>,
    /// Helpers that have nothing to do.
    idle: Arc<Mutex<Vec<Kept>>>,
    /// Counts the helpers of all clones, also those that nobody waits for any more.
    helpers: Arc<AtomicUsize>,
}

impl Default for Probe {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}

impl Probe {
    /// `program` is the helper, `dev` the folder of nodes, `limit` what one question may take.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, dev: impl Into<PathBuf>, limit: Duration) -> Self {
        let (program, dev) = (program.into().into(), dev.into().into());
        Self {
            program,
            dev,
            limit,
            until: Cell::default(),
            pause: None,
            idle: Arc::default(),
            helpers: Arc::default(),
        }
    }

    /// As the daemon's configuration has it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let program = config.probe.clone().unwrap_or_else(Self::program);
        Self::new(program, &config.dev, Duration::from_secs(config.probe_timeout))
    }

    /// The helper beside the program that runs, or else the one that a package installs.
    #[must_use]
    fn program() -> PathBuf {
        let beside = std::env::current_exe().ok();
        let beside = beside.and_then(|path| Some(path.parent()?.join("mapdev-probe")));
        beside.filter(|path| path.is_file()).unwrap_or_else(|| INSTALLED.into())
    }

    /// With somebody who is told when a disk lets one wait.
    #[must_use]
    pub fn with_pause(self, pause: Arc<dyn Pause>) -> Self {
        Self { pause: Some(pause), ..self }
    }

    /// Questions get no reply after this.
    pub fn until(&self, end: Instant) {
        self.until.set(Some(end));
    }

    /// Has the device's contents looked at; waits no longer than the limit, unless the kernel
    /// does not let go of who opens it. `question` needs no facts.
    ///
    /// # Errors
    /// When nothing was found out; that there is nothing on it is a finding.
    pub fn ask(&self, device: &Device, question: Question) -> Result<Found, Failed> {
        let task = Task::new(device, &self.dev, question)?;
        let left = self.until.get().map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.limit, |left| left.min(self.limit));
        let patience = Patience { limit, pause: self.pause.as_deref() };
        let mut kept = self.idle().pop();
        let answer = asking::ask(task, &self.program, &mut kept, &|| self.count(), patience);
        self.idle().extend(kept);
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> Result<Counted, Failed> {
        let counted = Counted(self.helpers.clone());
        match self.helpers.fetch_add(1, Ordering::Relaxed) < HELPERS_MAX {
            true => Ok(counted),
            false => Err(Failed::NoHelper(format!("{HELPERS_MAX} disks do not answer already"))),
        }
    }
}

/// One of [`HELPERS_MAX`], until it is dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

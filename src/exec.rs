//! Stage 3c: runs a program without a shell: words and environment in, what it said and its end out.
//!
//! A program has `/dev/null` to read from, a process group of its own and a time limit. Who waits for one
//! tells so first, and others do his work meanwhile.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::read;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process_group, pidfd_open, setrlimit,
};
use tracing::{debug, warn};

use crate::config::{Config, EVENT_TIME};

/// Where a name without a slash in front is looked for.
pub const FOLDER: &str = "/usr/lib/udev";

/// What a program says counts up to here, as in udev; the rest is read and thrown away.
pub const OUTPUT_MAX: usize = 16383;

/// A line of a program's messages is logged up to here.
const LINE_MAX: usize = 1024;

/// How long a program may take to end when it was told to, before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Who waits for less than this keeps his place: a thread in it would cost more.
pub const SHORT: Duration = Duration::from_millis(5);

/// Where the sets of select(2) end (`FD_SETSIZE`): more descriptors than that a program must ask for.
const DESCRIPTORS: u64 = 1024;

/// Read from a pipe at once.
const PIECE: usize = 4096;

/// Is told when a thread waits for a program and when it is back.
pub trait Pause: fmt::Debug + Send + Sync {
    fn begin(&self);
    fn end(&self);
}

/// How programs are run.
#[derive(Clone, Debug)]
pub struct Programs {
    pub folder: PathBuf,
    /// For an event as a whole.
    pub time: Duration,
    /// What a program gets when its time is up; whatever that does, it is killed soon after.
    pub signal: Signal,
    pub pause: Option<Arc<dyn Pause>>,
}

impl Default for Programs {
    fn default() -> Self {
        Self { folder: FOLDER.into(), time: EVENT_TIME, signal: Signal::KILL, pause: None }
    }
}

/// A program to be run.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The first names the program.
    pub words: &'a [Vec<u8>],
    /// All that it gets.
    pub environment: &'a [(Vec<u8>, Vec<u8>)],
    /// Who wants it, for messages: a rule's file and line.
    pub by: &'a str,
    /// When the event's time is up.
    pub until: Instant,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// By this signal, which was not ours.
    Killed(i32),
    /// It was ended with its process group, after so long.
    TimeUp(Duration),
    CannotRun(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::TimeUp(after) => {
                write!(f, "not done after {} s, ended with its process group", after.as_secs_f32())
            }
            Self::CannotRun(why) => write!(f, "cannot be run: {why}"),
        }
    }
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub outcome: Outcome,
    pub stdout: Vec<u8>,
}

impl Said {
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }

    fn nothing(outcome: Outcome) -> Self {
        Self { outcome, stdout: Vec::new() }
    }
}

impl From<&Config> for Programs {
    fn from(config: &Config) -> Self {
        let (time, signal) = (config.event_timeout, config.timeout_signal);
        Self { time, signal, ..Self::default() }
    }
}

impl Programs {
    /// Runs a program and waits for its end, or until time is up.
    #[must_use]
    pub fn run(&self, task: &Task<'_>) -> Said {
        let limit = task.until.saturating_duration_since(Instant::now());
        if limit.is_zero() {
            return Said::nothing(Outcome::TimeUp(Duration::ZERO));
        }
        self.wait(task, limit)
            .unwrap_or_else(|error| Said::nothing(Outcome::CannotRun(error.to_string())))
    }

    fn spawn(&self, task: &Task<'_>) -> io::Result<Child> {
        let name = task.words.first().ok_or(ErrorKind::InvalidInput)?;
        let mut command = Command::new(self.folder.join(OsStr::from_bytes(name)));
        command.args(task.words[1..].iter().map(|word| OsStr::from_bytes(word)));
        let pair = |(key, value): &'_ (Vec<u8>, Vec<u8>)| {
            (OsStr::from_bytes(key).to_owned(), OsStr::from_bytes(value).to_owned())
        };
        command.env_clear().envs(task.environment.iter().map(pair)).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        limit_descriptors(&mut command);
        // a group of its own, so that its children end with it
        command.process_group(0).spawn()
    }

    fn wait(&self, task: &Task<'_>, limit: Duration) -> io::Result<Said> {
        let mut child = self.spawn(task)?;
        let pid = Pid::from_child(&child);
        let watched = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let heard = watched.and_then(|pidfd| Ok((Ears::new(&mut child)?, pidfd)));
        let (mut ears, pidfd) = match heard {
            Ok(heard) => heard,
            Err(error) => {
                kill_process_group(pid, Signal::KILL)?;
                child.wait()?;
                return Err(error);
            }
        };
        let begun = Instant::now();
        let third = limit / 3;
        let mut ended = ears.until_end(&pidfd, begun + third.min(SHORT), task)?;
        let _waiting = self.pause.as_deref().filter(|_| !ended).map(Waiting::begin);
        if !ended {
            ended = ears.until_end(&pidfd, begun + third, task)?;
        }
        if !ended {
            let name = shown(task);
            warn!("{}: `{name}` runs for {} s already", task.by, third.as_secs_f32());
            ended = ears.until_end(&pidfd, begun + limit, task)?;
        }
        if !ended {
            self.end(child, pid, &pidfd);
            return Ok(Said { outcome: Outcome::TimeUp(limit), stdout: ears.said });
        }
        let status = child.wait()?;
        let outcome = match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited(code),
            (None, signal) => Outcome::Killed(signal.unwrap_or(0)),
        };
        Ok(Said { outcome, stdout: ears.said })
    }

    /// Ends a program with its group: as is configured, then for good.
    fn end(&self, mut child: Child, pid: Pid, pidfd: &OwnedFd) {
        let tell = |signal| {
            if let Err(error) = kill_process_group(pid, signal) {
                warn!("cannot end the process group {pid}: {error}");
            }
        };
        if self.signal != Signal::KILL {
            tell(self.signal);
            tell(Signal::CONT);
            ends_within(pidfd, GRACE);
        }
        tell(Signal::KILL);
        if ends_within(pidfd, GRACE) {
            drop(child.wait());
        } else if let Err(error) =
            thread::Builder::new().name("reaper".to_owned()).spawn(move || drop(child.wait()))
        {
            // one that sleeps in the kernel stays a zombie when it wakes
            warn!("nobody waits for process {pid}: {error}");
        }
    }
}

/// Gives the program the soft limit of descriptors that programs are written for, where ours is higher; it
/// may raise it again.
///
/// With this the child is forked, and the C library's exec has a shell read what the kernel cannot run, which
/// its spawn does not. So what is run by binfmt_misc keeps our limit.
#[expect(unsafe_code, reason = "only the child can set its limit before the program begins")]
fn limit_descriptors(command: &mut Command) {
    let ours = getrlimit(Resource::Nofile);
    let fits = ours.current.is_some_and(|current| current <= DESCRIPTORS);
    if fits || !is_runnable(Path::new(command.get_program())) {
        return;
    }
    let set = move || {
        let limit = Rlimit { current: Some(DESCRIPTORS), maximum: ours.maximum };
        Ok(setrlimit(Resource::Nofile, limit)?)
    };
    // SAFETY: between fork and exec the child makes this one system call; it allocates and locks nothing.
    unsafe { command.pre_exec(set) };
}

/// Whether a file begins as what the kernel runs by itself: ELF, or a script that names its interpreter.
fn is_runnable(program: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut head = [0; 4];
    let read = open(program, flags, Mode::empty()).and_then(|file| read(file, &mut head));
    read.is_ok() && (head == *b"\x7fELF" || head.starts_with(b"#!"))
}

/// The time in which a thread waits for others.
#[derive(Debug)]
pub struct Waiting<'a>(&'a dyn Pause);

impl<'a> Waiting<'a> {
    pub fn begin(pause: &'a dyn Pause) -> Self {
        pause.begin();
        Self(pause)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Splits no words: what stands in a message for a program.
fn shown(task: &Task<'_>) -> String {
    let name = task.words.first().map(Vec::as_slice).unwrap_or_default();
    name.escape_ascii().to_string()
}

fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(rustix::io::retry_on_intr(|| poll(&mut ended, limit.as_ref())), Ok(1))
}

/// The ends of a program's pipes, and what came out of them.
struct Ears {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    said: Vec<u8>,
    cut: bool,
    /// A line of stderr that is not complete yet.
    line: Vec<u8>,
}

impl Ears {
    fn new(child: &mut Child) -> io::Result<Self> {
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for fd in [&stdout, &stderr].into_iter().flatten() {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { stdout, stderr, said: Vec::new(), cut: false, line: Vec::new() })
    }

    /// Listens until the program ends, or `until`; whether it ended.
    fn until_end(&mut self, pidfd: &OwnedFd, until: Instant, task: &Task<'_>) -> io::Result<bool> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).ok();
            let fds = [Some(pidfd.as_fd()), self.stdout.as_ref().map(AsFd::as_fd)];
            let fds = fds.into_iter().chain([self.stderr.as_ref().map(AsFd::as_fd)]).flatten();
            let mut polled: Vec<PollFd<'_>> =
                fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let ready = rustix::io::retry_on_intr(|| poll(&mut polled, limit.as_ref()))?;
            if ready == 0 {
                return Ok(false);
            }
            let ended = polled.first().is_some_and(|pidfd| !pidfd.revents().is_empty());
            drop(polled);
            if ended {
                // what a pipe holds is the program's; what children may add to it is not waited for
                while self.hear(task) {}
                self.log_line(task);
                return Ok(true);
            }
            self.hear(task);
        }
    }

    /// Takes a piece from each pipe; whether there may be more that counts.
    fn hear(&mut self, task: &Task<'_>) -> bool {
        let mut piece = [0; PIECE];
        let mut more = false;
        if let Some(count) = piece_of(&mut self.stdout, &mut piece) {
            let room = OUTPUT_MAX - self.said.len();
            self.said.extend_from_slice(&piece[..count.min(room)]);
            if count > room && !self.cut {
                self.cut = true;
                warn!("{}: `{}` says more than {OUTPUT_MAX} bytes", task.by, shown(task));
            }
            more |= !self.cut;
        }
        if let Some(count) = piece_of(&mut self.stderr, &mut piece) {
            for part in piece[..count].split_inclusive(|byte| *byte == b'\n') {
                let room = LINE_MAX - self.line.len().min(LINE_MAX);
                self.line.extend_from_slice(&part[..part.len().min(room)]);
                if part.ends_with(b"\n") {
                    self.log_line(task);
                }
            }
        }
        more
    }

    fn log_line(&mut self, task: &Task<'_>) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            debug!("{}: `{}`: {}", task.by, shown(task), line.escape_ascii());
        }
    }
}

/// How much was read; `None` if nothing is there. A pipe that nobody writes to any more is closed.
fn piece_of(pipe: &mut Option<OwnedFd>, piece: &mut [u8]) -> Option<usize> {
    let fd: BorrowedFd<'_> = pipe.as_ref()?.as_fd();
    match rustix::io::retry_on_intr(|| read(fd, &mut *piece)) {
        Ok(count) if count > 0 => Some(count),
        Err(rustix::io::Errno::AGAIN) => None,
        Ok(_) | Err(_) => {
            *pipe = None;
            None
        }
    }
}

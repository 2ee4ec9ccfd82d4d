//! Stage 3d: a thread that opens disks and waits for a helper, so that nobody else is stuck with one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};

use super::facts::{Disk, Facts};
use super::helper::{Helper, Silence};
use super::protocol::{Fact, Found, Question, Reply};
use super::{Counted, Failed};
use crate::device::Device;
use crate::exec::{Pause, SHORT, Waiting};

/// How much longer the one who asks waits than the thread, whose word is the better one.
const GRACE: Duration = Duration::from_secs(1);

/// What is to be opened and asked.
#[derive(Debug)]
pub(super) struct Task {
    dev: PathBuf,
    device: Disk,
    disk: Option<Disk>,
    slaves: Option<PathBuf>,
    question: Question,
}

impl Task {
    pub(super) fn new(device: &Device, dev: &Path, question: Question) -> Result<Self, Failed> {
        let node = device.devname().zip(device.devnum().filter(|number| number.block));
        let Some((name, number)) = node else {
            return Err(Failed::NoNode("it is no block device".to_owned()));
        };
        let node = Disk { name: name.to_vec(), major: number.major, minor: number.minor };
        let Facts { facts, disk, slaves } = Facts::of(device);
        let question = Question { facts, ..question };
        Ok(Self { dev: dev.to_owned(), device: node, disk, slaves, question })
    }

    /// Opens what the helper gets. Without the whole disk, it does not hear of it.
    fn open(&mut self) -> Result<Vec<File>, Failed> {
        let device = open_node(&self.dev, &self.device);
        let mut files = vec![device.map_err(|error| Failed::NoNode(error.to_string()))?];
        files.extend(self.disk.as_ref().and_then(|disk| open_node(&self.dev, disk).ok()));
        if files.len() == 2 {
            files.extend(self.slaves.as_ref().and_then(|path| File::open(path).ok()));
        }
        let sent = |fact: &Fact| match fact {
            Fact::Descriptor(place) => usize::from(*place) < files.len(),
            Fact::Folder | Fact::Link(_) | Fact::File(_) => true,
        };
        self.question.facts.retain(|(_, fact)| sent(fact));
        Ok(files)
    }
}

fn open_node(dev: &Path, disk: &Disk) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = dev.join(OsStr::from_bytes(&disk.name));
    let file = File::from(open(path, flags | OFlags::NOFOLLOW, Mode::empty())?);
    let stat = fstat(&file)?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if block && number == (disk.major, disk.minor) {
        Ok(file)
    } else {
        Err(io::Error::other("the node is another device's"))
    }
}

/// A thread with its helper, as seen by the one who asks.
#[derive(Debug)]
pub(super) struct Slot {
    tasks: Sender<(Task, Duration)>,
    answers: Receiver<(Result<Found, Failed>, bool)>,
}

impl Slot {
    pub(super) fn start(program: Arc<Path>, counted: Counted) -> io::Result<Self> {
        // one at a time: the next is asked when the last was answered
        let (tasks, inbox) = bounded(1);
        let (outbox, answers) = bounded(1);
        let work = move || {
            let _counted = counted;
            work(&program, &inbox, &outbox);
        };
        thread::Builder::new().name("probe".to_owned()).spawn(work)?;
        Ok(Self { tasks, answers })
    }

    /// The answer, and the slot if it can be used again.
    pub(super) fn ask(
        self,
        task: Task,
        limit: Duration,
        pause: Option<&dyn Pause>,
    ) -> (Result<Found, Failed>, Option<Self>) {
        let answer = match self.tasks.send((task, limit)) {
            Ok(()) => self.answers.recv_timeout(SHORT).or_else(|_| {
                let _waiting = pause.map(Waiting::begin);
                self.answers.recv_timeout(limit + GRACE)
            }),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let answer = answer.ok();
        match answer {
            Some((answer, goes_on)) => (answer, goes_on.then_some(self)),
            // in the kernel, opening the device; the thread ends when that does
            None => (Err(Failed::TimeUp(limit)), None),
        }
    }
}

/// Ends with the slot, or after a helper that had to be ended: that may take as long as the disk does.
fn work(
    program: &Path,
    inbox: &Receiver<(Task, Duration)>,
    outbox: &Sender<(Result<Found, Failed>, bool)>,
) {
    let mut kept: Option<Helper> = None;
    while let Ok((mut task, limit)) = inbox.recv() {
        let end = Instant::now() + limit;
        let answer = task.open().and_then(|files| {
            let packet = task.question.encode();
            if !task.question.is_within_limits() {
                return Err(Failed::NoNode("more is known of it than a helper hears".to_owned()));
            }
            ask(program, &mut kept, &packet, &files, end, limit)
        });
        let goes_on = !matches!(answer, Err(Failed::TimeUp(_)));
        if outbox.send((answer, goes_on)).is_err() || !goes_on {
            return;
        }
    }
}

/// Asks the helper, a new one if need be. One that died may have done so of an earlier disk.
fn ask(
    program: &Path,
    kept: &mut Option<Helper>,
    packet: &[u8],
    files: &[File],
    end: Instant,
    limit: Duration,
) -> Result<Found, Failed> {
    loop {
        let mut helper = match kept.take() {
            Some(helper) => helper,
            None => Helper::start(program, end).map_err(|silence| match silence {
                Silence::TimeUp => Failed::TimeUp(limit),
                Silence::NoStart(what) | Silence::Died(what) => Failed::NoHelper(what),
            })?,
        };
        let fresh = helper.asked == 0;
        match helper.ask(packet, files, end) {
            Ok(Reply::Found(found)) => {
                *kept = Some(helper);
                return Ok(found);
            }
            Ok(Reply::Refused(refusal)) => {
                *kept = Some(helper);
                return Err(Failed::Refused(refusal));
            }
            Ok(Reply::Ready) => {
                return Err(Failed::Died("it does not keep to the protocol".into()));
            }
            Err(Silence::TimeUp) => {
                // dropped when the answer has been given
                *kept = Some(helper);
                return Err(Failed::TimeUp(limit));
            }
            Err(Silence::NoStart(what)) => return Err(Failed::NoHelper(what)),
            Err(Silence::Died(what)) if fresh => return Err(Failed::Died(what)),
            Err(Silence::Died(_)) => {}
        }
    }
}

//! Stage 3d: one question: what is opened for it, and which helper is asked.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::io::Errno;
use tracing::warn;

use super::facts::{Disk, Facts};
use super::helper::{Helper, Silence};
use super::protocol::{Fact, Found, Question, Reply};
use super::{Counted, Failed};
use crate::device::Device;
use crate::exec::Pause;

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
        let mut files = vec![device?];
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

fn open_node(dev: &Path, disk: &Disk) -> Result<File, Failed> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = dev.join(OsStr::from_bytes(&disk.name));
    let failed = |error: Errno| {
        let absent = matches!(error, Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::LOOP);
        let failed = if absent { Failed::Absent } else { Failed::NoNode };
        failed(error.to_string())
    };
    let file = open(path, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let stat = fstat(&file).map_err(failed)?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if block && number == (disk.major, disk.minor) {
        Ok(File::from(file))
    } else {
        Err(Failed::Absent("the node is another device's".to_owned()))
    }
}

/// How long the one who asks waits, and who is told when that is long.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) limit: Duration,
    pub(super) pause: Option<&'a dyn Pause>,
}

/// A helper that counts as one of those there may be.
#[derive(Debug)]
pub(super) struct Kept {
    helper: Helper,
    _counted: Counted,
}

/// Opens what is to be looked at and asks the helper, a new one if need be; that is kept for the next
/// question. One that died may have done so of an earlier disk.
pub(super) fn ask(
    mut task: Task,
    program: &Path,
    kept: &mut Option<Kept>,
    counted: &dyn Fn() -> Result<Counted, Failed>,
    patience: Patience<'_>,
) -> Result<Found, Failed> {
    let Patience { limit, pause } = patience;
    let end = Instant::now() + limit;
    let files = task.open()?;
    let packet = task.question.encode();
    if !task.question.is_within_limits() {
        return Err(Failed::NoNode("more is known of it than a helper hears".to_owned()));
    }
    loop {
        let mut asked = match kept.take() {
            Some(asked) => asked,
            None => {
                let _counted = counted()?;
                let helper =
                    Helper::start(program, end, pause).map_err(|silence| match silence {
                        Silence::TimeUp => Failed::TimeUp(limit),
                        Silence::NoStart(what) | Silence::Died(what) => Failed::NoHelper(what),
                    })?;
                Kept { helper, _counted }
            }
        };
        let fresh = asked.helper.asked == 0;
        match asked.helper.ask(&packet, &files, end, pause) {
            Ok(Reply::Found(found)) => {
                *kept = Some(asked);
                return Ok(found);
            }
            Ok(Reply::Refused(refusal)) => {
                *kept = Some(asked);
                return Err(Failed::Refused(refusal));
            }
            Ok(Reply::Ready) => {
                return Err(Failed::Died("it does not keep to the protocol".into()));
            }
            Err(Silence::TimeUp) => {
                end_elsewhere(asked, files);
                return Err(Failed::TimeUp(limit));
            }
            Err(Silence::NoStart(what)) => return Err(Failed::NoHelper(what)),
            Err(Silence::Died(what)) if fresh => return Err(Failed::Died(what)),
            Err(Silence::Died(_)) => {}
        }
    }
}

/// A helper whose disk does not answer ends when the disk does, and closing the disk may take as long.
fn end_elsewhere(asked: Kept, files: Vec<File>) {
    let ended = thread::Builder::new().name("probe".to_owned()).spawn(move || {
        drop(asked);
        drop(files);
    });
    if let Err(error) = ended {
        warn!("no thread to end a probe in: {error}");
    }
}

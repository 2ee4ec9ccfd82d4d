//! Stage 6b: mapdevfs in the place of devtmpfs on /dev, and back, without losing what userspace made.
//!
//! The other one is made ready where nobody sees it, shows all that is mounted on the first as well,
//! and is laid over it by one system call: whoever kills us leaves one or the other, whole. What was
//! there stays beneath. The way back takes the upper one off, or lays another one over it if mounts
//! came or went meanwhile. Open files, folders and watches stay with what they were opened on.

mod carry;
pub mod inherit;
pub mod mounts;
mod plan;
mod stage;
mod survey;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carry::Carried;
use mounts::Mount;
use plan::{Facts, Plan, plan};
use stage::{LOCK, Stage, Turn, bare, take_off};
use survey::{Survey, survey};

/// How long another switch may be under way, and a device missing in the map, before the switch is refused:
/// where somebody else than the caller makes it, and publishes the map.
pub const AWAIT: Duration = Duration::from_secs(3);

/// How often it is looked; nothing tells of either.
const LOOK: Duration = Duration::from_millis(20);

/// How many names are listed that cannot be carried; the rest is counted.
const LISTED: usize = 20;

/// What is to be seen on /dev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Map,
    Devtmpfs,
}

impl Wanted {
    fn kind(self) -> &'static str {
        match self {
            Self::Map => crate::map::shim::FILE_SYSTEM,
            Self::Devtmpfs => "devtmpfs",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Map => Self::Devtmpfs,
            Self::Devtmpfs => Self::Map,
        }
    }
}

/// What a switch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// False if it was so already.
    pub switched: bool,
    /// Names that were made, copied, removed or given other attributes.
    pub carried: usize,
    /// File systems, sockets, pipes and open files that are mounted in the new one.
    pub mounted: usize,
    /// What came at the last moment and could not be carried any more.
    pub late: Vec<String>,
}

/// Why there was no switch; /dev is as it was.
#[derive(Debug)]
pub enum Refused {
    /// What was tried, and how it failed.
    Io(&'static str, io::Error),
    /// Somebody else makes one.
    Busy,
    /// What cannot be carried.
    Cannot(Vec<String>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Busy => write!(
                f,
                "another switch is under way; try again when it has ended (`fuser -v {LOCK}` shows who makes it)"
            ),
            Self::Cannot(what) => write!(f, "cannot be carried: {}", what.join("; ")),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Busy | Self::Cannot(_) => None,
        }
    }
}

/// A list that somebody can read.
fn shortened(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(LISTED);
    if more > 0 {
        names.truncate(LISTED);
        names.push(format!("and {more} more"));
    }
    names
}

/// Makes `wanted` what is seen on `dev`, in this process's mount namespace and those that follow it; waits
/// with `patience` for the end of another switch, and for devices that the map has not yet.
///
/// # Errors
/// When something cannot be carried, or the system refuses; then nothing was changed.
pub fn switch(
    dev: &Path,
    sysfs: &Path,
    wanted: Wanted,
    patience: Duration,
) -> Result<Done, Refused> {
    let failed = |what| move |error| Refused::Io(what, error);
    let lock_out = failed("lock out others");
    let turn = Turn::ask().map_err(&lock_out)?;
    if !look(patience, || turn.has_come(), |come| *come).map_err(lock_out)? {
        return Err(Refused::Busy);
    }
    // what another switch changes is read after it
    let mounts = mounts::read().map_err(failed("read the mounts"))?;
    let Some(seen) = mounts::top(&mounts, dev) else {
        return Err(Refused::Cannot(vec![format!("{} is no mount", dev.display())]));
    };
    if seen.kind == wanted.kind().as_bytes() {
        return Ok(Done::default());
    }
    if seen.kind != wanted.other().kind().as_bytes() {
        let kind = seen.kind.escape_ascii();
        let (dev, other) = (dev.display(), wanted.other().kind());
        return Err(Refused::Cannot(vec![format!("{dev} is {kind}, where {other} was wanted")]));
    }
    let stage = Stage::new(turn, wanted.kind(), dev);
    let stage = stage.map_err(failed("prepare the other file system"))?;
    let mut switch = Switch::new(dev, sysfs, wanted, &mounts, seen, &stage)?;
    switch.prepare(patience)?;
    if switch.is_ready_beneath() {
        take_off(dev).map_err(failed("take off what is mounted"))?;
    } else {
        switch.show_mounts(&stage)?;
        stage.take_place(dev).map_err(failed("mount over it"))?;
    }
    switch.catch_up();
    Ok(switch.done)
}

/// Looks until it is as it should be, or patience ends; gives what was seen last.
fn look<T>(
    patience: Duration,
    mut at: impl FnMut() -> io::Result<T>,
    is_so: impl Fn(&T) -> bool,
) -> io::Result<T> {
    let started = Instant::now();
    loop {
        let seen = at()?;
        if is_so(&seen) || started.elapsed() >= patience {
            return Ok(seen);
        }
        std::thread::sleep(LOOK);
    }
}

/// A mount as it is wanted: file system, what of it, and where.
type Standing = (Vec<u8>, PathBuf, Vec<u8>);

struct Switch<'a> {
    dev: &'a Path,
    sysfs: &'a Path,
    wanted: Wanted,
    all: &'a [Mount],
    seen: &'a Mount,
    /// The two file systems, and nothing that is mounted on them.
    from: OwnedFd,
    to: OwnedFd,
    /// By name below /dev.
    standing: BTreeMap<Vec<u8>, &'a Mount>,
    /// Names that are shown by a mount, which only there work as before.
    objects: BTreeSet<Vec<u8>>,
    before: Survey,
    done: Done,
}

impl<'a> Switch<'a> {
    fn new(
        dev: &'a Path,
        sysfs: &'a Path,
        wanted: Wanted,
        all: &'a [Mount],
        seen: &'a Mount,
        stage: &Stage,
    ) -> Result<Self, Refused> {
        let open = |path: &Path| bare(path).map_err(|error| Refused::Io("look into it", error));
        let (from, to) = (open(dev)?, open(stage.place())?);
        let of_target = mounts::read().unwrap_or_default();
        let target = mounts::top(&of_target, stage.place()).map(|mount| mount.device.clone());
        let name = |mount: &Mount| {
            mount.place.strip_prefix(dev).map(|path| path.as_os_str().as_bytes().to_vec())
        };
        let standing = mounts::on(all, seen).filter_map(|mount| Some((name(mount).ok()?, mount)));
        // what is mounted from the target's own name is there without a mount
        let own = |path: &[u8], mount: &Mount| {
            Some(&mount.device) == target.as_ref()
                && mount.root.as_os_str().as_bytes().strip_prefix(b"/") == Some(path)
        };
        let mut kept: BTreeMap<Vec<u8>, &Mount> = BTreeMap::new();
        for (path, mount) in standing.collect::<BTreeMap<_, _>>() {
            // one below another is hidden, or comes with it
            let hidden = kept.keys().any(|other| {
                path.strip_prefix(&**other).is_some_and(|rest| rest.starts_with(b"/"))
            });
            if !hidden && !own(&path, mount) {
                kept.insert(path, mount);
            }
        }
        let automatic = kept.iter().filter(|(_, mount)| mount.kind == b"autofs");
        let automatic: Vec<String> = automatic
            .map(|(path, _)| format!("{}: an automatic mount", path.escape_ascii()))
            .collect();
        if !automatic.is_empty() {
            return Err(Refused::Cannot(automatic));
        }
        Ok(Self {
            dev,
            sysfs,
            wanted,
            all,
            seen,
            from,
            to,
            standing: kept,
            objects: BTreeSet::new(),
            before: Survey::new(),
            done: Done { switched: true, ..Done::default() },
        })
    }

    /// Makes in the other file system what it lacks.
    fn prepare(&mut self, patience: Duration) -> Result<(), Refused> {
        let planned = look(patience, || self.plan(), |planned| planned.awaited.is_empty());
        let planned = planned.map_err(|error| Refused::Io("look at the names", error))?;
        let mut problems = planned.problems;
        problems.extend(planned.awaited.iter().map(|path| {
            format!("{}: the map has no such device; is mapdevd running?", path.escape_ascii())
        }));
        if problems.is_empty() {
            problems = self.carry(&planned.steps);
        }
        if problems.is_empty() { Ok(()) } else { Err(Refused::Cannot(shortened(problems))) }
    }

    fn plan(&mut self) -> io::Result<Plan> {
        self.before = survey(self.from.as_fd())?;
        let to = survey(self.to.as_fd())?;
        Ok(self.planned(&self.before, to, self.wanted == Wanted::Devtmpfs))
    }

    fn planned(&self, from: &Survey, mut to: Survey, clean: bool) -> Plan {
        xattrs::settle_labels((self.from.as_fd(), from), (self.to.as_fd(), &mut to));
        let folder = |path: &Vec<u8>| {
            self.before.get(path).is_none_or(|found| found.what == survey::What::Folder)
        };
        let places = mounts::on(self.all, self.seen).filter_map(|mount| {
            let path = mount.place.strip_prefix(self.dev).ok()?.as_os_str().as_bytes().to_vec();
            let folder = folder(&path);
            Some((path, folder))
        });
        let facts = Facts {
            mounts: &places.collect(),
            mounted: &self.objects,
            is_device: &|name, block, number| is_device(self.sysfs, name, block, number),
            to_map: self.wanted == Wanted::Map,
            clean,
        };
        plan(from, &to, &facts)
    }

    /// Does the steps, all of them, and tells which failed.
    fn carry(&mut self, steps: &[(Vec<u8>, plan::Step)]) -> Vec<String> {
        let mut problems = Vec::new();
        for (path, step) in steps {
            match carry::step(self.from.as_fd(), self.to.as_fd(), path, step) {
                Ok(Carried::Done) => self.done.carried += 1,
                Ok(Carried::Mount) => {
                    self.objects.insert(path.clone());
                }
                Err(error) => problems.push(format!("{}: {error}", path.escape_ascii())),
            }
        }
        problems
    }

    /// What has to stand on the other one.
    fn wanted_mounts(&self) -> BTreeSet<Standing> {
        let object = |path: &Vec<u8>| {
            let root = Path::new("/").join(OsStr::from_bytes(path));
            (self.seen.device.clone(), root, path.clone())
        };
        let mounts = self.standing.iter();
        let mounts =
            mounts.map(|(path, mount)| (mount.device.clone(), mount.root.clone(), path.clone()));
        mounts.chain(self.objects.iter().map(object)).collect()
    }

    /// Whether beneath is such a file system, with just the mounts that are wanted.
    fn is_ready_beneath(&self) -> bool {
        let beneath = mounts::beneath(self.all, self.seen);
        let beneath = beneath.filter(|mount| mount.kind == self.wanted.kind().as_bytes());
        beneath.is_some_and(|beneath| {
            let standing = mounts::on(self.all, beneath).filter_map(|mount| {
                let path = mount.place.strip_prefix(self.dev).ok()?.as_os_str().as_bytes();
                Some((mount.device.clone(), mount.root.clone(), path.to_vec()))
            });
            standing.collect::<BTreeSet<_>>() == self.wanted_mounts()
        })
    }

    fn show_mounts(&mut self, stage: &Stage) -> Result<(), Refused> {
        let mut problems = Vec::new();
        for path in self.standing.keys().chain(&self.objects) {
            let name = Path::new(OsStr::from_bytes(path));
            match stage.show(&self.dev.join(name), name) {
                Ok(()) => self.done.mounted += 1,
                Err(error) => problems.push(format!("{}: {error}", path.escape_ascii())),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Refused::Cannot(shortened(problems))) }
    }

    /// Carries what was made in the old one while the new one was prepared.
    fn catch_up(&mut self) {
        let Ok((from, to)) = survey(self.from.as_fd())
            .and_then(|from| Ok((from, survey(self.to.as_fd())?)))
            .inspect_err(|error| self.done.late.push(format!("what came last: {error}")))
        else {
            return;
        };
        let news: Survey =
            from.into_iter().filter(|(path, now)| self.before.get(path) != Some(now)).collect();
        let objects = self.objects.clone();
        let planned = self.planned(&news, to, false);
        let failed = self.carry(&planned.steps);
        let unmounted = self.objects.difference(&objects);
        let unmounted = unmounted.map(|path| {
            format!("{}: came while /dev was switched, and is left behind", path.escape_ascii())
        });
        let late = planned.problems.into_iter().chain(failed).chain(unmounted);
        self.done.late = shortened(late.collect());
    }
}

/// Whether a node is the kernel's own name of a device that exists.
fn is_device(sysfs: &Path, name: &[u8], block: bool, number: u64) -> bool {
    let kind = if block { "block" } else { "char" };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let file = sysfs.join(format!("dev/{kind}/{major}:{minor}/uevent"));
    let said = fs::read(file).unwrap_or_default();
    said.split(|byte| *byte == b'\n').any(|line| line.strip_prefix(b"DEVNAME=") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_ends_with_how_many_more_there_are() {
        let names = |count: usize| (0..count).map(|n| format!("{n}: why")).collect::<Vec<_>>();
        assert_eq!(shortened(names(LISTED)), names(LISTED));
        let short = shortened(names(LISTED + 7));
        assert_eq!(short.len(), LISTED + 1);
        assert_eq!((&*short[0], &*short[LISTED]), ("0: why", "and 7 more"));
    }
}

//! Stage 3b: notices that modules are installed or removed, and reads what changed.
//!
//! A file is looked at when it is complete: closed after writing, or moved to its place. `lease.rs`
//! keeps out what is being written when another file's change makes us read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::ReadFlags;
use rustix::io::Errno;
use tokio::time::{Instant, sleep, sleep_until};

use super::ear::{Ear, Event, Role};
use super::lease::{self, BEING_WRITTEN};
use super::{ModuleDb, ScanProblem, scan, tree};

/// After reading the tree, we rest as long as that took, but no longer than this: so that a package
/// of thousands of modules does not take a whole processor while it is installed, and what comes
/// last is in the map within 200 ms.
const REST_MAX: Duration = Duration::from_millis(20);

/// A file that somebody writes through another name is closed without our hearing of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a kernel's modules may be, below the root; as `tree::folder` looks for them.
const PLACES: [[&str; 2]; 2] = [["lib", "modules"], ["usr/lib", "modules"]];

/// What was noticed.
#[derive(Debug)]
pub enum News {
    /// The modules that there are now.
    Modules(Arc<ModuleDb>),
    /// Why changes are not noticed; told once.
    Deaf(ScanProblem),
}

/// Watches the modules of one kernel.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    release: String,
    db: Arc<ModuleDb>,
    ear: Option<Ear>,
    /// The tree is another than the one that was read.
    dirty: bool,
    /// The folders are others than those that are watched.
    moved: bool,
    /// Files of the tree that are being written, as far as we heard of it.
    writing: HashSet<PathBuf>,
    rest_until: Instant,
    deaf: Option<ScanProblem>,
    told_deaf: bool,
}

impl Watch {
    /// Nothing is watched before the first [`Watch::next`], which begins by reading what changed
    /// since `db` was made.
    #[must_use]
    pub fn new(root: &Path, release: &str, db: Arc<ModuleDb>) -> Self {
        Self {
            root: root.to_owned(),
            release: release.to_owned(),
            db,
            ear: None,
            dirty: true,
            moved: true,
            writing: HashSet::new(),
            rest_until: Instant::now(),
            deaf: None,
            told_deaf: false,
        }
    }

    /// The next change. Reading blocks the thread for as long as it takes: have one for this.
    pub async fn next(&mut self) -> News {
        loop {
            if std::mem::take(&mut self.moved) {
                self.listen();
            }
            if let Some(problem) = self.deaf.take() {
                return News::Deaf(problem);
            }
            if self.dirty {
                sleep_until(self.rest_until).await;
                // what came meanwhile is read in one go
                self.hear();
                if self.moved {
                    continue;
                }
                if let Some(db) = self.read() {
                    return News::Modules(db);
                }
            } else {
                self.wait().await;
            }
        }
    }

    /// Reads what changed.
    fn read(&mut self) -> Option<Arc<ModuleDb>> {
        self.dirty = false;
        let started = Instant::now();
        let new = scan::update(&self.root, &self.release, Some(&self.db), &|_, _| ());
        let ended = Instant::now();
        self.rest_until = ended + ended.duration_since(started).min(REST_MAX);
        let db = Arc::new(new?);
        self.db = db.clone();
        Some(db)
    }

    /// Returns when something was heard, or it is time to look again.
    async fn wait(&mut self) {
        let busy = self.is_busy();
        let heard = async {
            match &self.ear {
                Some(ear) => ear.next().await,
                None => std::future::pending().await,
            }
        };
        let events = if busy {
            tokio::select! {
                events = heard => events,
                () = sleep(LOOK_AGAIN) => {
                    self.dirty = true;
                    return;
                }
            }
        } else {
            heard.await
        };
        self.take(events);
    }

    /// Takes in what was told in the meantime.
    fn hear(&mut self) {
        while let Some(ear) = &self.ear {
            match ear.waiting() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                events => self.take(events),
            }
            if self.moved {
                return;
            }
        }
    }

    /// Whether a file was left out because somebody is writing it.
    fn is_busy(&self) -> bool {
        self.db.problems().iter().any(|problem| problem.what == BEING_WRITTEN)
    }

    fn take(&mut self, events: io::Result<Vec<Event>>) {
        match events {
            Ok(events) => events.iter().for_each(|event| self.heard(event)),
            // the object is of no use any longer
            Err(_) => (self.moved, self.dirty) = (true, true),
        }
    }

    fn heard(&mut self, event: &Event) {
        if event.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            (self.moved, self.dirty) = (true, true);
        }
        let Some(ear) = &mut self.ear else { return };
        for role in ear.roles(event) {
            match role {
                Role::Above(next) => {
                    let own = event.flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
                    if own || event.name == next {
                        (self.moved, self.dirty) = (true, true);
                    }
                }
                Role::Tree(folder) => self.heard_in(&folder, event),
            }
        }
    }

    /// Something happened in a folder of the tree.
    fn heard_in(&mut self, folder: &Path, event: &Event) {
        let flags = event.flags;
        let (gone, came) = (ReadFlags::DELETE | ReadFlags::MOVED_FROM, ReadFlags::MOVED_TO);
        if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
            self.dirty = true;
            self.moved |= folder.as_os_str().is_empty();
            return;
        }
        let path = folder.join(&event.name);
        if flags.contains(ReadFlags::ISDIR) {
            if flags.intersects(ReadFlags::CREATE | came) {
                self.listen_in(&path);
                self.dirty = true;
            }
            self.dirty |= flags.intersects(gone);
            return;
        }
        let top = folder.as_os_str().is_empty();
        if !is_wanted(top, &event.name) {
            return;
        }
        if flags.intersects(gone | came | ReadFlags::CLOSE_WRITE) {
            self.writing.remove(&path);
            self.dirty = true;
        } else if flags.contains(ReadFlags::CREATE) {
            // a link is complete at once; what else is new is closed later
            self.dirty |= self.full(&path).is_some_and(|path| is_complete(&path));
        } else if flags.contains(ReadFlags::MODIFY) && self.knows(&path) {
            // written in place: what it says holds no longer
            self.dirty |= self.writing.insert(path);
        }
    }

    /// Whether the database has something of this file.
    fn knows(&self, path: &Path) -> bool {
        let stem = path.file_name().and_then(|name| tree::stem(name.as_bytes()));
        let module = stem.and_then(|stem| self.db.module(stem));
        module.is_some_and(|module| module.file() == Some(path))
    }

    fn full(&self, path: &Path) -> Option<PathBuf> {
        tree::folder(&self.root, &self.release).map(|top| top.join(path))
    }

    /// Begins anew to watch the tree and the folders on the way to it.
    fn listen(&mut self) {
        self.writing.clear();
        // what happens from here on is told; what happened before, the next reading finds
        self.dirty = true;
        match Ear::new() {
            Ok(ear) => self.ear = Some(ear),
            Err(error) => {
                self.ear = None;
                let root = self.root.clone();
                self.is_deaf(root, &error);
                return;
            }
        }
        for [first, second] in PLACES {
            let mut folder = self.root.clone();
            for next in first.split('/').chain([second, &*self.release.clone()]) {
                self.add(&folder, Role::Above(next.into()));
                folder.push(next);
            }
        }
        self.listen_in(Path::new(""));
    }

    /// Watches a folder of the tree and all below it.
    fn listen_in(&mut self, path: &Path) {
        let mut open = vec![path.to_owned()];
        // links may lead in a circle
        let mut seen = HashSet::new();
        while let Some(path) = open.pop() {
            let Some(full) = self.full(&path) else { return };
            // watched before it is read: nothing that comes later is missed
            let Some(folder) = self.add(&full, Role::Tree(path.clone())) else { continue };
            if !seen.insert(folder) {
                continue;
            }
            for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let sources = path.as_os_str().is_empty() && (name == "build" || name == "source");
                let hidden = name.as_bytes().starts_with(b".");
                let Ok(kind) = entry.file_type() else { continue };
                let leads = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
                if leads && !hidden && !sources {
                    open.push(path.join(name));
                }
            }
        }
    }

    fn add(&mut self, folder: &Path, role: Role) -> Option<i32> {
        match self.ear.as_mut()?.add(folder, role) {
            Ok(number) => number,
            Err(error) => {
                self.is_deaf(folder.to_owned(), &error);
                None
            }
        }
    }

    /// Told once: what cannot be watched today can hardly be tomorrow.
    fn is_deaf(&mut self, file: PathBuf, error: &io::Error) {
        if std::mem::replace(&mut self.told_deaf, true) {
            return;
        }
        let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC) => " (see /proc/sys/fs/inotify/max_user_watches)",
            Some(Errno::MFILE) => " (see /proc/sys/fs/inotify/max_user_instances)",
            Some(_) | None => "",
        };
        let what = format!("cannot be watched, changes are found at the next start: {error}{hint}");
        self.deaf = Some(ScanProblem { file, what });
    }
}

/// A module, or at the top one of the lists.
fn is_wanted(top: bool, name: &OsStr) -> bool {
    let name = name.as_bytes();
    let lists = [tree::ORDER, tree::BUILTIN, tree::BUILTIN_INFO];
    tree::stem(name).is_some() || (top && lists.contains(&name))
}

/// Whether a file that has just got its name is there as a whole.
fn is_complete(path: &Path) -> bool {
    // asked before the file is opened: opening a FIFO would wait
    let filled = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0);
    filled && File::open(path).is_ok_and(|file| lease::is_being_written(&file) == Some(false))
}

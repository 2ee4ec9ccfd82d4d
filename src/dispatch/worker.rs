//! The threads that do what concerns one device alone (`hands.rs`). They are long-lived and share nothing
//! but the channel of jobs; while some wait for programs, others take their place.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tracing::warn;

use super::finish::End;
use super::hands::Hands;
use super::known::{Known, Told};
use crate::builtin::Pair;
use crate::config::Config;
use crate::device::DeviceId;
use crate::exec::Pause;
use crate::modules::ModuleDb;
use crate::net::LinkFiles;
use crate::nodes::disk::{DiskLock, Locking};
use crate::nodes::tmpfiles::Line;
use crate::policy::Policy;
use crate::policy::grants::DeviceGrants;
use crate::queue::Ticket;
use crate::rules::Rules;
use crate::rules::decision::Run;
use crate::rules::names::Names;
use crate::uevent::{Origin, Uevent};

/// What every event is decided by; swapped as a whole on reload.
#[derive(Clone, Debug)]
pub struct Book {
    /// Counts the loadings, from 1.
    pub generation: u64,
    pub policy: Arc<Policy>,
    pub rules: Arc<Rules>,
    pub names: Arc<Names>,
    /// What tmpfiles.d says of nodes below /dev.
    pub tmpfiles: Arc<[Line]>,
    /// What the machine's `.link` files say of network interfaces.
    pub links: Arc<LinkFiles>,
    pub modules: Arc<ModuleDb>,
}

/// An event on its way to a worker.
#[derive(Debug)]
pub(super) struct Job {
    /// `None` for an event that no queue holds.
    pub(super) ticket: Option<Ticket>,
    pub(super) uevent: Arc<Uevent>,
    /// The count of events that dispatch took in before it.
    pub(super) order: u64,
    pub(super) heard: Instant,
    pub(super) known: Option<Arc<Known>>,
    pub(super) grants: Option<Arc<DeviceGrants>>,
    pub(super) book: Arc<Book>,
    /// Whether the node can be compared now: not before another manager is done with it.
    pub(super) compare: bool,
    /// When a worker began with it: the event's time counts from there.
    pub(super) begun: Instant,
    /// What is left to be done, when others have heard of the rest.
    pub(super) chore: Option<Box<Chore>>,
    /// The lock of its disk, until the event is over.
    pub(super) lock: Option<DiskLock>,
    /// Since when it waits for that lock. Our own walk does not: it leaves such a device as it is.
    pub(super) blocked: Option<Instant>,
}

/// The RUN list of an event that is otherwise over, and how the event will be told.
#[derive(Debug)]
pub(super) struct Chore {
    pub(super) list: Vec<Run>,
    pub(super) properties: Vec<Pair>,
    pub(super) end: End,
}

impl Job {
    /// A walk met the device while its disk was locked.
    pub(super) fn leaves_it(&self) -> bool {
        self.blocked.is_some() && self.uevent.origin == Origin::Coldplug
    }

    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of(&self.uevent)
    }

    /// The message to decide by. Our own event speaks of the device as it is known by now: what it
    /// was when the event was made may have moved since.
    pub(super) fn subject(&self) -> &Arc<Uevent> {
        match &self.known {
            Some(known) if self.uevent.origin == Origin::Policy => &known.uevent,
            Some(_) | None => &self.uevent,
        }
    }
}

/// What became of the device.
#[derive(Debug)]
pub(super) enum Outcome {
    Settled {
        known: Box<Known>,
        /// The rules ended early: the device is as it was, and this is told.
        failed: Option<Box<Told>>,
        /// Whether its RUN list is still to be done.
        run: bool,
        /// If not, what builtins of that list found.
        found: Vec<Pair>,
    },
    Removed {
        told: Box<Told>,
        run: Vec<Run>,
    },
    /// The device that our own walk found, or a change was made for, is no longer there: its
    /// `remove` tells the rest.
    Gone,
    /// The job's chore is done, and all of the event with it.
    Ran(End),
    /// Nothing was done: another program has the disk locked.
    Busy,
}

/// A worker's answer.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: DeviceId,
    pub(super) job: Job,
    pub(super) outcome: Outcome,
    /// What failed on the way; the event went on.
    pub(super) problems: Vec<String>,
    /// Whether it was told before that the worker waits.
    waited: bool,
}

/// What workers tell.
#[derive(Debug)]
pub(super) enum Answer {
    Done(Box<Done>),
    /// A worker waits for a program: its place is free until the job is done.
    Waits,
}

/// Jobs handed out for each worker beyond the one that it does: in a storm it goes on without
/// being woken for each event, and without waiting for dispatch.
const AHEAD: usize = 4;

/// A thread that was started for another which waits ends when there is nothing to do for so long.
const IDLE: Duration = Duration::from_secs(5);

/// The worker threads, and how many more jobs they may be given.
///
/// One channel for all, so that no job waits behind a slow one while another worker is free.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<Job>,
    inbox: Receiver<Job>,
    answers: mpsc::Sender<Answer>,
    hands: Hands,
    /// Threads that work at once.
    count: usize,
    /// Chores that may be under way at once; and threads that may wait in the middle of an event.
    waiting_max: usize,
    threads: Arc<AtomicUsize>,
    /// Those of the threads that wait for somebody at the moment.
    paused: Arc<AtomicUsize>,
    started: usize,
    under_way: usize,
    chores: usize,
    waiting: usize,
}

impl Workers {
    /// Starts the threads; answers come through the receiver. They end with `Workers`.
    pub(super) fn start(config: &Config) -> io::Result<(Self, mpsc::Receiver<Answer>)> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { processors.clamp(2, 16) } else { config.workers };
        let room = count * (1 + AHEAD);
        let (jobs, inbox) = bounded(room);
        let waiting_max = config.children_max();
        // as many as there can be for all jobs under way: nobody ever waits to be rid of one
        let (answers, done) = mpsc::channel(2 * (room + 2 * waiting_max + count));
        let hands = Hands::new(config)?;
        let (threads, paused) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (started, under_way, chores, waiting) = (0, 0, 0, 0);
        let mut workers = Self {
            jobs,
            inbox,
            answers,
            hands,
            count,
            waiting_max,
            threads,
            paused,
            started,
            under_way,
            chores,
            waiting,
        };
        for _ in 0..count {
            workers.add(None)?;
        }
        Ok((workers, done))
    }

    fn add(&mut self, idle: Option<Duration>) -> io::Result<()> {
        let told = Arc::new(Waits {
            answers: self.answers.clone(),
            told: AtomicBool::new(false),
            paused: self.paused.clone(),
        });
        let worker = Worker {
            hands: self.hands.clone().with_pause(told.clone()),
            inbox: self.inbox.clone(),
            threads: self.threads.clone(),
            waits: told,
            count: self.count,
            idle,
        };
        let name = format!("worker-{}", self.started);
        self.started += 1;
        self.threads.fetch_add(1, Ordering::SeqCst);
        let spawned = thread::Builder::new().name(name).spawn(move || worker.work());
        spawned.map(drop).inspect_err(|_| {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        })
    }

    pub(super) fn has_room(&self) -> bool {
        self.under_way < self.count * (1 + AHEAD) + self.waiting
    }

    /// Whether one more may be given that has only something to run.
    pub(super) fn has_room_for_chores(&self) -> bool {
        self.has_room() && self.chores < self.waiting_max
    }

    /// Gives them something to do; whoever is free first does it. Without room, the job comes back.
    pub(super) fn give(&mut self, job: Job) -> Result<(), Box<Job>> {
        let chore = usize::from(job.chore.is_some());
        self.jobs.try_send(job).map_err(|error| Box::new(error.into_inner()))?;
        self.under_way += 1;
        self.chores += chore;
        self.reinforce();
        Ok(())
    }

    pub(super) fn one_is_done(&mut self, done: &Done) {
        self.under_way = self.under_way.saturating_sub(1);
        self.waiting = self.waiting.saturating_sub(usize::from(done.waited));
        let chore = matches!(done.outcome, Outcome::Ran(_));
        self.chores = self.chores.saturating_sub(usize::from(chore));
    }

    /// A worker waits for a program.
    pub(super) fn one_waits(&mut self) {
        self.waiting += 1;
        self.reinforce();
    }

    /// Lets another thread work in the place of one that waits, if there is work.
    fn reinforce(&mut self) {
        let threads = self.threads.load(Ordering::SeqCst);
        let active = threads.saturating_sub(self.waiting);
        let wanted = self.under_way.saturating_sub(self.waiting).min(self.count);
        if active < wanted
            && threads < self.count + 2 * self.waiting_max
            && let Err(error) = self.add(Some(IDLE))
        {
            warn!("cannot start a thread in the place of one that waits: {error}");
        }
    }
}

/// Tells dispatch, once a job, that the worker waits.
#[derive(Debug)]
struct Waits {
    answers: mpsc::Sender<Answer>,
    told: AtomicBool,
    paused: Arc<AtomicUsize>,
}

impl Pause for Waits {
    fn begin(&self) {
        self.paused.fetch_add(1, Ordering::SeqCst);
        if !self.told.swap(true, Ordering::Relaxed) {
            // without dispatch nobody's place is wanted
            drop(self.answers.blocking_send(Answer::Waits));
        }
    }

    fn end(&self) {
        self.paused.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One thread.
struct Worker {
    hands: Hands,
    inbox: Receiver<Job>,
    threads: Arc<AtomicUsize>,
    waits: Arc<Waits>,
    /// Threads that work at once.
    count: usize,
    /// Of a thread that took another's place.
    idle: Option<Duration>,
}

impl Worker {
    fn work(self) {
        while let Some(job) = self.next() {
            self.waits.told.store(false, Ordering::Relaxed);
            let done = self.one(job);
            if self.waits.answers.blocking_send(Answer::Done(Box::new(done))).is_err() {
                return;
            }
        }
    }

    /// `None` if there is nothing more to do.
    fn next(&self) -> Option<Job> {
        let Some(idle) = self.idle else { return self.inbox.recv().ok() };
        if self.leaves() {
            return None;
        }
        if let Ok(job) = self.inbox.recv_timeout(idle) {
            return Some(job);
        }
        // dispatch gives first and counts then: one of us sees what the other does
        self.threads.fetch_sub(1, Ordering::SeqCst);
        let job = self.inbox.try_recv().ok()?;
        self.threads.fetch_add(1, Ordering::SeqCst);
        Some(job)
    }

    /// Whether those whose place it took are back: more threads than processors only change places.
    fn leaves(&self) -> bool {
        let paused = || self.waits.paused.load(Ordering::SeqCst);
        let fewer =
            |threads: usize| (threads.saturating_sub(paused()) > self.count).then(|| threads - 1);
        self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }

    fn one(&self, mut job: Job) -> Done {
        let mut problems = Vec::new();
        let outcome = match job.chore.take() {
            Some(chore) => {
                let Chore { list, properties, mut end } = *chore;
                let report = self.hands.run(&job, &list, properties);
                problems = report.problems;
                end.add(report.found);
                Outcome::Ran(end)
            }
            None => {
                job.begun = Instant::now();
                match self.hands.lock(&job, &mut problems) {
                    Locking::Busy if job.uevent.origin == Origin::Kernel => Outcome::Busy,
                    Locking::Busy => {
                        job.blocked = Some(job.begun);
                        self.hands.handle(&job, &mut problems)
                    }
                    Locking::None => self.hands.handle(&job, &mut problems),
                    Locking::Held(lock) => {
                        job.lock = Some(lock);
                        self.hands.handle(&job, &mut problems)
                    }
                }
            }
        };
        let id = DeviceId::of(job.subject());
        let waited = self.waits.told.load(Ordering::Relaxed);
        Done { id, job, outcome, problems, waited }
    }
}

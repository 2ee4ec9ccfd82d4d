//! The threads that do what concerns one device alone (`hands.rs`). They are long-lived and share nothing
//! but the channel of jobs; while some wait for programs, others take their place.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::hands::Hands;
use super::job::{Answer, Done, Job, Outcome};
use crate::config::Config;
use crate::exec::Pause;

/// Jobs handed out for each worker beyond the one that it does: in a storm it goes on without
/// being woken for each event, and without waiting for dispatch.
const AHEAD: usize = 4;

/// A thread that is at one job for so long is stuck, in the kernel or in a driver: another one takes its
/// place. Looked at so often, while there are jobs.
const STUCK: Duration = Duration::from_secs(1);

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
    /// What the threads are at.
    at: Vec<Weak<Waits>>,
    /// When to look for those that are stuck.
    look: Option<Instant>,
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
            at: Vec::new(),
            look: None,
        };
        for _ in 0..count {
            workers.add(None)?;
        }
        Ok((workers, done))
    }

    /// What the thread that leads does its own jobs with, and where it answers if another leads by then.
    pub(super) fn of_lead(&self, pause: Arc<dyn Pause>) -> (Hands, mpsc::Sender<Answer>) {
        (self.hands.clone().with_pause(pause), self.answers.clone())
    }

    fn add(&mut self, idle: Option<Duration>) -> io::Result<()> {
        let told = Arc::new(Waits {
            answers: self.answers.clone(),
            told: AtomicBool::new(false),
            paused: self.paused.clone(),
            at: Mutex::default(),
        });
        self.at.retain(|at| at.strong_count() > 0);
        self.at.push(Arc::downgrade(&told));
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
        self.look.get_or_insert_with(|| Instant::now() + STUCK);
        Ok(())
    }

    /// When it is time to look whether a thread is stuck; `None` if there is no job.
    pub(super) fn time_to_look(&self) -> Option<Instant> {
        self.look
    }

    /// Lets others work in the place of threads that are stuck.
    pub(super) fn look(&mut self) {
        self.look = (self.under_way > 0).then(|| Instant::now() + STUCK);
        let stuck = self.at.iter().filter_map(Weak::upgrade).filter(|at| at.found_stuck()).count();
        self.waiting += stuck;
        // also in the place of those of which it was known that they waited for something else before
        self.reinforce();
    }

    /// Who gives the jobs does one himself.
    pub(super) fn one_is_kept(&mut self) {
        self.under_way += 1;
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

    /// Lets other threads work in the place of those that wait, if there is work. One that finds those back of
    /// which we have not heard yet leaves at once, so that how many there are is asked once only.
    fn reinforce(&mut self) {
        let wanted = self.under_way.saturating_sub(self.waiting).min(self.count);
        let threads = self.threads.load(Ordering::SeqCst);
        let active = threads.saturating_sub(self.waiting);
        let room = (self.count + 2 * self.waiting_max).saturating_sub(threads);
        for _ in 0..wanted.saturating_sub(active).min(room) {
            if let Err(error) = self.add(Some(IDLE)) {
                warn!("cannot start a thread in the place of one that waits: {error}");
                return;
            }
        }
    }
}

/// Tells dispatch, once a job, that the worker waits.
#[derive(Debug)]
struct Waits {
    answers: mpsc::Sender<Answer>,
    told: AtomicBool,
    paused: Arc<AtomicUsize>,
    at: Mutex<At>,
}

/// What a thread is at.
#[derive(Debug, Default)]
struct At {
    /// Since when it is at its job.
    since: Option<std::time::Instant>,
    /// It was found stuck, and counts as one that waits.
    stuck: bool,
}

impl Waits {
    fn begin_job(&self) {
        self.told.store(false, Ordering::Relaxed);
        self.at().since = Some(std::time::Instant::now());
    }

    /// Whether dispatch knows that others were to work meanwhile.
    fn end_job(&self) -> bool {
        let at = std::mem::take(&mut *self.at());
        if at.stuck {
            self.paused.fetch_sub(1, Ordering::SeqCst);
        }
        self.told.load(Ordering::Relaxed)
    }

    /// Whether it is at one job for too long, and that was not known yet.
    fn found_stuck(&self) -> bool {
        let mut at = self.at();
        let long = at.since.is_some_and(|since| since.elapsed() >= STUCK);
        if !long || at.stuck {
            return false;
        }
        at.stuck = true;
        // one that waits for a program as well is counted twice, which keeps a spare thread for a while
        self.paused.fetch_add(1, Ordering::SeqCst);
        !self.told.swap(true, Ordering::Relaxed)
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            self.waits.begin_job();
            let mut done = job.done_by(&self.hands);
            done.waited = self.waits.end_job();
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
}

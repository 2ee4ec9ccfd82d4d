//! Who turns the loop of dispatch: one of two threads, which does most events itself. While it does one, it
//! leaves dispatch behind; if that takes long, the other thread takes dispatch and goes on.
//!
//! So an event costs no change of threads, and none can hold up the others for longer than `PATIENCE`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::hands::Hands;
use super::job::{Answer, Done};
use super::turn::Turn;
use super::{Dispatch, Parts};
use crate::exec::Pause;

/// How long an event may hold up the others before somebody else goes on with these. Far above what an event
/// takes, so that the timer is set seldom; and far below what anybody notices.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// What dispatch, its sockets and timers run on; its own, so that only those threads are woken for it.
#[derive(Debug)]
pub struct Lead {
    runtime: Arc<Runtime>,
}

impl Lead {
    /// # Errors
    /// When no runtime can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self { runtime: Arc::new(Builder::new_current_thread().enable_all().build()?) })
    }

    /// What dispatch is to wait for is made while this is held.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Loads policy and grants, starts the threads; tells when dispatch has ended, and how.
    ///
    /// # Errors
    /// When a folder of the runtime state or a thread cannot be made.
    pub fn start(&self, parts: Parts) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let context = self.runtime.enter();
        let dispatch = Box::new(Dispatch::new(parts)?);
        drop(context);
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let due = Instant::now();
        let left = Left { dispatch: None, due, is_set: false, over: false };
        let seat =
            Arc::new(Seat { left: Mutex::new(left), stands_by: AtomicBool::new(true), alarm });
        let (hands, answers) = dispatch.workers.of_lead(seat.clone());
        let (ended, end) = oneshot::channel();
        let ended = Arc::new(Mutex::new(Some(ended)));
        for (name, dispatch) in [("lead-0", Some(dispatch)), ("lead-1", None)] {
            let (seat, runtime) = (seat.clone(), self.runtime.clone());
            let (hands, answers, ended) = (hands.clone(), answers.clone(), ended.clone());
            let leader = Leader { seat, runtime, hands, answers };
            thread::Builder::new().name(name.to_owned()).spawn(move || {
                let Some(result) = leader.work(dispatch) else { return };
                if let Some(ended) = ended.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    // who no longer asks is ending as well
                    let _ = ended.send(result);
                }
            })?;
        }
        Ok(end)
    }
}

/// Where dispatch is left while its thread does an event.
#[derive(Debug)]
struct Seat {
    left: Mutex<Left>,
    /// A thread is there to take over; without one, whoever leads does no events.
    stands_by: AtomicBool,
    /// Wakes the thread that stands by.
    alarm: OwnedFd,
}

#[derive(Debug)]
struct Left {
    dispatch: Option<Box<Dispatch>>,
    /// When another is to go on with it.
    due: Instant,
    /// The alarm goes off by itself.
    is_set: bool,
    /// Dispatch has ended.
    over: bool,
}

impl Seat {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, dispatch: Box<Dispatch>) {
        let mut left = self.left();
        left.dispatch = Some(dispatch);
        left.due = Instant::now() + PATIENCE;
        if !left.is_set {
            left.is_set = self.set(PATIENCE);
        }
    }

    /// `None` if another leads by now.
    fn resume(&self) -> Option<Box<Dispatch>> {
        self.left().dispatch.take()
    }

    /// Whether it is set; without, an event that takes long does hold up the others.
    fn set(&self, after: Duration) -> bool {
        // zero would mean never
        let nanos = i64::from(after.subsec_nanos().max(1));
        let it_value = Timespec { tv_sec: 0, tv_nsec: nanos };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval: never, it_value };
        let set = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &time);
        set.inspect_err(|error| warn!("cannot set a timer: {error}")).is_ok()
    }

    fn end(&self) {
        self.left().over = true;
        self.set(Duration::ZERO);
    }

    /// Waits until an event takes long; then dispatch is the caller's. `None` when it has ended.
    fn stand_by(&self) -> io::Result<Option<Box<Dispatch>>> {
        loop {
            let mut count = [0; 8];
            match rustix::io::read(&self.alarm, &mut count) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut left = self.left();
            left.is_set = false;
            if left.over {
                return Ok(None);
            }
            let rest = left.due.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                left.is_set = left.dispatch.is_some() && self.set(rest);
            } else if let Some(mut dispatch) = left.dispatch.take() {
                self.stands_by.store(false, Ordering::SeqCst);
                drop(left);
                dispatch.taken_over();
                return Ok(Some(dispatch));
            }
        }
    }
}

impl Pause for Seat {
    /// The event that is done meanwhile waits for somebody: nobody else is to.
    fn begin(&self) {
        let mut left = self.left();
        if left.dispatch.is_some() {
            left.due = Instant::now();
            left.is_set = self.set(Duration::ZERO);
        }
    }

    fn end(&self) {}
}

/// One of the two threads.
struct Leader {
    seat: Arc<Seat>,
    runtime: Arc<Runtime>,
    hands: Hands,
    answers: mpsc::Sender<Answer>,
}

impl Leader {
    /// Leads with what it is given, and whenever the other is held up. `None` if that one told of the end.
    fn work(&self, mut dispatch: Option<Box<Dispatch>>) -> Option<io::Result<()>> {
        let _context = self.runtime.enter();
        if let Some(dispatch) = &mut dispatch {
            dispatch.begin();
        }
        loop {
            let led = match dispatch.take() {
                Some(dispatch) => self.lead(dispatch),
                None => match self.seat.stand_by() {
                    Ok(dispatch) => self.lead(dispatch?),
                    Err(error) => Err(error),
                },
            };
            match led {
                Ok(Some(done)) => {
                    self.seat.stands_by.store(true, Ordering::SeqCst);
                    self.answers.blocking_send(Answer::Done(Box::new(done))).ok()?;
                }
                Ok(None) => {
                    self.seat.end();
                    return Some(Ok(()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// What it was held up with when another took its place; `None` when dispatch has ended.
    fn lead(&self, mut dispatch: Box<Dispatch>) -> io::Result<Option<Done>> {
        loop {
            match self.runtime.block_on(dispatch.turn(&self.seat.stands_by))? {
                Turn::Over => return Ok(None),
                Turn::Own(job) => {
                    self.seat.leave(dispatch);
                    let done = job.done_by(&self.hands);
                    match self.seat.resume() {
                        Some(left) => dispatch = left,
                        None => return Ok(Some(done)),
                    }
                    dispatch.finish_own(done);
                }
            }
        }
    }
}

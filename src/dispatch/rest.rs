//! How much of a storm is ours: as much as there is use for, while the kernel's socket holds the others; and
//! when it is over, what it needed of memory is given back.

use std::time::Duration;

use tokio::time::Instant;

use super::Dispatch;
use crate::heap;

/// Events that wait, from which on no more are taken in: workers have enough to choose from, and in the queue
/// an event takes twice the memory that it takes in the socket.
const AHEAD: usize = 1024;

/// How long the socket is left to hold what comes, before it is read until it is empty: of those who wait for a
/// number, each waits for one of these messages, and not for the events before it.
const HOLD: Duration = Duration::from_millis(100);

/// Messages taken in since the socket was last found empty, from which on it is not left to hold what comes:
/// it has room for many times as many, and a storm that goes on is to be merged.
const BEHIND: usize = 16_384;

/// The receive buffer, as granted, that has so much room.
const ROOMY: usize = 64 << 20;

/// How long nothing waits before memory is given back: the next storm would want it again.
const REST: Duration = Duration::from_secs(1);

/// What is left to the socket, and whether memory is to be given back.
#[derive(Debug, Default)]
pub(super) struct Rest {
    grown: bool,
    /// Messages since the socket was last found empty.
    pub(super) behind: usize,
    /// Until when the socket is left to hold what comes, since it was last found empty.
    pub(super) hold: Option<Instant>,
    pub(super) due: Option<Instant>,
}

impl Rest {
    /// Whether the socket holds something for longer than it should.
    pub(super) fn is_late(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.hold.get_or_insert(now + HOLD)
    }

    /// So many messages were taken in.
    pub(super) fn heard(&mut self, count: usize, emptied: bool) {
        if emptied {
            self.behind = 0;
            self.hold = None;
        } else {
            self.behind += count;
            self.hold.get_or_insert_with(|| Instant::now() + HOLD);
        }
    }
}

impl Dispatch {
    /// Whether so many events wait that others may stay in the socket, until some of these are done. What a
    /// walk meets is no storm: workers are to have it.
    pub(super) fn has_enough(&mut self) -> bool {
        let enough = self.queue.waiting() >= AHEAD;
        self.rest.grown |= enough;
        // what waits for one device or program that takes long keeps nobody from hearing of others
        let goes_on = self.queue.runnable() > 0 && !self.busy.held;
        let room = self.rest.behind < BEHIND && self.socket.granted() >= ROOMY;
        enough && goes_on && room && !self.rest.is_late()
    }

    /// What a start needed and nothing needs later.
    pub(super) fn started(&mut self) {
        self.rest.grown = true;
        self.idle();
    }

    /// Nothing waits.
    pub(super) fn idle(&mut self) {
        if self.rest.grown {
            self.rest.due = Some(Instant::now() + REST);
        }
    }

    /// It is time, if nothing came meanwhile.
    pub(super) fn take_rest(&mut self) {
        self.rest.due = None;
        if self.queue.is_idle() {
            self.rest.grown = false;
            heap::trim();
        }
    }
}

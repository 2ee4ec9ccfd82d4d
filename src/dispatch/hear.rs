//! Stage 1 in dispatch: takes what the socket has, and starts the repair after a loss.

use std::io;

use tracing::warn;

use super::Dispatch;
use crate::uevent::socket::Heard;

/// Messages taken from the socket, or from a walk, in one turn, so that answers and callers get theirs.
pub(super) const BATCH: usize = 64;

impl Dispatch {
    /// Stage 1: takes what the socket has, up to a batch.
    ///
    /// After a loss the kernel throws everything away until the socket is empty, and says so only
    /// once: what sysfs says before that is not the end of the story.
    pub(super) fn hear_batch(&mut self, first: Heard) -> io::Result<()> {
        let mut lost = self.hear(first);
        let mut count = 1;
        let mut emptied = false;
        while count < BATCH || ((lost || self.rest.is_late()) && !self.queue.is_full()) {
            let Some(heard) = self.socket.try_recv()? else {
                emptied = true;
                break;
            };
            lost |= self.hear(heard);
            count += 1;
        }
        self.rest.heard(count, emptied);
        if lost {
            self.start_sweep();
        }
        Ok(())
    }

    /// Takes what lies in the socket: before an answer that speaks of it, and before the end.
    pub(super) fn hear_rest(&mut self) {
        while !self.queue.is_full() {
            match self.socket.try_recv().map(|heard| heard.map(|heard| self.hear_batch(heard))) {
                Ok(Some(Ok(()))) => {}
                // an error shows itself in the next turn of the loop
                Ok(None | Some(Err(_))) | Err(_) => break,
            }
        }
    }

    /// Returns whether the kernel reported loss.
    fn hear(&mut self, heard: Heard) -> bool {
        let lost = matches!(heard, Heard::Lost);
        match heard {
            Heard::Event(uevent, dropped) => {
                if !dropped.is_empty() {
                    let devpath = uevent.devpath().escape_ascii();
                    warn!(seqnum = uevent.seqnum(), "uevent of {devpath}: {dropped}");
                }
                self.take(uevent);
            }
            Heard::Refused(refusal) => warn!("uevent refused: {refusal}"),
            Heard::Lost => {
                warn!("the kernel lost uevents for want of buffer; reading sysfs again");
                self.resyncs += 1;
            }
        }
        lost
    }
}

//! What `udevadm settle` asks: whether there are events that are not handled, by a file that is there as long;
//! and whether any are begun at all.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Dispatch;
use crate::config::{Config, Mode};
use crate::device::record::absent_is_fine;

/// `/run/udev/queue`, in active mode.
#[derive(Debug)]
pub(super) struct Busy {
    file: Option<PathBuf>,
    /// The file is there; at first, one of an earlier run may be.
    shown: bool,
    /// Events are heard and none is begun.
    pub(super) held: bool,
}

impl Busy {
    pub(super) fn new(config: &Config) -> Self {
        let file = (config.mode == Mode::Active).then(|| config.udev_folder().join("queue"));
        Self { file, shown: true, held: false }
    }

    fn show(&mut self, busy: bool) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.shown != busy) else { return Ok(()) };
        self.shown = busy;
        if busy { File::create(file).map(drop) } else { absent_is_fine(fs::remove_file(file)) }
    }
}

impl Dispatch {
    /// An event that is done at once never shows: who asks hears of its end first.
    pub(super) fn show_queue(&mut self) {
        let busy = !self.open.is_empty() || self.sweep.is_some();
        if let Err(error) = self.busy.show(busy) {
            warn!("the file that says whether events wait: {error}");
        }
    }

    /// Answers when what the kernel said before is in the queue, and can be seen to be.
    pub(super) fn ping(&mut self, reply: oneshot::Sender<()>) {
        self.hear_rest();
        self.show_queue();
        // who asked and has gone is no error
        let _ = reply.send(());
    }

    /// Until further notice no event is begun.
    pub(super) fn hold(&mut self, held: bool) {
        if std::mem::replace(&mut self.busy.held, held) != held {
            info!(
                "{}",
                if held { "events wait until the queue is started" } else { "events go on" }
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_while_something_waits_and_that_of_another_run_goes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue");
        fs::write(&file, "").unwrap();
        let mut busy = Busy { file: Some(file.clone()), shown: true, held: false };
        for wanted in [false, false, true, true, false] {
            busy.show(wanted).unwrap();
            assert_eq!(file.exists(), wanted);
        }
    }
}

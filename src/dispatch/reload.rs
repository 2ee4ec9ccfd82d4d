//! Reads rules, policy and names anew beside the events, which go on by the old ones until all is read.

use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::Dispatch;
use super::answer::load_book;
use super::job::Book;

/// Callers that wait for a reload at once.
const CALLERS_MAX: usize = 64;

/// The one that is under way, and who waits for it.
#[derive(Debug)]
pub(super) struct Reloads {
    sender: mpsc::Sender<Book>,
    pub(super) read: mpsc::Receiver<Book>,
    under_way: bool,
    callers: Vec<oneshot::Sender<u64>>,
    /// Who came when it had begun: what they changed may not be in it.
    later: Vec<oneshot::Sender<u64>>,
}

impl Default for Reloads {
    fn default() -> Self {
        // one is under way at most
        let (sender, read) = mpsc::channel(1);
        let (callers, later) = (Vec::new(), Vec::new());
        Self { sender, read, under_way: false, callers, later }
    }
}

impl Dispatch {
    /// Policy then holds for every device at once; rules, as in udev, from a device's next event on. The
    /// caller is told the generation.
    pub(super) fn reload(&mut self, reply: oneshot::Sender<u64>) {
        let Reloads { under_way, callers, later, .. } = &mut self.reloads;
        if callers.len() + later.len() >= CALLERS_MAX {
            warn!("reload: {CALLERS_MAX} callers wait already; one more is left without an answer");
            return;
        }
        if *under_way {
            later.push(reply);
            return;
        }
        callers.push(reply);
        self.read_anew();
    }

    fn read_anew(&mut self) {
        let (config, sender) = (self.config.clone(), self.reloads.sender.clone());
        let (generation, modules) = (self.book.generation + 1, self.book.modules.clone());
        let work = move || {
            let book = load_book(&config, generation, modules);
            // a dispatch that has ended wants none
            drop(sender.blocking_send(book));
        };
        self.reloads.under_way = true;
        // not of the runtime's pool: it is not waited for at the daemon's end
        if let Err(error) = thread::Builder::new().name("reload".to_owned()).spawn(work) {
            warn!("reload: cannot start a thread: {error}");
            self.reloads.under_way = false;
            // their answers are dropped, and they are told so
            self.reloads.callers.clear();
        }
    }

    /// All is read: it holds from now on.
    pub(super) fn reloaded(&mut self, book: Book) {
        // a change that is kept may have been read and taken in meanwhile, and not be in this
        if book.generation <= self.book.generation {
            self.read_anew();
            return;
        }
        // modules may have come or gone meanwhile
        let modules = self.book.modules.clone();
        self.book = Arc::new(Book { modules, ..book });
        self.renew_names();
        let ids: Vec<_> = self.table.iter().map(|known| known.id.clone()).collect();
        for id in &ids {
            self.decide_anew(id);
        }
        let generation = self.book.generation;
        info!(generation, "policy loaded");
        for caller in std::mem::take(&mut self.reloads.callers) {
            // a caller that has gone is no error
            let _ = caller.send(generation);
        }
        self.reloads.under_way = false;
        self.reloads.callers = std::mem::take(&mut self.reloads.later);
        if !self.reloads.callers.is_empty() {
            self.read_anew();
        }
    }
}

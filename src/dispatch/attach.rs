//! Stage 6: gives the map to the kernel: at the start, or where another process has the kernel, once it lets go.
//! Where another run's is on /dev, ours begins with what that has (`inherit.rs`). Where the kernel will take none,
//! /dev becomes devtmpfs: in a map that nobody writes no device would ever appear.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Dispatch;
use super::kernel::shim;
use super::place::pause;
use crate::config::Mode;
use crate::map::shim::{Shim, is_mounted_on};
use crate::ready;
use crate::switch::inherit::Left;
use crate::switch::{self, Wanted};

/// The time between tries that may go on for ever.
const SELDOM: Duration = Duration::from_secs(5);

/// When the kernel is given the map, if that is still to come.
#[derive(Debug, Default)]
pub(super) struct Attach {
    /// Tries so far that were refused.
    refused: u32,
    /// It was said that /dev cannot become devtmpfs.
    stuck: bool,
    pub(super) due: Option<Instant>,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// Another process is the publisher, and is it until it ends.
    Busy,
    /// The map on /dev hides the module's own device.
    Hidden,
    /// It may go by itself.
    Passing,
    /// The module and we do not fit.
    Never,
}

impl Outlook {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::BUSY) => Self::Busy,
            Some(Errno::NODEV) => Self::Hidden,
            Some(Errno::INVAL | Errno::NOTTY | Errno::PERM | Errno::ACCESS) => Self::Never,
            Some(_) | None => Self::Passing,
        }
    }

    /// When to try again after so many refusals, and whether that is too long for a map on /dev.
    fn next(self, refused: u32) -> (Option<Duration>, bool) {
        match (self, pause(refused)) {
            (Self::Never, _) | (Self::Passing, None) => (None, true),
            (Self::Hidden, pause) => (pause, true),
            (Self::Busy | Self::Passing, Some(pause)) => (Some(pause), false),
            (Self::Busy, None) => (Some(SELDOM), true),
        }
    }

    fn what_to_do(self) -> &'static str {
        match self {
            Self::Busy => "another process is its publisher; it is tried again until that one ends",
            Self::Hidden => "the map on /dev hides the module's device",
            Self::Passing => "it is tried again for a time; after that, restart mapdevd",
            Self::Never => {
                "a module of another version may be loaded: make the initramfs anew \
                 (`update-initramfs -u -k all`), and start the machine again"
            }
        }
    }
}

impl Dispatch {
    /// The first try, before anything is known of devices; gathers the names that are there before them.
    pub(super) fn begin_to_attach(&mut self) {
        if self.publisher.map().is_adopted() {
            // nothing is changed in it before we are its publisher
            self.attach_kernel();
            self.renew_names();
            return;
        }
        let wanted = self.config.mode == Mode::Active && self.config.shim.is_some();
        // no name is made in a map that ours is about to replace, and none is missing in ours
        self.publisher.to_be_served = wanted && is_mounted_on(&self.config.dev);
        self.renew_names();
        self.attach_kernel();
    }

    /// Publishes the map to the kernel; without the module goes on without.
    pub(super) fn attach_kernel(&mut self) {
        if self.publisher.is_served() {
            return;
        }
        self.attach.due = None;
        match self.try_attach() {
            Ok(true) => {
                info!("the kernel serves the map");
                self.make_again();
                if self.publisher.fixed.walked {
                    self.forget_instances();
                }
                let late = std::mem::take(&mut self.attach).refused > 0;
                if late && self.ready.is_none() {
                    self.mount_dev();
                }
            }
            Ok(false) => {}
            Err(error) => self.kernel_refused(&error),
        }
    }

    /// False without the module.
    fn try_attach(&mut self) -> io::Result<bool> {
        let dev = &self.config.dev;
        let Some(shim) = shim(&self.config)? else {
            let wanted = self.config.mode == Mode::Active && self.config.shim.is_some();
            return if wanted && is_mounted_on(dev) { Err(Errno::NODEV.into()) } else { Ok(false) };
        };
        let events = ready::watched(shim.events()?, Interest::READABLE)?;
        let left = self.shown_until_now(&shim)?;
        let inherited = left.as_ref().map(|left| self.inherit(left)).unwrap_or_default();
        self.publisher.attach(Box::new(shim))?;
        self.publisher.to_be_served = false;
        self.kernel = Some(events);
        left.iter().for_each(|left| self.replaced(left, &inherited));
        Ok(true)
    }

    /// What is on /dev, where that is a map which another run serves or has left.
    fn shown_until_now(&mut self, shim: &Shim) -> io::Result<Option<Left>> {
        let dev = &self.config.dev;
        // an adopted map is what is served, unless another process had the kernel meanwhile
        let goes_on = self.publisher.map().is_adopted() && self.attach.refused == 0;
        if goes_on || !is_mounted_on(dev) || shim.stats()?.len == 0 {
            return Ok(None);
        }
        self.publisher.to_be_served = true;
        switch::inherit::look(dev).map(Some)
    }

    fn kernel_refused(&mut self, error: &io::Error) {
        let outlook = Outlook::of(error);
        self.attach.refused += 1;
        let (wait, too_long) = outlook.next(self.attach.refused);
        self.attach.due = wait.map(|wait| Instant::now() + wait);
        self.publisher.to_be_served = wait.is_some();
        if self.attach.refused == 1 {
            warn!("the kernel does not serve the map: {error}; {}", outlook.what_to_do());
        } else {
            debug!("the kernel does not serve the map: {error}");
        }
        if too_long && self.config.mode == Mode::Active && is_mounted_on(&self.config.dev) {
            self.leave_map(error, outlook);
        }
    }

    /// Makes /dev devtmpfs, where it is a map and none of ours.
    fn leave_map(&mut self, error: &io::Error, outlook: Outlook) {
        let dev = &self.config.dev;
        let shown = dev.display();
        match switch::switch(dev, &self.config.sysfs, Wanted::Devtmpfs, Duration::ZERO) {
            Ok(done) => {
                let what_to_do = outlook.what_to_do();
                warn!("{shown} is devtmpfs, since the kernel takes no map: {error}; {what_to_do}");
                done.late.into_iter().for_each(|what| warn!("{shown}: {what}"));
            }
            Err(refused) => {
                if !std::mem::replace(&mut self.attach.stuck, true) {
                    let what = "stays a map in which nothing new appears";
                    warn!("{shown} {what}, and is tried again: {refused}");
                }
                // what is in the way may go, at any time
                let again = pause(self.attach.refused).unwrap_or(SELDOM);
                self.attach.due.get_or_insert_with(|| Instant::now() + again);
            }
        }
        self.look_at_place();
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::TRIES;
    use super::*;

    #[test]
    fn who_has_the_kernel_is_waited_for_for_ever_and_dev_not_so_long() {
        let mut left = Vec::new();
        for refused in 1..100 {
            let (pause, too_long) = Outlook::Busy.next(refused);
            assert!(pause.is_some_and(|pause| pause <= SELDOM));
            left.push(too_long);
        }
        assert_eq!(left.iter().position(|left| *left), usize::try_from(TRIES - 1).ok());
    }

    #[test]
    fn what_will_not_go_is_not_tried_again() {
        let of = |error: Errno| Outlook::of(&error.into());
        assert_eq!(of(Errno::INVAL).next(1), (None, true));
        assert!(of(Errno::NOMEM).next(1).0.is_some());
        assert_eq!(of(Errno::NOMEM).next(TRIES), (None, true));
        assert_eq!(of(Errno::BUSY).next(1), (pause(1), false));
    }
}

//! Stage 6: what is mounted on `/dev`: the map, put there if the configuration says so, or devtmpfs. Who
//! changes that while we run need not tell us.

use std::fs::File;
use std::io;
use std::process::Command;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Dispatch;
use super::turn::at;
use crate::config::{Config, Mode};
use crate::map::shim;
use crate::ready;
use crate::switch::{self, Refused, Wanted};

/// Tells when mounts come or go.
#[derive(Debug)]
pub(super) struct Place {
    changes: Option<AsyncFd<File>>,
    /// Whether `/dev` was the map at the last look.
    is_map: bool,
    /// Tries so far to mount the map that were refused, and when the next one is.
    refused: u32,
    retry_at: Option<Instant>,
}

/// Tries to mount the map: a device may have come that is not handled yet, or something may be in the
/// place of a name that its owner takes away again. All of them take half a minute.
pub(super) const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait after so many tries that were refused; `None` if there are no more.
pub(super) fn pause(refused: u32) -> Option<Duration> {
    let doubled = FIRST_PAUSE.saturating_mul(1 << refused.saturating_sub(1).min(TRIES));
    (refused < TRIES).then_some(doubled.min(LONGEST_PAUSE))
}

impl Place {
    /// In shadow mode nothing depends on it.
    pub(super) fn new(config: &Config) -> Self {
        let changes = (config.mode == Mode::Active).then(watch);
        let changes = changes.and_then(|watched| {
            watched.inspect_err(|error| warn!("mounts are not watched: {error}")).ok()
        });
        let is_map = shim::is_mounted_on(&config.dev);
        Self { changes, is_map, refused: 0, retry_at: None }
    }
}

fn watch() -> io::Result<AsyncFd<File>> {
    // `proc(5)`: a change of the mounts is an exceptional condition of this file
    ready::watched(File::open("/proc/self/mountinfo")?, Interest::PRIORITY)
}

/// The next change of the mounts, or the time to try again.
pub(super) async fn mounts_changed(place: &mut Place) {
    let due = at(place.retry_at);
    tokio::select! {
        () = changed(place) => {}
        () = due => {}
    }
}

async fn changed(place: &mut Place) {
    match &mut place.changes {
        Some(changes) => match changes.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => {
                warn!("mounts are not watched any more: {error}");
                place.changes = None;
            }
        },
        None => std::future::pending().await,
    }
}

impl Dispatch {
    /// Loads the kernel module where the map is to be mounted; at the start, before it is looked for.
    pub(super) fn load_shim(&self) {
        let wanted = self.config.mount_dev && self.config.mode == Mode::Active;
        if !wanted || super::shim(&self.config).is_ok_and(|shim| shim.is_some()) {
            return;
        }
        match Command::new("modprobe").args(["-q", "--", shim::FILE_SYSTEM]).status() {
            Ok(status) if status.success() => {}
            Ok(_) => warn!("mount-dev: there is no module `{}` for this kernel", shim::FILE_SYSTEM),
            Err(error) => warn!("mount-dev: modprobe: {error}"),
        }
    }

    /// Puts the map on `/dev`; to be called once it is whole.
    pub(super) fn mount_dev(&mut self) {
        if !self.config.mount_dev || self.config.mode == Mode::Shadow {
            return;
        }
        if self.publisher.to_be_served {
            return;
        }
        if !self.publisher.is_served() {
            warn!("mount-dev: the kernel does not serve the map; /dev stays as it is");
            return;
        }
        let dev = self.config.dev.display();
        match switch::switch(&self.config.dev, &self.config.sysfs, Wanted::Map, Duration::ZERO) {
            Ok(done) if !done.switched => info!("{dev} is the map already"),
            Ok(done) => {
                let switch::Done { carried, mounted, late, .. } = done;
                info!("{dev} is the map now: {carried} names and {mounted} mounts taken along");
                late.into_iter().for_each(|what| warn!("{dev}: {what}"));
            }
            Err(refused) => self.refused(&refused),
        }
        self.look_at_place();
    }

    /// The map could not be mounted: says so once, tries again for a time, and says when that is over.
    fn refused(&mut self, refused: &Refused) {
        let dev = self.config.dev.display();
        self.place.refused += 1;
        let pause = pause(self.place.refused);
        self.place.retry_at = pause.map(|pause| Instant::now() + pause);
        match pause {
            Some(_) if self.place.refused == 1 => {
                info!("mount-dev: {dev} stays as it is for now, and is tried again: {refused}");
            }
            Some(_) => debug!("mount-dev: {dev} stays as it is for now: {refused}"),
            None => {
                let tries = self.place.refused;
                warn!(
                    "mount-dev: {dev} stays as it is after {tries} tries; `mapdevctl shim attach {dev}` \
                     tries again: {refused}"
                );
            }
        }
    }

    /// After mounts came or went: a /dev that is another one now gets its links and owners again. If it is
    /// time, the map is tried to be mounted again.
    pub(super) fn look_at_place(&mut self) {
        if self.place.retry_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.mount_dev();
            return;
        }
        let is_map = shim::is_mounted_on(&self.config.dev);
        if is_map == self.place.is_map {
            return;
        }
        self.place.is_map = is_map;
        // whoever mounted it
        self.place.retry_at = None;
        let dev = self.config.dev.display();
        info!("{dev} is {}", if is_map { "the map" } else { "no longer the map" });
        self.make_again();
        self.renew_names();
    }

    pub(super) fn make_again(&mut self) {
        let mut problems = self.publisher.make_again(&self.table);
        problems.extend(self.remember_all());
        problems.into_iter().for_each(|problem| warn!("{problem}"));
        self.renew_watches();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_tried_again_ever_more_seldom_and_not_for_ever() {
        let pauses: Vec<_> = (1..=TRIES).map(pause).collect();
        assert!(pauses.is_sorted_by(|a, b| b.is_none() || a <= b));
        assert_eq!(pauses.first(), Some(&Some(FIRST_PAUSE)));
        assert_eq!(pauses.last(), Some(&None));
        let all: Duration = pauses.into_iter().flatten().sum();
        assert!((20..40).contains(&all.as_secs()), "{all:?}");
    }
}

//! Stage 6: what is mounted on `/dev`: the map, put there if the configuration says so, or devtmpfs. Who
//! changes that while we run need not tell us.

use std::fs::File;
use std::io;
use std::process::Command;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::Dispatch;
use crate::config::{Config, Mode};
use crate::map::shim;
use crate::switch::{self, Refused, Wanted};

/// Tells when mounts come or go.
#[derive(Debug)]
pub(super) struct Place {
    changes: Option<AsyncFd<File>>,
    /// Whether `/dev` was the map at the last look.
    is_map: bool,
    /// How often the map is still to be mounted after it could not be: a device may have come that is not
    /// handled yet. Each try is a change of the mounts, so the next one follows.
    tries: u32,
}

/// Each has a turn of the events before it.
const TRIES: u32 = 50;

impl Place {
    /// In shadow mode nothing depends on it.
    pub(super) fn new(config: &Config) -> Self {
        let changes = (config.mode == Mode::Active).then(watch);
        let changes = changes.and_then(|watched| {
            watched.inspect_err(|error| warn!("mounts are not watched: {error}")).ok()
        });
        Self { changes, is_map: shim::is_mounted_on(&config.dev), tries: TRIES }
    }
}

#[expect(deprecated, reason = "the successor is unsafe, for types whose number may change")]
fn watch() -> io::Result<AsyncFd<File>> {
    // `proc(5)`: a change of the mounts is an exceptional condition of this file
    AsyncFd::with_interest(File::open("/proc/self/mountinfo")?, Interest::PRIORITY)
}

/// The next change of the mounts.
pub(super) async fn mounts_changed(place: &mut Place) {
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
        if !self.publisher.is_served() {
            warn!("mount-dev: the kernel does not serve the map; /dev stays as it is");
            return;
        }
        let dev = self.config.dev.display();
        match switch::switch(&self.config.dev, &self.config.sysfs, Wanted::Map, Duration::ZERO) {
            Ok(done) if !done.switched => info!("{dev} is the map already"),
            Ok(done) => {
                self.place.tries = 0;
                let switch::Done { carried, mounted, late, .. } = done;
                info!("{dev} is the map now: {carried} names and {mounted} mounts taken along");
                late.into_iter().for_each(|what| warn!("{dev}: {what}"));
            }
            Err(Refused::Cannot(_)) if self.place.tries > 0 => {
                self.place.tries -= 1;
                return;
            }
            Err(Refused::Cannot(names)) => {
                warn!("mount-dev: {dev} stays as it is; what cannot be carried:");
                names.into_iter().for_each(|name| warn!("{name}"));
            }
            Err(error @ Refused::Io(..)) => {
                warn!("mount-dev: {dev} stays as it is: {error}");
            }
        }
        self.look_at_place();
    }

    /// After mounts came or went: a /dev that is another one now gets its links and owners again.
    pub(super) fn look_at_place(&mut self) {
        let is_map = shim::is_mounted_on(&self.config.dev);
        if is_map == self.place.is_map {
            let tried = self.place.tries < TRIES && self.place.tries > 0;
            if tried && !is_map && self.queue.is_idle() {
                self.mount_dev();
            }
            return;
        }
        self.place.is_map = is_map;
        let dev = self.config.dev.display();
        info!("{dev} is {}", if is_map { "the map" } else { "no longer the map" });
        self.make_again();
        self.renew_names();
    }

    pub(super) fn make_again(&mut self) {
        let problems = self.publisher.make_again(&self.table);
        problems.into_iter().for_each(|problem| warn!("{problem}"));
    }
}

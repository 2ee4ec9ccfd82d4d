//! What the service manager is told, and what it keeps for us over a restart.
//!
//! Without a service manager all of this does nothing.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use sd_notify::NotifyState;
use tracing::warn;

use crate::dispatch::Ready;
use crate::map::MapWriter;

/// Names by which the units and the store call the descriptors.
const SOCKET_NAME: &str = "uevent";
const MAP_NAME: &str = "map";

/// Descriptors that the service manager passed on.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The netlink socket of the socket unit, with what waits in it.
    pub(super) socket: Option<OwnedFd>,
    /// The memory of the last run's map.
    pub(super) map: Option<OwnedFd>,
}

/// Takes over what the service manager passed; to be called once, before anything is opened.
#[expect(unsafe_code, reason = "a number passed in the environment becomes an owned descriptor")]
pub(super) fn take_descriptors() -> Kept {
    let mut kept = Kept::default();
    let Ok(passed) = sd_notify::listen_fds_with_names() else { return kept };
    for (number, name) in passed {
        // SAFETY: sd_listen_fds(3) gives these numbers to this process alone, they are open, and
        // nobody else in it takes them: this runs once, before any other thread.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        match name.as_str() {
            SOCKET_NAME => kept.socket = Some(fd),
            MAP_NAME => kept.map = Some(fd),
            other => warn!("the service manager passed `{other}`, which is not known; closed"),
        }
    }
    kept
}

/// Puts the map's memory into the store, in place of what was there.
pub(super) fn keep_map(map: &MapWriter) {
    let name = NotifyState::FdName(MAP_NAME);
    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(MAP_NAME)]);
    let sent = sd_notify::notify_with_fds(&[NotifyState::FdStore, name], &[map.as_fd()]);
    if let Err(error) = sent {
        warn!("the service manager does not keep the map: {error}");
    }
}

pub(super) fn ready(ready: &Ready) {
    let status = format!("{} devices, {} map entries", ready.devices, ready.map_entries);
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

pub(super) fn reloading() {
    let Ok(now) = NotifyState::monotonic_usec_now() else { return };
    notify(&[NotifyState::Reloading, now]);
}

pub(super) fn reloaded() {
    notify(&[NotifyState::Ready]);
}

pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}

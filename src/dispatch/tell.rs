//! Tells libudev's clients, the bus and the service manager; none of them can hold up an event.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket, sockopt};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::command::Notice;
use super::known::{Known, Told};
use crate::announce::overhear::Overhear;
use crate::announce::{Announcer, Message, Property};
use crate::builtin::Pair;
use crate::config::{Config, Mode};
use crate::uevent::{Origin, Uevent, action_name};

/// Where udev's own daemon, or another in its place, takes orders.
pub const OTHER_MANAGER: &str = "/run/udev/control";

/// A listener, and whether it missed something.
#[derive(Debug)]
struct Listener {
    notices: mpsc::Sender<Notice>,
    behind: bool,
}

/// Everybody who is told of an event's end.
#[derive(Debug)]
pub(super) struct Teller {
    /// `None` in shadow mode, where nothing is announced.
    announcer: Option<Announcer>,
    listeners: Vec<Listener>,
}

impl Teller {
    pub(super) fn new(announce: bool, notices: Vec<mpsc::Sender<Notice>>) -> io::Result<Self> {
        let announcer = if announce { Some(Announcer::open()?) } else { None };
        let listeners =
            notices.into_iter().map(|notices| Listener { notices, behind: false }).collect();
        Ok(Self { announcer, listeners })
    }

    /// Tells of a device that was handled, and of what builtins found after that; returns what failed.
    pub(super) fn handled(
        &mut self,
        uevent: &Uevent,
        known: &Arc<Known>,
        failed: Option<&Told>,
        found: &[Pair],
        usec: u64,
    ) -> Option<String> {
        let device = known.clone();
        let (seqnum, action) = (uevent.seqnum(), uevent.action());
        if uevent.origin == Origin::Policy {
            self.notify(Notice::Changed { device });
            return None;
        }
        let problem = match failed {
            Some(told) => self.announce_told(uevent, told),
            None => self.announce(uevent, known, found),
        };
        self.notify(Notice::Handled { seqnum, action, usec, device });
        problem
    }

    /// Tells of a device that is gone; `known` is what it was, if it was known.
    pub(super) fn removed(
        &mut self,
        uevent: &Arc<Uevent>,
        known: Option<Arc<Known>>,
        told: &Told,
        usec: u64,
    ) -> Option<String> {
        let problem = self.announce_told(uevent, told);
        if let Some(device) = known {
            self.notify(Notice::Removed { seqnum: uevent.seqnum(), usec, device });
        }
        problem
    }

    /// Tells of an event that came to nothing.
    pub(super) fn failed(&self, uevent: &Uevent, told: &Told) -> Option<String> {
        self.announce_told(uevent, told)
    }

    fn announce(&self, uevent: &Uevent, known: &Known, found: &[Pair]) -> Option<String> {
        let announcer = self.announcer.as_ref()?;
        let mut properties = known.properties();
        for (key, value) in found {
            properties.retain(|(known, _)| known != key);
            properties.push((key, Cow::Borrowed(value)));
        }
        send(announcer, uevent, &known.record.sticky_tags, &properties)
    }

    fn announce_told(&self, uevent: &Uevent, told: &Told) -> Option<String> {
        let announcer = self.announcer.as_ref()?;
        let pairs = told.properties.iter();
        let properties: Vec<_> =
            pairs.map(|(key, value)| (key.as_slice(), Cow::Borrowed(value.as_slice()))).collect();
        send(announcer, uevent, &told.sticky_tags, &properties)
    }

    /// Never waits: who does not keep up is told to look at everything anew.
    pub(super) fn notify(&mut self, notice: Notice) {
        for listener in &mut self.listeners {
            if listener.behind {
                listener.behind = listener.notices.try_send(Notice::Behind).is_err();
            }
            if !listener.behind {
                listener.behind = listener.notices.try_send(notice.clone()).is_err();
            }
        }
    }
}

fn send(
    announcer: &Announcer,
    uevent: &Uevent,
    sticky_tags: &[Vec<u8>],
    properties: &[Property<'_>],
) -> Option<String> {
    let subsystem = uevent.subsystem();
    let devtype = uevent.devtype();
    let message = Message { subsystem, devtype, sticky_tags, properties };
    let action = action_name(uevent.action());
    announcer.send(&message).err().map(|error| format!("cannot announce `{action}`: {error}"))
}

/// Whether another device manager is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rival {
    None,
    /// There are signs of one.
    Likely,
    /// Who answers at its control socket: the process's id.
    Answers(Option<u32>),
}

impl Rival {
    /// Asks at the place where every device manager that udev's clients know listens.
    #[must_use]
    pub fn look() -> Self {
        let Ok(meta) = fs::symlink_metadata(OTHER_MANAGER) else { return Self::None };
        let asked = SocketAddrUnix::new(OTHER_MANAGER).and_then(|address| {
            let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
            connect(&socket, &address)?;
            Ok(socket)
        });
        match asked {
            Ok(socket) => {
                let process = sockopt::socket_peercred(&socket).ok().map(|sender| sender.pid);
                let id = process.map(|process| process.as_raw_nonzero().get());
                Self::Answers(id.and_then(|id| id.try_into().ok()))
            }
            // of one that has ended
            Err(Errno::CONNREFUSED) if meta.file_type().is_socket() => Self::None,
            Err(_) => Self::Likely,
        }
    }
}

/// In shadow mode, and if there is another manager, an ear for it.
pub(super) fn rival(config: &Config) -> io::Result<Option<Overhear>> {
    let there = config.mode == Mode::Shadow && Rival::look() != Rival::None;
    there.then(Overhear::open).transpose()
}

/// The next device that the other manager has handled; without one, never.
pub(super) async fn overheard(rival: &mut Option<Overhear>) -> io::Result<Vec<u8>> {
    match rival {
        Some(rival) => rival.next().await,
        None => std::future::pending().await,
    }
}

/// Tells the service manager that dispatch still turns.
#[derive(Debug)]
pub(super) struct Watchdog {
    interval: Option<Interval>,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        let limit = sd_notify::watchdog_enabled();
        let interval = limit.map(|limit| {
            let mut interval = interval((limit / 2).max(Duration::from_millis(1)));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self { interval }
    }

    /// Ends after each sign of life; without a watchdog, never.
    pub(super) async fn tick(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
                // without a service manager nobody listens
                drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
            }
            None => std::future::pending().await,
        }
    }
}

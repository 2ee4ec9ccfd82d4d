//! Stage 6: where the kernel module is loaded, it serves the map, and what others change in it
//! (a login that takes its terminal) is taken in.

use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::Dispatch;
use super::command::Notice;
use super::known::{KernelHand, KernelHands, Known};
use crate::config::{Config, Mode};
use crate::map::Node;
use crate::map::change::KernelChange;
use crate::map::control::{EV_GID, EV_MODE, EV_UID};
use crate::map::shim::{Events, Shim, Told};
use crate::nodes::Permissions;
use crate::nodes::devtmpfs::{KERNEL_DEFAULT, decided};
use crate::rules::decision::Decision;

/// The control device's name; its uevent says that the module was loaded.
const DEVNAME: &[u8] = b"mapdev";

/// What the kernel tells, if it serves the map.
pub(super) type KernelEvents = Option<AsyncFd<Events>>;

/// The module's control device, where there is one and the mode allows it.
///
/// # Errors
/// When it is there and cannot be opened.
pub fn shim(config: &Config) -> io::Result<Option<Shim>> {
    match &config.shim {
        Some(device) if config.mode == Mode::Active => Shim::open(device),
        Some(_) | None => Ok(None),
    }
}

/// The next changes; without the module, never.
pub(super) async fn told(events: &mut KernelEvents) -> io::Result<Vec<Told>> {
    match events {
        Some(events) => events.async_io(Interest::READABLE, some).await,
        None => std::future::pending().await,
    }
}

fn some(events: &Events) -> io::Result<Vec<Told>> {
    match events.take() {
        Ok(told) if told.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
        taken => taken,
    }
}

impl Dispatch {
    /// The module may be loaded long after the daemon was started.
    pub(super) fn notice_module(&mut self, known: &Known) {
        if known.devname() == Some(DEVNAME) && self.attach.due.is_none() {
            self.attach_kernel();
        }
    }

    pub(super) fn kernel_told(&mut self, told: io::Result<Vec<Told>>) {
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                warn!("the kernel tells no more of its changes: {error}; going on without it");
                self.kernel = None;
                self.publisher.detach();
                return;
            }
        };
        for told in told {
            for change in self.publisher.taken_in(&told) {
                self.changed_in_kernel(&change);
            }
        }
    }

    /// The device is told as changed; its next event decides it again.
    fn changed_in_kernel(&mut self, change: &KernelChange) {
        let Some(known) = self.table.named(&change.path) else {
            return self.publisher.name_changed(change);
        };
        // its answer tells of it
        if change.is_ours() {
            return;
        }
        let permissions = permissions(&change.node);
        let by_kernel = known.by_kernel.kept(known.permissions, permissions).and(change);
        // taken in with a change before it: told once more, a loop of chmods would leave the bus no time
        if (permissions, by_kernel) == (known.permissions, known.by_kernel) {
            return;
        }
        let changed = Known { permissions, by_kernel, ..Known::clone(known) };
        let device = Arc::new(changed);
        self.table.insert(device.clone());
        self.teller.notify(Notice::Changed { device });
    }

    /// Where `/dev` is the map, a node's owner and mode are what it has by now: what the worker left, or
    /// what somebody made of it since. Who did so is remembered as long as they are so.
    pub(super) fn as_in_kernel(&self, known: &mut Known) {
        if !self.publisher.is_served() {
            return;
        }
        let now = known.devname().zip(known.devnum()).and_then(|(name, devnum)| {
            let now = self.publisher.map().now(name)?;
            let wanted = now.kind.devnum()?;
            (wanted == devnum && self.publisher.made_in().is_none()).then_some(now)
        });
        if let Some(now) = now {
            known.permissions = permissions(&now);
        }
        let before = self.table.get(&known.id);
        known.by_kernel = match before.filter(|before| before.instance == known.instance) {
            Some(before) => before.by_kernel.kept(before.permissions, known.permissions),
            // the name may be older than the device, and the kernel serves on what a daemon before us published
            None => {
                // the mask of an access list stands where a mode has its group
                let listed = known.record.current_tags.iter().any(|tag| tag == b"uaccess");
                let unseen = KernelHands::unseen(known.permissions, &known.decision, listed);
                let seen = known.devname().map(|name| self.publisher.seen(name, known.permissions));
                seen.unwrap_or_default().or(unseen)
            }
        };
    }
}

/// What an entry of the map says of mode, owner and group.
pub(super) fn permissions(node: &Node) -> Permissions {
    Permissions { uid: node.uid, gid: node.gid, mode: node.mode }
}

impl KernelHands {
    /// With who made this change.
    pub(super) fn and(self, change: &KernelChange) -> Self {
        let (process, user) = change.by.unzip();
        let hand = KernelHand { process, user };
        let of = |bit, before| match change.stands & bit != 0 {
            true => Some(hand),
            // the change after this one is there already, and told next
            false if change.news & bit != 0 => Some(KernelHand::UNKNOWN),
            false => before,
        };
        let (owner, group) = (of(EV_UID, self.owner), of(EV_GID, self.group));
        Self { owner, group, mode: of(EV_MODE, self.mode), last: Some(hand) }
    }

    /// Somebody changed what is not as it was decided, and nobody has seen who.
    pub(super) fn unseen(is: Permissions, decision: &Decision, listed: bool) -> Self {
        let wanted = decided(decision, KERNEL_DEFAULT);
        let counts = if listed { !0o070 } else { !0 };
        let hand = |differs: bool| differs.then_some(KernelHand::UNKNOWN);
        let (owner, group) = (hand(is.uid != wanted.uid), hand(is.gid != wanted.gid));
        let mode = hand((is.mode ^ wanted.mode) & counts != 0);
        Self { owner, group, mode, last: owner.or(group).or(mode) }
    }
}

impl KernelChange {
    /// The worker settles nodes by chmod as everybody does.
    pub(super) fn is_ours(&self) -> bool {
        self.by.is_some_and(|(process, _)| process == std::process::id())
    }
}

impl KernelHand {
    const UNKNOWN: Self = Self { process: None, user: None };
}

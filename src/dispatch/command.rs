//! What others may ask of dispatch, and what it tells them. All channels are bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Ready;
use super::known::{KernelHand, KernelHands, Known};
use crate::device::DeviceId;
use crate::modules::ModuleDb;
use crate::nodes::Permissions;
use crate::rules::decision::{Attribute, Decision};
use crate::uevent::{Action, Devnum};

/// Requests that wait for dispatch at most: as many callers as one bus lets speak at once.
pub const COMMANDS_MAX: usize = 256;

/// Notices that wait for the bus at most. If it falls further behind, it gets [`Notice::Behind`]
/// and looks at all devices anew: events never wait for the bus.
pub const NOTICES_MAX: usize = 4096;

/// The figures of a running daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Shadow mode: nothing outside the runtime folder is touched.
    pub shadow: bool,
    /// Counts the loadings of policy and configuration; from 1.
    pub generation: u64,
    pub map_generation: u64,
    pub map_entries: u64,
    /// The kernel module serves the map.
    pub shim_attached: bool,
    pub devices: u64,
    /// Events that wait or run.
    pub queue_length: u32,
    pub queue_high_water: u32,
    /// Times that the kernel reported loss.
    pub overruns: u64,
    /// Times that sysfs was read again because of it.
    pub resyncs: u64,
    /// Kernel messages that were handled.
    pub events: u64,
    /// Messages that were refused: other senders, truncated or malformed ones.
    pub refused: u64,
    /// Jumps in SEQNUM; the number is shared by all network namespaces, so that it proves nothing.
    pub seqnum_gaps: u64,
    /// Changes that a newer change of the same device replaced while both waited.
    pub coalesced: u64,
    /// Modules that declare a devname.
    pub modules_with_devnames: u64,
    /// Devices whose events were coalesced since the queue was last empty.
    pub throttled: Vec<DeviceId>,
}

/// What a run-time change does to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Owner (uid), group (gid) or mode (permission bits).
    Set { attribute: Attribute, value: u32 },
    /// Every run-time change of the device ends, persisted ones too.
    Reset,
}

/// How a run-time change is to be made, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The caller for people: `uid 0 (:1.42)`.
    pub by: Arc<str>,
    /// The caller's reason, or empty.
    pub reason: Arc<str>,
    /// Kept over restarts and for later devices of the same key.
    pub persist: bool,
    /// Checked and refused as ever, but nothing changes.
    pub dry_run: bool,
    /// The [`Known::instance`] that the caller was allowed to change. If another device has the id
    /// by now, nothing changes and the answer is [`ChangeError::NoSuchDevice`].
    pub instance: Option<u64>,
}

/// Why a run-time change was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    NoSuchDevice,
    /// Shadow mode writes nothing outside the runtime folder, so no change can be kept.
    Shadow,
    /// The device has no node, or no stable key to persist by; the sentence says which.
    NotSupported(String),
    /// The file that keeps the change could not be written, or the node not changed; a change that
    /// was written is tried again at each of the device's events.
    Failed(String),
}

/// A request, with the way back for the answer.
#[derive(Debug)]
pub enum Command {
    Status(oneshot::Sender<Status>),
    /// Every known device, ordered by id.
    List(oneshot::Sender<Vec<Arc<Known>>>),
    Device(DeviceId, oneshot::Sender<Option<Arc<Known>>>),
    /// By node (`/dev/null`, `null`), link, syspath, devpath or id.
    Resolve(Vec<u8>, oneshot::Sender<Option<Arc<Known>>>),
    /// A fresh read-only descriptor of the map, and its generation.
    Map(oneshot::Sender<io::Result<(OwnedFd, u64)>>),
    /// Answers when what the kernel has said so far is in the queue.
    Ping(oneshot::Sender<()>),
    /// Whether events that are heard wait, until this is taken back; those that are begun go on.
    Hold(bool),
    /// Answers when every event that is known by now has been handled.
    Settle(oneshot::Sender<()>),
    /// Answers when this name (as for `Resolve`) is known.
    Await(Vec<u8>, oneshot::Sender<Arc<Known>>),
    /// Answers when the change has taken effect.
    Change(DeviceId, Change, Terms, oneshot::Sender<Result<(), ChangeError>>),
    /// Reads policy and names anew and decides every device again; answers with the generation.
    Reload(oneshot::Sender<u64>),
    /// Compares every node with the decision now (shadow mode), and answers with all that differ.
    Compare(oneshot::Sender<Vec<Arc<Known>>>),
    /// Modules were installed or removed: this is what there is now.
    Modules(Arc<ModuleDb>),
    /// The modules that serve a name below /dev (`net/tun`), or all that serve one.
    Served(Option<Vec<u8>>, oneshot::Sender<Vec<Served>>),
    /// Loads what a name or modalias stands for; the flag: checks only. Answers when it is loaded.
    Load(Vec<u8>, bool, oneshot::Sender<Result<(), LoadError>>),
    /// A name that is there before its device is, and who changed it in the kernel.
    Name(Vec<u8>, oneshot::Sender<Option<Waiting>>),
    /// The names without a device that somebody changed in the kernel, and who did so last.
    NamesChanged(oneshot::Sender<Vec<(Box<[u8]>, KernelHand)>>),
}

/// Why a module was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Shadow mode loads nothing.
    Shadow,
    /// As many modules are being loaded as may be at once.
    Busy,
    /// There is none of this name, or it is kept out.
    NoModule(String),
    /// The kernel or an install command refused.
    Failed(String),
}

/// A name below /dev, and a module that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Without `/dev/`.
    pub name: Box<[u8]>,
    pub module: Box<str>,
    pub block: bool,
    /// `None`: the module says it once it is loaded.
    pub number: Option<Devnum>,
    pub loaded: bool,
}

/// A name that is there before its device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub decision: Decision,
    /// As they are in the map.
    pub permissions: Permissions,
    pub by_kernel: KernelHands,
}

/// What happened, for the bus.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An event of a device was handled, with the time that it took from the socket to the end.
    Handled {
        seqnum: u64,
        action: Action,
        usec: u64,
        device: Arc<Known>,
    },
    /// A device is gone; this is what it was.
    Removed {
        seqnum: u64,
        usec: u64,
        device: Arc<Known>,
    },
    /// The device's run-time change or the policy changed it, without an event.
    Changed {
        device: Arc<Known>,
    },
    /// Every device of today's sysfs was handled: the first walk is over.
    Ready(Ready),
    /// Some notices were dropped: ask for the list.
    Behind,
    StormStarted {
        device: Arc<Known>,
        rate: u32,
    },
    StormEnded {
        device: Arc<Known>,
        dropped: u64,
    },
}

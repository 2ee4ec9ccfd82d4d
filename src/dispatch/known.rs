//! What dispatch remembers of a device between its events; shared with the bus, never changed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use nix::errno::Errno;

use crate::announce::Property;
use crate::builtin::Pair;
use crate::device::record::Record;
use crate::device::{DeviceId, ParentAt, last_element};
use crate::nodes::{Mismatch, Permissions};
use crate::rules::decision::{Attribute, Decision};
use crate::uevent::{Devnum, Uevent};

/// The property of an event that failed.
const FAILED: &[u8] = b"UDEV_WORKER_FAILED";

/// What libudev's clients are told where that is not what is known of the device.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) properties: Vec<Pair>,
    pub(super) sticky_tags: Vec<Vec<u8>>,
}

impl Told {
    pub(super) fn has_failed(&self) -> bool {
        self.properties.iter().any(|(key, _)| key == FAILED)
    }

    /// The event failed with this error of the system's.
    pub(super) fn fail(&mut self, errno: i32) {
        let name = format!("{:?}", Errno::from_raw(errno));
        let mut put = |key: &[u8], value: String| {
            self.properties.push((key.to_vec(), value.into_bytes()));
        };
        put(FAILED, "1".to_owned());
        put(b"UDEV_WORKER_ERRNO", errno.to_string());
        put(b"UDEV_WORKER_ERRNO_NAME", name);
    }
}

/// A device as its last event left it.
#[derive(Clone, Debug)]
pub struct Known {
    pub id: DeviceId,
    /// The last event: the kernel's properties are in it.
    pub uevent: Arc<Uevent>,
    /// Tells this device from a later one of the same id; see `Sysfs::instance`.
    pub instance: u64,
    /// Where in sysfs its parent is, if somebody asked.
    pub parent: Option<ParentAt>,
    /// The driver's module, where sysfs names one.
    pub module: Option<String>,
    /// Counts the loading of rules and policy by which it was decided.
    pub generation: u64,
    /// What kernel and rules have said, before policy had its say.
    pub said: Arc<Decision>,
    pub decision: Decision,
    /// Owner, group and mode as published: what was decided, else what the node has.
    pub permissions: Permissions,
    pub record: Record,
    /// In shadow mode: where the machine's node differs from the decision.
    pub mismatches: Vec<Mismatch>,
    /// Who changed owner, group and mode in the kernel, each as long as it is so.
    pub by_kernel: KernelHands,
}

/// A process that changed a node, as the kernel module tells; nothing if it only knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHand {
    pub process: Option<u32>,
    pub user: Option<u32>,
}

impl fmt::Display for KernelHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "uid {user}")?,
            None => f.write_str("somebody")?,
        }
        self.process.map_or(Ok(()), |process| write!(f, " (process {process})"))
    }
}

/// Who changed owner, group and mode of a node in the kernel after they were decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelHands {
    pub owner: Option<KernelHand>,
    pub group: Option<KernelHand>,
    pub mode: Option<KernelHand>,
    /// The most recent of them.
    pub last: Option<KernelHand>,
}

impl KernelHands {
    /// Those who left something as it is now.
    pub(super) fn kept(self, before: Permissions, now: Permissions) -> Self {
        let owner = self.owner.filter(|_| before.uid == now.uid);
        let group = self.group.filter(|_| before.gid == now.gid);
        let mode = self.mode.filter(|_| before.mode == now.mode);
        let standing = [owner, group, mode];
        let last = self.last.filter(|last| standing.contains(&Some(*last)));
        Self { owner, group, mode, last: last.or(standing.into_iter().flatten().next()) }
    }

    /// Of each attribute who is known here, else who is known there.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            owner: self.owner.or(other.owner),
            group: self.group.or(other.group),
            mode: self.mode.or(other.mode),
            last: self.last.or(other.last),
        }
    }

    /// Who changed one of them.
    #[must_use]
    pub fn of(&self, attribute: Attribute) -> Option<KernelHand> {
        match attribute {
            Attribute::Owner => self.owner,
            Attribute::Group => self.group,
            Attribute::Mode => self.mode,
            Attribute::Link | Attribute::Tag | Attribute::Property => None,
        }
    }
}

impl Known {
    #[must_use]
    pub fn subsystem(&self) -> &[u8] {
        self.uevent.subsystem()
    }

    #[must_use]
    pub fn devtype(&self) -> &[u8] {
        self.uevent.devtype()
    }

    /// The kernel's name as in sysfs, `!` kept.
    #[must_use]
    pub fn sysname(&self) -> &[u8] {
        last_element(self.uevent.devpath())
    }

    /// Without `/dev/`.
    #[must_use]
    pub fn devname(&self) -> Option<&[u8]> {
        self.uevent.devname()
    }

    #[must_use]
    pub fn devnum(&self) -> Option<Devnum> {
        self.uevent.devnum()
    }

    /// All properties as libudev clients see them: the kernel's, the rules', the manager's own.
    #[must_use]
    pub fn properties(&self) -> Vec<Property<'_>> {
        let mut all = of_kernel(&self.uevent);
        all.retain(|(key, _)| !self.decision.dropped.iter().any(|dropped| dropped == key));
        for (key, value) in &self.decision.properties {
            all.retain(|(known, _)| known != key);
            all.push((key, Cow::Borrowed(value)));
        }
        let mut own = |key, value: Vec<u8>| {
            all.retain(|(known, _)| *known != key);
            all.push((key, Cow::Owned(value)));
        };
        if let Some(usec) = self.record.initialized_usec {
            own(b"USEC_INITIALIZED".as_slice(), usec.to_string().into_bytes());
        }
        if !self.record.links.is_empty() {
            let links: Vec<_> =
                self.record.links.iter().map(|link| [b"/dev/", &**link].concat()).collect();
            own(b"DEVLINKS", links.join(&b' '));
        }
        for (key, tags) in [
            (b"TAGS".as_slice(), &self.record.sticky_tags),
            (b"CURRENT_TAGS", &self.record.current_tags),
        ] {
            if !tags.is_empty() {
                own(key, [b":", tags.join(&b':').as_slice(), b":"].concat());
            }
        }
        all
    }

    /// What clients are told of an event that failed after its rules.
    pub(super) fn failed(&self, errno: i32) -> Told {
        let mut shown = self.clone();
        // its record is still that of before
        shown.record.sticky_tags.clone_from(&self.decision.tags.sticky);
        shown.record.current_tags.clone_from(&self.decision.tags.current);
        let sticky_tags = shown.record.sticky_tags.clone();
        let mut told = Told { properties: shown.owned_properties(), sticky_tags };
        told.fail(errno);
        told
    }

    /// The same as a program gets them.
    #[must_use]
    pub fn owned_properties(&self) -> Vec<Pair> {
        let all = self.properties().into_iter();
        all.map(|(key, value)| (key.to_vec(), value.into_owned())).collect()
    }

    /// Who was the last to change owner, group or mode in the kernel after they were decided.
    #[must_use]
    pub fn changed_by(&self) -> Option<String> {
        self.by_kernel.last.map(|hand| hand.to_string())
    }

    /// Who decided the most recent of owner, group and mode: `kernel`, `rule`, `policy`, `runtime`.
    #[must_use]
    pub fn origin(&self) -> &'static str {
        if self.by_kernel.last.is_some() {
            return "kernel";
        }
        let node = [Attribute::Owner, Attribute::Group, Attribute::Mode];
        let rank =
            |kind: &str| ["kernel", "rule", "policy", "runtime"].iter().position(|k| *k == kind);
        let sources = node.iter().filter_map(|attribute| self.decision.source(*attribute));
        sources.map(|source| source.kind()).max_by_key(|kind| rank(kind)).unwrap_or("kernel")
    }
}

/// The kernel's properties, the node's name made absolute.
fn of_kernel(uevent: &Uevent) -> Vec<Property<'_>> {
    let absolute = |name: &[u8]| Cow::Owned([b"/dev/", name].concat());
    let pair = |(key, value)| match (key == b"DEVNAME").then(|| uevent.devname()).flatten() {
        Some(name) => (key, absolute(name)),
        None => (key, Cow::Borrowed(value)),
    };
    uevent.properties().map(pair).collect()
}

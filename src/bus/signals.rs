//! Stage 9: what happened, as signals.
//!
//! State (objects come, change and go) is told to all who listen, as differences to what was told
//! before; single events only to those who asked, at a bounded rate.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zbus::names::BusName;
use zbus::{Message, ObjectPath};

use super::Accounts;
use super::device::{self, Values};
use super::manager;
use super::path;
use super::surface::{DEVICE, MANAGER, OBJECT_MANAGER, PROPERTIES};
use crate::device::DeviceId;
use crate::dispatch::command::Notice;
use crate::dispatch::known::Known;
use crate::uevent::{Action, action_name};

/// Signals for one subscriber in a second. A coldplug makes about a thousand; who wants each event
/// of a storm reads the netlink group. What is beyond is dropped and counted; the gap shows in the
/// sequence numbers.
pub const EVENTS_PER_SECOND: u32 = 2000;

/// Subscribers at most, so that one event is at most that many messages.
pub const SUBSCRIBERS_MAX: usize = 64;

#[derive(Debug)]
struct Subscriber {
    second: Instant,
    sent: u32,
    dropped: u64,
}

/// Makes signals of notices.
#[derive(Debug)]
pub(super) struct Teller {
    accounts: Arc<dyn Accounts>,
    announced: BTreeMap<DeviceId, Arc<Known>>,
    subscribers: HashMap<String, Subscriber>,
}

impl Teller {
    /// Nothing of `known` is told: who finds our name on the bus asks for what is there.
    pub(super) fn new(accounts: Arc<dyn Accounts>, known: Vec<Arc<Known>>) -> Self {
        let announced = known.into_iter().map(|device| (device.id.clone(), device)).collect();
        Self { accounts, announced, subscribers: HashMap::new() }
    }

    /// Whether there was room.
    pub(super) fn subscribe(&mut self, name: &str) -> bool {
        if self.subscribers.len() >= SUBSCRIBERS_MAX && !self.subscribers.contains_key(name) {
            return false;
        }
        let fresh = || Subscriber { second: Instant::now(), sent: 0, dropped: 0 };
        self.subscribers.entry(name.to_owned()).or_insert_with(fresh);
        true
    }

    /// Also for who has left the bus.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        if let Some(gone) = self.subscribers.remove(name) {
            tracing::debug!(subscriber = name, dropped = gone.dropped, "subscriber left");
        }
    }

    /// The signals of one notice; [`Notice::Behind`] has none: see [`Teller::relist`].
    pub(super) fn tell(&mut self, notice: Notice) -> Vec<Message> {
        let mut messages = Vec::new();
        match notice {
            Notice::Handled { seqnum, action, usec, device } => {
                let before = self.announced.get(&device.id).cloned();
                self.state(&device, &mut messages);
                self.event(seqnum, action, usec, &device, &mut messages);
                self.mismatches(before.as_deref(), &device, &mut messages);
            }
            Notice::Removed { seqnum, usec, device } => {
                self.removed(&device.id, &mut messages);
                self.event(seqnum, Action::Remove, usec, &device, &mut messages);
            }
            Notice::Changed { device } => {
                let before = self.announced.get(&device.id).cloned();
                self.state(&device, &mut messages);
                self.mismatches(before.as_deref(), &device, &mut messages);
            }
            Notice::Ready(_) | Notice::Behind => {}
            Notice::StormStarted { device, rate } => {
                let body = (object(&device.id), rate);
                messages.extend(signal(None, path::ROOT, MANAGER, "StormStarted", &body));
            }
            Notice::StormEnded { device, dropped } => {
                let body = (object(&device.id), dropped);
                messages.extend(signal(None, path::ROOT, MANAGER, "StormEnded", &body));
            }
        }
        messages
    }

    /// Tells the differences between what was told and what is there now.
    pub(super) fn relist(&mut self, known: &[Arc<Known>]) -> Vec<Message> {
        let mut messages = Vec::new();
        let here: BTreeMap<_, _> = known.iter().map(|device| (&device.id, device)).collect();
        let gone = self.announced.keys().filter(|id| !here.contains_key(id));
        for id in gone.cloned().collect::<Vec<_>>() {
            self.removed(&id, &mut messages);
        }
        known.iter().for_each(|device| self.state(device, &mut messages));
        messages
    }

    /// A new object, or what of a known one changed.
    fn state(&mut self, device: &Arc<Known>, messages: &mut Vec<Message>) {
        let now = device::values(device, &*self.accounts);
        let before = self.announced.insert(device.id.clone(), device.clone());
        let Some(before) = before else {
            let body = (object(&device.id), HashMap::from([(DEVICE, now)]));
            messages.extend(signal(None, path::ROOT, OBJECT_MANAGER, "InterfacesAdded", &body));
            return;
        };
        let before = device::values(&before, &*self.accounts);
        let changed: Values =
            now.into_iter().filter(|(name, value)| before.get(name) != Some(value)).collect();
        if !changed.is_empty() {
            let body = (DEVICE, changed, [""; 0].as_slice());
            let path = path::of(&device.id);
            messages.extend(signal(None, &path, PROPERTIES, "PropertiesChanged", &body));
        }
    }

    fn removed(&mut self, id: &DeviceId, messages: &mut Vec<Message>) {
        if self.announced.remove(id).is_some() {
            let body = (object(id), [DEVICE].as_slice());
            messages.extend(signal(None, path::ROOT, OBJECT_MANAGER, "InterfacesRemoved", &body));
        }
    }

    fn event(
        &mut self,
        seqnum: u64,
        action: Action,
        usec: u64,
        device: &Known,
        messages: &mut Vec<Message>,
    ) {
        let body = (seqnum, object(&device.id), action_name(action), usec);
        self.unicast("EventProcessed", &body, messages);
    }

    /// Those that were not there before.
    fn mismatches(&mut self, before: Option<&Known>, device: &Known, messages: &mut Vec<Message>) {
        let old = before.map(|before| before.mismatches.as_slice()).unwrap_or_default();
        for (found, told) in device.mismatches.iter().zip(manager::differences(device)) {
            if !old.contains(found) {
                let (attribute, ours, theirs) = told;
                let body = (object(&device.id), attribute.name(), ours, theirs);
                self.unicast("Mismatch", &body, messages);
            }
        }
    }

    /// One message for each subscriber that has not had its share of this second.
    fn unicast<B>(&mut self, member: &str, body: &B, messages: &mut Vec<Message>)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let now = Instant::now();
        for (name, subscriber) in &mut self.subscribers {
            if now.duration_since(subscriber.second) >= Duration::from_secs(1) {
                *subscriber = Subscriber { second: now, sent: 0, dropped: subscriber.dropped };
            }
            if subscriber.sent >= EVENTS_PER_SECOND {
                subscriber.dropped += 1;
                continue;
            }
            subscriber.sent += 1;
            messages.extend(signal(Some(name), path::ROOT, MANAGER, member, body));
        }
    }
}

/// The object path of a device; it is valid by the mapping's own tests.
fn object(id: &DeviceId) -> ObjectPath<'static> {
    ObjectPath::try_from(path::of(id)).unwrap_or_default()
}

/// `None` where the body cannot be written: what is too long for D-Bus is told to nobody.
fn signal<B>(
    to: Option<&str>,
    path: &str,
    interface: &str,
    member: &str,
    body: &B,
) -> Option<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    let mut builder = Message::signal(path, interface, member);
    if let Some(name) = to.map(BusName::try_from) {
        builder = builder.destination(name.ok()?);
    }
    let built = builder.build(body);
    built.inspect_err(|error| tracing::warn!(member, path, %error, "signal not sent")).ok()
}

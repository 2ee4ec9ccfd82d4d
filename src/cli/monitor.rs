//! `mapdevctl monitor`: the daemon's signals, one line each.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value as Json, json};
use zbus::fdo::DBusProxy;
use zbus::message::Message;
use zbus::{ObjectPath, OwnedObjectPath, fdo};

use super::escape;
use super::failure::Failure;
use super::output::{Output, Tone};
use super::session::{INSPECT, ROOT, Session};
use super::values::Properties;

/// Shows signals until Ctrl-C, or until the daemon leaves the bus.
pub async fn run(
    session: &Session,
    lookups: &Session,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let told = |error| Failure::of_call(error, INSPECT);
    let manager = session.manager().await?;
    // both streams before Subscribe: what comes right after it is not lost
    let mut signals = manager.inner().receive_all_signals().await.map_err(told)?;
    let bus = DBusProxy::new(session.connection()).await.map_err(told)?;
    let mut owners =
        bus.receive_name_owner_changed_with_args(&[(0, "org.mapdev1")]).await.map_err(told)?;
    let mut names = Names::load(lookups).await;
    // a full queue of signals stops the reader before the reply, so both are read side by side
    let mut subscribe = std::pin::pin!(manager.subscribe());
    let mut subscribed = false;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            biased;
            // the bus tells the daemon that its subscriber has left
            _ = &mut interrupt => return Ok(()),
            done = &mut subscribe, if !subscribed => {
                done.map_err(told)?;
                subscribed = true;
            }
            signal = signals.next() => match signal {
                Some(message) => show(&message, &mut names, lookups, output).await?,
                None => return Err(gone()),
            },
            change = owners.next() => {
                if change.is_none_or(|change| has_left(&change)) {
                    return Err(gone());
                }
            }
        }
    }
}

fn gone() -> Failure {
    Failure::failed("mapdevd has left the bus; see: systemctl status mapdevd")
}

fn has_left(change: &fdo::NameOwnerChanged) -> bool {
    change.args().map_or(true, |args| args.new_owner().is_none())
}

async fn show(
    message: &Message,
    names: &mut Names,
    lookups: &Session,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let Some(mut event) = Event::read(message) else {
        // a signal of a newer daemon
        return Ok(());
    };
    event.name = names.of(&event, lookups).await;
    if output.is_json() {
        output.json_line(&event.json())?;
    } else {
        output.line(&event.line(output))?;
    }
    output.flush()?;
    Ok(())
}

/// A signal of the daemon with what it says of a device.
struct Event {
    since_boot: Duration,
    kind: Kind,
    path: OwnedObjectPath,
    name: Name,
}

enum Kind {
    Processed { seqnum: u64, action: String, usec: u64 },
    StormStarted { rate: u32 },
    StormEnded { dropped: u64 },
    Mismatch { attribute: String, ours: String, theirs: String },
}

impl Event {
    fn read(message: &Message) -> Option<Self> {
        let header = message.header();
        let body = message.body();
        let (path, kind) = match header.member()?.as_str() {
            "EventProcessed" => {
                let body: (u64, ObjectPath<'_>, String, u64) = body.deserialize().ok()?;
                let (seqnum, path, action, usec) = body;
                (path.into(), Kind::Processed { seqnum, action, usec })
            }
            "StormStarted" => {
                let (path, rate): (ObjectPath<'_>, u32) = body.deserialize().ok()?;
                (path.into(), Kind::StormStarted { rate })
            }
            "StormEnded" => {
                let (path, dropped): (ObjectPath<'_>, u64) = body.deserialize().ok()?;
                (path.into(), Kind::StormEnded { dropped })
            }
            "Mismatch" => {
                let body: (ObjectPath<'_>, String, String, String) = body.deserialize().ok()?;
                let (path, attribute, ours, theirs) = body;
                (path.into(), Kind::Mismatch { attribute, ours, theirs })
            }
            _ => return None,
        };
        Some(Self { since_boot: since_boot(), kind, path, name: Name::default() })
    }

    fn line(&self, output: &Output<'_>) -> String {
        let time = self.since_boot.as_secs_f64();
        let (what, tone, detail) = match &self.kind {
            Kind::Processed { action, usec, .. } => {
                (escape::text(action), Tone::Plain, format!("{usec} us"))
            }
            Kind::StormStarted { rate } => {
                ("storm".to_owned(), Tone::Bad, format!("{rate} events/s, coalesced from now on"))
            }
            Kind::StormEnded { dropped } => {
                ("storm-end".to_owned(), Tone::Good, format!("{dropped} events coalesced"))
            }
            Kind::Mismatch { attribute, ours, theirs } => {
                let [attribute, ours, theirs] =
                    [attribute, ours, theirs].map(|text| escape::text(text));
                ("mismatch".to_owned(), Tone::Bad, format!("{attribute}: {ours}, theirs {theirs}"))
            }
        };
        let syspath = self.name.syspath.as_deref().map(escape::text);
        let device = syspath.unwrap_or_else(|| self.path.as_str().to_owned());
        let node = self.name.node.as_deref().map_or("-".to_owned(), escape::text);
        if !output.is_terminal() {
            return format!("{time:.6}\t{what}\t{device}\t{node}\t{detail}");
        }
        let what = output.paint(tone, &format!("{what:<9}"));
        format!("[{time:>13.6}] {what} {device} ({node}) {detail}")
    }

    fn json(&self) -> Json {
        let mut json = match &self.kind {
            Kind::Processed { seqnum, action, usec } => json!({
                "event": "processed", "seqnum": seqnum, "action": action, "usec": usec,
            }),
            Kind::StormStarted { rate } => json!({ "event": "storm-started", "rate": rate }),
            Kind::StormEnded { dropped } => json!({ "event": "storm-ended", "dropped": dropped }),
            Kind::Mismatch { attribute, ours, theirs } => json!({
                "event": "mismatch", "attribute": attribute, "ours": ours, "theirs": theirs,
            }),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        json["time_usec"] = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).into();
        json["path"] = self.path.as_str().into();
        json["syspath"] = self.name.syspath.clone().into();
        json["node"] = self.name.node.clone().into();
        json
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What people call a device; as the daemon says it, not escaped yet.
#[derive(Clone, Default)]
struct Name {
    syspath: Option<String>,
    node: Option<String>,
}

impl Name {
    fn of(properties: &Properties) -> Self {
        let json = properties.json();
        let text = |key: &str| {
            let text = json.get(key).and_then(Json::as_str).unwrap_or_default();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Self { syspath: text("sys_path"), node: text("node") }
    }
}

/// The names of the devices that are there: a `remove` comes when nobody can be asked any more.
struct Names(HashMap<OwnedObjectPath, Name>);

impl Names {
    /// Without the daemon's list, names are learnt as devices show themselves.
    async fn load(lookups: &Session) -> Self {
        let manager = fdo::ObjectManagerProxy::builder(lookups.connection())
            .destination("org.mapdev1")
            .path(ROOT)
            .build()
            .await;
        let Ok(manager) = manager else { return Self(HashMap::new()) };
        let objects = manager.get_managed_objects().await.unwrap_or_default();
        let named = objects.into_iter().filter_map(|(path, mut interfaces)| {
            let properties = interfaces.remove("org.mapdev1.Device")?;
            Some((path, Name::of(&Properties::new(properties))))
        });
        Self(named.collect())
    }

    async fn of(&mut self, event: &Event, lookups: &Session) -> Name {
        let action = match &event.kind {
            Kind::Processed { action, .. } => action.as_str(),
            Kind::StormStarted { .. } | Kind::StormEnded { .. } | Kind::Mismatch { .. } => "",
        };
        if action == "remove" {
            return self.0.remove(&event.path).unwrap_or_default();
        }
        // a number is used anew by other devices, and a name is changed by add and move only
        if !matches!(action, "add" | "move")
            && let Some(name) = self.0.get(&event.path)
        {
            return name.clone();
        }
        let Ok(properties) = lookups.device_properties(&event.path).await else {
            return self.0.get(&event.path).cloned().unwrap_or_default();
        };
        let name = Name::of(&properties);
        self.0.insert(event.path.clone(), name.clone());
        name
    }
}

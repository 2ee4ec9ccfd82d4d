//! Stage 9: `org.mapdev1.Manager`: the daemon itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use zbus::{ObjectPath, OwnedObjectPath, Variant};

use super::call::{Answer, Call, Effect, NAME_MAX, Options, bounded, nobody, shortened};
use super::device::{self, Values};
use super::errors::{Kind, Refusal};
use super::{World, path};
use crate::dispatch::command::{Command, Status};
use crate::dispatch::known::Known;
use crate::rules::decision::Attribute;

/// The longest that a caller may wait: as long as a machine may take to start.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// One row of `ListDevices`: path, node, subsystem, major, minor.
type Row = (OwnedObjectPath, Vec<u8>, String, u32, u32);

/// Answers a method; the caller is allowed to call it.
pub(super) async fn answer(
    world: &World,
    call: &Call,
    member: &str,
    options: &Options,
) -> Result<Answer, Refusal> {
    match member {
        "ResolveDevice" => resolve(world, call).await,
        "ListDevices" => list(world, call).await,
        "WaitInitialized" => wait(world, call).await,
        "Settle" => settle(world, call).await,
        "Reload" => reload(world, call, options).await,
        "Subscribe" => Ok(Answer { effect: Effect::Subscribe, ..call.reply(&())? }),
        "Unsubscribe" => Ok(Answer { effect: Effect::Unsubscribe, ..call.reply(&())? }),
        "GetMap" => map(world, call).await,
        "ListMismatches" => mismatches(world, call).await,
        _ => Err(nobody(super::surface::MANAGER, member)),
    }
}

/// The object path of a device; it is valid by the mapping's own tests.
pub(super) fn object(device: &Known) -> Result<OwnedObjectPath, Refusal> {
    Ok(ObjectPath::try_from(path::of(&device.id))?.into())
}

async fn resolve(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let name: &str = call.arguments(&body)?;
    bounded("name", name, NAME_MAX)?;
    let known = world.ask(|answer| Command::Resolve(name.as_bytes().to_vec(), answer)).await?;
    let known = known.ok_or_else(|| Refusal::no_such_device(&shortened(name)))?;
    call.reply(&object(&known)?)
}

/// What `ListDevices` looks for; what is not given, fits.
#[derive(Debug, Default)]
struct Filter<'a> {
    subsystem: Option<&'a str>,
    devtype: Option<&'a str>,
    initialized: Option<bool>,
}

impl<'a> Filter<'a> {
    fn read(pairs: &'a HashMap<&'a str, Variant<'a>>) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        for (key, value) in pairs {
            match (*key, value) {
                ("subsystem", Variant::Str(value)) => filter.subsystem = Some(value.as_str()),
                ("devtype", Variant::Str(value)) => filter.devtype = Some(value.as_str()),
                ("initialized", Variant::Bool(value)) => filter.initialized = Some(*value),
                ("subsystem" | "devtype" | "initialized", _) => {
                    let wanted = if *key == "initialized" { "b" } else { "s" };
                    return Err(Refusal::invalid(format!(
                        "The filter '{key}' has the wrong type; write it as '{wanted}'."
                    )));
                }
                (other, _) => {
                    return Err(Refusal::invalid(format!(
                        "There is no filter '{}'; there are 'subsystem', 'devtype' and \
                         'initialized'.",
                        shortened(other)
                    )));
                }
            }
        }
        Ok(filter)
    }

    fn fits(&self, device: &Known) -> bool {
        self.subsystem.is_none_or(|name| name.as_bytes() == device.subsystem())
            && self.devtype.is_none_or(|name| name.as_bytes() == device.devtype())
            && self.initialized.is_none_or(|is| is == device.record.initialized_usec.is_some())
    }
}

async fn list(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let pairs: HashMap<&str, Variant<'_>> = call.arguments(&body)?;
    let filter = Filter::read(&pairs)?;
    let large = world.large().await?;
    let known = world.ask(Command::List).await?;
    let mut rows: Vec<Row> = Vec::new();
    for device in known.iter().filter(|device| filter.fits(device)) {
        let (major, minor) = device.devnum().map_or((0, 0), |number| (number.major, number.minor));
        let subsystem = device::text(device.subsystem());
        rows.push((object(device)?, device::node(device), subsystem, major, minor));
    }
    Ok(Answer { large: Some(large), ..call.reply(&(rows,))? })
}

fn limited(usec: u64) -> Duration {
    Duration::from_micros(usec).min(WAIT_MAX)
}

async fn wait(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let (name, usec): (&str, u64) = call.arguments(&body)?;
    bounded("name", name, NAME_MAX)?;
    let limit = limited(usec);
    let waited = world.ask(|answer| Command::Await(name.as_bytes().to_vec(), answer));
    let Ok(known) = tokio::time::timeout(limit, waited).await else {
        let message = format!(
            "No device '{}' came within {} ms; wait longer, or look for what should make it.",
            shortened(name),
            limit.as_millis()
        );
        return Err(Refusal::new(Kind::NoSuchDevice, message));
    };
    call.reply(&object(&*known?)?)
}

async fn settle(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let usec: u64 = call.arguments(&call.message.body())?;
    let waited = tokio::time::timeout(limited(usec), world.ask(Command::Settle)).await;
    let settled = waited.is_ok();
    waited.unwrap_or(Ok(()))?;
    call.reply(&settled)
}

async fn reload(world: &World, call: &Call, options: &Options) -> Result<Answer, Refusal> {
    if options.dry_run || options.persist {
        let message = "Reload knows neither 'dry-run' nor 'persist'; leave them out.";
        return Err(Refusal::new(Kind::NotSupported, message));
    }
    tracing::info!(by = %call.by(), reason = options.reason, "reload");
    let generation = world.ask(Command::Reload).await?;
    call.reply(&generation)
}

async fn map(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let (file, generation) = world.ask(Command::Map).await?.map_err(|error| {
        Refusal::new(Kind::Failed, format!("The map could not be handed out: {error}; try again."))
    })?;
    call.reply(&(zbus::OwnedFd::from(file), generation))
}

async fn mismatches(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let large = world.large().await?;
    let differing = world.ask(Command::Compare).await?;
    let mut rows: Vec<(OwnedObjectPath, &str, &str, &str)> = Vec::new();
    for device in &differing {
        for found in &device.mismatches {
            rows.push((object(device)?, found.attribute.name(), &found.ours, &found.theirs));
        }
    }
    Ok(Answer { large: Some(large), ..call.reply(&(rows,))? })
}

/// All properties of `org.mapdev1.Manager`.
pub(super) fn values(status: &Status, features: &[String]) -> Values {
    let throttled = status.throttled.iter().map(path::of);
    let throttled: Vec<ObjectPath<'static>> =
        throttled.filter_map(|path| ObjectPath::try_from(path).ok()).collect();
    let mode = if status.shadow { "shadow" } else { "active" };
    BTreeMap::from([
        ("Version", Variant::from(env!("CARGO_PKG_VERSION").to_owned())),
        ("Mode", Variant::from(mode.to_owned())),
        ("Generation", Variant::from(status.generation)),
        ("MapGeneration", Variant::from(status.map_generation)),
        ("MapEntries", Variant::from(status.map_entries)),
        ("ShimAttached", Variant::from(status.shim_attached)),
        ("Devices", Variant::from(status.devices)),
        ("ModulesWithDevnames", Variant::from(status.modules_with_devnames)),
        ("QueueLength", Variant::from(status.queue_length)),
        ("QueueHighWater", Variant::from(status.queue_high_water)),
        ("Events", Variant::from(status.events)),
        ("Refused", Variant::from(status.refused)),
        ("SeqnumGaps", Variant::from(status.seqnum_gaps)),
        ("Coalesced", Variant::from(status.coalesced)),
        ("Overruns", Variant::from(status.overruns)),
        ("Resyncs", Variant::from(status.resyncs)),
        ("Throttled", Variant::from(throttled)),
        ("Features", Variant::from(features.to_vec())),
    ])
}

/// What differs between daemon and machine for one device: attribute, ours, theirs.
pub(super) fn differences(device: &Known) -> impl Iterator<Item = (Attribute, &str, &str)> {
    device.mismatches.iter().map(|found| (found.attribute, &*found.ours, &*found.theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_filter_is_refused_by_its_name() {
        let pairs = HashMap::from([("subsytem", Variant::from("block"))]);
        let refusal = Filter::read(&pairs).unwrap_err();
        assert_eq!(refusal.kind, Kind::InvalidArgs);
        assert!(refusal.message.contains("'subsytem'"), "{refusal}");
        let pairs = HashMap::from([("initialized", Variant::from("yes"))]);
        assert!(Filter::read(&pairs).unwrap_err().message.contains("'b'"));
    }

    #[test]
    fn nobody_waits_for_ever() {
        assert_eq!(limited(u64::MAX), WAIT_MAX);
        assert_eq!(limited(5), Duration::from_micros(5));
    }
}

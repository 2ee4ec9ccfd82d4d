//! Stage 9: `org.mapdev1.Modules`: the names below /dev that modules serve, and loading one.

use std::collections::HashMap;

use zbus::Variant;

use super::call::{Answer, Call, NAME_MAX, Options, bounded, nobody, shortened};
use super::device::{self, text};
use super::errors::{Kind, Refusal};
use super::{World, surface};
use crate::dispatch::command::{Command, Served, Waiting};

/// Answers a method; the caller is allowed to call it.
pub(super) async fn answer(
    world: &World,
    call: &Call,
    member: &str,
    options: &Options,
) -> Result<Answer, Refusal> {
    match member {
        "Query" => query(world, call).await,
        "List" => list(world, call).await,
        "Load" => load(world, call, options).await,
        "Explain" => explain(world, call).await,
        "Changed" => changed(world, call).await,
        _ => Err(nobody(surface::MODULES, member)),
    }
}

/// A name as it may be written: `net/tun` or `/dev/net/tun`.
fn below_dev(name: &str) -> Result<Vec<u8>, Refusal> {
    bounded("name", name, NAME_MAX)?;
    Ok(name.strip_prefix("/dev/").unwrap_or(name).into())
}

fn kind(served: &Served) -> &'static str {
    if served.block { "block" } else { "char" }
}

/// Zeroes stand for a number that the module says once it is loaded.
fn number(served: &Served) -> (u32, u32) {
    served.number.map_or((0, 0), |number| (number.major, number.minor))
}

async fn query(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let name = below_dev(call.arguments(&body)?)?;
    let served = world.ask(|answer| Command::Served(Some(name), answer)).await?;
    let row = |served: &Served| {
        let (major, minor) = number(served);
        (served.module.to_string(), kind(served), major, minor, served.loaded)
    };
    call.reply(&(served.iter().map(row).collect::<Vec<_>>(),))
}

async fn list(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let large = world.large().await?;
    let served = world.ask(|answer| Command::Served(None, answer)).await?;
    let row = |served: &Served| {
        let (major, minor) = number(served);
        let (name, module) = (text(&served.name), served.module.to_string());
        (name, module, kind(served), major, minor, served.loaded)
    };
    let rows: Vec<_> = served.iter().map(row).collect();
    Ok(Answer { large: Some(large), ..call.reply(&(rows,))? })
}

async fn load(world: &World, call: &Call, options: &Options) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let (name, _): (&str, HashMap<&str, Variant<'_>>) = call.arguments(&body)?;
    bounded("name", name, NAME_MAX)?;
    if options.persist {
        let message = "Load knows no 'persist'; to load a module at each start, name it in a file \
                       of modules-load.d.";
        return Err(Refusal::new(Kind::NotSupported, message));
    }
    let (by, reason, shown) = (call.by(), &options.reason, shortened(name));
    tracing::info!(%by, reason, dry_run = options.dry_run, "load {shown}");
    let name = name.as_bytes().to_vec();
    world.ask(|answer| Command::Load(name, options.dry_run, answer)).await??;
    call.reply(&())
}

async fn explain(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let (name, attribute): (&str, &str) = call.arguments(&body)?;
    let wanted = below_dev(name)?;
    let found = world.ask(|answer| Command::Name(wanted, answer)).await?;
    let found = found.ok_or_else(|| {
        let message = format!(
            "No module, tmpfiles.d line or policy names '{}'; call List for the names that there \
             are before their devices.",
            shortened(name)
        );
        Refusal::new(Kind::NoSuchDevice, message)
    })?;
    let mut rows = device::rows(&found.decision, attribute)?;
    let Waiting { decision, permissions, by_kernel } = &found;
    rows.extend(device::in_kernel(decision, *permissions, by_kernel, attribute));
    call.reply(&(rows,))
}

async fn changed(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let large = world.large().await?;
    let found = world.ask(Command::NamesChanged).await?;
    let rows: Vec<_> = found.iter().map(|(name, by)| (text(name), by.to_string())).collect();
    Ok(Answer { large: Some(large), ..call.reply(&(rows,))? })
}

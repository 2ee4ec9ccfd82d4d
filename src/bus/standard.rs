//! Stage 9: the interfaces that every D-Bus service has, for our objects.
//!
//! Devices are not registered anywhere: an object is there when dispatch knows its device. So
//! thousands of them cost nothing until somebody asks, and introspection stays one object's.

use std::collections::HashMap;
use std::fs;

use zbus::{OwnedObjectPath, Variant};

use super::call::{Answer, Call, NAME_MAX, allow, bounded, nobody, shortened};
use super::device::{self, Values};
use super::errors::{Kind, Refusal};
use super::surface::{
    self, DEVICE, INTROSPECTABLE, LOG_CONTROL, MANAGER, MODULES, OBJECT_MANAGER, PEER, PROPERTIES,
};
use super::{World, logs, manager, path, polkit};
use crate::dispatch::command::Command;

/// Where `org.freedesktop.LogControl1` is, by its manual page.
const LOG_CONTROL_PATH: &str = "/org/freedesktop/LogControl1";

/// The interfaces of the object at a path; none where no object can be.
pub(super) fn interfaces(path: &str) -> &'static [&'static str] {
    match path {
        path::ROOT => &[MANAGER, MODULES, OBJECT_MANAGER, PROPERTIES, INTROSPECTABLE, PEER],
        LOG_CONTROL_PATH => &[LOG_CONTROL, PROPERTIES, INTROSPECTABLE, PEER],
        "/" | "/org" | "/org/freedesktop" | path::DEVICES => &[INTROSPECTABLE, PEER],
        _ if path::id(path).is_some() => &[DEVICE, PROPERTIES, INTROSPECTABLE, PEER],
        _ => &[],
    }
}

/// Answers a method; the caller is allowed to call it.
pub(super) async fn answer(
    world: &World,
    call: &Call,
    interface: &str,
    member: &str,
) -> Result<Answer, Refusal> {
    match (interface, member) {
        (PROPERTIES, "Get") => get(world, call).await,
        (PROPERTIES, "GetAll") => get_all(world, call).await,
        (PROPERTIES, "Set") => set(world, call).await,
        (OBJECT_MANAGER, "GetManagedObjects") => managed(world, call).await,
        (INTROSPECTABLE, "Introspect") => introspect(world, call).await,
        (PEER, "Ping") => call.reply(&()),
        (PEER, "GetMachineId") => machine_id(call),
        _ => Err(nobody(interface, member)),
    }
}

/// The properties of one interface of one object.
async fn values(world: &World, path: &str, interface: &str) -> Result<Values, Refusal> {
    if !interfaces(path).contains(&interface) {
        let message = format!(
            "The object {path} has no interface '{}'; see 'busctl introspect'.",
            shortened(interface)
        );
        return Err(Refusal::new(Kind::UnknownInterface, message));
    }
    match interface {
        MANAGER => Ok(manager::values(&world.ask(Command::Status).await?, &world.config.features)),
        DEVICE => Ok(device::values(&*world.device(path).await?, &*world.accounts)),
        LOG_CONTROL => Ok(logs::values(world)),
        _ => Ok(Values::new()),
    }
}

async fn get(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let (interface, property): (&str, &str) = call.arguments(&body)?;
    bounded("interface's name", interface, NAME_MAX)?;
    let mut values = values(world, &call.path(), interface).await?;
    let value = values.remove(property).ok_or_else(|| unknown(interface, property))?;
    call.reply(&value)
}

async fn get_all(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let interface: &str = call.arguments(&body)?;
    bounded("interface's name", interface, NAME_MAX)?;
    call.reply(&values(world, &call.path(), interface).await?)
}

async fn set(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let (interface, name, value): (&str, &str, Variant<'_>) = call.arguments(&body)?;
    let found = surface::interface(interface).and_then(|interface| interface.property(name));
    let there = interfaces(&call.path()).contains(&interface);
    let Some(property) = found.filter(|_| there) else {
        return Err(unknown(interface, name));
    };
    if !property.writable {
        let message =
            format!("The property '{name}' can be read only; call a method to change it.");
        return Err(Refusal::new(Kind::PropertyReadOnly, message));
    }
    let access = polkit::access(interface, name).ok_or_else(|| nobody(interface, name))?;
    allow(world, call, access, false, None).await?;
    match (interface, name) {
        (LOG_CONTROL, "LogLevel") => logs::set_level(world, call, &value)?,
        _ => return Err(nobody(interface, name)),
    }
    call.reply(&())
}

fn unknown(interface: &str, property: &str) -> Refusal {
    let (interface, property) = (shortened(interface), shortened(property));
    let message =
        format!("There is no property '{property}' in '{interface}'; see 'busctl introspect'.");
    Refusal::new(Kind::UnknownProperty, message)
}

async fn managed(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let large = world.large().await?;
    let known = world.ask(Command::List).await?;
    let mut objects: HashMap<OwnedObjectPath, HashMap<&str, Values>> = HashMap::new();
    for device in &known {
        let values = device::values(device, &*world.accounts);
        objects.insert(manager::object(device)?, HashMap::from([(DEVICE, values)]));
    }
    Ok(Answer { large: Some(large), ..call.reply(&objects)? })
}

async fn introspect(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let path = call.path();
    let one = |name: &str| vec![name.to_owned()];
    let mut large = None;
    let children = match path.as_str() {
        "/" => one("org"),
        "/org" => vec!["freedesktop".to_owned(), "mapdev1".to_owned()],
        "/org/freedesktop" => one("LogControl1"),
        path::ROOT => one("device"),
        path::DEVICES => {
            large = Some(world.large().await?);
            let known = world.ask(Command::List).await?;
            known.iter().map(|device| path::name(&device.id)).collect()
        }
        LOG_CONTROL_PATH => Vec::new(),
        device => {
            world.device(device).await?;
            Vec::new()
        }
    };
    Ok(Answer { large, ..call.reply(&surface::xml(interfaces(&path), &children))? })
}

fn machine_id(call: &Call) -> Result<Answer, Refusal> {
    let id = fs::read_to_string("/etc/machine-id").map_err(|error| {
        let message = format!("/etc/machine-id could not be read: {error}; make it.");
        Refusal::new(Kind::Failed, message)
    })?;
    call.reply(&id.trim())
}

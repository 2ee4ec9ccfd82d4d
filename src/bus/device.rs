//! Stage 9: `org.mapdev1.Device`: one device's properties and methods.

use std::collections::{BTreeMap, HashMap};

use zbus::Variant;

use super::call::{Answer, Call, NAME_MAX, Options, bounded, nobody, shortened};
use super::errors::{Kind, Refusal};
use super::{Accounts, World};
use crate::dispatch::command::{Change, Command, Terms};
use crate::dispatch::known::{KernelHands, Known};
use crate::nodes::Permissions;
use crate::rules::decision::{Attribute, Decision, Source, Step, written};

/// A user's or group's name, in bytes: LOGIN_NAME_MAX.
const ACCOUNT_MAX: usize = 256;

/// The properties of an object's interface; ordered, so that answers are the same every time.
pub(super) type Values = BTreeMap<&'static str, Variant<'static>>;

/// One row of `Explain`: source, file, line, column, operation, old, new.
pub(super) type Row = (String, String, u32, u32, String, String, String);

/// Bytes as a text that D-Bus carries: what is not UTF-8 is escaped.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// The node's path, or nothing.
pub(super) fn node(device: &Known) -> Vec<u8> {
    device.devname().map(|name| [b"/dev/", name].concat()).unwrap_or_default()
}

/// All properties of `org.mapdev1.Device`.
pub(super) fn values(device: &Known, accounts: &dyn Accounts) -> Values {
    let (major, minor) = device.devnum().map_or((0, 0), |number| (number.major, number.minor));
    let permissions = device.permissions;
    let (owner, group) =
        (accounts.user_name(permissions.uid), accounts.group_name(permissions.gid));
    let record = &device.record;
    let links = record.links.iter().map(|link| text(&[b"/dev/", link.as_slice()].concat()));
    let state = if device.module.is_some() { "loaded" } else { "" };
    let acl: Vec<(String, String, u32)> = Vec::new();
    BTreeMap::from([
        ("Node", Variant::from(node(device))),
        ("SysPath", Variant::from([b"/sys", device.uevent.devpath()].concat())),
        ("Subsystem", Variant::from(text(device.subsystem()))),
        ("Type", Variant::from(text(device.devtype()))),
        ("Major", Variant::from(major)),
        ("Minor", Variant::from(minor)),
        ("Owner", Variant::from(permissions.uid)),
        ("Group", Variant::from(permissions.gid)),
        ("OwnerName", Variant::from(owner.unwrap_or_default())),
        ("GroupName", Variant::from(group.unwrap_or_default())),
        ("Mode", Variant::from(permissions.mode)),
        ("Acl", Variant::from(acl)),
        ("Tags", Variant::from(record.current_tags.iter().map(|t| text(t)).collect::<Vec<_>>())),
        ("Seat", Variant::from(seat(device))),
        ("Symlinks", Variant::from(links.collect::<Vec<_>>())),
        ("Module", Variant::from(text(device.module.as_deref().unwrap_or_default().as_bytes()))),
        ("ModuleState", Variant::from(state.to_owned())),
        ("Initialized", Variant::from(record.initialized_usec.is_some())),
        ("Origin", Variant::from(device.origin().to_owned())),
        ("ChangedBy", Variant::from(device.changed_by().unwrap_or_default())),
    ])
}

/// The seat by `ID_SEAT`; what is tagged for seats and names none belongs to the first.
fn seat(device: &Known) -> String {
    let named = device.record.properties.iter().find(|(key, _)| key == b"ID_SEAT");
    match named {
        Some((_, seat)) if !seat.is_empty() => text(seat),
        Some(_) | None if device.record.current_tags.iter().any(|tag| tag == b"seat") => {
            "seat0".to_owned()
        }
        Some(_) | None => String::new(),
    }
}

/// Answers a method; the caller is allowed to call it.
pub(super) async fn answer(
    world: &World,
    call: &Call,
    member: &str,
    options: &Options,
    device: &Known,
) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let change = match member {
        "SetOwner" => {
            let (user, _): (&str, HashMap<&str, Variant<'_>>) = call.arguments(&body)?;
            Change::Set { attribute: Attribute::Owner, value: uid(world, user)? }
        }
        "SetGroup" => {
            let (group, _): (&str, HashMap<&str, Variant<'_>>) = call.arguments(&body)?;
            Change::Set { attribute: Attribute::Group, value: gid(world, group)? }
        }
        "SetMode" => {
            let (mode, _): (u32, HashMap<&str, Variant<'_>>) = call.arguments(&body)?;
            Change::Set { attribute: Attribute::Mode, value: permission_bits(mode)? }
        }
        "Reset" => Change::Reset,
        "GetProperties" => return properties(call, device),
        "Explain" => return explain(call, device),
        _ => return Err(nobody(super::surface::DEVICE, member)),
    };
    if device.devname().is_none() {
        let message = "The device has no node in /dev, so there is nothing to own or to open.";
        return Err(Refusal::new(Kind::NotSupported, message));
    }
    let terms = Terms {
        by: call.by(),
        reason: options.reason.as_str().into(),
        persist: options.persist,
        dry_run: options.dry_run,
        instance: Some(device.instance),
    };
    let id = device.id.clone();
    world.ask(|answer| Command::Change(id, change, terms, answer)).await??;
    call.reply(&())
}

fn uid(world: &World, user: &str) -> Result<u32, Refusal> {
    bounded("user's name", user, ACCOUNT_MAX)?;
    world.accounts.uid(user).ok_or_else(|| {
        let user = shortened(user);
        let message = format!(
            "There is no user '{user}'; see 'getent passwd', or give the number of a user."
        );
        Refusal::new(Kind::UnknownUser, message)
    })
}

fn gid(world: &World, group: &str) -> Result<u32, Refusal> {
    bounded("group's name", group, ACCOUNT_MAX)?;
    world.accounts.gid(group).ok_or_else(|| {
        let group = shortened(group);
        let message = format!(
            "There is no group '{group}'; see 'getent group', or give the number of a group."
        );
        Refusal::new(Kind::UnknownUser, message)
    })
}

fn permission_bits(mode: u32) -> Result<u32, Refusal> {
    if mode <= 0o7777 {
        return Ok(mode);
    }
    let message =
        format!("The mode {mode:o} has more than permission bits; give at most 7777 (octal).");
    Err(Refusal::invalid(message))
}

fn properties(call: &Call, device: &Known) -> Result<Answer, Refusal> {
    let pairs = device.properties();
    let pairs: BTreeMap<String, Vec<u8>> =
        pairs.into_iter().map(|(key, value)| (text(key), value.into_owned())).collect();
    call.reply(&pairs)
}

fn explain(call: &Call, device: &Known) -> Result<Answer, Refusal> {
    let body = call.message.body();
    let attribute = call.arguments(&body)?;
    let mut rows = rows(&device.decision, attribute)?;
    rows.extend(in_kernel(&device.decision, device.permissions, &device.by_kernel, attribute));
    call.reply(&(rows,))
}

/// What somebody made of an attribute in the kernel, if it is not what was decided.
pub(super) fn in_kernel(
    decision: &Decision,
    permissions: Permissions,
    by_kernel: &KernelHands,
    attribute: &str,
) -> Option<Row> {
    let attribute = Attribute::from_name(attribute)?;
    let by = by_kernel.of(attribute)?.to_string();
    let is = match attribute {
        Attribute::Owner => permissions.uid,
        Attribute::Group => permissions.gid,
        Attribute::Mode => permissions.mode,
        Attribute::Link | Attribute::Tag | Attribute::Property => return None,
    };
    let decided = decision.value(attribute);
    let shown = |value| written(attribute, value);
    let old = decided.map(shown).unwrap_or_default();
    let row = || ("kernel".to_owned(), by, 0, 0, "=".to_owned(), old, shown(is));
    (decided != Some(is)).then(row)
}

/// Who had a say about an attribute.
pub(super) fn rows(decision: &Decision, attribute: &str) -> Result<Vec<Row>, Refusal> {
    bounded("attribute's name", attribute, NAME_MAX)?;
    let Some(attribute) = Attribute::from_name(attribute) else {
        let known = Attribute::ALL.map(Attribute::name).join(", ");
        let name = shortened(attribute);
        let message = format!("There is nothing to explain for '{name}'; ask for one of: {known}.");
        return Err(Refusal::invalid(message));
    };
    Ok(decision.explain(attribute).map(row).collect())
}

/// A run-time change has no file: who made it, and why, stands there.
fn row(step: &Step) -> Row {
    let (file, line, column) = match (&step.source, step.source.place()) {
        (_, Some(place)) => (place.file.to_string(), place.line, place.column),
        (Source::Runtime { by, reason }, None) if reason.is_empty() => (by.to_string(), 0, 0),
        (Source::Runtime { by, reason }, None) => (format!("{by}: {reason}"), 0, 0),
        (Source::Kernel | Source::Tmpfiles(_) | Source::Rule(_) | Source::Policy { .. }, None) => {
            (String::new(), 0, 0)
        }
    };
    let source = step.source.kind().to_owned();
    (source, file, line, column, step.operation.to_owned(), step.old.clone(), step.new.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        assert_eq!(text("tty-ä".as_bytes()), "tty-ä");
        assert_eq!(text(b"a\xffb"), "a\\xffb");
        assert_eq!(text(b"a\0b"), "a\\x00b");
    }

    #[test]
    fn a_mode_has_permission_bits_only() {
        assert_eq!(permission_bits(0o4755), Ok(0o4755));
        assert_eq!(permission_bits(0o20_660).unwrap_err().kind, Kind::InvalidArgs);
    }
}

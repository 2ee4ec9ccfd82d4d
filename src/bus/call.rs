//! Stage 9: one method call: what it says, and whether it may.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use zbus::message::Flags;
use zbus::{Message, Variant};

use super::errors::{Kind, Refusal};
use super::polkit::{self, Access, Caller, Details, PERSIST_POLICY};
use super::surface::{self, DEVICE, INTROSPECTABLE, LOG_CONTROL, MANAGER, MODULES};
use super::surface::{Method, OBJECT_MANAGER, PEER, PROPERTIES};
use super::{World, device, manager, modules, path, standard};
use crate::dispatch::command::Command;
use crate::dispatch::known::Known;

/// The body of a call, in bytes: a path and a reason fit twenty times.
const BODY_MAX: usize = 128 << 10;

/// A name or path, in bytes: PATH_MAX.
pub(super) const NAME_MAX: usize = 4096;

/// A reason for people, in bytes: a paragraph, as it is kept in files and written to logs.
const REASON_MAX: usize = 1024;

/// What the options of a changing call ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) dry_run: bool,
    pub(super) persist: bool,
    pub(super) reason: String,
}

/// What else an answer does before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Subscribe,
    Unsubscribe,
}

/// The way back to the caller.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Message,
    pub(super) effect: Effect,
    /// Held until the message is sent: large answers are made one at a time.
    pub(super) large: Option<OwnedSemaphorePermit>,
}

/// One call, its form checked against the surface.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) message: Message,
    pub(super) caller: Caller,
}

impl Call {
    pub(super) fn new(message: Message, name: String, uid: u32) -> Self {
        let interactive = message.primary_header().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        Self { message, caller: Caller { name, uid, interactive } }
    }

    pub(super) fn path(&self) -> String {
        self.message.header().path().map(ToString::to_string).unwrap_or_default()
    }

    /// The answer with this body.
    pub(super) fn reply<B>(&self, body: &B) -> Result<Answer, Refusal>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let message = Message::method_return(&self.message.header()).build(body)?;
        Ok(Answer { message, effect: Effect::None, large: None })
    }

    pub(super) fn arguments<'s, B>(&self, body: &'s zbus::message::Body) -> Result<B, Refusal>
    where
        B: zbus::wire::DynamicDeserialize<'s>,
    {
        body.deserialize().map_err(|error| {
            Refusal::invalid(format!("The arguments could not be read: {error}; check them."))
        })
    }

    /// The caller, for people and for the record of who changed what.
    pub(super) fn by(&self) -> Arc<str> {
        format!("uid {} ({})", self.caller.uid, self.caller.name).into()
    }
}

/// Answers a call; a refusal becomes an error message.
pub(super) async fn serve(world: Arc<World>, call: Call) -> Option<Answer> {
    let answered = answer(&world, &call).await;
    let refused = |refusal: &Refusal| {
        tracing::debug!(caller = %call.caller.name, uid = call.caller.uid, %refusal, "call refused");
        error(&call.message, refusal)
    };
    match answered {
        Ok(answer) => Some(answer),
        Err(refusal) => {
            Some(Answer { message: refused(&refusal)?, effect: Effect::None, large: None })
        }
    }
}

/// The error message for a refusal.
pub(super) fn error(message: &Message, refusal: &Refusal) -> Option<Message> {
    let text = refusal.message.replace('\0', "");
    Message::error(&message.header(), refusal.kind.name()).build(&text).ok()
}

async fn answer(world: &World, call: &Call) -> Result<Answer, Refusal> {
    let header = call.message.header();
    let unknown = |kind, what: &str, name: &str| {
        Refusal::new(kind, format!("There is no {what} '{name}' here; see 'busctl introspect'."))
    };
    let (Some(interface), Some(member)) = (header.interface(), header.member()) else {
        let message = "The call names no interface; say which one the method belongs to.";
        return Err(Refusal::new(Kind::UnknownInterface, message));
    };
    let (interface, member) = (interface.as_str(), member.as_str());
    let Some(known) = surface::interface(interface) else {
        return Err(unknown(Kind::UnknownInterface, "interface", interface));
    };
    let Some(method) = known.method(member) else {
        return Err(unknown(Kind::UnknownMethod, "method", member));
    };
    let path = call.path();
    if !standard::interfaces(&path).contains(&interface) {
        return Err(unknown(Kind::UnknownObject, "object", &format!("{path} with {interface}")));
    }
    check_form(call, method)?;
    let options = options(call, method)?;
    let device = match interface {
        DEVICE => Some(world.device(&path).await?),
        _ => None,
    };
    let Some(access) = polkit::access(interface, member) else {
        return Err(nobody(interface, member));
    };
    allow(world, call, access, options.persist, device.as_deref()).await?;
    match interface {
        MANAGER => manager::answer(world, call, member, &options).await,
        MODULES => modules::answer(world, call, member, &options).await,
        DEVICE => {
            let device = device.ok_or_else(|| Refusal::no_such_device(&path))?;
            device::answer(world, call, member, &options, &device).await
        }
        PROPERTIES | OBJECT_MANAGER | INTROSPECTABLE | PEER | LOG_CONTROL => {
            standard::answer(world, call, interface, member).await
        }
        _ => Err(unknown(Kind::UnknownInterface, "interface", interface)),
    }
}

/// The refusal of what has no entry in the table.
pub(super) fn nobody(interface: &str, member: &str) -> Refusal {
    let message = format!("Nobody may call {interface}.{member}; use another method.");
    Refusal::new(Kind::AccessDenied, message)
}

/// Asks polkit for what the call needs.
pub(super) async fn allow(
    world: &World,
    call: &Call,
    access: Access,
    persist: bool,
    device: Option<&Known>,
) -> Result<(), Refusal> {
    let mut actions = match access {
        Access::Inspect => Vec::new(),
        Access::Granted(actions) => actions.to_vec(),
    };
    if persist && !actions.contains(&PERSIST_POLICY) {
        actions.push(PERSIST_POLICY);
    }
    if actions.is_empty() {
        return Ok(());
    }
    let mut details = Details::default();
    let header = call.message.header();
    let member = header.member().map(|member| member.as_str());
    if header.interface().is_some_and(|name| name.as_str() == MODULES) && member == Some("Load") {
        let body = call.message.body();
        let (module, _) = call.arguments::<(String, HashMap<String, Variant<'_>>)>(&body)?;
        details.module = module;
    }
    if let Some(device) = device {
        details.device = path::of(&device.id);
        details.node = device::text(&device::node(device));
        details.subsystem = device::text(device.subsystem());
        if matches!(member, Some("SetOwner" | "SetGroup")) {
            let body = call.message.body();
            let (user, _) = call.arguments::<(String, HashMap<String, Variant<'_>>)>(&body)?;
            details.user = user;
        }
    }
    polkit::authorise(&world.connection, &call.caller, &actions, &details).await
}

/// Size and signature, before anything is read.
fn check_form(call: &Call, method: &Method) -> Result<(), Refusal> {
    let body = call.message.body();
    if body.len() > BODY_MAX {
        let message = format!(
            "The arguments take {} bytes; {BODY_MAX} are the most: shorten them.",
            body.len()
        );
        return Err(Refusal::new(Kind::LimitsExceeded, message));
    }
    let wanted: String = method.inputs.iter().map(|(_, signature)| *signature).collect();
    let given = body.signature().to_string_no_parens();
    if given == wanted {
        return Ok(());
    }
    let inputs = method.inputs.iter().map(|(name, signature)| format!("{signature} {name}"));
    let inputs = inputs.collect::<Vec<_>>().join(", ");
    let name = method.name;
    Err(Refusal::invalid(format!(
        "{name} takes the arguments ({inputs}), but was called with '{given}'; call it with '{wanted}'."
    )))
}

fn options(call: &Call, method: &Method) -> Result<Options, Refusal> {
    if method.inputs.last().is_none_or(|(name, _)| *name != "options") {
        return Ok(Options::default());
    }
    let body = call.message.body();
    let pairs: HashMap<String, Variant<'_>> = match method.inputs {
        [_] => call.arguments(&body)?,
        [(_, "s"), _] => call.arguments::<(&str, _)>(&body)?.1,
        [(_, "u"), _] => call.arguments::<(u32, _)>(&body)?.1,
        _ => return Err(Refusal::invalid("The options could not be read; leave them empty.")),
    };
    read_options(&pairs)
}

/// Reads options; none is passed over.
fn read_options(pairs: &HashMap<String, Variant<'_>>) -> Result<Options, Refusal> {
    let mut options = Options::default();
    let mut unknown: Vec<&str> = Vec::new();
    let mistyped = |key: &str, signature: &str| {
        Refusal::invalid(format!(
            "The option '{key}' has the wrong type; write it as '{signature}'."
        ))
    };
    for (key, value) in pairs {
        match (key.as_str(), value) {
            ("dry-run", Variant::Bool(value)) => options.dry_run = *value,
            ("persist", Variant::Bool(value)) => options.persist = *value,
            ("reason", Variant::Str(value)) => options.reason = reason(value)?,
            ("confirm-usec", Variant::U64(_)) => {
                let message = "The option 'confirm-usec' belongs to transactions; leave it out.";
                return Err(Refusal::new(Kind::NotSupported, message));
            }
            ("dry-run" | "persist", _) => return Err(mistyped(key, "b")),
            ("reason", _) => return Err(mistyped(key, "s")),
            ("confirm-usec", _) => return Err(mistyped(key, "t")),
            (other, _) => unknown.push(other),
        }
    }
    if unknown.is_empty() {
        return Ok(options);
    }
    unknown.sort_unstable();
    let shown: Vec<_> = unknown.iter().map(|key| format!("'{}'", shortened(key))).collect();
    Err(Refusal::invalid(format!(
        "There is no option {}; there are 'dry-run', 'persist', 'confirm-usec' and 'reason'.",
        shown.join(", ")
    )))
}

fn reason(text: &str) -> Result<String, Refusal> {
    bounded("reason", text, REASON_MAX)?;
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid("The reason holds control characters; write it in one line."));
    }
    Ok(text.to_owned())
}

/// Refuses a text that is longer than `limit` bytes.
pub(super) fn bounded(what: &str, text: &str, limit: usize) -> Result<(), Refusal> {
    if text.len() <= limit {
        return Ok(());
    }
    let length = text.len();
    let message = format!("The {what} has {length} bytes; {limit} are the most: shorten it.");
    Err(Refusal::new(Kind::LimitsExceeded, message))
}

/// A caller's text for a message to the caller: its beginning.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl World {
    /// Sends dispatch a request and waits for the answer.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Refusal::stopping())?;
        answered.await.map_err(|_| Refusal::stopping())
    }

    /// The device of an object path.
    pub(super) async fn device(&self, path: &str) -> Result<Arc<Known>, Refusal> {
        let id = path::id(path).ok_or_else(|| Refusal::no_such_device(path))?;
        let known = self.ask(|answer| Command::Device(id, answer)).await?;
        known.ok_or_else(|| Refusal::no_such_device(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, Variant<'static>)]) -> Result<Options, Refusal> {
        let owned = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        read_options(&owned.collect())
    }

    #[test]
    fn options_are_read_by_name_and_type() {
        let given = [
            ("dry-run", Variant::from(true)),
            ("persist", Variant::from(false)),
            ("reason", Variant::from("for the lab")),
        ];
        let read = read(&given).unwrap();
        assert!(read.dry_run && !read.persist);
        assert_eq!(read.reason, "for the lab");
    }

    #[test]
    fn an_unknown_option_is_refused_by_its_name() {
        let refusal = read(&[("force", Variant::from(true))]).unwrap_err();
        assert_eq!(refusal.kind, Kind::InvalidArgs);
        assert!(refusal.message.contains("'force'"), "{refusal}");
    }

    #[test]
    fn an_option_of_another_type_is_refused() {
        for (key, value) in [
            ("dry-run", Variant::from("yes")),
            ("persist", Variant::from(1_u32)),
            ("reason", Variant::from(true)),
            ("confirm-usec", Variant::from(1_u32)),
            ("reason", Variant::from("two\nlines")),
        ] {
            assert_eq!(read(&[(key, value)]).unwrap_err().kind, Kind::InvalidArgs, "{key}");
        }
        let long = Variant::from("x".repeat(REASON_MAX + 1));
        assert_eq!(read(&[("reason", long)]).unwrap_err().kind, Kind::LimitsExceeded);
        let confirm = read(&[("confirm-usec", Variant::from(1_u64))]).unwrap_err();
        assert_eq!(confirm.kind, Kind::NotSupported);
    }
}

//! Stage 9: who may call what.
//!
//! One table answers; what is not in it is refused. uid 0, by the bus's own credentials, needs no
//! polkit; for everybody else polkit has to say yes, and anything but a clear yes is a no.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zbus::{Connection, Variant};

use super::errors::{Kind, Refusal};
use super::surface::{
    DEVICE, INTROSPECTABLE, LOG_CONTROL, MANAGER, MODULES, OBJECT_MANAGER, PEER, PROPERTIES,
};

pub const CONTROL: &str = "org.mapdev1.control";
pub const EXPLAIN: &str = "org.mapdev1.explain";
pub const LOAD_MODULE: &str = "org.mapdev1.load-module";
pub const SET_OWNER: &str = "org.mapdev1.set-owner";
pub const SET_MODE: &str = "org.mapdev1.set-mode";
pub const PERSIST_POLICY: &str = "org.mapdev1.persist-policy";

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `org.mapdev1.inspect` is yes for all, so polkit is not asked: reading works without it.
    Inspect,
    /// polkit has to grant each of these.
    Granted(&'static [&'static str]),
}

/// Interface, method (of a property: its name, for writing it), and what it needs.
pub const TABLE: &[(&str, &str, Access)] = &[
    (MANAGER, "ResolveDevice", Access::Inspect),
    (MANAGER, "ListDevices", Access::Inspect),
    (MANAGER, "WaitInitialized", Access::Inspect),
    (MANAGER, "Settle", Access::Inspect),
    (MANAGER, "Reload", Access::Granted(&[CONTROL])),
    (MANAGER, "Subscribe", Access::Inspect),
    (MANAGER, "Unsubscribe", Access::Inspect),
    (MANAGER, "GetMap", Access::Inspect),
    (MANAGER, "ListMismatches", Access::Inspect),
    (DEVICE, "SetOwner", Access::Granted(&[SET_OWNER])),
    (DEVICE, "SetGroup", Access::Granted(&[SET_OWNER])),
    (DEVICE, "SetMode", Access::Granted(&[SET_MODE])),
    // it ends persisted changes too
    (DEVICE, "Reset", Access::Granted(&[SET_OWNER, SET_MODE, PERSIST_POLICY])),
    (DEVICE, "GetProperties", Access::Inspect),
    (DEVICE, "Explain", Access::Granted(&[EXPLAIN])),
    (MODULES, "Query", Access::Inspect),
    (MODULES, "List", Access::Inspect),
    (MODULES, "Changed", Access::Inspect),
    (MODULES, "Load", Access::Granted(&[LOAD_MODULE])),
    (MODULES, "Explain", Access::Granted(&[EXPLAIN])),
    (LOG_CONTROL, "LogLevel", Access::Granted(&[CONTROL])),
    (OBJECT_MANAGER, "GetManagedObjects", Access::Inspect),
    (INTROSPECTABLE, "Introspect", Access::Inspect),
    (PEER, "Ping", Access::Inspect),
    (PEER, "GetMachineId", Access::Inspect),
    (PROPERTIES, "Get", Access::Inspect),
    (PROPERTIES, "GetAll", Access::Inspect),
    // the property that is written has an entry of its own
    (PROPERTIES, "Set", Access::Inspect),
];

/// How long a person may think about a prompt.
const PROMPT_LIMIT: Duration = Duration::from_secs(120);

/// How long polkit may take when it asks nobody.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// `AllowUserInteraction` of `CheckAuthorization`.
const ALLOW_INTERACTION: u32 = 1;

/// What a method, or writing a property, needs; `None`: nobody may.
#[must_use]
pub fn access(interface: &str, member: &str) -> Option<Access> {
    let entry = TABLE.iter().find(|(i, m, _)| *i == interface && *m == member);
    entry.map(|(_, _, access)| *access)
}

/// A caller by the bus's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The unique name on the bus.
    pub name: String,
    pub uid: u32,
    /// The call allows that a person is asked.
    pub interactive: bool,
}

/// What polkit's rules and prompts may look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The device's object path.
    pub device: String,
    pub node: String,
    pub subsystem: String,
    /// The user or group that a node is to be given to.
    pub user: String,
    /// The module that is to be loaded.
    pub module: String,
}

impl Details {
    fn pairs(&self) -> HashMap<&'static str, &str> {
        let all = [
            ("device", &self.device),
            ("node", &self.node),
            ("subsystem", &self.subsystem),
            ("user", &self.user),
            ("module", &self.module),
        ];
        let set = all.into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(key, value)| (key, value.as_str())).collect()
    }
}

/// Whether the caller may have what needs all of `actions`.
///
/// # Errors
/// The refusal to answer with; it names the action that was not granted.
pub async fn authorise(
    connection: &Connection,
    caller: &Caller,
    actions: &[&str],
    details: &Details,
) -> Result<(), Refusal> {
    if caller.uid == 0 {
        return Ok(());
    }
    for action in actions {
        check(connection, caller, action, details).await?;
    }
    Ok(())
}

async fn check(
    connection: &Connection,
    caller: &Caller,
    action: &str,
    details: &Details,
) -> Result<(), Refusal> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let cancellation = format!("mapdev-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let subject =
        ("system-bus-name", HashMap::from([("name", Variant::from(caller.name.as_str()))]));
    let (flags, limit) =
        if caller.interactive { (ALLOW_INTERACTION, PROMPT_LIMIT) } else { (0, ANSWER_LIMIT) };
    let body = (subject, action, details.pairs(), flags, cancellation.as_str());
    let asked = call(connection, "CheckAuthorization", &body);
    let unusable = match tokio::time::timeout(limit, asked).await {
        Ok(Ok(reply)) => match reply.body().deserialize::<Verdict>() {
            Ok(verdict) => return judge(&verdict, action),
            Err(_) => "polkit gave an answer that cannot be read",
        },
        Ok(Err(error)) => {
            tracing::debug!(action, %error, "polkit could not be asked");
            "polkit could not be asked; install and start it"
        }
        Err(_) => {
            // the prompt shall not stay on somebody's screen
            call(connection, "CancelCheckAuthorization", &cancellation.as_str()).await.ok();
            "polkit did not answer in time"
        }
    };
    let message = format!("This needs the permission '{action}', and {unusable}, or call as root.");
    Err(Refusal::new(Kind::AccessDenied, message))
}

/// Authorised, a challenge would help, details.
type Verdict = (bool, bool, HashMap<String, String>);

fn judge(verdict: &Verdict, action: &str) -> Result<(), Refusal> {
    match verdict {
        (true, _, _) => Ok(()),
        (false, true, _) => Err(Refusal::new(
            Kind::InteractiveAuthorizationRequired,
            format!(
                "The permission '{action}' needs a password; call with interactive authorization \
                 allowed where an authentication agent (such as pkttyagent) runs, or as root."
            ),
        )),
        (false, false, _) => Err(Refusal::new(
            Kind::AccessDenied,
            format!(
                "polkit does not grant you '{action}'; ask the administrator for a polkit rule, \
                 or call as root."
            ),
        )),
    }
}

async fn call<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<zbus::Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    connection
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            method,
            body,
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::surface::INTERFACES;

    #[test]
    fn the_table_and_the_surface_name_the_same_calls() {
        let methods =
            INTERFACES.iter().flat_map(|i| i.methods.iter().map(|method| (i.name, method.name)));
        let written = INTERFACES.iter().flat_map(|i| {
            let writable = i.properties.iter().filter(|property| property.writable);
            writable.map(|property| (i.name, property.name))
        });
        let mut surface: Vec<_> = methods.chain(written).collect();
        let mut table: Vec<_> = TABLE.iter().map(|(i, m, _)| (*i, *m)).collect();
        surface.sort_unstable();
        table.sort_unstable();
        assert_eq!(surface, table);
    }

    #[test]
    fn what_ends_in_options_changes_something_and_needs_an_action() {
        for interface in INTERFACES {
            let changing = |m: &&super::super::surface::Method| {
                m.inputs.last().is_some_and(|(name, _)| *name == "options")
            };
            for method in interface.methods.iter().filter(changing) {
                let access = access(interface.name, method.name);
                assert!(matches!(access, Some(Access::Granted([_, ..]))), "{}", method.name);
            }
        }
    }

    #[test]
    fn an_unknown_method_is_for_nobody() {
        assert_eq!(access(MANAGER, "Trigger"), None);
        assert_eq!(access("org.mapdev1.Policy", "Reload"), None);
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        let verdict = |yes, challenge| judge(&(yes, challenge, HashMap::new()), SET_MODE);
        assert_eq!(verdict(true, false), Ok(()));
        let kind = |yes, challenge| verdict(yes, challenge).unwrap_err().kind;
        assert_eq!(kind(false, true), Kind::InteractiveAuthorizationRequired);
        assert_eq!(kind(false, false), Kind::AccessDenied);
    }
}

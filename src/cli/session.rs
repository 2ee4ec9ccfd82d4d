//! The connection to the bus, and the device that an argument means.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, connection};

use super::escape;
use super::failure::{Exit, Failure};
use super::nearest;
use super::proxy::{DeviceProxy, ManagerProxy, ModulesProxy};
use super::values::Properties;

const DAEMON: &str = "org.mapdev1";
pub const ROOT: &str = "/org/mapdev1";

/// The polkit action of every question.
pub const INSPECT: Option<&str> = Some("org.mapdev1.inspect");

/// A daemon that answers at all answers a question about its state in this time.
pub const ANSWER_TIME: Duration = Duration::from_secs(25);

/// Which bus the daemon is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bus {
    System,
    Address(String),
}

impl Bus {
    /// From `--bus`, else from MAPDEV_BUS_ADDRESS, else the system's.
    #[must_use]
    pub fn chosen(option: Option<&str>, environment: Option<&str>) -> Self {
        match option.or(environment.filter(|address| !address.is_empty())) {
            None | Some("system") => Self::System,
            Some(address) => Self::Address(address.to_owned()),
        }
    }
}

/// A connection to the bus that the daemon is on.
#[derive(Clone, Debug)]
pub struct Session {
    connection: Connection,
}

impl Session {
    /// `patience` is how long one call may take; none where a person is asked for a password or
    /// the call itself says how long it waits.
    pub async fn open(bus: &Bus, patience: Option<Duration>) -> Result<Self, Failure> {
        let mut builder = match bus {
            Bus::System => connection::Builder::system(),
            Bus::Address(address) => connection::Builder::address(address.as_str()),
        };
        if let Some(patience) = patience {
            builder = builder.method_timeout(patience);
        }
        match tokio::time::timeout(ANSWER_TIME, builder.build()).await {
            Ok(Ok(connection)) => Ok(Self { connection }),
            Ok(Err(error)) => Err(cannot_connect(bus, &error)),
            Err(_) => Err(Failure::failed(format!("{} does not answer", name_of(bus)))),
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub async fn manager(&self) -> Result<ManagerProxy<'static>, Failure> {
        let builder = ManagerProxy::builder(&self.connection);
        let proxy = builder.cache_properties(CacheProperties::No).build().await;
        proxy.map_err(|error| Failure::of_call(error, INSPECT))
    }

    pub async fn device(&self, path: &OwnedObjectPath) -> Result<DeviceProxy<'static>, Failure> {
        let builder = DeviceProxy::builder(&self.connection).path(path.clone());
        let proxy = builder.cache_properties(CacheProperties::No).build().await;
        proxy.map_err(|error| Failure::of_call(error, INSPECT))
    }

    pub async fn modules(&self) -> Result<ModulesProxy<'static>, Failure> {
        let builder = ModulesProxy::builder(&self.connection);
        let proxy = builder.cache_properties(CacheProperties::No).build().await;
        proxy.map_err(|error| Failure::of_call(error, INSPECT))
    }

    /// All properties of one interface of one of the daemon's objects.
    pub async fn properties(&self, path: &str, interface: &str) -> Result<Properties, Failure> {
        let told = |error| Failure::of_call(error, INSPECT);
        let builder = PropertiesProxy::builder(&self.connection).destination(DAEMON).path(path);
        let proxy = builder.cache_properties(CacheProperties::No).build().await.map_err(told)?;
        let interface = zbus::names::InterfaceName::try_from(interface).map_err(told)?;
        let values = proxy.get_all(interface).await;
        values.map(Properties::new).map_err(|error| Failure::of_call(error.into(), INSPECT))
    }

    pub async fn device_properties(&self, path: &OwnedObjectPath) -> Result<Properties, Failure> {
        self.properties(path.as_str(), "org.mapdev1.Device").await
    }

    /// The device that an argument means: a node, a name below /dev, a syspath, or a number with
    /// its kind (`c10:200`).
    pub async fn resolve(&self, name: &str) -> Result<OwnedObjectPath, Failure> {
        let manager = self.manager().await?;
        let asked = as_asked(name);
        let error = match manager.resolve_device(&asked).await {
            Ok(path) => return Ok(path),
            Err(error) => Failure::of_call(error, INSPECT),
        };
        if !error.is(Exit::NoSuchDevice) {
            return Err(error);
        }
        // a link that somebody made by hand is none of the daemon's
        if let Some(target) = link_target(&asked)
            && let Ok(path) = manager.resolve_device(&target).await
        {
            return Ok(path);
        }
        Err(no_such_device(&manager, name).await)
    }
}

/// The argument with a path of the working directory made absolute; the rest as it is.
fn as_asked(name: &str) -> String {
    if !name.starts_with("./") && !name.starts_with("../") {
        return name.to_owned();
    }
    let absolute = std::fs::canonicalize(name).ok();
    absolute.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| name.to_owned())
}

fn link_target(name: &str) -> Option<String> {
    let path = Path::new(name);
    if !path.is_absolute() {
        return None;
    }
    let target = std::fs::canonicalize(path).ok()?;
    let target = target.to_str()?;
    (target != name).then(|| target.to_owned())
}

async fn no_such_device(manager: &ManagerProxy<'_>, name: &str) -> Failure {
    let listed = manager.list_devices(HashMap::new()).await.unwrap_or_default();
    let nodes = listed.iter().map(|(_, node, ..)| escape::bytes(super::values::trimmed(node)));
    let nodes: Vec<String> = nodes.filter(|node| !node.is_empty()).collect();
    let near = nearest::names(name, nodes.iter().map(String::as_str));
    let shown = escape::text(name);
    let advice = match near.as_slice() {
        [] => "see: mapdevctl list".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    Failure::new(Exit::NoSuchDevice, format!("there is no device {shown}; {advice}"))
}

fn name_of(bus: &Bus) -> String {
    match bus {
        Bus::System => "the system bus".to_owned(),
        Bus::Address(address) => format!("the bus at {}", escape::text(address)),
    }
}

fn cannot_connect(bus: &Bus, error: &zbus::Error) -> Failure {
    let name = name_of(bus);
    let advice = match bus {
        Bus::System => "is it running? try: systemctl start dbus, or name another with --bus",
        Bus::Address(_) => "is it running, and is the address of --bus right?",
    };
    let why = if let zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) = error {
        error.to_string()
    } else {
        escape::text(&error.to_string())
    };
    Failure::failed(format!("cannot connect to {name} ({why}); {advice}"))
}

#[cfg(test)]
mod tests {
    use super::{Bus, as_asked};

    #[test]
    fn the_option_wins_over_the_environment() {
        let address = |text: &str| Bus::Address(text.to_owned());
        assert_eq!(Bus::chosen(None, None), Bus::System);
        assert_eq!(Bus::chosen(None, Some("")), Bus::System);
        assert_eq!(Bus::chosen(None, Some("unix:path=/e")), address("unix:path=/e"));
        assert_eq!(
            Bus::chosen(Some("unix:path=/o"), Some("unix:path=/e")),
            address("unix:path=/o")
        );
        assert_eq!(Bus::chosen(Some("system"), Some("unix:path=/e")), Bus::System);
    }

    #[test]
    fn names_numbers_and_absolute_paths_are_asked_for_as_they_are() {
        for name in ["sda", "/dev/sda", "c10:200", "input/event0", "/sys/class/net/lo"] {
            assert_eq!(as_asked(name), name);
        }
    }
}

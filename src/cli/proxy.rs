//! The daemon's interfaces as this client calls them (`org.mapdev1` on D-Bus).

use std::collections::HashMap;

use zbus::{ObjectPath, OwnedFd, OwnedObjectPath, Variant};

/// `a{sv}` of a changing method or a filter.
pub type Options<'a> = HashMap<&'static str, Variant<'a>>;

/// One row of `ListDevices`: path, node, subsystem, major, minor.
pub type ListedDevice = (OwnedObjectPath, Vec<u8>, String, u32, u32);

/// One row of `Explain`: source, file, line, column, operation, old, new.
pub type Step = (String, String, u32, u32, String, String, String);

/// One row of `ListMismatches`: device, attribute, ours, theirs.
pub type Difference = (OwnedObjectPath, String, String, String);

#[zbus::proxy(
    interface = "org.mapdev1.Manager",
    default_service = "org.mapdev1",
    default_path = "/org/mapdev1"
)]
pub trait Manager {
    fn resolve_device(&self, name_or_path: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_devices(&self, filter: Options<'_>) -> zbus::Result<Vec<ListedDevice>>;
    fn wait_initialized(&self, name: &str, timeout_usec: u64) -> zbus::Result<OwnedObjectPath>;
    fn settle(&self, timeout_usec: u64) -> zbus::Result<bool>;
    #[zbus(allow_interactive_auth)]
    fn reload(&self, options: Options<'_>) -> zbus::Result<u64>;
    fn list_mismatches(&self) -> zbus::Result<Vec<Difference>>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn get_map(&self) -> zbus::Result<(OwnedFd, u64)>;

    #[zbus(signal)]
    fn event_processed(
        &self,
        seqnum: u64,
        device: ObjectPath<'_>,
        action: &str,
        usec: u64,
    ) -> zbus::Result<()>;
    #[zbus(signal)]
    fn storm_started(&self, device: ObjectPath<'_>, rate: u32) -> zbus::Result<()>;
    #[zbus(signal)]
    fn storm_ended(&self, device: ObjectPath<'_>, dropped: u64) -> zbus::Result<()>;
    #[zbus(signal)]
    fn mismatch(
        &self,
        device: ObjectPath<'_>,
        attribute: &str,
        ours: &str,
        theirs: &str,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(interface = "org.mapdev1.Device", default_service = "org.mapdev1")]
pub trait Device {
    #[zbus(allow_interactive_auth)]
    fn set_owner(&self, user: &str, options: Options<'_>) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn set_group(&self, group: &str, options: Options<'_>) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn set_mode(&self, mode: u32, options: Options<'_>) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn reset(&self, options: Options<'_>) -> zbus::Result<()>;
    fn get_properties(&self) -> zbus::Result<HashMap<String, Vec<u8>>>;
    #[zbus(allow_interactive_auth)]
    fn explain(&self, attribute: &str) -> zbus::Result<Vec<Step>>;
}

/// One row of `List`: name, module, `char` or `block`, major, minor, loaded.
pub type ServedName = (String, String, String, u32, u32, bool);

/// One row of `Query`: module, `char` or `block`, major, minor, loaded.
pub type Served = (String, String, u32, u32, bool);

#[zbus::proxy(
    interface = "org.mapdev1.Modules",
    default_service = "org.mapdev1",
    default_path = "/org/mapdev1"
)]
pub trait Modules {
    fn query(&self, devname: &str) -> zbus::Result<Vec<Served>>;
    fn list(&self) -> zbus::Result<Vec<ServedName>>;
    #[zbus(allow_interactive_auth)]
    fn load(&self, module: &str, options: Options<'_>) -> zbus::Result<()>;
    /// As a device's, for a name that is there before its device.
    #[zbus(allow_interactive_auth)]
    fn explain(&self, devname: &str, attribute: &str) -> zbus::Result<Vec<Step>>;
    /// The names without a device that somebody changed in the kernel, and who did so last.
    fn changed(&self) -> zbus::Result<Vec<(String, String)>>;
}

//! `mapdevctl list`: devices as a table.

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use zbus::Variant;

use super::escape;
use super::failure::Failure;
use super::mode;
use super::output::Output;
use super::proxy::{ListedDevice, Options};
use super::session::{INSPECT, Session};
use super::table::Table;
use super::values::{Properties, trimmed, utf8};

/// Questions on their way at once: enough to hide the round trip, few enough for any bus.
const AT_ONCE: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only devices of this subsystem (block, tty, input, ...)
    #[arg(long, short, value_name = "NAME")]
    subsystem: Option<String>,

    /// Also show owner, group and mode
    #[arg(long, short)]
    long: bool,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut filter = Options::new();
    if let Some(subsystem) = &args.subsystem {
        filter.insert("subsystem", Variant::from(subsystem.as_str()));
    }
    let devices = session.manager().await?.list_devices(filter).await;
    let mut devices = devices.map_err(|error| Failure::of_call(error, INSPECT))?;
    devices.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    let details = if args.long { Some(details(session, &devices).await) } else { None };
    if output.is_json() {
        return Ok(output.json(&as_json(&devices, details.as_deref()))?);
    }
    Ok(as_table(&devices, details.as_deref()).print(output)?)
}

/// Devices with a node come first.
fn sort_key(device: &ListedDevice) -> (bool, &[u8], &str) {
    let (path, node, ..) = device;
    (trimmed(node).is_empty(), trimmed(node), path.as_str())
}

/// Properties in the order of the devices; none for a device that left in the meantime.
async fn details(session: &Session, devices: &[ListedDevice]) -> Vec<Properties> {
    stream::iter(devices)
        .map(|(path, ..)| async { session.device_properties(path).await.unwrap_or_default() })
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn as_table(devices: &[ListedDevice], details: Option<&[Properties]>) -> Table {
    let mut table = match details {
        None => Table::new(&["NODE", "NUMBER", "SUBSYSTEM"]),
        Some(_) => Table::new(&["NODE", "NUMBER", "SUBSYSTEM", "OWNER", "GROUP", "MODE"]),
    };
    for (index, device) in devices.iter().enumerate() {
        let (path, node, subsystem, ..) = device;
        let node = match trimmed(node) {
            // what has no node still has a name: the last part of its object's path
            [] => path.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
            node => escape::bytes(node),
        };
        let mut row = vec![node, number(device), escape::text(subsystem)];
        if let Some(device) = details.and_then(|details| details.get(index)) {
            row.push(or_dash(device.text("OwnerName")));
            row.push(or_dash(device.text("GroupName")));
            row.push(or_dash(device.small("Mode").map(mode::octal).unwrap_or_default()));
        }
        table.push(row);
    }
    table
}

/// `b8:0`, `c10:200`, or `-` for what has no number.
fn number(device: &ListedDevice) -> String {
    let (_, _, subsystem, major, minor) = device;
    if *major == 0 {
        return "-".to_owned();
    }
    let kind = if subsystem == "block" { 'b' } else { 'c' };
    format!("{kind}{major}:{minor}")
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}

fn as_json(devices: &[ListedDevice], details: Option<&[Properties]>) -> serde_json::Value {
    let rows = devices.iter().enumerate().map(|(index, (path, node, subsystem, major, minor))| {
        let mut row = json!({
            "path": path.as_str(), "node": utf8(node), "subsystem": subsystem,
            "major": major, "minor": minor,
        });
        if let Some(device) = details.and_then(|details| details.get(index)) {
            for key in ["OwnerName", "GroupName", "Mode"] {
                let mut properties = device.json();
                let key = super::values::snake(key);
                row[key.as_str()] = properties.remove(&key).unwrap_or_default();
            }
        }
        row
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::{Output, as_table, number, sort_key};
    use crate::cli::proxy::ListedDevice;
    use zbus::ObjectPath;

    fn device(path: &str, node: &str, subsystem: &str, major: u32, minor: u32) -> ListedDevice {
        let path = ObjectPath::try_from(path.to_owned()).unwrap().into();
        (path, node.as_bytes().to_vec(), subsystem.to_owned(), major, minor)
    }

    #[test]
    fn a_device_without_node_is_listed_last_by_its_objects_name() {
        let mut devices = vec![
            device("/org/mapdev1/device/n2", "", "net", 0, 0),
            device("/org/mapdev1/device/b8_0", "/dev/sda", "block", 8, 0),
        ];
        devices.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        let mut written = Vec::new();
        as_table(&devices, None).print(&mut Output::to(&mut written, false, false)).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "/dev/sda\tb8:0\tblock\nn2\t-\tnet\n");
    }

    #[test]
    fn only_the_block_subsystem_has_block_devices() {
        assert_eq!(number(&device("/a", "", "block", 8, 1)), "b8:1");
        assert_eq!(number(&device("/a", "", "tty", 4, 64)), "c4:64");
    }
}

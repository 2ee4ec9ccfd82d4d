//! `mapdevctl compare`: where the nodes of `/dev` differ from what the daemon decided.

use std::collections::HashMap;

use serde_json::json;

use super::escape;
use super::failure::Failure;
use super::output::Output;
use super::proxy::Options;
use super::session::{INSPECT, Session};
use super::table::Table;
use super::values::{trimmed, utf8};

/// Looks at every node now; no difference prints nothing.
pub async fn run(session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
    let manager = session.manager().await?;
    let refused = |error| Failure::of_call(error, INSPECT);
    let differences = manager.list_mismatches().await.map_err(refused)?;
    let devices = manager.list_devices(Options::new()).await.map_err(refused)?;
    let nodes: HashMap<_, _> = devices.iter().map(|(path, node, ..)| (path, node)).collect();
    let node = |path| nodes.get(path).map(|node| trimmed(node)).unwrap_or_default();
    if output.is_json() {
        let rows = differences.iter().map(|(path, attribute, ours, theirs)| {
            json!({ "path": path.as_str(), "node": utf8(node(path)), "attribute": attribute,
                    "ours": ours, "theirs": theirs })
        });
        return Ok(output.json(&rows.collect::<serde_json::Value>())?);
    }
    let mut table = Table::new(&["NODE", "ATTRIBUTE", "OURS", "THEIRS"]);
    for (path, attribute, ours, theirs) in &differences {
        let texts = [attribute, ours, theirs].map(|text| escape::text(text));
        table.push([vec![escape::bytes(node(path))], texts.to_vec()].concat());
    }
    Ok(table.print(output)?)
}

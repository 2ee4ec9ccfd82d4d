//! `mapdevctl status`: the daemon's own properties.

use super::failure::Failure;
use super::output::{Output, Tone};
use super::session::{ROOT, Session};
use super::values::Properties;

const LABELS: [(&str, &str); 18] = [
    ("Version", "version"),
    ("Mode", "mode"),
    ("Generation", "policy generation"),
    ("MapGeneration", "map generation"),
    ("Devices", "devices"),
    ("MapEntries", "map entries"),
    ("ModulesWithDevnames", "modules with devnames"),
    ("ShimAttached", "kernel shim attached"),
    ("QueueLength", "queue length"),
    ("QueueHighWater", "queue high water"),
    ("Overruns", "overruns"),
    ("Resyncs", "resyncs"),
    ("Throttled", "throttled"),
    ("Features", "features"),
    ("Events", "events handled"),
    ("Coalesced", "changes merged in storms"),
    ("Refused", "messages refused"),
    ("SeqnumGaps", "seqnum gaps"),
];

pub async fn run(session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
    let properties = session.properties(ROOT, "org.mapdev1.Manager").await?;
    if output.is_json() {
        return Ok(output.json(&properties.json())?);
    }
    let order = LABELS.map(|(name, _)| name);
    let width = LABELS.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    let mut rows: Vec<(&str, String)> = Vec::new();
    for name in properties.names(&order) {
        rows.push((name, properties.text(name)));
    }
    for (name, value) in rows {
        let known = LABELS.iter().find(|(property, _)| *property == name);
        let label = known.map_or(name, |(_, label)| label);
        let value = output.paint(tone(name, &properties), &value);
        let line = if output.is_terminal() {
            format!("{label:>width$}: {value}")
        } else {
            format!("{label}\t{value}")
        };
        output.line(&line)?;
    }
    Ok(())
}

fn tone(name: &str, properties: &Properties) -> Tone {
    let count = properties.number(name).unwrap_or(0);
    match name {
        "Overruns" | "Refused" if count > 0 => Tone::Bad,
        "Mode" => Tone::Heading,
        _ => Tone::Plain,
    }
}

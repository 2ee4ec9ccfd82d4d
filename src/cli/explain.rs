//! `mapdevctl explain DEVICE`: who gave it its owner, group, mode, links and tags, in order; also for
//! a name that is there before its device.

use std::collections::HashSet;

use serde_json::json;

use super::escape;
use super::failure::{Exit, Failure};
use super::output::{Output, Tone};
use super::proxy::{DeviceProxy, ModulesProxy, Step};
use super::session::Session;

const ACTION: Option<&str> = Some("org.mapdev1.explain");

/// What is told when nobody names an attribute.
const USUAL: [&str; 5] = ["owner", "group", "mode", "links", "tags"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, a link to one, a path below /sys, a number such as c10:200, or a name below /dev
    /// that a module serves which is not loaded
    device: String,

    /// Only these: owner, group, mode, links, tags, properties
    #[arg(value_name = "ATTRIBUTE")]
    attributes: Vec<String>,
}

/// The steps of one attribute, oldest first.
struct Story {
    attribute: String,
    steps: Vec<Step>,
}

/// What is asked about: a device, or a name without one.
enum Subject {
    Device(DeviceProxy<'static>),
    Name(ModulesProxy<'static>, String),
}

impl Subject {
    async fn find(session: &Session, name: &str) -> Result<Self, Failure> {
        let error = match session.resolve(name).await {
            Ok(path) => return Ok(Self::Device(session.device(&path).await?)),
            Err(error) => error,
        };
        if !error.is(Exit::NoSuchDevice) {
            return Err(error);
        }
        let modules = session.modules().await?;
        let told = modules.explain(name, "owner").await;
        match told.map_err(|error| Failure::of_call(error, ACTION)) {
            Ok(_) => Ok(Self::Name(modules, name.to_owned())),
            Err(other) if other.is(Exit::Refused) && is_served(&modules, name).await => Err(other),
            // an older daemon, or nobody knows the name: the first answer says what to do
            Err(_) => Err(error),
        }
    }

    async fn explain(&self, attribute: &str) -> zbus::Result<Vec<Step>> {
        match self {
            Self::Device(device) => device.explain(attribute).await,
            Self::Name(modules, name) => modules.explain(name, attribute).await,
        }
    }

    /// The device's object path, or the name's path.
    fn path(&self) -> String {
        match self {
            Self::Device(device) => device.inner().path().to_string(),
            Self::Name(_, name) if name.starts_with('/') => name.clone(),
            Self::Name(_, name) => format!("/dev/{name}"),
        }
    }
}

/// Whether a module serves the name, which everybody may know.
async fn is_served(modules: &ModulesProxy<'_>, name: &str) -> bool {
    modules.query(name).await.is_ok_and(|rows| !rows.is_empty())
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let subject = Subject::find(session, &args.device).await?;
    let attributes: Vec<&str> = match args.attributes.as_slice() {
        [] => USUAL.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let mut stories = Vec::new();
    for attribute in attributes {
        let steps = match subject.explain(attribute).await {
            Ok(steps) => steps,
            // nobody asked for this one by name, and not every device has every attribute
            Err(error) if args.attributes.is_empty() && is_unknown(&error) => continue,
            Err(error) => return Err(Failure::of_call(error, ACTION)),
        };
        stories.push(Story { attribute: attribute.to_owned(), steps });
    }
    if output.is_json() {
        let stories: Vec<_> = stories.iter().map(as_json).collect();
        return Ok(output.json(&json!({ "path": subject.path(), "attributes": stories }))?);
    }
    let nothing = stories.iter().all(|story| story.steps.is_empty());
    if nothing && !args.attributes.is_empty() {
        return Err(Failure::new(Exit::Failed, "nobody has set this; the kernel's value stands"));
    }
    for story in &stories {
        tell(story, output)?;
    }
    Ok(())
}

fn is_unknown(error: &zbus::Error) -> bool {
    let invalid = |error: &zbus::fdo::Error| matches!(error, zbus::fdo::Error::InvalidArgs(_));
    matches!(error, zbus::Error::FDO(error) if invalid(error))
}

fn tell(story: &Story, output: &mut Output<'_>) -> Result<(), Failure> {
    let attribute = escape::text(&story.attribute);
    if output.is_terminal() {
        output.line(&output.paint(Tone::Heading, &attribute))?;
        if story.steps.is_empty() {
            output.line("  as the kernel made it; no rule and nobody else has set it")?;
        }
    }
    for (index, (step, stands)) in story.steps.iter().zip(standing(story)).enumerate() {
        let (source, place, operation) =
            (escape::text(&step.0), place(step), escape::text(&step.4));
        let (old, new) = (value(&step.5), value(&step.6));
        let line = if output.is_terminal() {
            let by = if place.is_empty() { source } else { format!("{source} {place}") };
            let mark = if stands { " <- stands" } else { "" };
            let tone = if stands { Tone::Good } else { Tone::Faint };
            let line = format!("  {}. {by}: {operation} {old} -> {new}{mark}", index + 1);
            output.paint(tone, &line)
        } else {
            let stands = if stands { "stands" } else { "-" };
            [&attribute, &(index + 1).to_string(), &source, &place, &operation, &old, &new, stands]
                .map(|cell| cell as &str)
                .join("\t")
        };
        output.line(&line)?;
    }
    Ok(())
}

/// Which steps still count: the last one that set the value as a whole, and what was added or taken
/// away after it. Each property is a value of its own.
fn standing(story: &Story) -> Vec<bool> {
    let steps = &story.steps;
    if story.attribute != "properties" {
        let first = last_whole(steps);
        return (0..steps.len()).map(|index| index >= first).collect();
    }
    let key = |step: &Step| {
        let shown = if step.6.is_empty() { &step.5 } else { &step.6 };
        shown.split('=').next().unwrap_or_default().to_owned()
    };
    let mut seen = HashSet::new();
    let mut stands: Vec<bool> = steps.iter().rev().map(|step| seen.insert(key(step))).collect();
    stands.reverse();
    stands
}

fn last_whole(steps: &[Step]) -> usize {
    let whole = |step: &Step| {
        let operation = step.4.as_str();
        !(operation.starts_with(['+', '-']) || matches!(operation, "add" | "remove"))
    };
    steps.iter().rposition(whole).unwrap_or(0)
}

fn place((_, file, line, column, ..): &Step) -> String {
    let file = escape::text(file);
    match (file.is_empty(), line, column) {
        (true, ..) => String::new(),
        (false, 0, _) => file,
        (false, line, 0) => format!("{file}:{line}"),
        (false, line, column) => format!("{file}:{line}:{column}"),
    }
}

fn value(text: &str) -> String {
    if text.is_empty() { "(nothing)".to_owned() } else { escape::text(text) }
}

fn as_json(story: &Story) -> serde_json::Value {
    let steps = story.steps.iter().zip(standing(story)).map(|(step, stands)| {
        let (source, file, line, column, operation, old, new) = step;
        json!({
            "source": source, "file": file, "line": line, "column": column,
            "operation": operation, "old": old, "new": new, "stands": stands,
        })
    });
    json!({ "attribute": story.attribute, "steps": steps.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::{Output, Step, Story, last_whole, standing, tell};

    fn step(file: &str, line: u32, operation: &str, old: &str, new: &str) -> Step {
        let source = if file.is_empty() { "kernel" } else { "rule" };
        (source.into(), file.into(), line, 0, operation.into(), old.into(), new.into())
    }

    #[test]
    fn the_last_to_set_an_owner_stands() {
        let story = Story {
            attribute: "owner".into(),
            steps: vec![
                step("", 0, "=", "", "root"),
                step("/etc/udev/rules.d/9.rules", 3, "=", "root", "al"),
            ],
        };
        let mut written = Vec::new();
        tell(&story, &mut Output::to(&mut written, false, true)).unwrap();
        let expected = "owner\n  1. kernel: = (nothing) -> root\n  \
                        2. rule /etc/udev/rules.d/9.rules:3: = root -> al <- stands\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn links_that_were_added_after_the_last_assignment_all_stand() {
        let steps = [
            step("a", 1, "+=", "", "x"),
            step("a", 2, "=", "x", "y"),
            step("a", 3, "+=", "y", "y z"),
            step("a", 4, "-=", "y z", "z"),
        ];
        assert_eq!(last_whole(&steps), 1);
        assert_eq!(last_whole(steps.get(2..).unwrap()), 0);
        assert_eq!(last_whole(&[]), 0);
    }

    #[test]
    fn each_property_has_a_step_that_stands() {
        let steps = vec![
            step("a", 1, "=", "", "A=1"),
            step("a", 2, "=", "", "B=1"),
            step("a", 3, "=", "A=1", "A=2"),
            step("a", 4, "=", "B=1", ""),
        ];
        let story = Story { attribute: "properties".into(), steps };
        assert_eq!(standing(&story), [false, false, true, true]);
    }

    #[test]
    fn a_pipe_gets_one_line_a_step_with_eight_columns() {
        let story = Story { attribute: "mode".into(), steps: vec![step("f", 7, "=", "", "0660")] };
        let mut written = Vec::new();
        tell(&story, &mut Output::to(&mut written, false, false)).unwrap();
        let line = String::from_utf8(written).unwrap();
        assert_eq!(line, "mode\t1\trule\tf:7\t=\t(nothing)\t0660\tstands\n");
    }
}

//! `mapdevctl verify`: mistakes in udev rules and `.link` files, found without a daemon.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::escape;
use super::failure::Failure;
use super::output::{Output, Tone};
use crate::net;
use crate::rules::files::{self, Text};
use crate::rules::lint::lint;
use crate::rules::names::Names;
use crate::rules::problem::{Problem, Severity};
use crate::rules::resolve::Rules;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rules and .link files [default: all that the device manager would read]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Look for folders of rules and of .link files, users and groups below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let (links, paths): (Vec<_>, Vec<_>) =
        args.files.iter().cloned().partition(|path| is_link(path));
    let all = args.files.is_empty();
    if all && !args.root.is_dir() {
        return Err(Failure::failed(format!("{} is no folder", args.root.display())));
    }
    let (mut texts, mut problems) = if all { files::texts(&args.root) } else { read(&paths) };
    let names = Names::load(&args.root);
    let mut rules = Rules::default();
    for text in &texts {
        problems.extend(rules.add(&text.path, &text.bytes, &names));
    }
    problems.extend(lint(&rules));
    let links = if all {
        let (links, mut found) = net::texts(&args.root);
        problems.append(&mut found);
        links
    } else {
        let (links, mut found) = read(&links);
        problems.append(&mut found);
        links.into_iter().map(|text| net::Texts(vec![(text.path, text.bytes)])).collect()
    };
    for file in links {
        problems.extend(file.parse().1);
        texts.extend(file.0.into_iter().map(|(path, bytes)| Text { path, bytes }));
    }
    // as they are met when the files are read; in a file, by place
    let place = |path: &Path| texts.iter().position(|text| text.path == path);
    problems.sort_by_key(|problem| (place(&problem.file), problem.line, problem.column));
    show(&problems, &texts, &rules, output)
}

fn is_link(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "link")
}

fn read(paths: &[PathBuf]) -> (Vec<Text>, Vec<Problem>) {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match files::read(path) {
            Ok(bytes) => texts.push(Text { path: path.clone(), bytes }),
            Err(problem) => problems.push(*problem),
        }
    }
    (texts, problems)
}

fn show(
    problems: &[Problem],
    texts: &[Text],
    rules: &Rules,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let counts = format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
    if output.is_json() {
        output.json(&problems.iter().map(document).collect::<Vec<_>>())?;
    } else {
        for problem in problems {
            let source = texts.iter().find(|text| text.path == problem.file);
            told(problem, source.map(|text| text.bytes.as_slice()), output)?;
        }
        if output.is_terminal() && errors == 0 {
            let files = counted(texts.len(), "file");
            let rules = rules.files().iter().map(|file| file.rules.len()).sum();
            output.line(&format!("{files}, {}: {counts}", counted(rules, "rule")))?;
        }
    }
    if errors > 0 {
        return Err(Failure::failed(counts));
    }
    Ok(())
}

/// One line each in a pipe; on a terminal, the line of the file and a caret below.
pub(super) fn told(
    problem: &Problem,
    source: Option<&[u8]>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if !output.is_terminal() {
        return Ok(output.line(&escape::text(&problem.to_string()))?);
    }
    let shown = problem.render(source.unwrap_or_default());
    let tone = match problem.severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Heading,
    };
    for (number, line) in shown.lines().enumerate() {
        let caret = line.trim_start_matches([' ', '|', '\t']).starts_with('^');
        let tone = if number == 0 || caret { tone } else { Tone::Plain };
        let line = line.split('\t').map(escape::text).collect::<Vec<_>>().join("\t");
        output.line(&output.paint(tone, &line))?;
    }
    Ok(())
}

pub(super) fn document(problem: &Problem) -> Value {
    json!({
        "file": problem.file.to_string_lossy(),
        "line": problem.line,
        "column": problem.column,
        "width": problem.width,
        "severity": problem.severity.to_string(),
        "what": problem.what,
        "nearest": problem.nearest,
    })
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

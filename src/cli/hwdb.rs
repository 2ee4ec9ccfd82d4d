//! `mapdevctl hwdb`: asks the hardware database, and compiles it from its sources.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::escape;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::values::utf8;
use super::verify;
use crate::device::hwdb::{Hwdb, update};
use crate::problem::Severity;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The properties that the database has for a modalias
    Query(Query),

    /// Compile the sources (hwdb.d/*.hwdb) into the file that programs read
    Update(Update),
}

#[derive(Debug, clap::Args)]
struct Query {
    /// What a device asks for, such as usb:v1D6Bp0002
    modalias: String,

    /// Look for the database below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Write /usr/lib/udev/hwdb.bin instead of /etc/udev/hwdb.bin: for distributions
    #[arg(long)]
    usr: bool,

    /// Look for sources, and write, below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// Fail if there is a mistake in a source; what is right is written even so
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.command {
        Command::Query(args) => query(args, output),
        Command::Update(args) => update(args, output),
    }
}

fn query(args: &Query, output: &mut Output<'_>) -> Result<(), Failure> {
    let found = Hwdb::below(&args.root).look_up(args.modalias.as_bytes());
    let found = found.map_err(|error| Failure::failed(escape::text(&error.to_string())))?;
    if output.is_json() {
        let pairs = found.iter().map(|(key, value)| (utf8(key), Value::from(utf8(value))));
        return Ok(output.json(&pairs.collect::<Map<_, _>>())?);
    }
    for (key, value) in &found {
        output.line(&format!("{}={}", escape::bytes(key), escape::bytes(value)))?;
    }
    Ok(())
}

fn update(args: &Update, output: &mut Output<'_>) -> Result<(), Failure> {
    let (texts, mut problems) = update::texts(&args.root);
    let folder = if args.usr { "usr/lib/udev" } else { "etc/udev" };
    let file = args.root.join(folder).join("hwdb.bin");
    let compiled = (!texts.is_empty()).then(|| update::compile(&texts));
    let written = match &compiled {
        Some((bytes, found)) => {
            problems.extend(found.iter().cloned());
            update::write(&file, bytes)
        }
        None => update::remove(&file),
    };
    written.map_err(|error| failed(&file, &error))?;
    let size = compiled.as_ref().map(|(bytes, _)| bytes.len());
    if output.is_json() {
        output.json(&json!({
            "file": file.to_string_lossy(),
            "sources": texts.len(),
            "bytes": size,
            "problems": problems.iter().map(verify::document).collect::<Value>(),
        }))?;
    } else {
        for problem in &problems {
            let text = texts.iter().find(|text| text.path == problem.file);
            verify::told(problem, text.map(|text| text.bytes.as_slice()), output)?;
        }
        let shown = escape::text(&file.to_string_lossy());
        output.line(&match size {
            Some(bytes) => format!("{shown}: {bytes} bytes from {} sources", texts.len()),
            None => format!("{shown}: there are no sources, and so there is no database"),
        })?;
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if args.strict && errors > 0 {
        return Err(Failure::failed(format!("mistakes in the sources: {errors}")));
    }
    Ok(())
}

fn failed(file: &Path, error: &std::io::Error) -> Failure {
    let refused = error.kind() == std::io::ErrorKind::PermissionDenied;
    let exit = if refused { Exit::Refused } else { Exit::Failed };
    let file = escape::text(&file.to_string_lossy());
    Failure::new(exit, format!("{file} cannot be written: {error}"))
}

//! `mapdevctl man DIR`, for packages: a page for the tool and one for each subcommand, its own too.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::args::Cli;
use super::failure::Failure;

/// The section for administrators' commands.
const SECTION: &str = "8";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, which is made if it is missing
    dir: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.dir).map_err(|error| cannot_write(&args.dir, &error))?;
    let mut root = Cli::command();
    root.build();
    write_pages(&args.dir, &root)
}

fn write_pages(dir: &Path, command: &clap::Command) -> Result<(), Failure> {
    write_page(dir, command.clone())?;
    let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.try_for_each(|command| write_pages(dir, command))
}

fn write_page(dir: &Path, command: clap::Command) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = dir.join(format!("{name}.{SECTION}"));
    let mut page = Vec::new();
    let man = Man::new(command)
        .section(SECTION)
        .manual("mapdev")
        .source(concat!("mapdev ", env!("CARGO_PKG_VERSION")));
    let written = man.render(&mut page).and_then(|()| std::fs::write(&path, page));
    written.map_err(|error| cannot_write(&path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

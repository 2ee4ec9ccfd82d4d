//! The daemon; see `mapdev::daemon`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match mapdev::daemon::run(&mapdev::daemon::args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // nowhere else to say it
            let _ = writeln!(std::io::stderr(), "mapdevd: {error}");
            ExitCode::FAILURE
        }
    }
}

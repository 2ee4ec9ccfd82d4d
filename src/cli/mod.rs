//! `mapdevctl`: the administrator's client of the daemon, one file per subcommand.
//!
//! Arguments become one call or a few on D-Bus; the answer becomes a table for people, plain lines
//! for pipes, or JSON. Nothing here decides anything about devices. `module` alone does its work
//! itself, as modprobe does: it is for machines, trees and moments without a daemon too.

pub mod args;
pub mod change;
pub mod chmod;
pub mod chown;
pub mod compare;
pub mod completions;
pub mod escape;
pub mod event;
pub mod explain;
pub mod failure;
pub mod hwdb;
pub mod info;
pub mod list;
pub mod log_level;
pub mod man;
pub mod map;
pub mod mode;
pub mod module;
pub mod monitor;
pub mod nearest;
pub mod output;
pub mod proxy;
pub mod reload;
pub mod reset;
pub mod session;
pub mod settle;
pub mod shim;
pub mod status;
pub mod table;
pub mod test;
pub mod test_builtin;
pub mod values;
pub mod verify;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use args::{Cli, Command};
use failure::{Exit, Failure};
use output::Output;
use session::{ANSWER_TIME, Bus, Session};

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are no mistakes, and a closed pipe is nobody's
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.code() } else { ExitCode::SUCCESS };
        }
    };
    let mut output = Output::stdout(cli.json, cli.color);
    let result = run(&cli, &mut output);
    let flushed = output.flush().map_err(Failure::from);
    match result.and(flushed) {
        Ok(()) | Err(Failure::Pipe) => ExitCode::SUCCESS,
        Err(Failure::Told { exit, message }) => {
            // where standard error is closed too, the exit code still tells
            let _ = writeln!(std::io::stderr(), "mapdevctl: {message}");
            exit.code()
        }
    }
}

impl Exit {
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoSuchDevice => 3,
            Self::Refused => 4,
        })
    }
}

fn run(cli: &Cli, output: &mut Output<'_>) -> Result<(), Failure> {
    if let Command::Completions(args) = &cli.command {
        return completions::run(args, output);
    }
    if let Command::Man(args) = &cli.command {
        return man::run(args);
    }
    if let Command::Verify(args) = &cli.command {
        return verify::run(args, output);
    }
    if let Command::TestBuiltin(args) = &cli.command {
        return test_builtin::run(args, output);
    }
    if let Command::Event(args) = &cli.command {
        return event::run(args, output);
    }
    if let Command::Test(args) = &cli.command {
        return test::run(args, output);
    }
    if let Command::Hwdb(args) = &cli.command {
        return hwdb::run(args, output);
    }
    if let Command::Module(args) = &cli.command
        && !args.is_for_the_daemon()
    {
        return module::run(args, output);
    }
    if let Command::Shim(args) = &cli.command {
        return shim::run(args, output);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(ask_the_daemon(cli, output))
}

async fn ask_the_daemon(cli: &Cli, output: &mut Output<'_>) -> Result<(), Failure> {
    let environment = std::env::var("MAPDEV_BUS_ADDRESS").ok();
    let bus = Bus::chosen(cli.bus.as_deref(), environment.as_deref());
    let session = Session::open(&bus, patience(&cli.command)).await?;
    match &cli.command {
        Command::Status => status::run(&session, output).await,
        Command::List(args) => list::run(&session, args, output).await,
        Command::Info(args) => info::run(&session, args, output).await,
        Command::Monitor => {
            // look-ups have a connection of their own: a reply must never wait behind signals
            let lookups = Session::open(&bus, Some(ANSWER_TIME)).await?;
            monitor::run(&session, &lookups, output).await
        }
        Command::Settle(args) => settle::run(&session, args, output).await,
        Command::Map(args) => map::run(&session, args, output).await,
        Command::Chown(args) => chown::run(&session, args, output).await,
        Command::Chmod(args) => chmod::run(&session, args, output).await,
        Command::Reset(args) => reset::run(&session, args, output).await,
        Command::Explain(args) => explain::run(&session, args, output).await,
        Command::Compare => compare::run(&session, output).await,
        Command::Reload(args) => reload::run(&session, args, output).await,
        Command::LogLevel(args) => log_level::run(&session, args, output).await,
        Command::Module(args) => module::ask_the_daemon(&session, args, output).await,
        Command::Completions(_)
        | Command::Hwdb(_)
        | Command::Man(_)
        | Command::Shim(_)
        | Command::Event(_)
        | Command::Test(_)
        | Command::TestBuiltin(_)
        | Command::Verify(_) => Ok(()),
    }
}

/// How long a call may take; none where somebody may be typing a password.
fn patience(command: &Command) -> Option<Duration> {
    match command {
        Command::Status
        | Command::List(_)
        | Command::Info(_)
        | Command::Compare
        | Command::Map(_)
        | Command::LogLevel(_) => Some(ANSWER_TIME),
        Command::Settle(_)
        | Command::Monitor
        | Command::Chown(_)
        | Command::Chmod(_)
        | Command::Reset(_)
        | Command::Explain(_)
        | Command::Reload(_)
        | Command::Module(_)
        | Command::Completions(_)
        | Command::Hwdb(_)
        | Command::Man(_)
        | Command::Event(_)
        | Command::Test(_)
        | Command::TestBuiltin(_)
        | Command::Shim(_)
        | Command::Verify(_) => None,
    }
}

//! `mapdevctl chmod MODE DEVICE`.

use super::change::{Change, ChangeArgs, Target};
use super::failure::{Exit, Failure};
use super::mode;
use super::output::Output;
use super::session::Session;

const ACTION: Option<&str> = Some("org.mapdev1.set-mode");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Octal (0660), or changes of the current mode (u+rw,g=r,o=)
    #[arg(allow_hyphen_values = true, value_parser = check)]
    mode: String,

    /// A node, a link to one, a path below /sys, or a number such as c10:200
    device: String,

    /// Keep it over removals and restarts
    #[arg(long)]
    persist: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

/// A mistake in the mode is one of usage, whatever the device's mode is now.
fn check(text: &str) -> Result<String, String> {
    mode::parse(text, 0).map(|_| text.to_owned())
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let target = Target::find(session, &args.device).await?;
    let old = target.before.small("Mode");
    if old.is_none() && mode::is_relative(&args.mode) {
        return Err(Failure::failed(format!(
            "{} has no mode yet that '{}' could change; give an octal one, such as 0660",
            target.path.as_str(),
            args.mode
        )));
    }
    let new = mode::parse(&args.mode, old.unwrap_or(0));
    let new = new.map_err(|error| Failure::new(Exit::Usage, error))?;
    let done = target.proxy.set_mode(new, args.change.options(args.persist)).await;
    done.map_err(|error| Failure::of_call(error, ACTION))?;
    let old = old.map(mode::octal).unwrap_or_default();
    let change = Change::of("mode", &old, &mode::octal(new));
    target.report(change.as_slice(), &args.change, output)
}

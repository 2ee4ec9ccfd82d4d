//! `mapdevctl reset DEVICE`: run-time changes end, rules and policy decide again.

use super::change::{Change, ChangeArgs, Target};
use super::failure::Failure;
use super::mode;
use super::output::Output;
use super::session::Session;
use super::values::Properties;

const ACTION: Option<&str> = Some("org.mapdev1.set-owner");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, a link to one, a path below /sys, or a number such as c10:200
    device: String,

    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let target = Target::find(session, &args.device).await?;
    let done = target.proxy.reset(args.change.options(false)).await;
    done.map_err(|error| Failure::of_call(error, ACTION))?;
    if args.change.dry_run && !output.is_json() {
        // only the daemon knows what its rules would say; that it did not refuse is the answer
        output.line(&format!("{}: reset is possible", target.before.text("Node")))?;
        return Ok(());
    }
    let after = session.device_properties(&target.path).await?;
    let changes: Vec<Change> = changes(&target.before, &after).collect();
    target.report(&changes, &args.change, output)
}

fn changes(before: &Properties, after: &Properties) -> impl Iterator<Item = Change> {
    let shown = |properties: &Properties, name| match properties.small(name) {
        Some(bits) if name == "Mode" => mode::octal(bits),
        _ => properties.text(name),
    };
    [("owner", "OwnerName"), ("group", "GroupName"), ("mode", "Mode")].into_iter().filter_map(
        move |(attribute, name)| Change::of(attribute, &shown(before, name), &shown(after, name)),
    )
}

//! `mapdevctl reload`.

use serde_json::json;

use super::change::ChangeArgs;
use super::failure::Failure;
use super::output::Output;
use super::session::Session;

const ACTION: Option<&str> = Some("org.mapdev1.control");

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let reloaded = session.manager().await?.reload(args.change.options(false)).await;
    let generation = reloaded.map_err(|error| Failure::of_call(error, ACTION))?;
    if output.is_json() {
        let json = json!({ "generation": generation, "dry_run": args.change.dry_run });
        return Ok(output.json(&json)?);
    }
    if output.is_terminal() {
        let done = if args.change.dry_run { "would be" } else { "is" };
        output.line(&format!("generation {generation} {done} in force"))?;
    }
    Ok(())
}

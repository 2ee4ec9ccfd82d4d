//! `mapdevctl log-level [LEVEL]`, through systemd's log control interface.

use serde_json::json;
use zbus::Proxy;
use zbus::proxy::{Builder, CacheProperties};

use super::escape;
use super::failure::Failure;
use super::output::Output;
use super::session::Session;

/// The names of syslog(3), as org.freedesktop.LogControl1(5) has them.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The new level; without it, the present one is shown
    #[arg(value_parser = LEVELS)]
    level: Option<String>,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let told = |error| Failure::of_call(error, Some("org.mapdev1.control"));
    let control: Proxy<'_> = Builder::new(session.connection())
        .destination("org.mapdev1")
        .path("/org/freedesktop/LogControl1")
        .interface("org.freedesktop.LogControl1")
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(told)?;
    if let Some(level) = &args.level {
        let set = control.set_property("LogLevel", level.as_str()).await;
        set.map_err(|error| told(error.into()))?;
        if !output.is_json() {
            return Ok(());
        }
    }
    let level: String = control.get_property("LogLevel").await.map_err(told)?;
    if output.is_json() {
        return Ok(output.json(&json!({ "log_level": level }))?);
    }
    Ok(output.line(&escape::text(&level))?)
}

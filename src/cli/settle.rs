//! `mapdevctl settle [DEVICE]`: waits for the queue, or for one device.

use std::time::Duration;

use serde_json::json;

use super::escape;
use super::failure::Failure;
use super::output::Output;
use super::session::{INSPECT, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait; 0 only looks
    #[arg(long, short, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    timeout: Duration,

    /// Wait for this device instead, which need not be there yet
    device: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "wanted seconds, such as 120 or 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let manager = session.manager().await?;
    // a time beyond the number's range is as good as its end
    let usec = u64::try_from(args.timeout.as_micros()).unwrap_or(u64::MAX);
    let shown = args.timeout.as_secs_f64();
    let Some(device) = &args.device else {
        let settled = manager.settle(usec).await;
        let settled = settled.map_err(|error| Failure::of_call(error, INSPECT))?;
        if output.is_json() {
            output.json(&json!({ "settled": settled }))?;
        }
        if settled {
            return Ok(());
        }
        return Err(Failure::failed(format!(
            "events are still waiting after {shown} s; see: mapdevctl status"
        )));
    };
    let path = manager.wait_initialized(device, usec).await.map_err(|error| {
        let what = format!("{} is not ready after {shown} s", escape::text(device));
        if let zbus::Error::FDO(fdo) = &error
            && is_timeout(fdo)
        {
            return Failure::failed(what);
        }
        Failure::of_call(error, INSPECT)
    })?;
    if output.is_json() {
        output.json(&json!({ "settled": true, "path": path.as_str() }))?;
    }
    Ok(())
}

fn is_timeout(error: &zbus::fdo::Error) -> bool {
    matches!(error, zbus::fdo::Error::Timeout(_) | zbus::fdo::Error::TimedOut(_))
}

#[cfg(test)]
mod tests {
    use super::seconds;
    use std::time::Duration;

    #[test]
    fn seconds_may_have_a_fraction_but_no_sign() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("120"), Ok(Duration::from_secs(120)));
        for wrong in ["-1", "NaN", "inf", "1e400", "two", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

//! Stage 9: `org.freedesktop.LogControl1`, for `systemctl service-log-level`.

use std::collections::BTreeMap;
use std::fmt;

use tracing::Level;
use zbus::Variant;

use super::World;
use super::call::{Call, shortened};
use super::device::Values;
use super::errors::{Kind, Refusal};

/// The daemon's own log, as far as it can be turned up and down while it runs.
pub trait Log: fmt::Debug + Send + Sync {
    /// What is written now.
    fn level(&self) -> Level;

    /// Writes this level and what is worse from now on.
    ///
    /// # Errors
    /// Why the level stays as it is, in lower case.
    fn set_level(&self, level: Level) -> Result<(), String>;
}

/// syslog(3)'s names; what tracing has no word for, goes to the next that shows at least as much.
const LEVELS: [(&str, Level); 8] = [
    ("err", Level::ERROR),
    ("emerg", Level::ERROR),
    ("alert", Level::ERROR),
    ("crit", Level::ERROR),
    ("warning", Level::WARN),
    ("info", Level::INFO),
    ("notice", Level::INFO),
    ("debug", Level::DEBUG),
];

fn named(level: Level) -> &'static str {
    // trace is shown as debug: syslog has nothing below
    LEVELS.iter().find(|(_, known)| *known == level).map_or("debug", |(name, _)| name)
}

pub(super) fn values(world: &World) -> Values {
    BTreeMap::from([
        ("LogLevel", Variant::from(named(world.log.level()).to_owned())),
        ("LogTarget", Variant::from(world.config.log_target.clone())),
        ("SyslogIdentifier", Variant::from(world.config.syslog_identifier.clone())),
    ])
}

pub(super) fn set_level(world: &World, call: &Call, value: &Variant<'_>) -> Result<(), Refusal> {
    let Variant::Str(name) = value else {
        return Err(Refusal::invalid("The log level has the wrong type; write it as 's'."));
    };
    let Some((_, level)) = LEVELS.iter().find(|(known, _)| *known == name.as_str()) else {
        let names = LEVELS.map(|(name, _)| name).join(", ");
        let name = shortened(name);
        return Err(Refusal::invalid(format!(
            "There is no log level '{name}'; there are {names}."
        )));
    };
    world.log.set_level(*level).map_err(|why| {
        Refusal::new(Kind::Failed, format!("The log level could not be changed: {why}."))
    })?;
    tracing::info!(by = %call.by(), level = %level, "log level changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_called_as_syslog_calls_them() {
        let names = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE].map(named);
        assert_eq!(names, ["err", "warning", "info", "debug", "debug"]);
    }
}

//! Where log lines go: to the journal with its fields, or to standard error.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use crate::bus::Log;

/// Changes the level while the daemon runs.
#[derive(Debug)]
pub(super) struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<Level>,
    journal: bool,
}

impl LogHandle {
    /// In the words of `org.freedesktop.LogControl1`(5).
    pub(super) fn target(&self) -> &'static str {
        if self.journal { "journal" } else { "console" }
    }
}

impl Log for LogHandle {
    fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_level(&self, level: Level) -> Result<(), String> {
        let filter = EnvFilter::new(level.as_str());
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        Ok(())
    }
}

/// Sends log lines to the journal if standard error is the journal, else to standard error.
pub(super) fn start(wanted: &str) -> LogHandle {
    let parsed = EnvFilter::try_new(wanted);
    let mistaken = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let level = filter.max_level_hint().and_then(|hint| hint.into_level()).unwrap_or(Level::INFO);
    let (filter, handle) = reload::Layer::new(filter);
    let journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| layer.with_syslog_identifier("mapdevd".to_owned()));
    let in_journal = journal.is_some();
    let lines = (!in_journal).then(|| {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .without_time()
            .with_ansi(std::io::stderr().is_terminal())
    });
    // set once, by the only caller
    drop(tracing_subscriber::registry().with(filter).with(journal).with(lines).try_init());
    if let Some(mistake) = mistaken {
        tracing::warn!("log-level `{wanted}`: {mistake}; using `info`");
    }
    LogHandle { filter: handle, level: Mutex::new(level), journal: in_journal }
}

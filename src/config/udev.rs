//! What `udev.conf` and the kernel command line tell udev: the same words, for the same things.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{Config, ConfigProblem};

/// Memory for which one more program may run at once.
const MEMORY: u64 = 128 << 20;

/// More programs than that run at once on no machine.
const CHILDREN_MAX: u64 = 2048;

impl Config {
    /// How many programs may run at once: as many as udev has workers.
    #[must_use]
    pub fn children_max(&self) -> usize {
        if self.children_max > 0 {
            return self.children_max;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let info = rustix::system::sysinfo();
        let memory = info.totalram.saturating_mul(u64::from(info.mem_unit));
        let by_memory = usize::try_from((memory / MEMORY).clamp(10, CHILDREN_MAX)).unwrap_or(10);
        (2 * processors + 16).min(by_memory)
    }

    /// Takes one of udev's settings; what is none of them is passed over.
    pub(super) fn apply_udev(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "event_timeout" => self.event_timeout = duration(key, value)?,
            "exec_delay" => self.exec_delay = duration(key, value)?,
            "timeout_signal" => self.timeout_signal = signal(key, value)?,
            "children_max" => {
                let number = value.parse();
                self.children_max = number.map_err(|_| format!("`{key}` wants a number from 0"))?;
            }
            "resolve_names" => self.resolve_names = resolve_names(key, value)?,
            "udev_log" | "log_level" | "log_priority" => {
                self.log_level = level(key, value)?.to_owned();
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads `udev.conf` and its drop-ins below the root.
    pub(super) fn merge_udev(&mut self, problems: &mut Vec<ConfigProblem>) {
        for file in files(&self.root) {
            // most machines have none
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for (line, text) in (1..).zip(text.lines()) {
                let Some((key, value)) = text.trim().split_once('=') else { continue };
                let value = value.trim().trim_matches(['"', '\'']);
                if key.starts_with('#') {
                    continue;
                }
                if let Err(what) = self.apply_udev(key.trim_end(), value) {
                    problems.push(ConfigProblem { file: file.display().to_string(), line, what });
                }
            }
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut drop_ins = BTreeMap::new();
    for folder in ["usr/lib", "usr/local/lib", "run", "etc"] {
        let folder = root.join(folder).join("udev/udev.conf.d");
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    std::iter::once(root.join("etc/udev/udev.conf")).chain(drop_ins.into_values()).collect()
}

/// Whether names of users and groups mean anything in udev rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveNames {
    /// They are looked up in files when rules are read; udev's `late` is the same here, since nothing is
    /// asked of the network.
    Yes,
    Never,
}

pub(super) fn resolve_names(key: &str, word: &str) -> Result<ResolveNames, String> {
    match word {
        "early" | "late" => Ok(ResolveNames::Yes),
        "never" => Ok(ResolveNames::Never),
        _ => Err(format!("`{key}` wants early, late or never")),
    }
}

/// Seconds, or a number with `ms`, `s`, `min` or `h` behind it.
pub(super) fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: Option<u64> = number.parse().ok();
    let of = |milliseconds: u64| {
        Some(Duration::from_millis(number.and_then(|number| number.checked_mul(milliseconds))?))
    };
    let found = match unit.trim() {
        "ms" => of(1),
        "" | "s" | "sec" => of(1000),
        "min" => of(60_000),
        "h" => of(3_600_000),
        _ => None,
    };
    found.ok_or_else(|| format!("`{key}` wants a time, such as 180, 3min or 500ms"))
}

pub(super) fn signal(key: &str, text: &str) -> Result<Signal, String> {
    let named = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("SEGV", Signal::SEGV),
        ("USR2", Signal::USR2),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
    ];
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let known = named.into_iter().find(|(known, _)| *known == name).map(|(_, signal)| signal);
    let number = || text.parse().ok().and_then(Signal::from_named_raw);
    known.or_else(number).ok_or_else(|| format!("`{key}` wants a signal, such as SIGKILL"))
}

/// syslog's levels as our log has them.
fn level(key: &str, word: &str) -> Result<&'static str, String> {
    match word {
        "emerg" | "alert" | "crit" | "err" | "error" | "0" | "1" | "2" | "3" => Ok("error"),
        "warning" | "warn" | "4" => Ok("warn"),
        "notice" | "info" | "5" | "6" => Ok("info"),
        "debug" | "7" => Ok("debug"),
        _ => Err(format!("`{key}` wants a level from emerg to debug, or from 0 to 7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udevs_file_and_its_words_on_the_command_line_are_heard() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/udev/udev.conf.d")).unwrap();
        let text = "# udev_log=debug\nudev_log=\"err\"\nevent_timeout=3min\nnews=1\n\
            timeout_signal=SIGABRT\nresolve_names=sometimes\n";
        fs::write(root.path().join("etc/udev/udev.conf"), text).unwrap();
        fs::write(root.path().join("etc/udev/udev.conf.d/9.conf"), "children_max=7\n").unwrap();
        let (config, problems) = Config::load(root.path(), "udev.exec_delay=2 rd.udev.log_level=7");
        assert_eq!(
            (config.event_timeout, config.exec_delay.as_secs()),
            (duration("", "180").unwrap(), 2)
        );
        assert_eq!((config.timeout_signal, config.children_max()), (Signal::ABORT, 7));
        assert_eq!(config.log_level, "debug");
        let problems: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(problems, [6]);
    }

    #[test]
    fn times_and_signals_have_several_forms() {
        assert_eq!(duration("", "500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("", "-1").is_err() && duration("", "1 fortnight").is_err());
        assert_eq!(signal("", "TERM"), signal("", "15"));
        assert!(signal("", "SIGNAL").is_err() && signal("", "0").is_err());
    }
}

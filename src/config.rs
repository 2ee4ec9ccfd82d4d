//! `mapdev.toml`, its drop-ins and the kernel command line: fragments -> merged -> [`Config`].
//!
//! A key that cannot be used costs itself only; what remains is used, and each loss is reported.

mod udev;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use rustix::process::Signal;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use udev::ResolveNames;

/// How long an event may take, as in udev.
pub const EVENT_TIME: Duration = Duration::from_secs(180);

/// Whether the daemon manages the machine or only watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is the machine's device manager.
    Active,
    /// It touches nothing outside its runtime folder and reports where it would differ.
    Shadow,
}

impl Mode {
    /// # Errors
    /// On any other word, with what was wanted.
    pub fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "active" => Ok(Self::Active),
            "shadow" => Ok(Self::Shadow),
            _ => Err(format!("unknown mode `{word}`; expected `active` or `shadow`")),
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Shadow => "shadow",
        }
    }
}

/// Everything that the daemon can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mode: Mode,
    /// In front of `/etc`, `/usr/lib`, `/run` and `/lib/modules` when files are looked for.
    pub root: PathBuf,
    pub sysfs: PathBuf,
    pub dev: PathBuf,
    /// The daemon's own files.
    pub runtime: PathBuf,
    /// udev's folder of records; `None`: `/run/udev/data`, in shadow mode `data` below `runtime`.
    pub records: Option<PathBuf>,
    /// D-Bus address; `None` is the system bus, `none` no bus at all.
    pub bus: Option<String>,
    /// The kernel module's control device; `None`: it is not used. In shadow mode it never is.
    pub shim: Option<PathBuf>,
    /// Whether the map is mounted over `dev` once it is whole; in shadow mode it never is.
    pub mount_dev: bool,
    /// The program that reads disks; `None`: the one beside this program, or the installed one.
    pub probe: Option<PathBuf>,
    /// Seconds that reading a disk may take: somewhat less than udev's 180 for an event, so that what is
    /// left of the event is done. A sector that cannot be read may take the kernel half a minute.
    pub probe_timeout: u64,
    /// Threads that decide and settle; 0: as many as processors, at least 2 and at most 16.
    pub workers: usize,
    /// How long an event may take, with its programs.
    pub event_timeout: Duration,
    /// What a program gets when the time is up.
    pub timeout_signal: Signal,
    /// Programs that may run at once; 0: as many as udev would have workers.
    pub children_max: usize,
    /// Each program of a RUN list waits so long first.
    pub exec_delay: Duration,
    pub resolve_names: ResolveNames,
    /// Receive buffer of the kernel socket, in bytes; the kernel grants what it likes.
    pub receive_buffer: usize,
    /// A filter as `tracing_subscriber::EnvFilter` reads it: `info`, `debug`, `mapdev::bus=trace`.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            root: "/".into(),
            sysfs: "/sys".into(),
            dev: "/dev".into(),
            runtime: "/run/mapdev".into(),
            records: None,
            bus: None,
            shim: Some("/dev/mapdev".into()),
            mount_dev: false,
            probe: None,
            probe_timeout: 150,
            workers: 0,
            event_timeout: EVENT_TIME,
            timeout_signal: Signal::KILL,
            children_max: 0,
            exec_delay: Duration::ZERO,
            resolve_names: ResolveNames::Yes,
            receive_buffer: 128 * 1024 * 1024,
            log_level: "info".into(),
        }
    }
}

impl Config {
    #[must_use]
    pub fn records_folder(&self) -> PathBuf {
        match (&self.records, self.mode) {
            (Some(folder), _) => folder.clone(),
            (None, Mode::Active) => "/run/udev/data".into(),
            (None, Mode::Shadow) => self.runtime.join("data"),
        }
    }

    /// udev's state, beside the records: `/run/udev`.
    #[must_use]
    pub fn udev_folder(&self) -> PathBuf {
        self.records_folder().parent().map_or_else(|| self.runtime.clone(), Path::to_owned)
    }

    /// What is kept of the modules of `release`: across boots, or in shadow mode until the next one.
    #[must_use]
    pub fn module_cache(&self, release: &str) -> PathBuf {
        let folder = match self.mode {
            Mode::Active => self.below_root("/var/cache/mapdev"),
            Mode::Shadow => self.runtime.clone(),
        };
        folder.join(format!("modules-{release}"))
    }

    /// A path of the system, below `root`.
    #[must_use]
    pub fn below_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Policy folders, the highest first.
    #[must_use]
    pub fn policy_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.below_root("/etc/mapdev/policy.d")];
        folders.push(self.runtime.join("policy.d"));
        for folder in [
            "/var/lib/mapdev/policy.d",
            "/usr/local/lib/mapdev/policy.d",
            "/usr/lib/mapdev/policy.d",
        ] {
            folders.push(self.below_root(folder));
        }
        folders
    }

    /// Applies one key of a file or of the kernel command line.
    fn apply(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let text = || match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(_) => Err(format!("`{key}` wants a string")),
        };
        let number = || match value {
            Value::Number(number) => usize::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
        };
        let number = || number().ok_or_else(|| format!("`{key}` wants a number from 0"));
        match key {
            "mode" => self.mode = Mode::from_word(&text()?)?,
            "bus" => self.bus = Some(text()?),
            "shim" => self.shim = device(key, &text()?)?,
            "mount-dev" => self.mount_dev = truth(key, &text()?)?,
            "probe" => self.probe = Some(absolute(key, &text()?)?),
            "probe-timeout" => {
                self.probe_timeout = u64::try_from(number()?.clamp(1, 3600)).unwrap_or(3600);
            }
            "workers" => self.workers = number()?.min(1024),
            "event-timeout" | "timeout-signal" | "children-max" | "exec-delay"
            | "resolve-names" => {
                let text = text().or_else(|_| number().map(|number| number.to_string()))?;
                self.apply_udev(&key.replace('-', "_"), &text)?;
            }
            "receive-buffer" => self.receive_buffer = number()?,
            "log-level" => self.log_level = text()?,
            "runtime" => self.runtime = absolute(key, &text()?)?,
            "records" => self.records = Some(absolute(key, &text()?)?),
            _ => {
                let known = "mode, bus, shim, mount-dev, probe, probe-timeout, workers, event-timeout, \
                    timeout-signal, children-max, exec-delay, resolve-names, receive-buffer, \
                    log-level, runtime, records";
                return Err(format!("unknown key `{key}`; the keys are {known}"));
            }
        }
        Ok(())
    }

    /// Reads the files below `root` and `/proc/cmdline`'s text; later ones win.
    #[must_use]
    pub fn load(root: &Path, cmdline: &str) -> (Self, Vec<ConfigProblem>) {
        let mut config = Self { root: root.to_owned(), ..Self::default() };
        let mut problems = Vec::new();
        config.merge_udev(&mut problems);
        for file in fragments(root) {
            config.merge_file(&file, &mut problems);
        }
        for word in cmdline.split_ascii_whitespace() {
            let word = word.strip_prefix("rd.").unwrap_or(word);
            let Some((key, value)) = word.split_once('=') else { continue };
            let applied = if let Some(key) = key.strip_prefix("udev.") {
                config.apply_udev(&key.replace('-', "_"), value)
            } else if let Some(key) = key.strip_prefix("mapdev.") {
                config.apply(&key.replace('_', "-"), &Value::Text(value.to_owned()))
            } else {
                continue;
            };
            if let Err(what) = applied {
                problems.push(ConfigProblem { file: "kernel command line".into(), line: 1, what });
            }
        }
        (config, problems)
    }

    /// Applies one file's keys.
    pub fn merge_file(&mut self, file: &Path, problems: &mut Vec<ConfigProblem>) {
        let mut problem = |line, what| {
            problems.push(ConfigProblem { file: file.display().to_string(), line, what });
        };
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return problem(0, format!("cannot be read: {error}")),
        };
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                return problem(line(at), error.message().to_owned());
            }
        };
        for (key, value) in table.get_ref() {
            let at = line(key.span().start);
            let applied =
                Value::from_toml(value).and_then(|value| self.apply(key.get_ref(), &value));
            if let Err(what) = applied {
                problem(at, what);
            }
        }
    }
}

/// A value as a file or the kernel command line gives it.
enum Value {
    Text(String),
    Number(i64),
}

impl Value {
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, String> {
        if let Some(text) = value.get_ref().as_str() {
            return Ok(Self::Text(text.to_owned()));
        }
        if let Some(truth) = value.get_ref().as_bool() {
            return Ok(Self::Text(if truth { "yes" } else { "no" }.to_owned()));
        }
        let number = value.get_ref().as_integer();
        let number = number.and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        number
            .map(Self::Number)
            .ok_or_else(|| "expected a string, a number, true or false".to_owned())
    }
}

fn absolute(key: &str, text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{key}` wants an absolute path")) }
}

fn truth(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!("`{key}` wants true or false")),
    }
}

/// `none`, or a device.
fn device(key: &str, text: &str) -> Result<Option<PathBuf>, String> {
    if text == "none" { Ok(None) } else { absolute(key, text).map(Some) }
}

/// The main file, then the drop-ins by name; a drop-in of a higher folder replaces its namesake.
fn fragments(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let main = root.join("etc/mapdev/mapdev.toml");
    let vendor = root.join("usr/lib/mapdev/mapdev.toml");
    files.extend([main, vendor].into_iter().find(|file| file.exists()));
    let mut drop_ins = BTreeMap::new();
    for folder in ["usr/lib", "usr/local/lib", "run", "etc"] {
        let folder = root.join(folder).join("mapdev/mapdev.toml.d");
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "toml") {
                drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    files.extend(drop_ins.into_values());
    files
}

/// What of the configuration could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    pub file: String,
    /// From 1; 0 if the file as a whole is meant.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn drop_ins_override_the_file_and_the_command_line_overrides_all() {
        let root = tempfile::tempdir().unwrap();
        let main = "mode = \"active\"\nworkers = 3\nmount-dev = true\n";
        write(root.path(), "etc/mapdev/mapdev.toml", main);
        write(root.path(), "usr/lib/mapdev/mapdev.toml.d/10-x.toml", "workers = 4\n");
        write(root.path(), "etc/mapdev/mapdev.toml.d/10-x.toml", "workers = 5\n");
        let (config, problems) = Config::load(root.path(), "quiet mapdev.mode=shadow");
        assert_eq!(problems, []);
        assert_eq!((config.mode, config.workers), (Mode::Shadow, 5));
        assert!(config.mount_dev);
        let (config, problems) = Config::load(root.path(), "rd.mapdev.mount_dev=no");
        assert_eq!((config.mount_dev, problems), (false, vec![]));
    }

    #[test]
    fn a_bad_key_costs_itself_only_and_is_named_with_its_line() {
        let root = tempfile::tempdir().unwrap();
        let text = "workers = 3\nmod = \"active\"\nreceive-buffer = \"much\"\nmode = \"active\"\n";
        write(root.path(), "etc/mapdev/mapdev.toml", text);
        let (config, problems) = Config::load(root.path(), "");
        assert_eq!((config.mode, config.workers), (Mode::Active, 3));
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [2, 3], "{problems:?}");
        assert!(problems[0].to_string().contains("unknown key `mod`"), "{}", problems[0]);
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_its_line_and_the_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "etc/mapdev/mapdev.toml", "workers = 3\nmode = \n");
        write(root.path(), "run/mapdev/mapdev.toml.d/20.toml", "workers = 7\n");
        let (config, problems) = Config::load(root.path(), "");
        assert_eq!(config.workers, 7);
        assert_eq!(problems[0].line, 2);
    }
}

//! The command line of `mapdevd`; it overrides every file.

use std::fs;
use std::path::PathBuf;

use clap::Parser;

use crate::config::{Config, ConfigProblem, Mode};

/// Device manager: hears the kernel, decides by rules and policy, publishes a map of /dev.
#[derive(Clone, Debug, Parser)]
#[command(name = "mapdevd", version, max_term_width = 100)]
pub struct Args {
    /// `active`: manage this machine's devices; `shadow`: touch nothing, report differences
    #[arg(long, value_parser = Mode::from_word)]
    mode: Option<Mode>,
    /// Configuration file in place of /etc/mapdev/mapdev.toml and its drop-ins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// In front of /etc, /usr/lib and /lib/modules
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where sysfs is mounted
    #[arg(long, value_name = "DIR")]
    sysfs: Option<PathBuf>,
    /// Where the nodes are
    #[arg(long, value_name = "DIR")]
    dev: Option<PathBuf>,
    /// The daemon's own files
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Records of devices [default: /run/udev/data; in shadow mode `data` below the runtime folder]
    #[arg(long, value_name = "DIR")]
    records: Option<PathBuf>,
    /// D-Bus address, `system` or `none`
    #[arg(long, value_name = "ADDRESS")]
    bus: Option<String>,
    /// Receive buffer of the kernel socket, in bytes
    #[arg(long, value_name = "BYTES")]
    receive_buffer: Option<usize>,
    /// error, warn, info, debug, trace, or a filter such as `info,mapdev::bus=debug`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Show a person what happens: a summary, then each event with its decision
    #[arg(long)]
    pub present: bool,
}

impl Args {
    /// Files, kernel command line and these options, merged.
    #[must_use]
    pub fn config(&self) -> (Config, Vec<ConfigProblem>) {
        let (mut config, problems) = match &self.config {
            Some(file) => {
                let mut config = Config { root: self.root.clone(), ..Config::default() };
                let mut problems = Vec::new();
                config.merge_file(file, &mut problems);
                (config, problems)
            }
            None => {
                let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
                Config::load(&self.root, &cmdline)
            }
        };
        let set = |to: &mut PathBuf, from: &Option<PathBuf>| {
            if let Some(path) = from {
                to.clone_from(path);
            }
        };
        set(&mut config.sysfs, &self.sysfs);
        set(&mut config.dev, &self.dev);
        set(&mut config.runtime, &self.runtime);
        config.records = self.records.clone().or(config.records);
        config.bus = self.bus.clone().or(config.bus);
        config.mode = self.mode.unwrap_or(config.mode);
        config.receive_buffer = self.receive_buffer.unwrap_or(config.receive_buffer);
        if let Some(level) = &self.log_level {
            config.log_level.clone_from(level);
        }
        (config, problems)
    }
}

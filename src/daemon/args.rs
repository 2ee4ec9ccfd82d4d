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
    /// Mount the map over /dev once it is whole, in active mode and with the kernel module
    #[arg(long)]
    mount_dev: bool,
    /// Receive buffer of the kernel socket, in bytes
    #[arg(long, value_name = "BYTES")]
    receive_buffer: Option<usize>,
    /// error, warn, info, debug, trace, or a filter such as `info,mapdev::bus=debug`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// In active mode: return when every device is handled, print the process id of the daemon, which goes
    /// on; for scripts of an initramfs
    #[arg(long)]
    pub background: bool,
    /// Show a person what happens: a summary, then each event with its decision
    #[arg(long)]
    pub present: bool,
}

impl Args {
    /// Files, kernel command line and these options, merged.
    #[must_use]
    pub fn config(&self) -> (Config, Vec<ConfigProblem>) {
        let (mut config, mut problems) = match &self.config {
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
        config.bus = self.bus.clone().or(config.bus);
        config.mode = self.mode.unwrap_or(config.mode);
        problems.extend(self.settle_records(&mut config));
        config.mount_dev |= self.mount_dev;
        config.receive_buffer = self.receive_buffer.unwrap_or(config.receive_buffer);
        if let Some(level) = &self.log_level {
            config.log_level.clone_from(level);
        }
        (config, problems)
    }

    /// A folder that a file names is meant for active mode: in shadow mode it is another manager's,
    /// whose records would be taken for leftovers. Who names one here, knows what he does.
    fn settle_records(&self, config: &mut Config) -> Option<ConfigProblem> {
        if let Some(folder) = &self.records {
            config.records = Some(folder.clone());
            return None;
        }
        let foreign = |folder: &mut PathBuf| !folder.starts_with(&config.runtime);
        if config.mode == Mode::Active {
            return None;
        }
        let folder = config.records.take_if(foreign)?;
        let file = "configuration".to_owned();
        let what = format!(
            "`records`: {} is outside the runtime folder and not used in shadow mode",
            folder.display()
        );
        Some(ConfigProblem { file, line: 0, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_mode_keeps_off_the_records_that_a_file_names() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("mapdev.toml");
        fs::write(&file, "records = \"/run/udev/data\"\n").unwrap();
        let folder = |more: &[&str]| {
            let line = ["mapdevd", "--config", file.to_str().unwrap()];
            let args = Args::try_parse_from(line.iter().chain(more)).unwrap();
            let (config, problems) = args.config();
            (config.records_folder().display().to_string(), problems.len())
        };
        assert_eq!(folder(&["--mode", "active"]), ("/run/udev/data".to_owned(), 0));
        assert_eq!(folder(&["--mode", "shadow"]), ("/run/mapdev/data".to_owned(), 1));
        assert_eq!(folder(&["--records", "/tmp/r"]), ("/tmp/r".to_owned(), 0));
    }
}

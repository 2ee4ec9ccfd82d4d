//! A message bus of the test's own, and the real binary as its client.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// A `dbus-daemon` that ends with the test.
pub(crate) struct Bus {
    process: Child,
    pub(crate) address: String,
    _dir: tempfile::TempDir,
}

impl Bus {
    /// Returns when the bus has said its address, and so listens.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        let listen = dir.path().join("socket");
        std::fs::write(
            &config,
            format!(
                "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
                 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
                 <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                 <allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
                 </policy></busconfig>\n",
                listen.display()
            ),
        )
        .unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // it complains of limits that only root may raise
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is needed for this test; install the package dbus-daemon");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:"), "dbus-daemon did not start: {address:?}");
        Self { process, address: address.trim().to_owned(), _dir: dir }
    }

    /// `mapdevctl` on this bus.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mapdevctl(arguments);
        command.env("MAPDEV_BUS_ADDRESS", &self.address);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The real binary, without the environment of whoever runs the test.
pub(crate) fn mapdevctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("MAPDEV_BUS_ADDRESS").env_remove("NO_COLOR");
    command
}

/// What a command that has ended left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The only line of standard error.
    pub(crate) fn error(&self) -> &str {
        let line = self.err.strip_suffix('\n').unwrap_or(&self.err);
        assert!(line.starts_with("mapdevctl: ") && !line.contains('\n'), "{self:?}");
        line
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

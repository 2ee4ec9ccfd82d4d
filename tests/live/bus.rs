//! A message bus that refuses what the system's would, with the policy that we ship.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use futures_util::StreamExt as _;
use zbus::fdo::DBusProxy;

pub(crate) const NAME: &str = "org.mapdev1";
pub(crate) const NOBODY: u32 = 65534;

/// As the system bus: names and calls are refused unless a policy allows them.
const POLICY: &str = r#"
<policy context="default">
  <allow user="*"/>
  <deny own="*"/>
  <deny send_type="method_call"/>
  <allow send_type="signal"/>
  <allow send_requested_reply="true" send_type="method_return"/>
  <allow send_requested_reply="true" send_type="error"/>
  <allow receive_type="method_call"/>
  <allow receive_type="method_return"/>
  <allow receive_type="error"/>
  <allow receive_type="signal"/>
  <allow send_destination="org.freedesktop.DBus"/>
</policy>
"#;

/// A `dbus-daemon` that ends with the test.
pub(crate) struct Bus {
    process: Child,
    pub(crate) address: String,
}

impl Bus {
    /// Returns when the bus has said its address, and so listens.
    pub(crate) fn start(top: &Path) -> Self {
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/dbus/org.mapdev1.conf");
        let polkit = "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf";
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><type>system</type><listen>unix:path=/run/bus</listen>\
             <auth>EXTERNAL</auth>{POLICY}<include>{ours}</include>\
             <include ignore_missing=\"yes\">{polkit}</include></busconfig>\n"
        );
        let file = top.join("bus.conf");
        fs::write(&file, config).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("wanted dbus-daemon");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:"), "dbus-daemon did not start: {address:?}");
        Self { process, address: address.trim().to_owned() }
    }

    /// Returns when somebody has the name.
    pub(crate) fn wait_for(&self, name: &str) {
        run(async {
            let builder = zbus::connection::Builder::address(self.address.as_str());
            let connection = builder.build().await.unwrap();
            let bus = DBusProxy::new(&connection).await.unwrap();
            let wanted = [(0, name)];
            let mut owners = bus.receive_name_owner_changed_with_args(&wanted).await.unwrap();
            if bus.name_has_owner(name.try_into().unwrap()).await.unwrap() {
                return;
            }
            loop {
                let change = owners.next().await.unwrap();
                if change.args().unwrap().new_owner().is_some() {
                    return;
                }
            }
        });
    }

    /// `mapdevctl`, which must do what it is told.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
        command.arg("--bus").arg(&self.address).args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "mapdevctl {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let all: Vec<&str> = [&["--json"], arguments].concat();
        serde_json::from_str(&self.ctl(&all)).unwrap()
    }

    /// Returns when every event that was sent has been handled.
    pub(crate) fn settle(&self) {
        self.ctl(&["settle", "--timeout", "100"]);
    }

    /// `busctl call` on an object of the daemon, by a user: what it says, or the refusal.
    pub(crate) fn call(&self, uid: u32, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "busctl"]).arg(format!("--address={}", self.address));
        command.args(["call", NAME]).args(words).stdin(Stdio::null());
        let output = command.output().expect("wanted setpriv(1) and busctl(1)");
        if output.status.success() { Ok(said(&output)) } else { Err(said(&output)) }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap().trim().to_owned()
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

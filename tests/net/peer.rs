//! The device manager that we are compared with, and namespaces in which it disturbs nobody.

#[path = "../namespaces/udev.rs"]
mod udev;

use std::collections::BTreeMap;
use std::process::Command;

use crate::namespaces;

/// A network of its own with its sysfs, and no `.link` files but the test's.
const PREPARE: &str = "
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/udev/data /etc/systemd/network
mount -t tmpfs tmpfs /etc/systemd/network
mount -t tmpfs tmpfs /usr/lib/systemd/network
";

/// Runs the test again in namespaces where it disturbs nobody; `body` runs there.
///
/// Without a systemd-udevd there is nobody to compare with: the test says so, and fails where
/// `MAPDEV_REQUIRE_UDEV` is set.
pub(crate) fn private(module: &str, test: &str, body: impl FnOnce()) {
    private_with(module, test, "", body);
}

/// As [`private`], with further lines of the shell before.
pub(crate) fn private_with(module: &str, test: &str, further: &str, body: impl FnOnce()) {
    if namespaces::inside() {
        return body();
    }
    if udev::is_there("252") {
        let prepare = [PREPARE, further, "exec \"$0\" \"$@\"\n"].concat();
        namespaces::again(module, test, &prepare);
    }
}

/// What a side says: properties, and the lines of files that it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) refused: Vec<String>,
}

/// `udevadm test-builtin net_setup_link`, which also does what the files say.
pub(crate) fn theirs(name: &str, action: &str) -> Said {
    let mut command = Command::new("udevadm");
    command.args(["test-builtin", "--action", action, "net_setup_link"]);
    command.arg(format!("/sys/class/net/{name}")).env("SYSTEMD_LOG_LEVEL", "warning");
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = out.lines().filter_map(|line| line.split_once('='));
    let properties = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut refused: Vec<_> = errors.lines().filter_map(place).collect();
    refused.sort();
    refused.dedup();
    Said { properties, refused }
}

/// `/etc/systemd/network/10-a.link:3: …` -> `10-a.link:3`.
fn place(line: &str) -> Option<String> {
    let (path, rest) = line.strip_prefix("/etc/systemd/network/")?.split_once(':')?;
    let (number, _) = rest.split_once(':')?;
    number.parse::<u32>().ok()?;
    Some(format!("{path}:{number}"))
}

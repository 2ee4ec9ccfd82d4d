//! The device manager that we are compared with, and namespaces in which it disturbs nobody.

#[path = "../namespaces/udev.rs"]
mod udev;

use std::process::{Child, Command, Stdio};

use crate::namespaces;

/// Makes `/run`, `/dev` and `/etc/udev/rules.d` private.
const PREPARE: &str = "
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/new
mount -t tmpfs -o mode=0755 tmpfs /run/new
mknod -m 0666 /run/new/null c 1 3
mount --move /run/new /dev
rmdir /run/new
mount -t tmpfs tmpfs /etc/udev/rules.d
";

/// Takes away what reaches beyond: modules of the kernel and interfaces of the network.
const BEGIN: &str = "exec setpriv --bounding-set=-net_admin,-sys_module \"$0\" \"$@\"\n";

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
    if udev::is_there("25") {
        namespaces::again(module, test, &[PREPARE, further, BEGIN].concat());
    }
}

/// A systemd-udevd that has read its rules and answers.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("/usr/lib/systemd/systemd-udevd");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
        let mut daemon = Self(command.spawn().unwrap());
        let mut ping = Command::new("udevadm");
        ping.args(["control", "--ping", "--timeout=20"]).stderr(Stdio::null());
        // refused at once while there is no socket, answered when the daemon has started
        while !ping.status().unwrap().success() {
            assert_eq!(daemon.0.try_wait().unwrap(), None, "systemd-udevd ended");
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

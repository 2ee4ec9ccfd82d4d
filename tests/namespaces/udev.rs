//! The installed udevadm, which tests compare with.

use std::process::Command;

/// Whether its version begins so. Without it there is nobody to compare with: that is said, and a failure where
/// `MAPDEV_REQUIRE_UDEV` is set.
pub(crate) fn is_there(version: &str) -> bool {
    let output = Command::new("udevadm").arg("--version").output();
    let there = output.is_ok_and(|output| output.stdout.starts_with(version.as_bytes()));
    if !there {
        let required = std::env::var_os("MAPDEV_REQUIRE_UDEV").is_some();
        assert!(!required, "udevadm {version}... wanted");
        println!("skipped: there is no udevadm {version}... to compare with");
    }
    there
}

//! Runs a test again in namespaces of its own, where it disturbs nobody.

use std::process::Command;

const INSIDE: &str = "MAPDEV_TEST_INSIDE";

/// How long a test may take, in seconds.
const LIMIT: &str = "300";

/// Whether this is the run in the namespaces.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test `test` of `module` again, after the shell's lines `prepare`; fails as it does.
pub(crate) fn again(module: &str, test: &str, prepare: &str) {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "{test} wants root, for namespaces, device nodes and the kernel's uevents");
    let name = module.split_once("::").map_or(test.to_owned(), |(_, m)| format!("{m}::{test}"));
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT, "unshare", "--net", "--mount", "--propagation"]);
    command.args(["private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-euc", prepare]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").output().expect("wanted timeout(1)");
    let out = String::from_utf8_lossy(&output.stdout);
    // what is printed here is shown when the test has failed
    println!("{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed inside: {}", output.status);
    assert!(out.contains("1 passed"), "{name} was not found inside");
}

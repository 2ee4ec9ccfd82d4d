//! Runs a test again in namespaces of its own, where it disturbs nobody and nobody disturbs it.

use std::io::Read;
use std::process::{Child, Command, Stdio};

const INSIDE: &str = "MAPDEV_TEST_INSIDE";

/// How long a test may take, in seconds.
const LIMIT: &str = "300";

/// Whether this is the run in the namespaces.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A network namespace that the kernel tells of nothing that happens to the machine's devices: it tells only
/// those of the first user namespace (`uevent_net_init()` in `lib/kobject_uevent.c`). What is sent there, and
/// what happens to its own interfaces, is told.
struct Quiet(Child);

impl Quiet {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", "echo && read -r end"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("wanted unshare(1)");
        let read = holder.stdout.as_mut().unwrap().read_exact(&mut [0]);
        read.expect("wanted a user namespace, and in it one for the network");
        Self(holder)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Runs the test `test` of `module` again, after the shell's lines `prepare`; fails as it does.
pub(crate) fn again(module: &str, test: &str, prepare: &str) {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "{test} wants root, for namespaces, device nodes and the kernel's uevents");
    let name = module.split_once("::").map_or(test.to_owned(), |(_, m)| format!("{m}::{test}"));
    let net = Quiet::new();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT, "nsenter", &format!("--net={}", net.path())]);
    command.args(["unshare", "--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-euc", prepare]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").output().expect("wanted timeout(1)");
    let out = String::from_utf8_lossy(&output.stdout);
    // what is printed here is shown when the test has failed
    println!("{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed inside: {}", output.status);
    assert!(out.contains("1 passed"), "{name} was not found inside");
}

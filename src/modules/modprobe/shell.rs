//! Stage 3b: runs an install or remove command as modprobe(8) does, but not for ever and not in a circle.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::load::Why;

/// In an install command, this stands for the module's options.
const OPTIONS: &[u8] = b"$CMDLINE_OPTS";
/// Whose install commands are running, innermost last, separated by colons.
const RUNNING: &str = "MAPDEV_INSTALLING";

/// Runs the command of a module and waits for its end, at most for `limit`.
pub(super) fn run(
    module: &[u8],
    command: &[u8],
    options: &[u8],
    limit: Duration,
) -> Result<(), Why> {
    let outer = std::env::var_os(RUNNING).unwrap_or_default();
    if outer.as_bytes().split(|byte| *byte == b':').any(|name| name == module) {
        return Err(Why::Loop);
    }
    let running = OsString::from_vec([outer.as_bytes(), b":", module].concat());
    let script = replaced(command, options);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(&script)).stdin(Stdio::null());
    shell.env("MODPROBE_MODULE", OsStr::from_bytes(module)).env(RUNNING, running);
    // a group of its own, so that its children end with it
    let child = shell.process_group(0).spawn().map_err(Why::Shell)?;
    let status = wait(child, limit).map_err(Why::Shell)?.ok_or(Why::TimeUp(limit))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Why::Exit(code)),
        (None, signal) => Err(Why::Signal(signal.unwrap_or(0))),
    }
}

/// `None` if time was up; all of its group is killed then.
fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).ok();
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut ended, limit.as_ref()))?;
    if ready == 0 {
        kill_process_group(pid, Signal::KILL)?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

fn replaced(command: &[u8], options: &[u8]) -> Vec<u8> {
    let mut script = Vec::with_capacity(command.len() + options.len());
    let mut rest = command;
    while let Some(place) = rest.windows(OPTIONS.len()).position(|window| window == OPTIONS) {
        script.extend_from_slice(&rest[..place]);
        script.extend_from_slice(options);
        rest = &rest[place + OPTIONS.len()..];
    }
    script.extend_from_slice(rest);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_one(command: &str) -> Result<(), Why> {
        run(b"tun", command.as_bytes(), b"a=1 b=2", Duration::from_secs(20))
    }

    #[test]
    fn a_command_knows_its_module_and_its_options() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let command =
            format!("echo $MODPROBE_MODULE $CMDLINE_OPTS $CMDLINE_OPTS >{}", out.display());
        run_one(&command).unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "tun a=1 b=2 a=1 b=2\n");
    }

    #[test]
    fn how_a_command_failed_is_told() {
        assert!(matches!(run_one("exit 7"), Err(Why::Exit(7))));
        assert!(matches!(run_one("kill -9 $$"), Err(Why::Signal(9))));
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, fifo) = (dir.path().join("pid"), dir.path().join("fifo"));
        let command = format!(
            "mkfifo {fifo}; cat {fifo} & echo $! >{mine}; wait",
            fifo = fifo.display(),
            mine = mine.display()
        );
        let ended = run(b"tun", command.as_bytes(), b"", Duration::from_secs(2));
        assert!(matches!(ended, Err(Why::TimeUp(_))), "{ended:?}");
        let child: i32 = std::fs::read_to_string(mine).unwrap().trim().parse().unwrap();
        // it dies a moment after it was told to
        let child = Pid::from_raw(child).unwrap();
        let flags = PidfdFlags::empty();
        if let Ok(child) = pidfd_open(child, flags) {
            let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
            let mut ended = [PollFd::new(&child, PollFlags::IN)];
            assert_eq!(poll(&mut ended, Some(&limit)), Ok(1), "it lives on");
        }
    }

    #[test]
    fn a_command_is_not_run_within_itself() {
        // in a process of its own, since the environment is the process's
        let inside = std::env::var_os(RUNNING).is_some();
        if inside {
            assert!(matches!(run_one("true"), Err(Why::Loop)));
            return;
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["a_command_is_not_run_within_itself", "--nocapture"]);
        assert!(again.env(RUNNING, ":loop:tun").status().unwrap().success());
    }
}

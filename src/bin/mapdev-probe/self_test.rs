//! Goes into the sandbox, tries what a program that a disk has taken over would try, and says what worked.
#![expect(unsafe_code, reason = "system calls are tried that no library makes")]

use std::io::Write;
use std::process::ExitCode;

use crate::sandbox;

/// Names and system calls; those with a path would work outside.
const ATTEMPTS: &[(&str, libc::c_long, [libc::c_long; 4])] = &[
    ("socket", libc::SYS_socket, [libc::AF_UNIX as libc::c_long, 1, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [0, 0, 0, 0]),
    ("fork", libc::SYS_clone, [libc::SIGCHLD as libc::c_long, 0, 0, 0]),
    ("kill", libc::SYS_kill, [0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER as libc::c_long, 0, 0, 0]),
    ("executable memory", libc::SYS_mmap, [0, 4096, 7, 0x22]),
    ("another ioctl", libc::SYS_ioctl, [0, 0x5451, 0, 0]),
    ("getppid", libc::SYS_getppid, [0, 0, 0, 0]),
];

/// Exit code 0 if nothing worked that should not; a line for each attempt on standard error.
pub(crate) fn run() -> ExitCode {
    let mut said = std::io::stderr();
    if let Err(error) = sandbox::enter() {
        drop(writeln!(said, "no sandbox: {error}"));
        return ExitCode::FAILURE;
    }
    let mut held = true;
    let mut attempt = |name: &str, works: bool| {
        held &= !works;
        drop(writeln!(said, "{name}: {}", if works { "possible" } else { "refused" }));
    };
    attempt("open /etc/passwd", std::fs::File::open("/etc/passwd").is_ok());
    attempt("open /dev/null for writing", std::fs::File::create("/dev/null").is_ok());
    attempt("stat /", std::fs::metadata("/").is_ok());
    attempt("exec", std::process::Command::new("/bin/true").status().is_ok());
    for (name, call, [first, second, third, fourth]) in ATTEMPTS {
        // SAFETY: numbers that name no memory of ours
        let result = unsafe { libc::syscall(*call, *first, *second, *third, *fourth, -1, 0) };
        attempt(name, result != -1);
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

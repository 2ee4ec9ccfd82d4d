//! What the process that reads disks can do.

use std::fs;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

const PROBE: &str = env!("CARGO_BIN_EXE_mapdev-probe");

#[test]
fn a_probe_gets_out_of_its_sandbox_by_no_system_call() {
    let output = Command::new(PROBE).arg("--self-test").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(output.status.success(), "{said}");
    assert!(lines.len() >= 10 && lines.iter().all(|line| line.ends_with(": refused")), "{said}");
}

#[test]
fn a_probe_that_can_be_asked_has_no_privilege_and_nothing_open() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut command = Command::new(PROBE);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut probe = command.spawn().unwrap();
    drop(command);
    let mut packet = [0; 16];
    let (_, length) = recv(&ours, &mut packet, RecvFlags::empty()).unwrap();
    assert_eq!(packet.get(..length), Some([0].as_slice()), "it is ready");
    let status = fs::read_to_string(format!("/proc/{}/status", probe.id())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!((value("Seccomp").as_str(), value("NoNewPrivs").as_str()), ("2", "1"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    if rustix::process::geteuid().is_root() {
        assert_eq!(value("CapBnd"), "0000000000000000");
        assert_eq!(value("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!((value("Gid"), value("Groups").trim()), (value("Uid"), ""));
        assert_eq!(fs::read_dir(format!("/proc/{}/fd", probe.id())).unwrap().count(), 3);
    }
    drop(ours);
    assert!(probe.wait().unwrap().success(), "it ends with its daemon");
}

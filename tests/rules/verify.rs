//! The real `mapdevctl verify` on files of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const RULES: &str = "\
KERNEL==\"a\", TAG+=\"x\"
SUBSYSTEM==\"net\", KRENEL==\"b\", \\
  OWNER=\"nobody-of-that-name\"
ACTION==\"added\", OWNER=\"nobody-of-that-name\"
";

fn verify(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    command.arg("verify").args(arguments).current_dir(folder).output().unwrap()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn mistakes_are_told_by_place_and_errors_fail() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.rules"), RULES).unwrap();
    let output = verify(&["a.rules", "missing.rules"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        shown(&output.stdout),
        "missing.rules: error: cannot be read: No such file or directory (os error 2)\n\
         a.rules:2:19: error: unknown key KRENEL; did you mean \"KERNEL\"?\n\
         a.rules:4:1: warning: this never holds: the actions are add, remove, change, move, \
         online, offline, bind, unbind\n\
         a.rules:4:25: warning: there is no user nobody-of-that-name; this has no effect\n"
    );
    assert_eq!(shown(&output.stderr), "mapdevctl: 2 errors, 2 warnings\n");
}

#[test]
fn what_holds_no_rules_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["--root", "/nonexistent"][..], "/nonexistent is no folder"),
        (&["/dev/zero"], "/dev/zero: error: a regular file wanted"),
    ] {
        let output = verify(arguments, folder.path());
        let told = shown(&output.stdout) + &shown(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(said), "{told}");
    }
    assert!(verify(&["/dev/null"], folder.path()).status.success());
}

#[test]
fn warnings_alone_do_not_fail_and_json_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.rules"), "ACTION==\"added\", TAG+=\"x\"\n").unwrap();
    let output = verify(&["--json", "a.rules"], folder.path());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1);
    assert_eq!((&told[0]["file"], &told[0]["line"]), (&"a.rules".into(), &1.into()));
    assert_eq!((&told[0]["severity"], &told[0]["nearest"]), (&"warning".into(), &().into()));
}

#[test]
fn without_files_the_folders_below_the_root_are_read() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("etc/passwd", "lab:x:77:77::/:\n");
    put("usr/lib/udev/rules.d/50-a.rules", "KRENEL==\"masked\"\n");
    put("etc/udev/rules.d/50-a.rules", "OWNER=\"lab\"\n");
    put("usr/lib/udev/rules.d/60-b.rules", "OWNER=\"lap\"\n");
    let output = verify(&["--root", root.path().to_str().unwrap()], root.path());
    assert!(output.status.success(), "{output:?}");
    let told = shown(&output.stdout);
    assert!(told.ends_with("has no effect; did you mean \"lab\"?\n"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn on_a_terminal_the_line_is_shown_with_a_caret() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.rules"), "TAG+=\"x\", \x1bKRENEL==\"b\"\n").unwrap();
    let command = format!("{} --color never verify a.rules", env!("CARGO_BIN_EXE_mapdevctl"));
    // script(1) gives it a terminal
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let out = shown(&output.stdout).replace('\r', "");
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(
        out.contains("\n1 | TAG+=\"x\", \u{fffd}KRENEL==\"b\"\n  |           ^^^^^^^\n"),
        "{out}"
    );
}

#[test]
fn mistakes_in_link_files_are_told_by_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[Match]\nOriginalName=eth*\n[Link]\nMTUBytes=1400X\nNamePolcy=path\n";
    fs::write(folder.path().join("10-a.link"), text).unwrap();
    let output = verify(&["10-a.link"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        shown(&output.stdout),
        "10-a.link:4:10: error: MTUBytes wants a size below 4G, such as 1500 or 9K\n\
         10-a.link:5:1: warning: no such key in [Link]; did you mean \"NamePolicy\"?\n"
    );
    let network = folder.path().join("etc/systemd/network");
    fs::create_dir_all(network.join("10-a.link.d")).unwrap();
    fs::write(network.join("10-a.link"), "[Link]\nAlias=x\n").unwrap();
    fs::write(network.join("10-a.link.d/b.conf"), "[Match]\nHost=*\n[Link]\nDuplex=no\n").unwrap();
    let output = verify(&["--root", "."], folder.path());
    let told = "./etc/systemd/network/10-a.link.d/b.conf:4:8: error: Duplex wants half or full\n";
    assert_eq!((shown(&output.stdout).as_str(), output.status.code()), (told, Some(1)));
}

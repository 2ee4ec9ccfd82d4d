//! The real `mapdevctl test` on a sysfs of its own: it tells, and does nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const RULES: &str = "\
SUBSYSTEM==\"mine\", OWNER=\"lab\", MODE=\"0640\", TAG+=\"t\", SYMLINK+=\"a b\", ENV{ID_X}=\"$attr{size}\"
SUBSYSTEM==\"mine\", RUN+=\"/bin/x %k\", RUN{builtin}+=\"kmod load y\", ATTR{size}=\"2\"
SUBSYSTEM==\"mine\", SYSCTL{net/x}=\"3\", SECLABEL{selinux}=\"l\"
SUBSYSTEM==\"mine\", PROGRAM==\"/bin/touch touched\", TAG+=\"no\"
ACTION==\"remove\", ENV{GONE}=\"1\"
";

fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("etc/passwd", "lab:x:77:77::/:\n");
    put("etc/udev/rules.d/50-a.rules", RULES);
    put("sys/devices/x/mine0/uevent", "MAJOR=60\nMINOR=1\nDEVNAME=mine0\n");
    put("sys/devices/x/mine0/size", "1\n");
    fs::create_dir_all(root.path().join("sys/class/mine")).unwrap();
    symlink("../../../class/mine", root.path().join("sys/devices/x/mine0/subsystem")).unwrap();
    symlink("../../devices/x/mine0", root.path().join("sys/class/mine/mine0")).unwrap();
    root
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdevctl"));
    command.args(["test", "--root"]).arg(root).arg("--sysfs").arg(root.join("sys"));
    command.args(arguments).current_dir(root).output().unwrap()
}

#[test]
fn all_that_is_decided_is_told_and_nothing_is_done() {
    let root = machine();
    let output = run(root.path(), &["--no-programs", "--json", "/sys/class/mine/mine0"]);
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = root.path().join("etc/udev/rules.d/50-a.rules").display().to_string();
    let size = root.path().join("sys/devices/x/mine0/size").display().to_string();
    assert_eq!(told["devpath"], "/devices/x/mine0");
    assert_eq!(told["properties"]["ID_X"], "1");
    assert_eq!(told["symlinks"], json!(["a", "b"]));
    assert_eq!((&told["tags"], &told["mode"]), (&json!(["t"]), &json!("0640")));
    assert_eq!((&told["owner"], &told["group"]), (&json!(77), &Value::Null));
    assert_eq!(told["sysattrs"], json!({ size.clone(): "2" }));
    assert_eq!(told["sysctl"], json!({ "/proc/sys/net/x": "3" }));
    assert_eq!(told["run"][1]["command"], "/bin/x mine0");
    assert_eq!(
        (&told["run"][0]["builtin"], &told["run"][0]["by"]),
        (&json!("kmod"), &json!(format!("{file}:2")))
    );
    let owner = told["steps"].as_array().unwrap().iter().find(|step| step["attribute"] == "owner");
    assert_eq!(owner.unwrap()["by"], format!("{file}:1"));
    let skipped = told["skipped"].as_array().unwrap();
    assert!(skipped.iter().any(|skipped| skipped["what"] == "/bin/touch touched"), "{skipped:?}");
    assert_eq!(fs::read_to_string(size).unwrap(), "1\n");
    assert!(!root.path().join("touched").exists());
}

#[test]
fn a_pipe_gets_three_columns_and_the_action_is_chosen() {
    let root = machine();
    let output = run(root.path(), &["--action", "remove", "/sys/devices/x/mine0"]);
    let out = String::from_utf8(output.stdout).unwrap();
    let file = root.path().join("etc/udev/rules.d/50-a.rules").display().to_string();
    assert!(out.contains(&format!("property\tGONE=1\t{file}:5\n")), "{out}");
    let output = run(root.path(), &["--no-programs", "/sys/devices/x/mine0"]);
    let out = String::from_utf8(output.stdout).unwrap();
    for line in [format!("owner\t77\t{file}:1\n"), format!("link\tb\t{file}:1\n")] {
        assert!(out.contains(&line), "{line} in {out}");
    }
}

#[test]
fn what_is_no_device_is_told_with_exit_code_3() {
    let root = machine();
    for none in ["/sys/devices/y", "/sys/devices/x", "no-such-node", "/etc/passwd"] {
        assert_eq!(run(root.path(), &[none]).status.code(), Some(3), "{none}");
    }
    assert_eq!(run(root.path(), &["--action", "explode", "x"]).status.code(), Some(2));
}

#[test]
fn what_programs_say_decides_and_is_told() {
    let root = machine();
    let rules = "SUBSYSTEM==\"mine\", PROGRAM==\"/bin/echo said\", ENV{ID_X}=\"$result\"\n\
        SUBSYSTEM==\"mine\", PROGRAM==\"/bin/false\", ENV{ID_Y}=\"1\"\n\
        SUBSYSTEM==\"mine\", IMPORT{program}=\"/bin/echo ID_Z=2\", RUN+=\"/bin/touch touched\"\n";
    fs::write(root.path().join("etc/udev/rules.d/50-a.rules"), rules).unwrap();
    let output = run(root.path(), &["--json", "/sys/class/mine/mine0"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let properties = &told["properties"];
    assert_eq!((&properties["ID_X"], &properties["ID_Z"]), (&json!("said"), &json!("2")));
    assert_eq!(properties["ID_Y"], Value::Null);
    assert_eq!(told["programs"][1]["outcome"], "exit status 1");
    assert!(!root.path().join("touched").exists());
}

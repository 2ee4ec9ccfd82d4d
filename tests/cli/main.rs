//! The real `mapdevctl` on a real bus: without bus, without daemon, and with a daemon that is
//! played by the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bus;
mod device;
#[path = "../modules/elf.rs"]
mod elf;
mod fake;
mod module;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use bus::{Bus, Ran, mapdevctl};
use fake::{DEVICE, Fake};

fn run(arguments: &[&str]) -> Ran {
    Ran::of(mapdevctl(arguments).output().unwrap())
}

fn with_daemon() -> (Bus, Fake) {
    let bus = Bus::start();
    let fake = Fake::start(&bus.address);
    (bus, fake)
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    for word in [
        "status", "list", "info", "module", "monitor", "settle", "chown", "chmod", "reset", "test",
        "verify",
    ] {
        assert!(help.out.contains(&format!("\n  {word} ")), "{word} in {}", help.out);
    }
    assert!(help.out.contains("3 no such device or module, 4 refused"), "{}", help.out);
    assert!(!help.out.contains("completions"), "hidden commands are shown");
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    for arguments in [
        vec!["frobnicate"],
        vec!["chmod", "99999", "sda"],
        vec!["chmod", "u+q", "sda"],
        vec!["chown", "alice:", "sda"],
        vec!["settle", "--timeout", "-1"],
        vec![],
    ] {
        let ran = run(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
}

#[test]
fn without_a_bus_the_bus_is_named() {
    let ran = run(&["--bus", "unix:path=/nonexistent/bus", "status"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("cannot connect to the bus at unix:path=/nonexistent/bus"));
    assert!(ran.error().contains("No such file"), "{ran:?}");
    let ran = run(&["--bus", "nonsense", "list"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("the bus at nonsense"), "{ran:?}");
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let bus = Bus::start();
    for arguments in [
        vec!["status"],
        vec!["list"],
        vec!["info", "sda"],
        vec!["monitor"],
        vec!["settle"],
        vec!["settle", "sda"],
        vec!["chown", "root", "sda"],
        vec!["chmod", "0660", "sda"],
        vec!["reset", "sda"],
        vec!["explain", "sda"],
        vec!["map", "dump"],
        vec!["reload"],
        vec!["log-level"],
    ] {
        let ran = bus.run(&arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert!(ran.error().ends_with("systemctl start mapdevd"), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let ran = run(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains(mark) && ran.out.contains("explain"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = mapdevctl(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn there_is_a_man_page_for_each_command_that_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/man8");
    let ran = run(&["man", pages.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for name in [
        "mapdevctl",
        "mapdevctl-status",
        "mapdevctl-explain",
        "mapdevctl-log-level",
        "mapdevctl-module-load",
    ] {
        let page = std::fs::read_to_string(pages.join(format!("{name}.8"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 8")), "{name}: {page}");
    }
    assert!(!pages.join("mapdevctl-man.8").exists());
}

#[test]
fn status_shows_what_the_daemon_counts() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for line in [
        "version\t9.9",
        "mode\tshadow",
        "queue high water\t17",
        "messages refused\t3",
        "devices\t1",
    ] {
        assert!(ran.out.lines().any(|l| l == line), "{line} in {}", ran.out);
    }
    let json = bus.run(&["--json", "status"]).json();
    assert_eq!(json["queue_high_water"], 17);
    assert_eq!(json["devices"], 1);
}

#[test]
fn differences_are_shown_by_node() {
    let (bus, _fake) = with_daemon();
    assert_eq!(bus.run(&["compare"]).out, "/dev/ttyUSB0\tmode\t0660\t0600\n");
    let json = bus.run(&["--json", "compare"]).json();
    assert_eq!((&json[0]["ours"], &json[0]["theirs"]), (&"0660".into(), &"0600".into()));
}

#[test]
fn a_list_is_filtered_by_the_daemon_and_can_be_long() {
    let (bus, _fake) = with_daemon();
    assert_eq!(bus.run(&["list"]).out, "/dev/ttyUSB0\tc188:0\ttty\n");
    assert_eq!(bus.run(&["list", "--subsystem", "block"]).out, "");
    let long = bus.run(&["list", "-l", "-s", "tty"]);
    assert_eq!(long.out, "/dev/ttyUSB0\tc188:0\ttty\troot\tdialout\t0640\n");
    let json = bus.run(&["list", "--json", "--long"]).json();
    let expected = serde_json::json!([{
        "path": DEVICE, "node": "/dev/ttyUSB0", "subsystem": "tty", "major": 188, "minor": 0,
        "owner_name": "root", "group_name": "dialout", "mode": 0o20_640,
    }]);
    assert_eq!(json, expected);
}

#[test]
fn info_shows_all_properties_and_no_escape_sequence_of_a_stick() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["info", "c188:0"]);
    assert!(
        ran.out.contains("Node\t/dev/ttyUSB0\n") && ran.out.contains("Mode\t0640\n"),
        "{ran:?}"
    );
    assert!(ran.out.contains("ID_MODEL=Stick\\x1b]0;owned\\x07\\xff\n"), "{ran:?}");
    assert!(!ran.out.contains('\x1b'));
    let json = bus.run(&["info", "ttyUSB0", "--json"]);
    assert!(!json.out.contains('\x1b'));
    assert_eq!(json.json()["properties"]["ID_MODEL"], "Stick\x1b]0;owned\x07\\xff");
}

#[test]
fn an_unknown_device_is_exit_code_3_with_the_nearest_name() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["info", "ttyUSB1"]);
    assert_eq!(ran.code, Some(3));
    let expected = "mapdevctl: there is no device ttyUSB1; did you mean /dev/ttyUSB0?";
    assert_eq!(ran.error(), expected);
    assert_eq!(bus.run(&["chown", "root", "qqqqqqqqqq"]).code, Some(3));
}

#[test]
fn a_link_that_the_daemon_does_not_know_leads_to_its_target() {
    let (bus, _fake) = with_daemon();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let ran = bus.run(&["info", link.to_str().unwrap(), "--json"]);
    assert_eq!(ran.json()["path"], DEVICE);
}

#[test]
fn chown_calls_what_it_was_told_and_may_prompt() {
    let (bus, fake) = with_daemon();
    assert_eq!(bus.run(&["chown", "alice:lab", "/dev/ttyUSB0"]).code, Some(0));
    assert_eq!(fake.calls(), ["SetOwner alice ", "SetGroup lab "]);
    bus.run(&["chown", ":lab", "ttyUSB0", "--persist", "--reason", "course"]);
    assert_eq!(fake.calls(), ["SetGroup lab persist,reason"]);
    let ran = bus.run(&["chown", "alice", "ttyUSB0", "--dry-run"]);
    assert_eq!(ran.out, "/dev/ttyUSB0: owner would change: root -> alice\n");
    assert_eq!(fake.calls(), ["SetOwner alice dry-run"]);
}

#[test]
fn half_a_chown_says_which_half_was_done() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["chown", "alice:nobodys", "ttyUSB0"]);
    assert_eq!(ran.code, Some(1));
    let expected = "mapdevctl: the owner is changed, the group is not: there is no group 'nobodys'";
    assert_eq!(ran.error(), expected);
}

#[test]
fn symbolic_modes_start_from_the_devices_own() {
    let (bus, fake) = with_daemon();
    let json = bus.run(&["--json", "chmod", "g+w,o=", "ttyUSB0"]).json();
    let change = serde_json::json!([{ "attribute": "mode", "old": "0640", "new": "0660" }]);
    assert_eq!(json["changes"], change);
    bus.run(&["chmod", "-r", "ttyUSB0"]);
    bus.run(&["reset", "ttyUSB0"]);
    assert_eq!(fake.calls(), ["SetMode 660 ", "SetMode 200 ", "Reset "]);
}

#[test]
fn a_refusal_is_exit_code_4_and_names_the_action() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["reload"]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.error().contains("polkit action org.mapdev1.control"), "{ran:?}");
}

#[test]
fn explain_tells_each_step_and_which_one_stands() {
    let (bus, _fake) = with_daemon();
    let ran = bus.run(&["explain", "ttyUSB0"]);
    let expected = "group\t1\trule\t/a.rules:3:5\t=\troot\ttty\t-\n\
                    group\t2\trule\t/b.rules:9:5\t=\ttty\tdialout\tstands\n";
    assert_eq!(ran.out, expected);
    // an attribute that the daemon does not know is an error only for who asked for it
    assert!(bus.run(&["explain", "ttyUSB0", "links"]).error().ends_with("no attribute 'links'"));
    let json = bus.run(&["explain", "ttyUSB0", "group", "--json"]).json();
    assert_eq!(json["attributes"][0]["steps"][1]["stands"], true);
    assert_eq!(json["attributes"][0]["steps"][0]["line"], 3);
}

#[test]
fn the_map_is_read_through_the_daemons_descriptor() {
    let (bus, _fake) = with_daemon();
    let dump = bus.run(&["map", "dump"]);
    let expected = "drwxr-xr-x\troot\troot\t-\t-\tserial\t\t\t\n\
                    lrwxrwxrwx\troot\tdialout\t-\tlive\tserial/\\x1b[2J\t../ttyUSB0\t\t\n\
                    crw-rw----\troot\tdialout\t188:0\tlive\tttyUSB0\t\t\t\n";
    assert_eq!((dump.out.as_str(), dump.err.as_str()), (expected, ""));
    let json = bus.run(&["map", "dump", "--json"]).json();
    assert_eq!(json[1]["target"], "../ttyUSB0");
    assert_eq!(json[2]["major"], 188);
    let stats = bus.run(&["--json", "map", "stats"]).json();
    assert_eq!((stats["links"].as_u64(), stats["directories"].as_u64()), (Some(1), Some(2)));
    let verify = bus.run(&["map", "verify"]);
    assert_eq!((verify.code, verify.out.as_str(), verify.err.as_str()), (Some(0), "", ""));
}

#[test]
fn settle_takes_seconds_and_fails_when_time_is_up() {
    let (bus, _fake) = with_daemon();
    assert_eq!(bus.run(&["settle", "--timeout", "1.5"]).code, Some(0));
    let ran = bus.run(&["settle", "--timeout", "2"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("after 2 s"), "{ran:?}");
}

#[test]
fn monitor_loses_no_signal_after_subscribing_and_ends_with_the_daemon() {
    let (bus, fake) = with_daemon();
    let mut child = bus
        .command(&["monitor", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen: Vec<serde_json::Value> = lines
        .by_ref()
        .take(203)
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let seqnums: Vec<u64> = seen.iter().filter_map(|event| event["seqnum"].as_u64()).collect();
    assert_eq!(seqnums, (1..=201).collect::<Vec<u64>>());
    for event in &seen {
        // the name is known for the remove too, when the device cannot be asked any more
        assert_eq!(event["syspath"], "/sys/devices/usb1/1-1/ttyUSB0", "{event}");
        assert_eq!(event["node"], "/dev/ttyUSB0");
    }
    let kinds: Vec<&str> = seen.iter().skip(200).filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(kinds, ["storm-started", "mismatch", "processed"]);
    drop(fake);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(1));
    assert!(ran.error().contains("mapdevd has left the bus"), "{ran:?}");
}

#[test]
fn monitor_in_a_pipe_has_five_columns_and_no_escape_sequence() {
    let (bus, _fake) = with_daemon();
    let mut child =
        bus.command(&["monitor"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.by_ref().take(202).map(Result::unwrap).collect();
    let last = lines.last().unwrap();
    let columns: Vec<&str> = last.split('\t').skip(1).collect();
    let device = "/sys/devices/usb1/1-1/ttyUSB0";
    assert_eq!(columns, ["mismatch", device, "/dev/ttyUSB0", "mode: 0660, theirs 06\\x1b44"]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "Ctrl-C is how it ends");
}

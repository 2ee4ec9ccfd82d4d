//! What hostile or broken senders try: one log line each, and the next good event is handled.

use std::fs;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::inject::Injector;
use crate::listen::Listener;
use crate::machine::private;
use crate::sysfs::Device;

/// What the log line says, and the packet; the kernel puts SEQNUM behind each.
const REFUSED: &[(&str, &[u8])] = &[
    (
        r#"ACTION="remove", wanted "add""#,
        b"add@/devices/bad\0ACTION=remove\0DEVPATH=/devices/bad\0",
    ),
    (
        r#"DEVPATH="/devices/y", wanted "/devices/bad""#,
        b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/y\0",
    ),
    (
        r#"DEVPATH="/devices/y", wanted "/devices/bad""#,
        b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/bad\0DEVPATH=/devices/y\0",
    ),
    (
        r#"header "add /devices/bad", wanted"#,
        b"add /devices/bad\0ACTION=add\0DEVPATH=/devices/bad\0",
    ),
    (r#"header "libudev", wanted"#, b"libudev\0\xfe\xed\xca\xfe\0"),
    (r#"header "SEQNUM="#, b""),
    (
        r#"action "explode", wanted"#,
        b"explode@/devices/bad\0ACTION=explode\0DEVPATH=/devices/bad\0",
    ),
    (r#"action "a\xffd", wanted"#, b"a\xffd@/devices/bad\0ACTION=a\xffd\0DEVPATH=/devices/bad\0"),
    (r#"devpath "devices/bad", wanted"#, b"add@devices/bad\0ACTION=add\0DEVPATH=devices/bad\0"),
    (r#"devpath "", wanted"#, b"add@\0ACTION=add\0DEVPATH=\0"),
    (
        r#"devpath "/devices/../bad", wanted"#,
        b"add@/devices/../bad\0ACTION=add\0DEVPATH=/devices/../bad\0",
    ),
    (
        r#"devpath "/devices//bad", wanted"#,
        b"add@/devices//bad\0ACTION=add\0DEVPATH=/devices//bad\0",
    ),
    (
        r#"devpath "/devices/bad\nE:A=1", wanted"#,
        b"add@/devices/bad\nE:A=1\0ACTION=add\0DEVPATH=/devices/bad\nE:A=1\0",
    ),
    ("no ACTION, wanted", b"add@/devices/bad\0DEVPATH=/devices/bad\0"),
    ("no DEVPATH, wanted", b"add@/devices/bad\0ACTION=add\0"),
    ("SEQNUM=5 and SEQNUM=", b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/bad\0SEQNUM=5\0"),
    (
        r#"SEQNUM="five", wanted a decimal"#,
        b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/bad\0SEQNUM=five\0",
    ),
    // without its last NUL, what the kernel adds sticks to it
    (r#"DEVPATH="/devices/badSEQNUM="#, b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/bad"),
];

/// Here a pair is left out and named, and the event goes on.
const MENDED: &[(&str, &[u8])] = &[
    (r#""=value" (empty key, wanted"#, b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0=value\0"),
    (r#""\x1b[31mRED" (no `=`, wanted"#, b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0\x1b[31mRED\0"),
    (r#""ACTION=change" (said twice"#, b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0ACTION=change\0"),
    (
        r#""DEVNAME=../etc/shadow" (wanted a name below /dev"#,
        b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0MAJOR=1\0MINOR=3\0DEVNAME=../etc/shadow\0",
    ),
    (
        r#""DEVPATH_OLD=/devices/.." (wanted a path below /sys"#,
        b"move@/devices/live/odd\0ACTION=move\0DEVPATH=/devices/live/odd\0DEVPATH_OLD=/devices/..\0",
    ),
];

/// Odd, but honest: no line.
const HEARD: &[(&str, &[u8], &[u8])] = &[
    (
        "NAME",
        b"eMMC\xff\xfe\x01",
        b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0NAME=eMMC\xff\xfe\x01\0",
    ),
    (
        "DEVPATH",
        b"/devices/live/a=odd",
        b"change@/devices/live/a=odd\0ACTION=change\0DEVPATH=/devices/live/a=odd\0",
    ),
    (
        "NAME",
        b"one",
        b"change@/devices/live/odd\0ACTION=change\0DEVPATH=/devices/live/odd\0NAME=one\nE:TWO=2\0",
    ),
];

#[test]
fn each_hostile_packet_gives_one_log_line_and_the_next_good_event_is_handled() {
    let name = "each_hostile_packet_gives_one_log_line_and_the_next_good_event_is_handled";
    private(module_path!(), name, |mut machine| {
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let listener = Listener::new();
        // an event that waits for whatever is below it
        let good = Device::new("/devices/live", "live", &[]);
        machine.add(&good);
        listener.until(machine.sent());
        let sender = Injector::new();
        // what is logged and announced until the next good event was handled
        let mut watch = |send: &dyn Fn()| {
            let before = daemon.log().len();
            send();
            let mut heard = listener.until(machine.tell("change", &good, &[]));
            heard.pop();
            (daemon.log()[before..].to_owned(), heard)
        };
        let mut check = |what: &str, announced: usize, send: &dyn Fn()| {
            let (log, heard) = watch(send);
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
            assert!(lines.len() == 1 && lines[0].contains(what), "wanted `{what}`: {lines:#?}");
            assert_eq!(heard.len(), announced, "{what}: {heard:?}");
        };
        for (what, packet) in REFUSED {
            check(what, 0, &|| sender.inject(packet));
        }
        let forged = b"add@/devices/bad\0ACTION=add\0DEVPATH=/devices/bad\0SEQNUM=7\0";
        check("sent by port", 0, &|| sender.forge(forged, 0, 1));
        let port = daemon_port();
        check("sent by port", 0, &|| sender.forge(forged, port, 0));
        for (what, packet) in MENDED {
            check(what, 1, &|| sender.inject(packet));
        }
        for (key, value, packet) in HEARD {
            let (log, heard) = watch(&|| sender.inject(packet));
            assert!(!log.contains("WARN"), "{log}");
            assert_eq!(heard[0].properties[key.as_bytes()], *value, "{heard:?}");
        }
        let refused = bus.json(&["status"])["refused"].as_u64().unwrap();
        assert_eq!(refused, 2 + u64::try_from(REFUSED.len()).unwrap());
    });
}

/// The port of the only socket in this namespace that listens to the kernel's group.
fn daemon_port() -> u32 {
    let table = fs::read_to_string("/proc/net/netlink").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = rows.filter(|row| row[1] == "15" && row[3] == "00000001" && row[2] != "0");
    let port = ours.next().expect("wanted the daemon's socket")[2].parse().unwrap();
    assert!(ours.next().is_none(), "{table}");
    port
}

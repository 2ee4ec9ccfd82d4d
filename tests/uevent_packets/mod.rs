//! The packets of `tests/fixtures/uevents`, and what `kobject-uevent` makes of a packet.
//!
//! Shared by the corpus test, the fuzz target and the seeds of its corpus.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use kobject_uevent::UEvent;
use mapdev::uevent::parse::{Packet, parse};
use mapdev::uevent::{Origin, action_name};

/// One packet a line; `\0`, `\n`, `\\` and `\xHH` are escapes.
pub(crate) fn packets(text: &str) -> Vec<Vec<u8>> {
    lines(text).map(unescape).collect()
}

/// Outcome, what the message must say, packet.
pub(crate) fn hostile(text: &str) -> Vec<(&str, &str, Vec<u8>)> {
    let row = |line| {
        let mut parts = str::splitn(line, 3, '|').map(|part| part.trim_matches(' '));
        let mut next = || parts.next().expect("wanted `outcome | message | packet`");
        (next(), next(), unescape(next()))
    };
    lines(text).map(row).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'0') => 0,
            Some(b'n') => b'\n',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).expect("wanted two digits");
                u8::from_str_radix(digits, 16).expect("wanted two hexadecimal digits")
            }
            other => panic!("escape {other:?}, wanted one of 0, n, \\ and xHH"),
        });
    }
    bytes
}

/// Checks what holds for every packet, and that `kobject-uevent` agrees where it accepts it too.
///
/// Returns whether both accepted it.
pub(crate) fn check(bytes: &[u8]) -> bool {
    match parse(bytes) {
        Ok(packet) => {
            check_alone(&packet, bytes);
            let oracle = UEvent::from_netlink_packet(bytes);
            oracle.as_ref().inspect(|oracle| compare(&packet, oracle, bytes)).is_ok()
        }
        Err(error) => {
            check_line(&error.to_string());
            false
        }
    }
}

fn check_alone(packet: &Packet<'_>, bytes: &[u8]) {
    let within = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    assert!(within(packet.devpath()));
    assert!(packet.properties().all(|(key, value)| within(key) && within(value)));
    assert!(packet.properties().all(|(key, value)| !key.is_empty() && !value.contains(&b'\n')));
    if !packet.dropped().is_empty() {
        check_line(&packet.dropped().to_string());
    }

    let uevent = packet.to_uevent(Origin::Kernel);
    assert_eq!(uevent.devpath(), packet.devpath());
    assert!(uevent.properties().eq(packet.properties()));
    for (key, wanted) in
        [(&b"ACTION"[..], action_name(packet.action()).as_bytes()), (b"DEVPATH", packet.devpath())]
    {
        let mut values = uevent.properties().filter(|(k, _)| *k == key).map(|(_, value)| value);
        assert_eq!((values.next(), values.next()), (Some(wanted), None));
    }

    let again = serialise(packet);
    let again = parse(&again).expect("what was accepted once is accepted again");
    assert!(again.dropped().is_empty());
    assert_eq!(again.action(), packet.action());
    assert_eq!(again.seqnum(), packet.seqnum());
    assert!(again.properties().eq(packet.properties()));
}

fn serialise(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = action_name(packet.action()).as_bytes().to_vec();
    bytes.push(b'@');
    bytes.extend_from_slice(packet.devpath());
    bytes.push(0);
    for (key, value) in packet.properties() {
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

fn compare(packet: &Packet<'_>, oracle: &UEvent, bytes: &[u8]) {
    let uevent = packet.to_uevent(Origin::Kernel);
    assert_eq!(uevent.action(), oracle.action);
    assert_eq!(uevent.devpath(), oracle.devpath.as_os_str().as_bytes());
    assert_eq!(uevent.seqnum(), oracle.seq);
    assert_eq!(uevent.subsystem(), first_line(&oracle.subsystem));

    // the oracle takes a header with `=` for a pair
    let header = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let phantom = header.split(|byte| *byte == b'=').next().unwrap_or_default();
    let ours: HashMap<&[u8], &[u8]> = uevent.properties().collect();
    for (key, value) in &ours {
        let wanted = std::str::from_utf8(key).ok().and_then(|key| oracle.env.get(key));
        // where a pair was dropped, an earlier one with its key may show through
        if packet.dropped().is_empty() {
            assert_eq!(wanted.map(|value| first_line(value)), Some(*value));
        } else {
            assert!(wanted.is_some());
        }
    }
    if packet.dropped().is_empty() {
        let theirs = oracle.env.keys().filter(|key| key.as_bytes() != phantom);
        theirs.for_each(|key| assert!(ours.contains_key(key.as_bytes()), "{key} is missing"));
    }
}

fn first_line(value: &str) -> &[u8] {
    value.as_bytes().split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// A message is one line of bounded length, whatever bytes are quoted in it.
fn check_line(message: &str) {
    assert!(message.len() < 1600, "{message}");
    assert!(message.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{message:?}");
    assert!(message.contains("wanted"), "{message}");
}

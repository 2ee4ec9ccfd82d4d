//! The parser against `kobject-uevent` on well-formed packets, and alone on hostile ones.

mod uevent_packets;

use std::collections::BTreeSet;

use mapdev::uevent::action_name;
use mapdev::uevent::parse::{MAX_PACKET, parse};
use uevent_packets::{check, hostile, packets};

const SYSFS: &str = include_str!("fixtures/uevents/sysfs.txt");
const TYPICAL: &str = include_str!("fixtures/uevents/typical.txt");
const HOSTILE: &str = include_str!("fixtures/uevents/hostile.txt");

#[test]
fn kobject_uevent_agrees_on_every_well_formed_packet() {
    let packets = [packets(SYSFS), packets(TYPICAL)].concat();
    let mut actions = BTreeSet::new();
    for packet in &packets {
        assert!(check(packet), "refused: {}", packet.escape_ascii());
        let packet = parse(packet).unwrap();
        assert!(packet.dropped().is_empty());
        actions.insert(action_name(packet.action()));
    }
    assert!(packets.len() > 100);
    assert_eq!(actions.len(), 8, "an action is missing from the corpus");
}

#[test]
fn every_hostile_packet_gives_one_line_that_says_what_was_wrong() {
    let table = hostile(HOSTILE);
    assert!(table.len() >= 20);
    for (outcome, message, bytes) in table {
        check(&bytes);
        let (found, said) = match parse(&bytes) {
            Err(error) => ("refused", error.to_string()),
            Ok(packet) if packet.dropped().is_empty() => ("heard", String::new()),
            Ok(packet) => ("mended", packet.dropped().to_string()),
        };
        assert_eq!(found, outcome, "{}: {said}", bytes.escape_ascii());
        assert!(said.contains(message), "{said:?}, wanted {message:?}");
    }
}

#[test]
fn every_shortened_packet_is_refused() {
    for packet in packets(TYPICAL) {
        for len in 0..packet.len() {
            assert!(parse(&packet[..len]).is_err(), "{}", packet[..len].escape_ascii());
        }
    }
}

#[test]
fn every_changed_byte_keeps_the_promises() {
    for packet in packets(TYPICAL) {
        for at in 0..packet.len() {
            for byte in [0, b'=', b'/', b'@', b'\n', 0xff] {
                let mut packet = packet.clone();
                packet[at] = byte;
                check(&packet);
            }
        }
    }
}

#[test]
fn a_packet_larger_than_the_limit_is_refused() {
    let mut packet = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SEQNUM=1\0FILL=".to_vec();
    packet.resize(MAX_PACKET - 1, b'x');
    packet.push(0);
    assert!(parse(&packet).is_ok());
    packet.insert(60, b'x');
    assert_eq!(parse(&packet).unwrap_err().to_string(), "8193 bytes, wanted at most 8192");
}

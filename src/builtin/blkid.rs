//! Stage 3e: `blkid`: what a disk says of itself, by the names that udev's rules know.

use std::fs::File;
use std::io::Read;

use tracing::warn;

use super::options::{Known, options};
use super::{Call, Kit, Pair, Ran};
use crate::clean::{is_character, join_blanks};
use crate::device::Device;
use crate::host;
use crate::probe::Failed;
use crate::probe::protocol::{Found, Partition, Question};

const OPTIONS: &[Known] = &[
    Known { short: b'o', long: "offset", wants_value: true },
    Known { short: b'H', long: "hint", wants_value: true },
    Known { short: b'R', long: "noraid", wants_value: false },
];

/// How libblkid's values are named, and what becomes of them; what is not here and does not begin
/// with `PART_ENTRY_` is of no interest.
const NAMES: [(&str, &str, Form); 18] = [
    ("TYPE", "ID_FS_TYPE", Form::AsIs),
    ("USAGE", "ID_FS_USAGE", Form::AsIs),
    ("VERSION", "ID_FS_VERSION", Form::AsIs),
    ("UUID", "ID_FS_UUID", Form::Both),
    ("UUID_SUB", "ID_FS_UUID_SUB", Form::Both),
    ("LABEL", "ID_FS_LABEL", Form::Both),
    ("PTTYPE", "ID_PART_TABLE_TYPE", Form::AsIs),
    ("PTUUID", "ID_PART_TABLE_UUID", Form::AsIs),
    ("PART_ENTRY_NAME", "ID_PART_ENTRY_NAME", Form::Encoded),
    ("PART_ENTRY_TYPE", "ID_PART_ENTRY_TYPE", Form::Encoded),
    ("SYSTEM_ID", "ID_FS_SYSTEM_ID", Form::Encoded),
    ("PUBLISHER_ID", "ID_FS_PUBLISHER_ID", Form::Encoded),
    ("APPLICATION_ID", "ID_FS_APPLICATION_ID", Form::Encoded),
    ("BOOT_SYSTEM_ID", "ID_FS_BOOT_SYSTEM_ID", Form::Encoded),
    ("VOLUME_ID", "ID_FS_VOLUME_ID", Form::Encoded),
    ("LOGICAL_VOLUME_ID", "ID_FS_LOGICAL_VOLUME_ID", Form::Encoded),
    ("VOLUME_SET_ID", "ID_FS_VOLUME_SET_ID", Form::Encoded),
    ("DATA_PREPARER_ID", "ID_FS_DATA_PREPARER_ID", Form::Encoded),
];

/// What becomes of a value.
#[derive(Clone, Copy, Debug)]
enum Form {
    AsIs,
    /// Each byte that is not safe as `\xHH`.
    Encoded,
    /// Without blanks, and encoded with `_ENC` behind the name.
    Both,
}

/// udev's buffer for a value, with the NUL at its end.
const BUFFER: usize = 256;

/// Marks a device whose disk did not answer, or of which the probe died. udev has no word for it.
const MARK: &str = "MAPDEV_PROBE";

/// The partition that the firmware loaded the boot loader from, as the loader told it.
const LOADER_PARTITION: &[u8] =
    b"/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Types of partitions: the firmware's, and the root file system of this architecture.
const ESP: &[u8] = b"c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
#[cfg(target_arch = "x86_64")]
const ROOT: &[u8] = b"4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
#[cfg(target_arch = "aarch64")]
const ROOT: &[u8] = b"b921b045-1df0-41c3-af44-4c6f280d3fae";

/// The flag of a partition that is not to be used without being named.
const NO_AUTO: u64 = 1 << 63;

pub(super) fn blkid(kit: &Kit, call: &Call<'_>) -> Ran<Vec<Pair>> {
    let Some(mut question) = question(call.words.get(1..).unwrap_or_default()) else {
        return Ran::Failed;
    };
    let loader = loader_partition(call.device);
    question.partitions = loader.is_some();
    let failed = match kit.probe.ask(call.device, question) {
        Ok(found) => return Ran::Done(properties(call, &found, loader.as_deref())),
        Err(failed) => failed,
    };
    let mark = match failed {
        // as under udev, a disk that is not there has nothing on it
        Failed::Absent(_) => return Ran::Done(Vec::new()),
        Failed::NoNode(_) | Failed::Refused(_) => return Ran::Failed,
        Failed::NoHelper(_) => None,
        Failed::TimeUp(_) => Some("time-up"),
        Failed::Died(_) => Some("died"),
    };
    let devpath = call.device.uevent().devpath().escape_ascii();
    warn!(%devpath, "blkid: {failed}");
    match mark {
        Some(word) => Ran::Broken(vec![(MARK.into(), word.into())]),
        None => Ran::Failed,
    }
}

/// `None` if an option has a value that cannot be meant.
fn question(words: &[Vec<u8>]) -> Option<Question> {
    let mut question = Question::default();
    for (option, value) in options(words, OPTIONS) {
        match (option, value) {
            (b'o', Some(value)) => {
                question.offset = number(&value).filter(|number| *number >= 0)?
            }
            (b'H', Some(value)) => question.hints.push(value),
            _ => question.noraid = true,
        }
    }
    Some(question)
}

/// As strtoll(3) with base 0 reads it, and `0b` and `0o`.
fn number(text: &[u8]) -> Option<i64> {
    let text =
        str::from_utf8(text).ok()?.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let plain = !digits.starts_with(['-', '+']);
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok().filter(|_| plain)
}

/// The uuid of the partition that the boot loader came from, if firmware and loader told one.
fn loader_partition(device: &Device) -> Option<Vec<u8>> {
    let path = device.sysfs().syspath(LOADER_PARTITION);
    let mut bytes = Vec::new();
    // four bytes of attributes, then UTF-16
    File::open(path).ok()?.take(4 + 2 * 64).read_to_end(&mut bytes).ok()?;
    if host::container().is_some() {
        return None;
    }
    let units = bytes.get(4..)?.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let text = char::decode_utf16(units.take_while(|unit| *unit != 0));
    let text = text.collect::<Result<String, _>>().ok()?;
    Some(text.to_ascii_lowercase().into_bytes())
}

fn properties(call: &Call<'_>, found: &Found, loader: Option<&[u8]>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let root = call.property(b"ID_PART_GPT_AUTO_ROOT_UUID");
    for (key, value) in &found.values {
        let mut put = |name: String, value: Vec<u8>| pairs.push((name.into_bytes(), value));
        match NAMES.iter().find(|(known, _, _)| known.as_bytes() == key) {
            Some((_, name, Form::AsIs)) => put((*name).to_owned(), value.clone()),
            Some((_, name, Form::Encoded)) => put((*name).to_owned(), encoded(value, b"")),
            Some((_, name, Form::Both)) => {
                let plain = plain(value);
                let encoded = encoded(value, &plain);
                put((*name).to_owned(), plain);
                put(format!("{name}_ENC"), encoded);
            }
            None if key.starts_with(b"PART_ENTRY_") => {
                put(format!("ID_{}", key.escape_ascii()), value.clone());
            }
            None => {}
        }
        if key == b"PART_ENTRY_UUID" && root == Some(value.as_slice()) {
            pairs.push((b"ID_PART_GPT_AUTO_ROOT".to_vec(), b"1".to_vec()));
        }
    }
    if let Some(root) = loader.and_then(|loader| root_of(loader, &found.partitions)) {
        pairs.push((b"ID_PART_GPT_AUTO_ROOT_UUID".to_vec(), root));
    }
    // a value of more than one line would be another property's
    pairs.retain(|(_, value)| !value.contains(&b'\n'));
    pairs
}

/// The root file system on the disk that was booted from.
fn root_of(loader: &[u8], partitions: &[Partition]) -> Option<Vec<u8>> {
    let booted = |p: &&Partition| p.kind == ESP && p.uuid == loader;
    partitions.iter().find(booted)?;
    let root = |p: &&Partition| p.kind == ROOT && p.flags & NO_AUTO == 0;
    partitions.iter().find(root).map(|partition| partition.uuid.clone())
}

/// Less white space at the ends, `_` for each run inside and for each byte that is no UTF-8.
fn plain(value: &[u8]) -> Vec<u8> {
    let mut text = join_blanks(value);
    text.truncate(BUFFER - 1);
    let mut plain = Vec::with_capacity(text.len());
    while let Some(length) = character(&text[plain.len()..]) {
        let at = plain.len();
        match length {
            Length::Bytes(length) => plain.extend_from_slice(&text[at..at + length]),
            Length::Invalid => plain.push(b'_'),
        }
    }
    plain
}

/// ASCII letters, digits, `#+-.:=@_` and other characters of UTF-8; each other byte as `\xHH`.
///
/// What does not fit into the buffer is cut off. There, udev shows what the buffer held before, which is
/// the value's plain form.
fn encoded(value: &[u8], before: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut at = 0;
    while let Some(length) = character(&value[at..]) {
        let byte = value[at];
        let kept = byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte);
        let (length, escaped) = match length {
            Length::Bytes(1) | Length::Invalid => (1, !kept),
            Length::Bytes(length) => (length, false),
        };
        if escaped {
            text.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            text.extend_from_slice(&value[at..at + length]);
        }
        at += length;
        if text.len() + 3 >= BUFFER {
            text.extend_from_slice(
                before.get(text.len()..).filter(|_| !escaped).unwrap_or_default(),
            );
            break;
        }
    }
    text
}

/// What begins a text.
enum Length {
    /// A character of so many bytes.
    Bytes(usize),
    Invalid,
}

/// `None` at the end.
fn character(text: &[u8]) -> Option<Length> {
    text.first()?;
    let head = &text[..text.len().min(4)];
    let valid = head.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
    let character = valid.chars().next().filter(|c| is_character(*c));
    Some(character.map_or(Length::Invalid, |c| Length::Bytes(c.len_utf8())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::device::Sysfs;
    use crate::probe::Probe;
    use crate::uevent::{Action, Origin, Uevent};

    fn shown(text: Vec<u8>) -> String {
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_are_made_safe_as_libblkid_does() {
        let cases: [(&[u8], &str, &str); 8] = [
            (b" lead  in trail ", "lead_in_trail", r"\x20lead\x20\x20in\x20trail\x20"),
            (b"a/b$c%d?e,f;g", "a/b$c%d?e,f;g", r"a\x2fb\x24c\x25d\x3fe\x2cf\x3bg"),
            (b"\\x20 \\y", r"\x20_\y", r"\x5cx20\x20\x5cy"),
            (b"a\xc3\xa4z", "a\u{e4}z", "a\u{e4}z"),
            (b"\xff\xc3", "__", r"\xff\xc3"),
            (b"a\xed\xa0\x80z", "a___z", r"a\xed\xa0\x80z"),
            (b"a\xef\xb7\x90z", "a___z", r"a\xef\xb7\x90z"),
            (b"a\xef\xbf\xbez", "a\u{fffe}z", "a\u{fffe}z"),
        ];
        for (value, safe, encoding) in cases {
            assert_eq!(shown(plain(value)), safe);
            assert_eq!(shown(encoded(value, safe.as_bytes())), encoding);
        }
    }

    #[test]
    fn a_disk_that_is_not_there_has_nothing_on_it() {
        let dev = tempfile::tempdir().unwrap();
        let pairs = [
            (b"SUBSYSTEM".as_slice(), b"block".as_slice()),
            (b"DEVNAME", b"x/sda"),
            (b"MAJOR", b"8"),
            (b"MINOR", b"0"),
        ];
        let uevent = Uevent::synthetic(Origin::Coldplug, Action::Add, b"/devices/sda", 1, &pairs);
        let device = Device::new(Sysfs::new(dev.path()), Arc::new(uevent));
        let probe = Probe::new("/nonexistent", dev.path(), Duration::from_secs(60));
        let kit = Kit::below(Path::new("/"), dev.path()).probing(probe);
        let call = Call { device: &device, properties: &[], words: &[b"blkid".to_vec()] };
        let ran = || format!("{:?}", blkid(&kit, &call));
        let (folder, node) = (dev.path().join("x"), dev.path().join("x/sda"));
        assert_eq!(ran(), "Done([])", "no node");
        fs::create_dir(&folder).unwrap();
        symlink("/nonexistent", &node).unwrap();
        assert_eq!(ran(), "Done([])", "a link is no node");
        fs::remove_file(&node).unwrap();
        fs::write(&node, "").unwrap();
        assert_eq!(ran(), "Done([])", "nor is a file");
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        assert_eq!(ran(), "Failed", "what cannot be looked for is no answer");
    }

    #[test]
    fn long_values_are_cut_where_udevs_buffer_ends() {
        let blanks = |count| [b"a".as_slice(), &b" ".repeat(count), b"b"].concat();
        assert_eq!(encoded(&blanks(62), b"").len(), 250);
        assert_eq!(encoded(&blanks(63), b"a_b").len(), 253);
        assert_eq!(encoded(&blanks(200), b"a_b").len(), 253);
        let long = b"x".repeat(300);
        assert_eq!(plain(&long).len(), 255);
        assert_eq!(encoded(&long[..254], &long[..254]).len(), 254);
    }

    #[test]
    fn numbers_are_read_in_every_base_that_udev_reads() {
        let read = |text: &str| number(text.as_bytes());
        assert_eq!([read("4096"), read("0x10"), read("010")], [Some(4096), Some(16), Some(8)]);
        assert_eq!([read("0b11"), read(" +7"), read("-5")], [Some(3), Some(7), Some(-5)]);
        for none in ["", "zz", "10K", "0x", "--5", "+-5", "9223372036854775808", "1 "] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn the_root_is_found_on_the_disk_that_was_booted_from() {
        let partition = |kind: &[u8], uuid: &[u8], flags| Partition {
            uuid: uuid.to_vec(),
            kind: kind.to_vec(),
            flags,
        };
        let table = [
            partition(ROOT, b"1", NO_AUTO),
            partition(ESP, b"2", 0),
            partition(ROOT, b"3", 0),
            partition(ROOT, b"4", 0),
        ];
        assert_eq!(root_of(b"2", &table), Some(b"3".to_vec()));
        assert_eq!(root_of(b"3", &table), None);
        assert_eq!(root_of(b"2", &table[..2]), None);
    }
}

//! Stage 4: values that are understood when they are loaded: OPTIONS, and OWNER, GROUP and MODE.
#![forbid(unsafe_code)]

use crate::rules::names::Names;
use crate::rules::parse::template;
use crate::rules::problem::nearest;
use crate::rules::rule::{Setting, Wanted, What};
use crate::rules::token::{Flaw, Pair};

const OPTIONS: [&str; 11] = [
    "string_escape=none",
    "string_escape=replace",
    "db_persist",
    "watch",
    "nowatch",
    "link_priority=",
    "log_level=",
    "static_node=",
    "dump",
    "dump-json",
    "log_level=reset",
];

/// syslog's levels, by name.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Reads a value of OPTIONS; an unknown one costs itself only.
///
/// # Errors
/// When a priority is no number, or a log level none, as in udev.
pub fn options(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Result<Option<Setting>, Flaw> {
    let value = pair.value.as_slice();
    let setting = match value {
        b"string_escape=none" => Setting::EscapeNone,
        b"string_escape=replace" => Setting::EscapeReplace,
        b"db_persist" => Setting::DbPersist,
        b"watch" => Setting::Watch(true),
        b"nowatch" => Setting::Watch(false),
        b"dump" => Setting::Dump { json: false },
        b"dump-json" => Setting::Dump { json: true },
        _ => {
            if let Some(number) = value.strip_prefix(b"link_priority=") {
                let Some(priority) = integer(number) else {
                    let what = "a whole number wanted for `link_priority=`";
                    return Err(Flaw::error(pair.value_at.clone(), what));
                };
                Setting::LinkPriority(priority)
            } else if let Some(level) = value.strip_prefix(b"log_level=") {
                let Some(level) = log_level(level) else {
                    let what = format!(
                        "a level wanted for `log_level=`: {}, 0 to 7, or reset",
                        LEVELS.join(", ")
                    );
                    return Err(Flaw::error(pair.value_at.clone(), what));
                };
                Setting::LogLevel(level)
            } else if let Some(name) = value.strip_prefix(b"static_node=") {
                Setting::StaticNode(name.into())
            } else {
                let nearest = nearest(&String::from_utf8_lossy(value), OPTIONS).map(str::to_owned);
                let flaw = Flaw::warning(pair.value_at.clone(), "unknown option, without effect");
                flaws.push(Flaw { nearest, ..flaw });
                return Ok(None);
            }
        }
    };
    Ok(Some(setting))
}

/// Decimal, hexadecimal or octal, as strtol(3) reads it.
fn integer(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0b") => (&lower[2..], 2),
        Some("0o") => (&lower[2..], 8),
        Some(_) if lower.starts_with('0') => (&lower[1..], 8),
        Some(_) | None => (lower.as_str(), 10),
    };
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    i32::try_from(if negative { -number } else { number }).ok()
}

fn log_level(text: &[u8]) -> Option<Option<u8>> {
    if text == b"reset" {
        return Some(None);
    }
    let by_name = LEVELS.iter().position(|level| level.as_bytes() == text);
    let number = by_name.or_else(|| usize::try_from(integer(text)?).ok())?;
    u8::try_from(number).ok().filter(|level| *level <= 7).map(Some)
}

/// Permission bits in octal, up to 7777; blanks may stand before them.
#[must_use]
pub fn octal(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii_start();
    let valid = !text.is_empty() && text.iter().all(|byte| matches!(byte, b'0'..=b'7'));
    let text = std::str::from_utf8(text).ok().filter(|_| valid)?;
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// OWNER, looked up now if it is the same for every device.
pub fn owner(pair: &Pair<'_>, names: &Names, flaws: &mut Vec<Flaw>) -> What {
    let known = text(pair).and_then(|name| names.uid(name));
    What::Owner(wanted(pair, known, flaws, || account(pair, "user", names.users())))
}

/// GROUP, as OWNER.
pub fn group(pair: &Pair<'_>, names: &Names, flaws: &mut Vec<Flaw>) -> What {
    let known = text(pair).and_then(|name| names.gid(name));
    What::Group(wanted(pair, known, flaws, || account(pair, "group", names.groups())))
}

/// MODE, in octal.
pub fn mode(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> What {
    let nothing = || {
        let what = "permission bits wanted, in octal up to 7777; this has no effect";
        Flaw::warning(pair.value_at.clone(), what)
    };
    What::Mode(wanted(pair, octal(&pair.value), flaws, nothing))
}

fn text<'a>(pair: &'a Pair<'_>) -> Option<&'a str> {
    std::str::from_utf8(&pair.value).ok()
}

fn wanted(
    pair: &Pair<'_>,
    known: Option<u32>,
    flaws: &mut Vec<Flaw>,
    nobody: impl FnOnce() -> Flaw,
) -> Wanted {
    if let Some(number) = known {
        return Wanted::Known(number);
    }
    if pair.value.iter().any(|byte| matches!(byte, b'$' | b'%')) {
        return Wanted::Filled(template(pair, flaws));
    }
    flaws.push(nobody());
    Wanted::Nobody
}

fn account<'a>(pair: &Pair<'_>, kind: &str, names: impl Iterator<Item = &'a str>) -> Flaw {
    let nearest = nearest(&String::from_utf8_lossy(&pair.value), names).map(str::to_owned);
    let what = format!("there is no {kind} {}; this has no effect", pair.value.escape_ascii());
    Flaw { nearest, ..Flaw::warning(pair.value_at.clone(), what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        let cases: [(&[u8], Option<i32>); 9] = [
            (b"-100", Some(-100)),
            (b" +7", Some(7)),
            (b"0x10", Some(16)),
            (b"010", Some(8)),
            (b"0", Some(0)),
            (b"08", None),
            (b"", None),
            (b"1 ", None),
            (b"2147483648", None),
        ];
        for (text, number) in cases {
            assert_eq!(integer(text), number, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn levels_have_names_and_numbers() {
        assert_eq!(log_level(b"debug"), Some(Some(7)));
        assert_eq!((log_level(b"3"), log_level(b"8")), (Some(Some(3)), None));
        assert_eq!((log_level(b"reset"), log_level(b"loud")), (Some(None), None));
    }

    #[test]
    fn modes_are_octal_and_have_twelve_bits() {
        assert_eq!((octal(b"0660"), octal(b"7777")), (Some(0o660), Some(0o7777)));
        assert_eq!((octal(b"10000"), octal(b"8"), octal(b"")), (None, None, None));
        assert_eq!((octal(b" \t0640"), octal(b"0640 "), octal(b" ")), (Some(0o640), None, None));
    }
}

//! Stage 5b: the values of `.link` files: words, numbers, sizes, times, names. Pure.
#![forbid(unsafe_code)]

use super::ini::strip;

/// How a list is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Blanks separate, a backslash vanishes and keeps what follows.
    Plain,
    /// As plain, and quotes group and vanish.
    Grouped,
    /// Quotes group and vanish, backslashes stay.
    Quoted,
    /// Quotes group and vanish, C escapes are replaced.
    Escaped,
}

/// The words of a list; what follows a broken quote or escape is left out, and `false` says so.
pub(super) fn words(text: &str, quoting: Quoting) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut rest = text.chars();
    loop {
        rest = strip_start(rest.as_str()).chars();
        if rest.as_str().is_empty() {
            return (words, true);
        }
        let mut word = String::new();
        let mut quote = None;
        loop {
            match (rest.next(), quote) {
                (None, None) => break,
                (None, Some(_)) => return (words, false),
                (Some(c), Some(open)) if c == open => quote = None,
                (Some('\\'), _) if quoting != Quoting::Quoted => match escape(&mut rest, quoting) {
                    Some(c) => word.push(c),
                    None => return (words, false),
                },
                (Some(c), Some(_)) => word.push(c),
                (Some(c @ ('"' | '\'')), None) if quoting != Quoting::Plain => quote = Some(c),
                (Some(' ' | '\t' | '\n' | '\r'), None) => break,
                (Some(c), None) => word.push(c),
            }
        }
        words.push(word);
    }
}

fn strip_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// What follows a backslash; `None` for an escape that means nothing.
fn escape(rest: &mut std::str::Chars<'_>, quoting: Quoting) -> Option<char> {
    let letter = rest.next()?;
    if quoting != Quoting::Escaped {
        return Some(letter);
    }
    let mut digits = |count: usize, radix: u32| {
        let text: String = rest.as_str().chars().take(count).collect();
        let whole = text.chars().count() == count && text.chars().all(|c| c.is_digit(radix));
        let number = u32::from_str_radix(&text, radix).ok().filter(|_| whole)?;
        rest.nth(count - 1)?;
        char::from_u32(number).filter(|c| *c != '\0')
    };
    Some(match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        c @ ('\\' | '"' | '\'') => c,
        'x' => digits(2, 16)?,
        'u' => digits(4, 16)?,
        'U' => digits(8, 16)?,
        first @ '0'..='3' => {
            let text: String = rest.as_str().chars().take(2).collect();
            let more = u32::from_str_radix(&text, 8).ok().filter(|_| text.len() == 2)?;
            rest.nth(1)?;
            let number = first.to_digit(8)? * 64 + more;
            char::from_u32(number).filter(|c| *c != '\0')?
        }
        _ => return None,
    })
}

/// `yes` and `no` in all their spellings.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// A number as strtoul(3) reads it with base 0, and `0b` and `0o` before it.
pub(super) fn unsigned(text: &str) -> Option<u64> {
    let text = strip(text).trim_start_matches(['\x0b', '\x0c']);
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        _ => {
            let text = text.strip_prefix('+').unwrap_or(text);
            match text.as_bytes() {
                [b'0', b'x' | b'X', ..] => (&text[2..], 16),
                [b'0', _, ..] => (&text[1..], 8),
                _ => (text, 10),
            }
        }
    };
    let plain = digits.chars().all(|c| c.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| plain)
}

/// As [`unsigned`], at most 32 bits.
pub(super) fn unsigned32(text: &str) -> Option<u32> {
    unsigned(text).and_then(|number| u32::try_from(number).ok())
}

/// A size with suffixes, `1.5K` or `2K 100B`; `base` is 1024 or 1000.
pub(super) fn size(text: &str, base: u64) -> Option<u64> {
    const SUFFIXES: [(&str, u32); 8] =
        [("E", 6), ("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1), ("B", 0), ("", 0)];
    let mut rest = text;
    let mut first = 0;
    let mut sum: u64 = 0;
    loop {
        rest = strip_start(rest);
        let (number, fraction, after) = decimal(rest)?;
        rest = strip_start(after);
        let left = SUFFIXES.get(first..)?;
        let at = left.iter().position(|(suffix, _)| rest.starts_with(suffix))?;
        let (suffix, power) = left[at];
        let factor = base.checked_pow(power)?;
        let part = number.checked_mul(factor)?.checked_add(scaled(fraction, factor))?;
        sum = sum.checked_add(part)?;
        rest = &rest[suffix.len()..];
        first += at + 1;
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// A number, the digits behind its point, and what follows.
fn decimal(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number = digits[..end].parse().ok()?;
    let Some(fraction) = digits[end..].strip_prefix('.') else {
        return Some((number, "", &digits[end..]));
    };
    let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
    Some((number, &fraction[..end], &fraction[end..]))
}

/// The fraction of `factor` that digits behind a point say, cut off.
fn scaled(digits: &str, factor: u64) -> u64 {
    let digits = &digits[..digits.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    let part = digits.parse::<u128>().unwrap_or(0) * u128::from(factor) / scale;
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Units of time in microseconds; of those that begin alike, the longest comes first.
const UNITS: [(&str, u64); 28] = [
    ("seconds", 1_000_000),
    ("second", 1_000_000),
    ("sec", 1_000_000),
    ("s", 1_000_000),
    ("minutes", 60_000_000),
    ("minute", 60_000_000),
    ("min", 60_000_000),
    ("months", 2_629_800_000_000),
    ("month", 2_629_800_000_000),
    ("M", 2_629_800_000_000),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", 60_000_000),
    ("hours", 3_600_000_000),
    ("hour", 3_600_000_000),
    ("hr", 3_600_000_000),
    ("h", 3_600_000_000),
    ("days", 86_400_000_000),
    ("day", 86_400_000_000),
    ("d", 86_400_000_000),
    ("weeks", 604_800_000_000),
    ("week", 604_800_000_000),
    ("w", 604_800_000_000),
    ("years", 31_557_600_000_000),
    ("year", 31_557_600_000_000),
    ("y", 31_557_600_000_000),
    ("usec", 1),
    ("us", 1),
];

/// A span of time in microseconds, `1min 5ms`; seconds where no unit stands.
pub(super) fn microseconds(text: &str) -> Option<u64> {
    let mut rest = strip_start(text);
    if let Some(after) = rest.strip_prefix("infinity") {
        return strip_start(after).is_empty().then_some(u64::MAX);
    }
    let mut sum: u64 = 0;
    let mut any = false;
    loop {
        rest = strip_start(rest);
        if rest.is_empty() {
            return any.then_some(sum);
        }
        // a point may stand first
        let (number, fraction, after) =
            if rest.starts_with('.') { decimal_after_point(rest)? } else { decimal(rest)? };
        let after = strip_start(after);
        let micro = ["µs", "μs"].iter().find_map(|unit| Some((after.strip_prefix(unit)?, 1)));
        let unit = || UNITS.iter().find_map(|(u, n)| Some((after.strip_prefix(u)?, *n)));
        let (after, unit) = micro.or_else(unit).unwrap_or((after, 1_000_000));
        let part = number.checked_mul(unit)?.checked_add(scaled(fraction, unit))?;
        sum = sum.checked_add(part)?;
        (rest, any) = (after, true);
    }
}

fn decimal_after_point(text: &str) -> Option<(u64, &str, &str)> {
    let fraction = text.strip_prefix('.')?;
    let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
    (end > 0).then(|| (0, &fraction[..end], &fraction[end..]))
}

/// What the kernel allows for a name, less what would be taken for something else: `IFNAMSIZ` for a
/// name, `ALTIFNAMSIZ` for an alternative one.
#[must_use]
pub fn is_interface_name(name: &[u8], limit: usize) -> bool {
    let usable = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b'%');
    (1..limit).contains(&name.len())
        && name.iter().all(usable)
        && !name.iter().all(u8::is_ascii_digit)
        && !matches!(name, b"." | b".." | b"all" | b"default")
}

/// With its NUL.
pub const NAME_LIMIT: usize = 16;
/// With its NUL.
pub const ALTERNATIVE_LIMIT: usize = 128;

/// A property's name and value, as `KEY=VALUE`.
pub(super) fn property(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid =
        !key.is_empty() && key.chars().all(named) && !key.starts_with(|c: char| c.is_ascii_digit());
    valid.then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sizes_and_times_are_those_of_systemd() {
        let numbers = ["017", "0x10", "0b11", "0o17", " +5", "0", "4294967295"].map(unsigned32);
        assert_eq!(numbers, [15, 16, 3, 15, 5, 0, u32::MAX].map(Some));
        assert_eq!(["", "-1", "5x", "0x", "4294967296", "++5"].map(unsigned32), [None; 6]);
        assert_eq!(
            ["1K", "1.5K", "2K 100B", "7"].map(|t| size(t, 1024)),
            [1024, 1536, 2148, 7].map(Some)
        );
        assert_eq!(["", "1.5.5M", "1Gx", "1Ki", "-3", "16E"].map(|t| size(t, 1024)), [None; 6]);
        assert_eq!(size("1G 5K", 1000), Some(1_000_005_000));
        assert_eq!(size("5K 1G", 1000), None);
        let times = ["5us", "1", "1min 5ms", "0.5s", ".5", "2hours"].map(microseconds);
        assert_eq!(times, [5, 1_000_000, 60_005_000, 500_000, 500_000, 7_200_000_000].map(Some));
        assert_eq!(["", "500ns", "x", "-1"].map(microseconds), [None; 4]);
    }

    #[test]
    fn lists_are_split_as_their_keys_want() {
        let quoted = |text| words(text, Quoting::Quoted);
        assert_eq!(quoted(r#"a 'b c' "d"e\x "#).0, ["a", "b c", r"de\x"]);
        assert_eq!(quoted(r#"a "b"#), (vec!["a".to_owned()], false));
        assert_eq!(words(r#""v 0" a\b"#, Quoting::Plain).0, [r#""v"#, r#"0""#, "ab"]);
        assert_eq!(words(r#""K=with \"q\"" \x41\s"#, Quoting::Escaped).0, [r#"K=with "q""#, "A "]);
        assert!(!words(r"a\q", Quoting::Escaped).1);
    }
}

//! The patterns of udev(7): alternatives at `|`, each literal or as by fnmatch(3) without flags.
//!
//! Bytes on both sides. `*` and `?` match `/` and a leading dot too. If the whole pattern holds none
//! of `* ? [`, it is compared literally, backslashes included.
#![forbid(unsafe_code)]

/// A pattern as written in a rule, split into its alternatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    alternatives: Box<[Box<[u8]>]>,
    glob: bool,
}

impl Pattern {
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let alternatives = text.split(|byte| *byte == b'|').map(Box::from).collect();
        Self { alternatives, glob: text.iter().any(|byte| b"*?[".contains(byte)) }
    }

    /// Whether any alternative matches; a missing value is to be given as the empty one.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.alternatives.iter().any(|alternative| {
            if self.glob { fnmatch(alternative, value) } else { **alternative == *value }
        })
    }

    /// The parts between `|`, as they are written.
    #[must_use]
    pub fn alternatives(&self) -> &[Box<[u8]>] {
        &self.alternatives
    }

    /// The only values that can match, when the pattern has no wildcards.
    #[must_use]
    pub fn literals(&self) -> Option<&[Box<[u8]>]> {
        (!self.glob).then_some(&*self.alternatives)
    }
}

/// fnmatch(3) without flags, in the C locale, over bytes; time is at most the product of the lengths.
#[must_use]
pub fn fnmatch(pattern: &[u8], value: &[u8]) -> bool {
    let (mut p, mut v) = (0, 0);
    // where to go on when a match fails: after the last star, which then takes one byte more
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, v));
            continue;
        }
        let step = match value.get(v) {
            None if p == pattern.len() => return true,
            None => return false,
            Some(byte) => one(pattern, p, *byte),
        };
        match (step, &mut retry) {
            (Some(next), _) => {
                p = next;
                v += 1;
            }
            (None, Some((star, from))) => {
                *from += 1;
                p = *star;
                v = *from;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte with the pattern element at `p`, which is no star; gives where the next begins.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match bracket(pattern, p + 1, byte) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            // without its end, the bracket stands for itself
            None => (byte == b'[').then_some(p + 1),
        },
        b'\\' => (*pattern.get(p + 1)? == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Reads a bracket expression after its `[`: whether it holds `byte`, and where it ends.
///
/// `None` if it has no end.
fn bracket(pattern: &[u8], start: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(start), Some(b'!' | b'^'));
    let first = start + usize::from(negated);
    let mut p = first;
    let mut found = false;
    loop {
        let lead = *pattern.get(p)?;
        if lead == b']' && p > first {
            return Some((found != negated, p + 1));
        }
        if lead == b'['
            && pattern.get(p + 1) == Some(&b':')
            && let Some((name, next)) = class_name(pattern, p + 2)
        {
            found |= in_class(name, byte);
            p = next;
            continue;
        }
        // an equivalence class, which in the C locale is its one byte; it begins no range
        if let Some([b'[', b'=', inner, b'=', b']']) = pattern.get(p..p + 5) {
            found |= *inner == byte;
            p += 5;
            continue;
        }
        let (low, next) = endpoint(pattern, p)?;
        p = next;
        // a minus before the closing bracket is a minus
        if pattern.get(p) == Some(&b'-') && pattern.get(p + 1).is_some_and(|byte| *byte != b']') {
            let (high, next) = endpoint(pattern, p + 1)?;
            found |= (low..=high).contains(&byte);
            p = next;
        } else {
            found |= low == byte;
        }
    }
}

/// One byte inside a bracket expression: itself, quoted, or as `[.x.]`.
fn endpoint(pattern: &[u8], p: usize) -> Option<(u8, usize)> {
    let byte = *pattern.get(p)?;
    if byte == b'\\' {
        return Some((*pattern.get(p + 1)?, p + 2));
    }
    if let Some([b'[', b'.', inner, b'.', b']']) = pattern.get(p..p + 5) {
        return Some((*inner, p + 5));
    }
    Some((byte, p + 1))
}

/// The name in `[:name:]` and where it ends; `start` is after the colon.
fn class_name(pattern: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = pattern.get(start..)?;
    let length = rest.iter().position(|byte| !byte.is_ascii_lowercase())?;
    rest.get(length..)?.starts_with(b":]").then(|| (&rest[..length], start + length + 2))
}

fn in_class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        // vertical tab too, which Rust does not count
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern.as_bytes()).matches(value.as_bytes())
    }

    #[test]
    fn stars_cross_slashes_and_leading_dots() {
        assert!(matches("*", "") && matches("*", ".a/b") && matches("?a", "/a"));
        assert!(matches("sd*[!0-9]|sr*", "sda") && matches("sd*[!0-9]|sr*", "sr0"));
        assert!(!matches("sd*[!0-9]|sr*", "sda1") && !matches("?*", ""));
    }

    #[test]
    fn an_empty_alternative_matches_the_empty_value() {
        assert!(matches("", "") && matches("a||b", "") && matches("a|", "") && matches("|a*", ""));
        assert!(!matches("a|b", "") && !matches("", "x"));
    }

    #[test]
    fn a_backslash_is_literal_without_wildcards_and_quotes_with_them() {
        assert!(matches(r"a\b", r"a\b") && !matches(r"a\b", "ab"));
        assert!(matches(r"a\b*", "ab") && !matches(r"a\b*", r"a\b"));
        assert!(matches(r"\**", "*x") && !matches(r"\**", "x") && !matches("?\\", "a\\"));
    }

    #[test]
    fn brackets_hold_ranges_classes_and_themselves() {
        assert!(matches("[]a]", "]") && matches("[!]a]", "b") && !matches("[!]a]", "]"));
        assert!(
            matches("[a-]", "-") && matches("[[:digit:]x]", "7") && matches("[[:digit:]x]", "x")
        );
        assert!(matches("[^[:space:]]", "a") && matches("[a", "[a") && !matches("[a", "a"));
        assert!(matches("[[.-.]-0]", ".") && matches(r"[\]]", "]") && matches("[[=a=]]", "a"));
    }

    #[test]
    fn bytes_need_not_be_text() {
        assert!(Pattern::new(b"[\x80-\xff]?").matches(b"\xfe\x00"));
        assert!(Pattern::new(b"\xff").matches(b"\xff"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60);
        assert!(!matches(&format!("{pattern}b"), &"a".repeat(20_000)));
    }

    #[test]
    fn only_patterns_without_wildcards_have_literals() {
        assert_eq!(Pattern::new(b"a|b").literals().map(<[_]>::len), Some(2));
        assert_eq!(Pattern::new(b"a|b?").literals(), None);
    }
}

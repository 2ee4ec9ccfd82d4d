//! Numbers in attributes, as strictly as udev reads them.
#![forbid(unsafe_code)]

/// A number that is the whole text, but for white space in front; in base 16 `0x` may stand before it. In
/// base 0 its beginning tells the base, as in C.
pub(super) fn number(text: &[u8], base: u32) -> Option<u64> {
    let text = str::from_utf8(text).ok()?.trim_ascii_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let after = |prefix: [&str; 2]| prefix.iter().find_map(|prefix| text.strip_prefix(*prefix));
    let (digits, base) = match (base, after(["0x", "0X"]), after(["0o", "0b"])) {
        (0 | 16, Some(digits), _) => (digits, 16),
        (0, None, Some(digits)) => (digits, if text.starts_with("0o") { 8 } else { 2 }),
        (0, None, None) if text.len() > 1 && text.starts_with('0') => (text, 8),
        (0, None, None) => (text, 10),
        _ => (text, base),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    u64::from_str_radix(digits, base).ok().filter(|_| plain)
}

/// As [`number`] in base 0, but of 32 bits with a sign.
pub(super) fn signed(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii_start();
    match text.strip_prefix(b"-") {
        Some(digits) if digits.first().is_some_and(u8::is_ascii_digit) => {
            i32::try_from(-i64::try_from(number(digits, 0)?).ok()?).ok()
        }
        Some(_) => None,
        None => i32::try_from(number(text, 0)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_whole_text() {
        assert_eq!(number(b" +10", 10), Some(10));
        assert_eq!(number(b"0x1f", 16), Some(31));
        assert_eq!(
            [number(b"0x1f", 0), number(b"010", 0), number(b"0", 0)],
            [Some(31), Some(8), Some(0)]
        );
        assert_eq!([signed(b"-1"), signed(b"--1"), signed(b"0x7")], [Some(-1), None, Some(7)]);
        for none in [b"".as_slice(), b"1 ", b"-1", b"0x1", b"++1", b"\xff", b"99999999999999999999"]
        {
            assert_eq!(number(none, 10), None, "{}", none.escape_ascii());
        }
    }
}

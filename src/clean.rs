//! Values made safe for names, and commands split into words, as udev does both.
#![forbid(unsafe_code)]

/// Characters that a program's output and an attribute may keep.
pub const OF_INPUT: &[u8] = b"/ $%?,";

/// Replaces by `_` what is not safe in a name: kept are letters, digits, `#+-.:=@_`, `\x`, longer UTF-8
/// sequences and what `allowed` says. If that holds a space, other white space becomes one.
pub fn replace_unsafe(text: &mut [u8], allowed: &[u8]) {
    let mut at = 0;
    while let Some(byte) = text.get(at).copied() {
        let safe = byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte);
        if safe || allowed.contains(&byte) {
            at += 1;
        } else if text[at..].starts_with(b"\\x") {
            at += 2;
        } else if let Some(length) = multibyte(&text[at..]) {
            at += length;
        } else {
            let blank = byte.is_ascii_whitespace() || byte == 0x0b;
            text[at] = if blank && allowed.contains(&b' ') { b' ' } else { b'_' };
            at += 1;
        }
    }
}

/// Whether udev takes it for one: not the code points that Unicode keeps for none, but for U+xFFFE.
#[must_use]
pub fn is_character(c: char) -> bool {
    let code = u32::from(c);
    !matches!(code, 0xfdd0..=0xfdef) && code & 0xffff != 0xffff
}

/// As [`replace_unsafe`], but each unsafe byte, and each backslash, becomes `\\xNN`; what does not fit in
/// `limit` is cut off.
#[must_use]
pub fn encode(text: &[u8], limit: usize) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at).copied() {
        let length = multibyte(&text[at..]).unwrap_or(1);
        let escaped;
        let piece = if length > 1 || byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte) {
            &text[at..at + length]
        } else {
            escaped = format!("\\x{byte:02x}");
            escaped.as_bytes()
        };
        if encoded.len() + piece.len() > limit {
            break;
        }
        encoded.extend_from_slice(piece);
        at += length;
    }
    encoded
}

/// The length of a character that begins here, if it has several bytes.
fn multibyte(text: &[u8]) -> Option<usize> {
    let head = &text[..text.len().min(4)];
    let character = head.utf8_chunks().next()?.valid().chars().next()?;
    (character.len_utf8() > 1).then_some(character.len_utf8())
}

/// What the name of a network interface cannot hold becomes `_`.
pub fn replace_in_interface(name: &mut [u8]) {
    for byte in name {
        if !byte.is_ascii_graphic() || matches!(byte, b':' | b'/' | b'%') {
            *byte = b'_';
        }
    }
}

/// Drops white space at both ends and makes `_` of each run inside.
#[must_use]
pub fn join_blanks(text: &[u8]) -> Vec<u8> {
    let words = text.split(is_space).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b'_')
}

/// Less white space at the end.
#[must_use]
pub fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_blank(*byte));
    &text[..end.map_or(0, |last| last + 1)]
}

/// udev's white space.
#[must_use]
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// As isspace(3) in the C locale.
#[must_use]
pub fn is_space(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == 0x0b
}

/// The words of a command: quotes of both kinds group, also within a word; backslashes are kept.
#[must_use]
pub fn words(command: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for byte in command {
        match quote {
            Some(open) if *byte == open => quote = None,
            Some(_) => word.get_or_insert_default().push(*byte),
            None if matches!(byte, b'"' | b'\'') => {
                quote = Some(*byte);
                word.get_or_insert_default();
            }
            None if is_blank(*byte) => words.extend(word.take()),
            None => word.get_or_insert_default().push(*byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &[u8], allowed: &[u8]) -> String {
        let mut text = text.to_vec();
        replace_unsafe(&mut text, allowed);
        text.escape_ascii().to_string()
    }

    #[test]
    fn unsafe_bytes_become_underscores_one_each() {
        assert_eq!(cleaned(b"a b/c;d\n", b""), "a_b_c_d_");
        assert_eq!(cleaned(b"a\tb/c", b"/ "), "a b/c");
        assert_eq!(cleaned(b"\\x20 \\y", b""), "\\\\x20__y");
        assert_eq!(cleaned("ä\u{80}".as_bytes(), b""), "\\xc3\\xa4\\xc2\\x80");
        assert_eq!(cleaned(b"\xff\xc3", b""), "__");
    }

    #[test]
    fn encoding_keeps_what_is_safe_and_can_be_undone() {
        assert_eq!(encode(b"a b\\\xff", 99), br"a\x20b\x5c\xff");
        assert_eq!(encode("ä/".as_bytes(), 99), "ä\\x2f".as_bytes());
        assert_eq!(encode(b"  ", 7), br"\x20");
    }

    #[test]
    fn blanks_are_joined_and_trimmed() {
        assert_eq!(join_blanks(b"  WDC  WD10\t"), b"WDC_WD10");
        assert_eq!(trim_end(b" a \t\n"), b" a");
        assert_eq!(trim_end(b" \n"), b"");
    }

    #[test]
    fn quotes_group_also_within_a_word() {
        let split = |text: &str| {
            let words = words(text.as_bytes());
            words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(split(" a'b c'd  \"e \" "), ["ab cd", "e "]);
        assert_eq!(split(r#"a\ b '' "x"#), [r"a\\", "b", "", "x"]);
        assert_eq!(split(" "), Vec::<String>::new());
    }
}

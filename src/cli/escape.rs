//! Bytes and strings that came from devices, made safe to show.
//!
//! A USB stick chooses its own name, and a terminal obeys what it is shown: control characters
//! and the marks that turn the direction of writing are written as `\xHH` or `\u{HH}`. The
//! backslash itself stays as it is, since udev's names are full of `\x20`.

use std::fmt::Write as _;

/// Text for a line of output; what is not UTF-8 becomes `\xHH`, byte by byte.
#[must_use]
pub fn bytes(raw: &[u8]) -> String {
    let mut shown = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        push_text(&mut shown, chunk.valid());
        for byte in chunk.invalid() {
            // writing into a String cannot fail
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Text for a line of output.
#[must_use]
pub fn text(raw: &str) -> String {
    let mut shown = String::with_capacity(raw.len());
    push_text(&mut shown, raw);
    shown
}

/// A JSON document in which no character can command a terminal.
///
/// Such characters occur only inside JSON strings, where `\uXXXX` means the same; the ones that
/// JSON itself escapes (below 0x20) are escaped already, so a newline here is layout.
#[must_use]
pub fn json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for c in document.chars() {
        if c != '\n' && is_hostile(c) {
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

fn push_text(shown: &mut String, raw: &str) {
    for c in raw.chars() {
        if !is_hostile(c) {
            shown.push(c);
        } else if c.is_ascii() {
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// Controls (C0, DEL, C1), line separators, and the marks of writing direction.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::{bytes, json, text};

    #[test]
    fn a_device_cannot_send_an_escape_sequence() {
        assert_eq!(bytes(b"Stick\x1b]0;owned\x07"), "Stick\\x1b]0;owned\\x07");
        assert_eq!(text("a\tb\nc\u{9b}31m"), "a\\x09b\\x0ac\\u{9b}31m");
    }

    #[test]
    fn a_device_cannot_turn_the_direction_of_writing() {
        assert_eq!(text("sda\u{202e}gnp.exe"), "sda\\u{202e}gnp.exe");
    }

    #[test]
    fn bytes_that_are_not_text_stay_visible() {
        assert_eq!(bytes(b"caf\xc3\xa9 \xff\xfe."), "café \\xff\\xfe.");
    }

    #[test]
    fn names_with_udevs_own_escapes_are_left_alone() {
        assert_eq!(text("My\\x20Disk"), "My\\x20Disk");
    }

    #[test]
    fn json_stays_json_and_loses_its_c1_controls() {
        let document = serde_json::json!({ "name": "x\u{9b}2J\u{7f}\u{202e}\u{1b}\n" });
        let shown = json(&serde_json::to_string_pretty(&document).unwrap());
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!shown.contains('\u{202e}'));
        let back: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(back, document);
    }
}

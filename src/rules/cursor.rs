//! Stage 4: a rules file's bytes in, one joined line for each rule out.
//!
//! Comments vanish, also between the parts of a continued line, and nothing is put where parts meet.
//! A joined line still knows where in the file each of its bytes stood.
#![forbid(unsafe_code)]

use std::ops::Range;

/// A line, joined or not, must be shorter than this, as in udev.
pub const LINE_MAX: usize = 16384;

/// A rule's text, less comments, line ends and the white space that begins each physical line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub text: Vec<u8>,
    /// For each physical line: where it begins in `text`, and in the file.
    parts: Vec<(usize, usize)>,
}

impl Line {
    /// Where in the file the byte `at` of the text stands.
    #[must_use]
    pub fn offset(&self, at: usize) -> usize {
        let part = self.parts.partition_point(|(start, _)| *start <= at);
        let (start, offset) = self.parts[..part].last().copied().unwrap_or_default();
        offset + (at - start)
    }

    /// Where in the file a part of the text stands; it may go on behind a continuation.
    #[must_use]
    pub fn span(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.offset(range.start);
        let end = range.end.checked_sub(1).map_or(start, |last| self.offset(last) + 1);
        start..end.max(start)
    }

    fn append(&mut self, part: &[u8], offset: usize) {
        self.parts.push((self.text.len(), offset));
        self.text.extend_from_slice(part);
    }
}

/// Why text of the file is no rule, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The joined line has [`LINE_MAX`] bytes or more.
    TooLong(Range<usize>),
    /// A comment that long: udev reads the file no further.
    LongComment(Range<usize>),
    /// The file ends within a continued line.
    Unfinished(Range<usize>),
}

/// The rules of a file, first to last.
#[derive(Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next physical line, less its leading white space, and where it then begins.
    fn physical(&mut self) -> Option<(&'a [u8], usize)> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let line = &rest[..length];
        let blank = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let start = self.at + blank;
        self.at += length;
        // CR LF is one end, and so is each run in which no kind of end comes twice; NUL is the last
        let mut seen = Vec::new();
        while let Some(byte) = self.bytes.get(self.at).filter(|byte| ends(byte)) {
            if seen.contains(byte) || seen.contains(&0) {
                break;
            }
            seen.push(*byte);
            self.at += 1;
        }
        Some((&line[blank..], start))
    }

    /// Passes over the rest of a continued line that is too long.
    fn skip(&mut self, from: usize, mut end: usize, mut goes_on: bool) -> Lost {
        while goes_on && let Some((part, start)) = self.physical() {
            if part.first() == Some(&b'#') {
                continue;
            }
            goes_on = part.ends_with(b"\\");
            end = start + part.len();
        }
        Lost::TooLong(from..end)
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Line::default();
        while let Some((part, start)) = self.physical() {
            let end = start + part.len();
            if part.first() == Some(&b'#') {
                if part.len() >= LINE_MAX && line.parts.is_empty() {
                    return Some(Err(Lost::LongComment(start..end)));
                }
                continue;
            }
            if part.is_empty() && line.parts.is_empty() {
                continue;
            }
            let from = line.parts.first().map_or(start, |(_, offset)| *offset);
            if line.text.len() + part.len() >= LINE_MAX {
                return Some(Err(self.skip(from, end, part.ends_with(b"\\"))));
            }
            line.append(part, start);
            if line.text.last() == Some(&b'\\') {
                line.text.pop();
                continue;
            }
            if line.text.is_empty() {
                line = Line::default();
                continue;
            }
            return Some(Ok(line));
        }
        let (_, from) = *line.parts.first()?;
        (!line.text.is_empty()).then_some(Err(Lost::Unfinished(from..self.bytes.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<String> {
        let shown = |line: Result<Line, Lost>| match line {
            Ok(line) => line.text.escape_ascii().to_string(),
            Err(lost) => format!("{lost:?}"),
        };
        Lines::new(bytes).map(shown).collect()
    }

    #[test]
    fn a_comment_between_the_parts_of_a_rule_vanishes() {
        assert_eq!(texts(b"  a, \\\n\t# no \\\n  b\n#c\\\nd\n"), ["a, b", "d"]);
        assert_eq!(texts(b"a\\ \nb"), ["a\\\\ ", "b"], "white space behind the backslash");
    }

    #[test]
    fn an_empty_line_ends_a_continuation_and_the_end_of_the_file_drops_it() {
        assert_eq!(texts(b"a\\\n \nb\n"), ["a", "b"]);
        assert_eq!(texts(b"a\nb\\\n# c\n"), ["a", "Unfinished(2..9)"]);
        assert_eq!(texts(b"\\\n\\\n"), Vec::<String>::new());
    }

    #[test]
    fn lines_end_at_any_kind_of_line_end() {
        assert_eq!(texts(b"a\r\nb\\\r\nc\rd\0e"), ["a", "bc", "d", "e"]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_and_its_continuations() {
        let long = vec![b'x'; LINE_MAX / 2];
        let text = [b"a\n", &*long, b"\\\n", &*long, b"\\\nc\nd\n"].concat();
        let lines: Vec<_> = Lines::new(&text).collect();
        assert_eq!(lines.len(), 3);
        assert!(matches!(&lines[1], Err(Lost::TooLong(range)) if range.start == 2));
        assert_eq!(lines[2].as_ref().unwrap().text, b"d");
        let fits = [&*long, &long[1..]].concat();
        assert_eq!(texts(&fits).len(), 1);
        assert!(Lines::new(&fits).all(|line| line.is_ok()));
    }

    #[test]
    fn a_joined_line_knows_where_its_bytes_stood() {
        let text = b"ab\\\n  cd\n";
        let line = Lines::new(text).next().unwrap().unwrap();
        assert_eq!(line.text, b"abcd");
        let at = |index: usize| text[line.offset(index)];
        assert_eq!([at(0), at(1), at(2), at(3)], *b"abcd");
        assert_eq!((line.span(&(1..3)), line.span(&(2..2)).start), (1..7, 6));
    }
}

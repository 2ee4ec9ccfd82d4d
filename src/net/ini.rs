//! Stage 5b: the text of a `.link` file in, sections and assignments out, as systemd.syntax(7) has it.
//!
//! Lines end at LF, CR or NUL. A comment begins with `#` or `;`, also between the parts of a continued
//! line; the backslash that continues a line becomes a space.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::problem::{Problem, Severity, Source};

/// A key and its value, below the section that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Counts the section headers, from 1.
    pub(super) section: usize,
    pub(super) key: String,
    /// Less white space at both ends.
    pub(super) value: String,
    /// The bytes of the key, for messages; of the line that it ends in where a line was continued.
    pub(super) key_span: Range<usize>,
    /// The bytes of the value, likewise.
    pub(super) value_span: Range<usize>,
}

/// One `[NAME]` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) span: Range<usize>,
}

/// What is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) sections: Vec<Section>,
    pub(super) assignments: Vec<Assignment>,
    /// A header without end, or a line that is no UTF-8: for systemd the file ends there.
    pub(super) broken: bool,
}

/// systemd's white space.
const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Longer lines are refused with the whole file, as systemd does.
const LINE_LIMIT: usize = 1 << 20;

/// Less systemd's white space at both ends.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(BLANK)
}

/// Reads a text; `known` are the sections that may be there.
pub(super) fn read(source: &Source<'_>, known: &[&str], problems: &mut Vec<Problem>) -> Content {
    let mut reader = Reader { source, known, problems, content: Content::default(), skip: true };
    let mut pending: Option<Vec<u8>> = None;
    for (start, line) in lines(source.bytes()) {
        let span = start..start + line.len();
        let line =
            if start == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let first = line.iter().find(|byte| !is_blank(byte));
        if matches!(first, Some(b'#' | b';')) {
            continue;
        }
        let joined = pending.is_some();
        let mut text = pending.take().unwrap_or_default();
        text.extend_from_slice(line);
        if text.len() > LINE_LIMIT {
            return reader.broken(span, format!("a line of at most {LINE_LIMIT} bytes wanted"));
        }
        if continues(&text) {
            text.pop();
            text.push(b' ');
            pending = Some(text);
            continue;
        }
        if !reader.line(&text, span, joined) {
            return reader.content;
        }
    }
    if let Some(text) = pending {
        let end = source.bytes().len();
        reader.line(&text, end..end, true);
    }
    reader.content
}

/// Where each line begins, and its bytes; LF with CR, in either order, is one end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0));
        let length = end.unwrap_or(rest.len());
        let pair = matches!(rest.get(length..length + 2), Some(b"\r\n" | b"\n\r"));
        at += length + usize::from(end.is_some()) + usize::from(pair);
        Some((start, &rest[..length]))
    })
}

/// Whether a line ends in a backslash that no other one escapes.
fn continues(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

struct Reader<'a, 'b> {
    source: &'a Source<'a>,
    known: &'a [&'a str],
    problems: &'b mut Vec<Problem>,
    content: Content,
    /// Whether assignments belong to no section that is known.
    skip: bool,
}

impl Reader<'_, '_> {
    fn refuse(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.problems.push(self.source.problem(span, Severity::Error, what));
    }

    fn broken(mut self, span: Range<usize>, what: String) -> Content {
        self.refuse(span, what);
        self.content.broken = true;
        self.content
    }

    /// Takes in a whole line, `joined` if it was several; false where the file ends for systemd.
    fn line(&mut self, line: &[u8], span: Range<usize>, joined: bool) -> bool {
        let Ok(text) = std::str::from_utf8(line) else {
            self.refuse(span, "UTF-8 wanted; the whole file is ignored");
            self.content.broken = true;
            return false;
        };
        let text = strip(text);
        if text.is_empty() {
            return true;
        }
        if let Some(name) = text.strip_prefix('[') {
            return self.header(name, span);
        }
        if self.content.sections.is_empty() && self.skip {
            self.refuse(span, "a section such as [Match] wanted before this line");
            return true;
        }
        if self.skip {
            return true;
        }
        match text.split_once('=') {
            None => self.refuse(span, "KEY=VALUE wanted"),
            Some(("", _)) => self.refuse(span, "a key wanted before `=`"),
            Some((key, value)) => {
                let (key, value) = (strip(key), strip(value));
                let within = |end: usize, part: &str| {
                    if joined { span.clone() } else { end - part.len()..end }
                };
                let start = span.start + line.iter().take_while(|byte| is_blank(byte)).count();
                let end = span.end - line.iter().rev().take_while(|byte| is_blank(byte)).count();
                self.content.assignments.push(Assignment {
                    section: self.content.sections.len(),
                    key: key.to_owned(),
                    value: value.to_owned(),
                    key_span: within(start + key.len(), key),
                    value_span: within(end, value),
                });
            }
        }
        true
    }

    fn header(&mut self, name: &str, span: Range<usize>) -> bool {
        let Some(name) = name.strip_suffix(']') else {
            self.refuse(
                span,
                "`]` wanted at the end of the section's name; the whole file is ignored",
            );
            self.content.broken = true;
            return false;
        };
        let known = self.known.contains(&name);
        self.skip = !known;
        if known || !name.starts_with("X-") {
            self.content.sections.push(Section { name: name.to_owned(), span: span.clone() });
        }
        if !known && !name.starts_with("X-") {
            let known = self.known.iter().copied();
            let what = format!("no such section: {name:?}; what is in it is ignored");
            let problem = self.source.problem(span, Severity::Warning, what);
            self.problems.push(problem.suggest(name, known));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read_text(text: &[u8]) -> (Vec<String>, Vec<String>, bool) {
        let mut problems = Vec::new();
        let source = Source::new(Path::new("f"), text);
        let content = read(&source, &["Match", "Link"], &mut problems);
        let shown = content.assignments.iter().map(|a| {
            let section = &content.sections[a.section - 1].name;
            format!("{section}.{}={}", a.key, a.value)
        });
        (shown.collect(), problems.iter().map(ToString::to_string).collect(), content.broken)
    }

    #[test]
    fn lines_are_continued_over_comments_with_a_space() {
        let (all, problems, broken) =
            read_text(b" [Match] \n a = b\\\n# c\n;d\n  e \\\\\n[Link]\nx=\\\n\ny=1\\");
        assert_eq!(all, ["Match.a=b   e \\\\", "Link.x=", "Link.y=1"]);
        assert_eq!((problems.len(), broken), (0, false));
    }

    #[test]
    fn lf_cr_and_nul_end_lines() {
        let (all, _, _) = read_text(b"\xef\xbb\xbf[Match]\0a=1\r[Link]\n\rb=2\r\nc=3");
        assert_eq!(all, ["Match.a=1", "Link.b=2", "Link.c=3"]);
    }

    #[test]
    fn each_bad_line_costs_itself_and_is_named() {
        let (all, problems, broken) =
            read_text(b"x=1\n[Match]\nfoo\n=1\na=1\n[Mach]\nb=2\n[X-y]\nc=2\n[Link]\nd=4\n");
        assert_eq!(all, ["Match.a=1", "Link.d=4"]);
        assert!(!broken);
        assert_eq!(
            problems,
            [
                "f:1:1: error: a section such as [Match] wanted before this line",
                "f:3:1: error: KEY=VALUE wanted",
                "f:4:1: error: a key wanted before `=`",
                "f:6:1: warning: no such section: \"Mach\"; what is in it is ignored; did you mean \"Match\"?",
            ]
        );
    }

    #[test]
    fn a_header_without_end_and_a_line_that_is_no_text_end_the_file() {
        let (all, problems, broken) = read_text(b"[Match]\na=1\n[Link\nb=2\n");
        assert_eq!((all.len(), problems.len(), broken), (1, 1, true));
        let (all, problems, broken) = read_text(b"[Match]\na=\xff\nb=2\n");
        assert_eq!((all.len(), problems.len(), broken), (0, 1, true));
    }
}

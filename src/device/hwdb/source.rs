//! Stage 3: a `.hwdb` file as people write it: text in, properties with the patterns that they hold for, and mistakes.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;

use crate::device::hwdb::walk::PATTERN_MAX;
use crate::problem::{Problem, Severity, Source};

/// A property, and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property<'a> {
    pub patterns: Vec<&'a [u8]>,
    /// With one blank before it, as it is stored.
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// From 1.
    pub line: u32,
}

/// Where in a record a line is.
enum Place<'a> {
    Between,
    /// Patterns so far, and where the last one is.
    Patterns(Vec<&'a [u8]>, Range<usize>),
    Properties(Vec<&'a [u8]>),
}

/// Reads a file: records of patterns and indented properties, an empty line after each.
#[must_use]
pub fn parse<'a>(file: &'a Path, text: &'a [u8]) -> (Vec<Property<'a>>, Vec<Problem>) {
    let source = Source::new(file, text);
    let mut reader = Reader { source, properties: Vec::new(), problems: Vec::new() };
    let mut place = Place::Between;
    let (mut at, mut number) = (0, 0_u32);
    while at < text.len() {
        let end = end_of_line(&text[at..]) + at;
        number = number.saturating_add(1);
        let line = &text[at..end];
        if !line.starts_with(b"#") {
            let comment = line.iter().position(|byte| *byte == b'#').unwrap_or(line.len());
            let length = trimmed(&line[..comment]).len();
            place = reader.line(place, at..at + length, number);
        }
        at = end + end_mark(&text[end..]);
    }
    if let Place::Patterns(_, last) = place {
        reader.unused(last);
    }
    (reader.properties, reader.problems)
}

struct Reader<'a> {
    source: Source<'a>,
    properties: Vec<Property<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// One line less its comment, in `span`.
    fn line(&mut self, place: Place<'a>, span: Range<usize>, number: u32) -> Place<'a> {
        let line = &self.source.bytes()[span.clone()];
        let indented = line.starts_with(b" ");
        match place {
            Place::Between if line.is_empty() => Place::Between,
            Place::Between if indented => {
                self.wrong(
                    span,
                    "a pattern wanted, at the begin of the line; this property is of none",
                );
                Place::Between
            }
            Place::Between => Place::Patterns(self.pattern(Vec::new(), span.clone()), span),
            Place::Patterns(_, last) if line.is_empty() => {
                self.unused(last);
                Place::Between
            }
            Place::Patterns(patterns, _) if !indented => {
                Place::Patterns(self.pattern(patterns, span.clone()), span)
            }
            Place::Properties(_) if line.is_empty() => Place::Between,
            Place::Properties(_) if !indented => {
                self.wrong(
                    span,
                    "an indented property, or an empty line before the next pattern, wanted; \
                     the record ends here",
                );
                Place::Between
            }
            Place::Patterns(patterns, _) | Place::Properties(patterns) => {
                self.property(&patterns, span, number);
                Place::Properties(patterns)
            }
        }
    }

    fn pattern(&mut self, mut patterns: Vec<&'a [u8]>, span: Range<usize>) -> Vec<&'a [u8]> {
        let pattern = &self.source.bytes()[span.clone()];
        if pattern.len() > PATTERN_MAX {
            self.wrong(span, format!("a pattern of at most {PATTERN_MAX} bytes wanted"));
            return patterns;
        }
        if pattern.starts_with(b"\t") && pattern.contains(&b'=') {
            let what = "this is a pattern; a property is indented with a space, not with a tab";
            self.problems.push(self.source.problem(span, Severity::Warning, what));
        }
        patterns.push(pattern);
        patterns
    }

    fn property(&mut self, patterns: &[&'a [u8]], span: Range<usize>, line: u32) {
        let text = &self.source.bytes()[span.clone()];
        let Some(equals) = text.iter().position(|byte| *byte == b'=') else {
            let end = span.end;
            return self.wrong(end..end, "KEY=VALUE wanted; there is no \"=\"");
        };
        let mut key = &text[..equals];
        while let [b' ' | b'\t', b' ' | b'\t', ..] = key {
            key = &key[1..];
        }
        if key.len() <= 1 {
            let at = span.start + equals;
            return self.wrong(at..at + 1, "the property's name wanted before \"=\"");
        }
        if !key.starts_with(b" ") {
            let what = "nobody finds this property; spaces and no tab wanted before its name";
            let (at, tab) = (span.start, text[..equals].iter().take_while(|b| b" \t".contains(b)));
            let blanks = at..at + tab.count();
            self.problems.push(self.source.problem(blanks, Severity::Warning, what));
        }
        let (patterns, value) = (patterns.to_vec(), &text[equals + 1..]);
        self.properties.push(Property { patterns, key, value, line });
    }

    fn unused(&mut self, last: Range<usize>) {
        self.wrong(last, "an indented property wanted after this pattern; the record has none");
    }

    fn wrong(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.problems.push(self.source.problem(span, Severity::Error, what));
    }
}

/// Up to a newline, a carriage return or a NUL.
fn end_of_line(text: &[u8]) -> usize {
    text.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)).unwrap_or(text.len())
}

/// How long a line's end is: newline, carriage return and NUL each once, the NUL last.
fn end_mark(text: &[u8]) -> usize {
    let mut seen: Vec<u8> = Vec::new();
    for byte in text {
        if !matches!(byte, b'\n' | b'\r' | 0) || seen.contains(byte) || seen.last() == Some(&0) {
            break;
        }
        seen.push(*byte);
    }
    seen.len()
}

/// Less white space at the end, as isspace(3) in the C locale.
fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !crate::clean::is_space(byte));
    &line[..end.map_or(0, |last| last + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let (properties, problems) = parse(Path::new("a.hwdb"), text.as_bytes());
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let properties = properties.iter().map(|property| {
            let patterns: Vec<_> = property.patterns.iter().map(|each| shown(each)).collect();
            let (key, value) = (shown(property.key), shown(property.value));
            format!("{}: {}:{key}={value}", property.line, patterns.join(","))
        });
        (properties.collect(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_has_patterns_and_indented_properties() {
        let text = "# c\na:*\nb # c\n  A=1 # c\n \t B= x=y \n#\n C=\n\nc\n D=4";
        let (properties, problems) = read(text);
        assert_eq!(properties, ["4: a:*,b: A=1", "5: a:*,b: B= x=y", "7: a:*,b: C=", "10: c: D=4"]);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn a_mistake_has_its_place_and_says_what_was_wanted() {
        let text = " A=1\n\na\n\nb\n B\n  =1\n C=3\nd\n D=4\n\n\tE=5\n F=6\n\ng";
        let (properties, problems) = read(text);
        assert_eq!(properties, ["8: b: C=3", "13: \\tE=5: F=6"]);
        let places: Vec<_> = problems.iter().map(|p| &p[..p.find(": ").unwrap()]).collect();
        let wanted = ["1:1", "3:1", "6:3", "7:3", "9:1", "10:1", "12:1", "15:1"]
            .map(|at| format!("a.hwdb:{at}"));
        assert_eq!(places, wanted);
        assert!(
            problems[2].ends_with("error: KEY=VALUE wanted; there is no \"=\""),
            "{problems:?}"
        );
        assert!(problems[6].contains("warning"), "{problems:?}");
    }
}

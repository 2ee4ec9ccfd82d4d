//! A mistake in a file, where it is, and how it is shown to the one who wrote the file.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How much a [`Problem`] costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is not as written, the rest of it holds.
    Warning,
    /// The line, the rule or the file has no effect.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One mistake; loading goes on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// In characters, from 1; 0 when the line as a whole is meant.
    pub column: u32,
    /// Characters concerned, at least 1 where there is a column; never beyond the line.
    pub width: u32,
    pub severity: Severity,
    /// What is wrong and what was wanted.
    pub what: String,
    /// The valid word that is nearest to the one written.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem of a whole file, such as one that cannot be read.
    pub fn whole(file: &Path, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            width: 0,
            severity,
            what: what.into(),
            nearest: None,
        }
    }

    /// Adds the candidate that is nearest to `word`, if one is near enough to be meant.
    #[must_use]
    pub fn suggest<'a>(
        mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.nearest = nearest(word, candidates).map(str::to_owned);
        self
    }

    /// The problem, with the line of `source` that it is in and a caret below the place.
    #[must_use]
    pub fn render(&self, source: &[u8]) -> String {
        let Some(text) = self.line.checked_sub(1).and_then(|index| {
            let index = usize::try_from(index).ok()?;
            source.split(|byte| *byte == b'\n').nth(index)
        }) else {
            return self.to_string();
        };
        let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
        let clean = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        let text: String = text.chars().map(clean).collect();
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let mut shown = format!("{self}\n{margin} |\n{number} | {text}");
        if let Some(before) = self.column.checked_sub(1) {
            // tabs are repeated, so that the caret stands below its place however wide they are
            let keep = |c: char| if c == '\t' { '\t' } else { ' ' };
            let before = usize::try_from(before).unwrap_or(usize::MAX);
            let indent: String = text.chars().take(before).map(keep).collect();
            let width = usize::try_from(self.width.max(1)).unwrap_or(1);
            shown.push_str(&format!("\n{margin} | {indent}{}", "^".repeat(width)));
        }
        shown
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}: {}", self.severity, self.what)?;
        match &self.nearest {
            Some(word) => write!(f, "; did you mean \"{word}\"?"),
            None => Ok(()),
        }
    }
}

/// A file's text, with its lines found once, so that many places in it cost little.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    #[must_use]
    pub fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        let newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { file, bytes, starts }
    }

    #[must_use]
    pub fn file(&self) -> &'a Path {
        self.file
    }

    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Line and column (in characters), both from 1, of a byte; the end for one that lies beyond.
    #[must_use]
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied();
        let end = offset.min(self.bytes.len());
        let before = self.bytes.get(start.unwrap_or(0)..end).unwrap_or_default();
        (u32::try_from(line).unwrap_or(u32::MAX), characters(before).saturating_add(1))
    }

    /// A problem of the bytes `span`.
    pub fn problem(
        &self,
        span: Range<usize>,
        severity: Severity,
        what: impl Into<String>,
    ) -> Problem {
        let (line, column) = self.position(span.start);
        let end = span.end.min(self.bytes.len());
        let shown = self.bytes.get(span.start..end).unwrap_or_default();
        let first = shown.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let width = characters(first).max(1);
        Problem { line, column, width, ..Problem::whole(self.file, severity, what) }
    }
}

fn characters(bytes: &[u8]) -> u32 {
    u32::try_from(String::from_utf8_lossy(bytes).chars().count()).unwrap_or(u32::MAX - 1)
}

/// The candidate that differs least from `word`, by letters put in, left out, changed or swapped.
///
/// `None` when even that one needs more than a third of the letters changed: then nobody meant it.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase();
    let length = folded.chars().count();
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= 3)
        .map(|candidate| (distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.chars().count().max(length).div_ceil(3).min(3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, a swap of neighbours being one ("optimal string alignment").
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut best = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

/// The same error, with the path that it is about.
#[must_use]
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_that_was_meant() {
        let words = ["owner", "group", "mode", "symlink"];
        assert_eq!(nearest("gruop", words), Some("group"));
        assert_eq!(nearest("mod", words), Some("mode"));
        assert_eq!(nearest("OWNER", words), Some("owner"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("", words), None);
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret_below_the_place() {
        let source = b"one\n\t\xc3\xa4 = grup\n";
        let problem = Source::new(Path::new("a.toml"), source)
            .problem(10..14, Severity::Error, "no key")
            .suggest("grup", ["group"]);
        assert_eq!(problem.to_string(), "a.toml:2:6: error: no key; did you mean \"group\"?");
        assert_eq!((problem.line, problem.column, problem.width), (2, 6, 4));
        let shown = problem.render(source);
        assert!(shown.ends_with("\n  |\n2 | \t\u{e4} = grup\n  | \t    ^^^^"), "{shown}");
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let position = |text: &[u8], at| Source::new(Path::new("f"), text).position(at);
        assert_eq!(position(b"ab\nc", 99), (2, 2));
        assert_eq!((position(b"", 0), position(b"ab\nc", 2)), ((1, 1), (1, 3)));
        let whole = Problem::whole(Path::new("f"), Severity::Warning, "x");
        assert_eq!(whole.render(b"text"), "f: warning: x");
    }
}

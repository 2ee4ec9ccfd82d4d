//! Stage 4b: the text of one policy file in, its rules out, and a [`Problem`] for all that is wrong.
//!
//! A rule with a mistake is left out, for half a rule may open what the whole would not; the others
//! stay. Only a file that is no TOML, or of another schema, is left out as a whole.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Rule;
use crate::rules::names::Names;
use crate::rules::problem::{Problem, Severity, Source};

const TOP: [&str; 3] = ["schema", "on-missing-name", "rule"];
const RULE: [&str; 4] = ["id", "priority", "match", "set"];
const PRIORITY: u16 = 500;

/// What an unknown user or group costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    SkipAttribute,
    SkipRule,
    Error,
}

impl Missing {
    const NAMES: [(&str, Self); 3] = [
        ("skip-attribute", Self::SkipAttribute),
        ("skip-rule", Self::SkipRule),
        ("error", Self::Error),
    ];
}

/// A file while it is read.
pub(super) struct Reader<'a> {
    pub(super) file: Arc<Path>,
    pub(super) source: Source<'a>,
    pub(super) names: &'a Names,
    pub(super) missing: Missing,
    problems: &'a mut Vec<Problem>,
    errors: usize,
    refused: bool,
}

pub(super) type Key<'t, 'i> = &'t Spanned<std::borrow::Cow<'i, str>>;
pub(super) type Item<'t, 'i> = &'t Spanned<DeValue<'i>>;

/// The rules of one file, in their order.
pub(super) fn parse(
    file: &Path,
    text: &str,
    names: &Names,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let mut reader = Reader {
        file: file.into(),
        source: Source::new(file, text.as_bytes()),
        names,
        missing: Missing::SkipAttribute,
        problems,
        errors: 0,
        refused: false,
    };
    match DeTable::parse(text) {
        Ok(table) => reader.document(table.get_ref()),
        Err(error) => {
            let what = error.message().trim_end().replace('\n', "; ");
            reader.error(error.span().unwrap_or(0..0), what);
            Vec::new()
        }
    }
}

/// The problem of a rule whose id another has.
pub(super) fn duplicate(rule: &Rule, first: &Path, line: u32) -> Problem {
    let what = format!("id \"{}\" is taken by {}:{line}", rule.id, first.display());
    let width = u32::try_from(rule.id.chars().count() + 2).unwrap_or(1);
    let whole = Problem::whole(&rule.file, Severity::Error, what);
    Problem { line: rule.line, column: rule.column, width, ..whole }
}

impl Reader<'_> {
    fn document(&mut self, table: &DeTable<'_>) -> Vec<Rule> {
        let (mut schema, mut list) = (None, None);
        for (key, item) in table.iter() {
            match &**key.get_ref() {
                "schema" => schema = Some(item),
                "on-missing-name" => self.on_missing_name(item),
                "rule" => list = Some(item),
                _ => self.unknown(key, &TOP, &[]),
            }
        }
        match schema.map(|item| (item.get_ref().as_integer(), item.span())) {
            Some((Some(number), _)) if number.as_str() == "1" && number.radix() == 10 => {}
            Some((_, span)) => {
                self.error(span, "schema 1 wanted: this version knows no other; file is left out");
                return Vec::new();
            }
            None => {
                self.error(0..0, "`schema = 1` wanted at the top; file is left out");
                return Vec::new();
            }
        }
        let Some(list) = list else { return Vec::new() };
        let Some(items) = list.get_ref().as_array() else {
            self.error(list.span(), "rules are written below `[[rule]]`, with two brackets");
            return Vec::new();
        };
        let rules = items.iter().filter_map(|item| self.rule(item)).collect();
        if self.refused { Vec::new() } else { rules }
    }

    fn on_missing_name(&mut self, item: Item<'_, '_>) {
        let word = item.get_ref().as_str().unwrap_or_default();
        match Missing::NAMES.iter().find(|(name, _)| *name == word) {
            Some((_, missing)) => self.missing = *missing,
            None => {
                let what = "\"skip-attribute\", \"skip-rule\" or \"error\" wanted";
                let words = Missing::NAMES.iter().map(|(name, _)| *name);
                let problem = self.problem(item.span(), Severity::Error, what);
                self.push(problem.suggest(word, words));
            }
        }
    }

    fn rule(&mut self, item: Item<'_, '_>) -> Option<Rule> {
        let table = self.table(item, "a table")?;
        let before = self.errors;
        let mut id = None;
        let mut priority = PRIORITY;
        let (mut conditions, mut set) = (None, None);
        for (key, value) in table.iter() {
            match &**key.get_ref() {
                "id" => id = self.id(value).map(|id| (id, value.span())),
                "priority" => priority = self.priority(value),
                "match" => conditions = Some(self.conditions(value)),
                "set" => set = Some(value),
                _ => self.unknown(key, &RULE, &[]),
            }
        }
        if !table.iter().any(|(key, _)| &**key.get_ref() == "id") {
            self.error(item.span(), "rule has no `id`: a unique one wanted");
        }
        if conditions.is_none() {
            let what = "rule has no `match` and would hold for every device; \
                        if that is meant, write `match.subsystem = \"*\"`";
            self.error(item.span(), what);
        }
        let Some(set) = set else {
            self.error(item.span(), "rule has no `set`");
            return None;
        };
        let (id, span) = id?;
        let settings = self.settings(set, &id, priority)?;
        if self.errors > before {
            return None;
        }
        let (line, column) = self.source.position(span.start);
        let settings = settings.into_iter().map(Arc::new).collect();
        let (file, conditions) = (self.file.clone(), conditions?);
        Some(Rule { id, file, line, column, priority, conditions, settings })
    }

    fn id(&mut self, item: Item<'_, '_>) -> Option<Arc<str>> {
        let text = item.get_ref().as_str().unwrap_or_default();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(fits) {
            self.error(item.span(), "a name of letters, digits, `-`, `_` and `.` wanted");
            return None;
        }
        Some(text.into())
    }

    fn priority(&mut self, item: Item<'_, '_>) -> u16 {
        let number = self.integer(item).and_then(|number| u16::try_from(number).ok());
        number.filter(|number| *number <= 999).unwrap_or_else(|| {
            self.error(item.span(), "a number from 0 to 999 wanted");
            PRIORITY
        })
    }

    pub(super) fn table<'t, 'i>(
        &mut self,
        item: Item<'t, 'i>,
        wanted: &str,
    ) -> Option<&'t DeTable<'i>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.error(item.span(), format!("{wanted} wanted"));
        }
        table
    }

    pub(super) fn integer(&self, item: Item<'_, '_>) -> Option<i64> {
        let number = item.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// A key that is not among `known`; those `later` are in the format, but not in this version.
    pub(super) fn unknown(&mut self, key: Key<'_, '_>, known: &[&str], later: &[&str]) {
        let word: &str = key.get_ref();
        let (what, candidates) = if later.contains(&word) {
            (format!("`{word}` is not supported by this version"), &[][..])
        } else {
            let list = known.join("`, `");
            (format!("unknown key `{}`; one of `{list}` wanted", word.escape_debug()), known)
        };
        let problem = self.problem(key.span(), Severity::Error, what);
        self.push(problem.suggest(word, candidates.iter().copied()));
    }

    pub(super) fn problem(
        &self,
        span: Range<usize>,
        severity: Severity,
        what: impl Into<String>,
    ) -> Problem {
        self.source.problem(span, severity, what)
    }

    pub(super) fn error(&mut self, span: Range<usize>, what: impl Into<String>) {
        let problem = self.problem(span, Severity::Error, what);
        self.push(problem);
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.severity == Severity::Error);
        self.problems.push(problem);
    }

    /// Leaves out the whole file.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Rule>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/group"), "plugdev:x:46:\n").unwrap();
        let mut problems = Vec::new();
        let rules = parse(Path::new("f"), text, &Names::load(root.path()), &mut problems);
        (rules, problems.iter().map(ToString::to_string).collect())
    }

    const GOOD: &str = "[[rule]]\nid = 'good'\nmatch.devname = 'x'\nset.mode = '0660'\n";

    /// A rule with `line` in it and one that is good: the message, and that the good one stays.
    fn wrong(line: &str) -> String {
        let text = format!("schema = 1\n[[rule]]\nid = 'bad'\n{line}\n{GOOD}");
        let (rules, problems) = read(&text);
        assert_eq!(rules.iter().map(|rule| &*rule.id).collect::<Vec<_>>(), ["good"], "{line}");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.concat()
    }

    #[test]
    fn a_wrong_rule_is_left_out_with_its_place_and_the_nearest_word() {
        let message = wrong("match.subsytem = 'tty'\nset.mode = '0600'");
        assert!(message.starts_with("f:4:7: error: unknown key `subsytem`"), "{message}");
        assert!(message.ends_with("did you mean \"subsystem\"?"), "{message}");
        let message = wrong("match.devname = 'x'\nset.mode = 660");
        assert!(message.starts_with("f:5:12: error: an octal mode in quotes"), "{message}");
    }

    #[test]
    fn what_this_version_does_not_act_on_is_said() {
        for (line, word) in [
            ("match.devname = 'x'\nset.acl = []", "acl"),
            ("match.devname = 'x'\nset.sysfs = { a = 1 }", "sysfs"),
            ("match.attr = { a = 'b' }\nset.mode = '0600'", "attr"),
            ("match.unless = { tag = 'b' }\nset.mode = '0600'", "unless"),
        ] {
            let message = wrong(line);
            let wanted = format!("`{word}` is not supported by this version");
            assert!(message.ends_with(&wanted), "{message}");
        }
    }

    #[test]
    fn values_that_cannot_be_meant_are_errors() {
        for line in [
            "match.devname = '/dev/x'\nset.mode = '0600'",
            "match.devname = []\nset.mode = '0600'",
            "match.devname = 7\nset.mode = '0600'",
            "match = {}\nset.mode = '0600'",
            "set.mode = '0600'",
            "match.devname = 'x'",
            "match.devname = 'x'\nset = {}",
            "match.devname = 'x'\nset.mode = '10000'",
            "match.devname = 'x'\nset.mode = '0o660'",
            "match.devname = 'x'\nset.mode = 438",
            "match.devname = 'x'\nset.owner = 0",
            "match.devname = 'x'\nset.module = '../x'",
            "match.devname = 'x'\nset.module = true",
            "match.devname = 'x'\nset.autoload = 'yes'",
            "match.devname = 'x'\nset.symlink.add = ['../x']",
            "match.devname = 'x'\nset.symlink.add = ['/dev/x']",
            "match.devname = 'x'\nset.symlink.priority = 9999999",
            "match.devname = 'x'\npriority = 1000\nset.mode = '0600'",
        ] {
            wrong(line);
        }
    }

    #[test]
    fn an_unknown_name_costs_what_the_file_says() {
        let text = |head: &str| {
            format!(
                "schema = 1\n{head}\n[[rule]]\nid = 'r'\nmatch.devname = 'x'\n\
                 set = {{ group = 'plugdv', mode = '0600' }}\n{GOOD}"
            )
        };
        let (rules, problems) = read(&text(""));
        assert_eq!((rules.len(), rules[0].settings.len()), (2, 1));
        let wanted = "f:6:17: warning: unknown group \"plugdv\": group is not set; \
                      did you mean \"plugdev\"?";
        assert_eq!(problems, [wanted]);
        let (rules, problems) = read(&text("on-missing-name = 'skip-rule'"));
        assert_eq!((rules.len(), problems.len()), (1, 1));
        let (rules, problems) = read(&text("on-missing-name = 'error'"));
        assert_eq!((rules.len(), problems.len()), (0, 1));
        assert!(problems[0].contains(": error: "));
    }

    #[test]
    fn another_schema_or_none_leaves_the_file_out() {
        for head in ["", "schema = 2\n", "schema = '1'\n"] {
            let (rules, problems) = read(&format!("{head}{GOOD}"));
            assert_eq!((rules.len(), problems.len()), (0, 1), "{head}");
        }
        let (rules, problems) = read("schema = 1\n");
        assert_eq!((rules.len(), problems.len()), (0, 0));
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let (rules, problems) = read("schema = 1\n[[rule]]\nid = \"x\nset = 1\n");
        assert!(rules.is_empty() && problems[0].starts_with("f:3:"), "{problems:?}");
        let (rules, problems) = read(&format!("schema = 1\n{GOOD}set.owner = 0660\n"));
        assert!(rules.is_empty() && problems[0].starts_with("f:6:13"), "{problems:?}");
    }

    #[test]
    fn depth_costs_the_file_and_not_the_daemon() {
        let keys = format!("schema = 1\n{}z = 1\n", "a.".repeat(200_000));
        let tables = format!("schema = 1\n[{}z]\n", "a.".repeat(200_000));
        let lists = format!("schema = 1\na = {}\n", "[".repeat(200_000));
        let inline = format!("schema = 1\na = {}\n", "{a=".repeat(200_000));
        for text in [keys, tables, lists, inline] {
            let (rules, problems) = read(&text);
            assert!(rules.is_empty() && !problems.is_empty());
        }
    }

    #[test]
    fn a_rule_knows_where_its_values_stand() {
        let (rules, problems) = read(
            "schema = 1\n[[rule]]\nid = 'r'\nmatch.devname = ['a', 'b*']\n[rule.set]\n\
             group = 'plugdev'\n  symlink = { add = ['l0'], priority = 10 }\n",
        );
        assert_eq!(problems, [""; 0]);
        let places: Vec<_> =
            rules[0].settings.iter().map(|s| (&*s.written, s.line, s.column)).collect();
        assert_eq!(places, [("plugdev", 6, 9), ("l0", 7, 22), ("10", 7, 40)]);
    }
}

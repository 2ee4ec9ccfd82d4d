//! Stage 4: files of rules in, [`Rules`] out: each GOTO knows its rule, each name its number.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::rules::cursor::{LINE_MAX, Line, Lines, Lost};
use crate::rules::files;
use crate::rules::names::Names;
use crate::rules::parse::{self, Draft};
use crate::rules::problem::{Problem, Severity, Source};
use crate::rules::rule::{Rule, RuleFile};
use crate::rules::static_node::StaticNode;
use crate::rules::token::Flaw;

/// Mistakes that are told of one file; who made more than that wants to see the first ones.
const PROBLEMS_MAX: usize = 1000;

/// All rules of a machine, in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    files: Vec<RuleFile>,
    static_nodes: Vec<StaticNode>,
}

/// Where a GOTO stands in the file, and the label that it wants.
type Jump = (usize, Box<[u8]>, Range<usize>);

impl Rules {
    /// Reads the rules folders below `root`. A mistake costs its line, a missing folder nothing.
    #[must_use]
    pub fn load(root: &Path, names: &Names) -> (Self, Vec<Problem>) {
        let mut rules = Self::default();
        let (texts, mut problems) = files::texts(root);
        for text in &texts {
            problems.extend(rules.add(&text.path, &text.bytes, names));
        }
        (rules, problems)
    }

    /// Reads one file's text; its rules come after those that are there.
    pub fn add(&mut self, path: &Path, text: &[u8], names: &Names) -> Vec<Problem> {
        let source = Source::new(path, text);
        let file: Arc<str> = path.to_string_lossy().into();
        let mut reader = Reader { source: &source, names, problems: Vec::new() };
        let rules = reader.rules(Lines::new(text));
        for rule in &rules {
            self.static_nodes.extend(StaticNode::of(rule, &file));
        }
        self.files.push(RuleFile { file, rules });
        reader.problems
    }

    /// The files that were read, first to last.
    #[must_use]
    pub fn files(&self) -> &[RuleFile] {
        &self.files
    }

    /// All rules, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.files.iter().flat_map(|file| &file.rules)
    }

    /// Nodes to be settled before there is any device, in the order of their rules.
    #[must_use]
    pub fn static_nodes(&self) -> &[StaticNode] {
        &self.static_nodes
    }
}

struct Reader<'a> {
    source: &'a Source<'a>,
    names: &'a Names,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn tell(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else if self.problems.len() == PROBLEMS_MAX {
            let what = format!("more than {PROBLEMS_MAX} mistakes; the rest is not shown");
            self.problems.push(Problem { what, nearest: None, column: 0, width: 0, ..problem });
        }
    }

    fn flaw(&mut self, line: &Line, flaw: Flaw) {
        let problem = self.source.problem(line.span(&flaw.at), flaw.severity, flaw.what);
        self.tell(Problem { nearest: flaw.nearest, ..problem });
    }

    fn rules(&mut self, lines: Lines<'_>) -> Vec<Rule> {
        let (mut rules, mut jumps) = (Vec::new(), Vec::new());
        for line in lines {
            let line = match line {
                Ok(line) => line,
                Err(lost) => {
                    self.lost(&lost);
                    continue;
                }
            };
            let mut flaws = Vec::new();
            let place = |at: usize| self.source.position(line.offset(at));
            let draft = parse::rule(&line, place, self.names, &mut flaws);
            flaws.into_iter().for_each(|flaw| self.flaw(&line, flaw));
            if let Some(draft) = draft {
                self.keep(draft, &line, &mut rules, &mut jumps);
            }
        }
        self.resolve(&mut rules, jumps);
        rules
    }

    fn lost(&mut self, lost: &Lost) {
        let (range, severity, what) = match lost {
            Lost::TooLong(range) => {
                let what = format!("a line of less than {LINE_MAX} bytes wanted");
                (range, Severity::Error, what)
            }
            Lost::LongComment(range) => {
                let what = format!("a comment of {LINE_MAX} bytes or more; udev reads no further");
                (range, Severity::Warning, what)
            }
            Lost::Unfinished(range) => {
                let what = "the file ends where the rule goes on; a line without `\\` wanted";
                (range, Severity::Error, what.to_owned())
            }
        };
        let problem = self.source.problem(range.clone(), severity, what);
        self.tell(problem);
    }

    /// Takes a rule in, if it does anything.
    fn keep(&mut self, draft: Draft, line: &Line, rules: &mut Vec<Rule>, jumps: &mut Vec<Jump>) {
        if !draft.effects.any() && draft.label.is_none() && draft.goto.is_none() {
            // an empty draft is a line of commas, or one whose only pair was told of already
            if !draft.tokens.is_empty() {
                let what = "this rule compares and does nothing; an assignment wanted (`=`, `+=`)";
                self.flaw(line, Flaw::warning(0..line.text.len(), what));
            }
            return;
        }
        if let Some((label, at)) = draft.goto {
            jumps.push((rules.len(), label, line.span(&at)));
        }
        let (first, _) = self.source.position(line.offset(0));
        rules.push(Rule {
            line: first,
            tokens: draft.tokens.into(),
            effects: draft.effects,
            label: draft.label,
            goto: None,
        });
    }

    /// A jump leads forward, to the first later rule with its label.
    fn resolve(&mut self, rules: &mut [Rule], jumps: Vec<Jump>) {
        let mut labels: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            if let Some(label) = &rule.label {
                labels.entry(label.clone()).or_default().push(index);
            }
        }
        for (from, label, at) in jumps {
            let targets = labels.get(&label).map(Vec::as_slice).unwrap_or_default();
            let later = targets.get(targets.partition_point(|target| *target <= from)).copied();
            if later.is_none() {
                let shown = label.escape_ascii();
                let what = if targets.is_empty() {
                    format!("no rule of this file has LABEL=\"{shown}\"; this has no effect")
                } else {
                    format!("GOTO leads forward, and no later rule has LABEL=\"{shown}\"")
                };
                let problem = self.source.problem(at, Severity::Warning, what);
                let word = String::from_utf8_lossy(&label);
                let others = labels.keys().filter(|other| **other != label);
                let known: Vec<_> = others.map(|label| String::from_utf8_lossy(label)).collect();
                self.tell(problem.suggest(&word, known.iter().map(AsRef::as_ref)));
            }
            if let Some(rule) = rules.get_mut(from) {
                rule.goto = later;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> (Rules, Vec<String>) {
        let mut rules = Rules::default();
        let problems = rules.add(Path::new("50-x.rules"), text.as_bytes(), &Names::default());
        (rules, problems.iter().map(ToString::to_string).collect())
    }

    fn lines(rules: &Rules) -> Vec<u32> {
        rules.files()[0].rules.iter().map(|rule| rule.line).collect()
    }

    #[test]
    fn a_bad_line_costs_that_line_only() {
        let (rules, problems) = load(
            "KERNEL==\"a\", TAG+=\"x\"\nKRENEL==\"b\", TAG+=\"x\"\nTAG+=\"y\", \\\n  OWNER==\"z\"\nTAG+=\"z\"\n",
        );
        assert_eq!(lines(&rules), [1, 5]);
        assert_eq!(
            problems,
            [
                "50-x.rules:2:1: error: unknown key KRENEL; did you mean \"KERNEL\"?",
                "50-x.rules:4:8: error: OWNER cannot be used with `==`; `=` or `:=` wanted",
            ]
        );
    }

    #[test]
    fn a_goto_leads_to_the_first_later_label() {
        let (rules, problems) = load(
            "LABEL=\"a\"\nGOTO=\"a\"\nGOTO=\"b\"\nLABEL=\"a\"\nTAG+=\"x\", LABEL=\"c\", LABEL=\"b\"\n",
        );
        let gotos: Vec<_> = rules.files()[0].rules.iter().map(|rule| rule.goto).collect();
        assert_eq!((gotos, problems), (vec![None, Some(3), Some(4), None, None], vec![]));
    }

    #[test]
    fn a_goto_without_label_is_told() {
        let (rules, problems) = load("LABEL=\"the_end\"\nTAG+=\"x\", GOTO=\"the_ned\"\n");
        assert_eq!(rules.files()[0].rules[1].goto, None);
        assert_eq!(
            problems,
            ["50-x.rules:2:17: warning: no rule of this file has LABEL=\"the_ned\"; this has no \
              effect; did you mean \"the_end\"?"]
        );
        let (_, problems) = load("LABEL=\"a\"\nGOTO=\"a\"\n");
        assert!(problems[0].ends_with("no later rule has LABEL=\"a\""), "{problems:?}");
    }

    #[test]
    fn a_rule_without_effect_is_dropped() {
        let (rules, problems) = load("KERNEL==\"a\"\nKERNEL==\"a\", PROGRAM==\"b\"\n,\n");
        assert_eq!((lines(&rules), problems.len()), (vec![2], 1));
    }

    #[test]
    fn tokens_are_sorted_as_udev_evaluates_them_and_keep_their_places() {
        let (rules, _) = load("RUN+=\"r\", ENV{A}=\"x\", \\\n ENV{A}==\"y\", KERNEL==\"k\"\n");
        let places: Vec<_> =
            rules.files()[0].rules[0].tokens.iter().map(|t| (t.line, t.column)).collect();
        assert_eq!(places, [(2, 15), (2, 2), (1, 11), (1, 1)]);
    }

    #[test]
    fn mistakes_of_a_file_are_counted_up_to_a_limit() {
        let (_, problems) = load(&"X==\"y\"\n".repeat(PROBLEMS_MAX + 50));
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    }
}

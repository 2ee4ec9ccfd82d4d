//! Stage 4: rules in, doubts about them out: what loads without a word and yet can never hold.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::path::Path;

use crate::rules::problem::{Problem, Severity};
use crate::rules::resolve::Rules;
use crate::rules::rule::{Matcher, ParentSubject, Rule, RuleFile, Subject, Token, What};

/// What the kernel says that happened (`kobject_actions[]` in `lib/kobject_uevent.c`).
const ACTIONS: [&[u8]; 8] =
    [b"add", b"remove", b"change", b"move", b"online", b"offline", b"bind", b"unbind"];

/// Tells of comparisons that never hold, and of labels that nobody goes to.
#[must_use]
pub fn lint(rules: &Rules) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in rules.files() {
        for rule in &file.rules {
            let doubts = rule.tokens.iter().filter_map(|token| Some((token, alone(token)?)));
            let doubts = doubts.chain(contradictions(rule)).collect::<Vec<_>>();
            problems.extend(doubts.into_iter().map(|(token, what)| doubt(file, token, what)));
        }
        problems.extend(unused_labels(file));
    }
    problems
}

fn doubt(file: &RuleFile, token: &Token, what: String) -> Problem {
    Problem {
        line: token.line,
        column: token.column,
        width: 1,
        ..Problem::whole(Path::new(&*file.file), Severity::Warning, what)
    }
}

/// Why a comparison cannot hold whatever stands beside it.
#[expect(clippy::wildcard_enum_match_arm, reason = "of most subjects nothing is known")]
fn alone(token: &Token) -> Option<String> {
    let What::Match(subject, matcher) = &token.what else { return None };
    if matcher.negated || matcher.nocase {
        return None;
    }
    // all alternatives must be hopeless, and a wildcard in front leaves hope
    let none = |hopeless: &dyn Fn(&[u8]) -> bool| {
        matcher.pattern.alternatives().iter().all(|text| hopeless(text))
    };
    let wild = |text: &[u8]| matches!(text.first(), Some(b'*' | b'?' | b'[' | b'\\'));
    let what = match subject {
        Subject::Action if !ACTIONS.iter().any(|action| matcher.fits(action)) => {
            let all = ACTIONS.map(|action| action.escape_ascii().to_string()).join(", ");
            format!("this never holds: the actions are {all}")
        }
        Subject::Kernel if none(&|text| text.is_empty()) => {
            "this never holds: each device has a name".to_owned()
        }
        Subject::Kernel if none(&|text| text.starts_with(b"/")) => {
            "this never holds: the kernel's names are without `/dev/`".to_owned()
        }
        Subject::Tag if none(&|text| text.contains(&b' ') && !text.contains(&b'[')) => {
            "this never holds: tags have no blanks, and alternatives are divided by `|`".to_owned()
        }
        Subject::Kernel if none(&|text| text.contains(&b'!') && !text.contains(&b'[')) => {
            "this never holds: `!` in the kernel's name is compared as `/`".to_owned()
        }
        Subject::Devpath if none(&|text| text.starts_with(b"/sys/")) => {
            "this never holds: DEVPATH is compared without `/sys`".to_owned()
        }
        Subject::Devpath if none(&|text| !wild(text) && !text.starts_with(b"/")) => {
            "this never holds: DEVPATH begins with `/`".to_owned()
        }
        Subject::Symlink if none(&|text| text.starts_with(b"/dev/")) => {
            "this never holds: links are compared without `/dev/`".to_owned()
        }
        Subject::Env(key)
            if **key == *b"DEVNAME"
                && none(&|text| !wild(text) && !text.is_empty() && !text.starts_with(b"/")) =>
        {
            "this never holds: DEVNAME begins with `/dev/`".to_owned()
        }
        _ => return None,
    };
    Some(what)
}

/// Comparisons of one thing in one rule of which one at most can hold.
fn contradictions(rule: &Rule) -> impl Iterator<Item = (&Token, String)> {
    rule.tokens.iter().enumerate().filter_map(|(index, later)| {
        let earlier =
            rule.tokens.get(..index)?.iter().find(|earlier| contradict(earlier, later))?;
        let what = format!(
            "this and line {}, column {} never hold together",
            earlier.line, earlier.column
        );
        Some((later, what))
    })
}

fn contradict(one: &Token, other: &Token) -> bool {
    let (one, other) = match (&one.what, &other.what) {
        // a list may hold both
        (What::Match(Subject::Tag | Subject::Symlink, _), _)
        | (What::Parent(ParentSubject::Tag, _), _) => return false,
        (What::Match(a, one), What::Match(b, other)) if a == b => (one, other),
        (What::Parent(a, one), What::Parent(b, other)) if a == b => (one, other),
        (What::Result(one), What::Result(other)) => (one, other),
        _ => return false,
    };
    if one.nocase || other.nocase {
        return false;
    }
    // each side's literals are all that can hold; the other must let one of them pass
    let shut = |one: &Matcher, other: &Matcher| match one.pattern.literals() {
        Some(literals) if !one.negated => !literals.iter().any(|text| other.holds(text)),
        Some(_) | None => false,
    };
    shut(one, other) || shut(other, one)
}

fn unused_labels(file: &RuleFile) -> impl Iterator<Item = Problem> {
    let used: HashSet<_> = file.rules.iter().filter_map(|rule| rule.goto).collect();
    file.rules.iter().enumerate().filter_map(move |(index, rule)| {
        let label = rule.label.as_ref().filter(|_| !used.contains(&index))?;
        let what = format!("no GOTO leads to LABEL=\"{}\"", label.escape_ascii());
        let whole = Problem::whole(Path::new(&*file.file), Severity::Warning, what);
        Some(Problem { line: rule.line, ..whole })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::names::Names;

    fn doubts(text: &str) -> Vec<String> {
        let mut rules = Rules::default();
        let problems = rules.add(Path::new("f"), text.as_bytes(), &Names::default());
        assert_eq!(problems, [], "{text}");
        lint(&rules).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comparisons_that_never_hold_are_told() {
        for never in [
            r#"ACTION=="added""#,
            r#"ACTION=="a[x]d|x*""#,
            r#"KERNEL=="""#,
            r#"KERNEL=="cciss!c0d0""#,
            r#"DEVPATH=="/sys/devices/*""#,
            r#"DEVPATH=="devices/*""#,
            r#"SYMLINK=="/dev/disk/*""#,
            r#"ENV{DEVNAME}=="sda""#,
            r#"KERNEL=="a", KERNEL=="b|c""#,
            r#"SUBSYSTEM=="net", SUBSYSTEM!="n*""#,
            r#"KERNEL=="/dev/sda""#,
            r#"TAG=="seat uaccess""#,
            r#"ATTRS{a}=="1", ATTRS{a}=="2""#,
        ] {
            assert_eq!(doubts(&format!("{never}, TAG+=\"x\"")).len(), 1, "{never}");
        }
    }

    #[test]
    fn comparisons_that_may_hold_are_not() {
        for may in [
            r#"ACTION=="add|added""#,
            r#"ACTION!="added""#,
            r#"KERNEL=="a*", KERNEL!="ab""#,
            r#"DEVPATH=="*/x|/devices/*""#,
            r#"TAG=="a", TAG=="b""#,
            r#"ATTRS{a}=="1", ATTRS{b}=="2""#,
            r#"ENV{A}=="", ENV{B}=="x""#,
            r#"ENV{DEVNAME}=="""#,
            r#"KERNEL==i"A", KERNEL=="a""#,
        ] {
            assert_eq!(doubts(&format!("{may}, TAG+=\"x\"")), Vec::<String>::new(), "{may}");
        }
    }

    #[test]
    fn the_place_is_that_of_the_later_comparison() {
        let told = doubts("KERNEL==\"a\", TAG+=\"x\", \\\n  KERNEL==\"b\"\nLABEL=\"l\"\n");
        assert_eq!(
            told,
            [
                "f:2:3: warning: this and line 1, column 1 never hold together",
                "f:3: warning: no GOTO leads to LABEL=\"l\"",
            ]
        );
    }
}

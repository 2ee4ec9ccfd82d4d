//! Stage 4: which keys there are, with which attributes and operators each is used.
#![forbid(unsafe_code)]

use crate::rules::problem::nearest;
use crate::rules::token::Operator::{self, Add, Assign, Final, Match, Remove, Unmatch};
use crate::rules::token::{Flaw, Pair};

/// The word before an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Action,
    Attr,
    Attrs,
    Const,
    Devpath,
    Driver,
    Drivers,
    Env,
    Goto,
    Group,
    Import,
    Kernel,
    Kernels,
    Label,
    Mode,
    Name,
    Options,
    Owner,
    Program,
    Result,
    Run,
    Seclabel,
    Subsystem,
    Subsystems,
    Symlink,
    Sysctl,
    Tag,
    Tags,
    Test,
}

/// What stands between braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Braces {
    Never,
    /// With an example.
    Always(&'static str),
    Maybe,
}

struct Usage {
    key: Key,
    name: &'static str,
    braces: Braces,
    operators: &'static [Operator],
    /// Taken for the operator given here, with a warning.
    tolerated: &'static [(Operator, Operator)],
}

const fn usage(
    key: Key,
    name: &'static str,
    braces: Braces,
    operators: &'static [Operator],
    tolerated: &'static [(Operator, Operator)],
) -> Usage {
    Usage { key, name, braces, operators, tolerated }
}

const COMPARE: &[Operator] = &[Match, Unmatch];
const NODE: &[Operator] = &[Assign, Final];
const ONCE: &[(Operator, Operator)] = &[(Add, Assign)];
const NOT_FINAL: &[(Operator, Operator)] = &[(Final, Assign)];
const PLAIN: &[(Operator, Operator)] = &[(Add, Assign), (Final, Assign)];
/// They act as matches, and most rules write `=`: no warning for that.
const ACTS: &[Operator] = &[Match, Unmatch, Assign];
const ACTS_TOO: &[(Operator, Operator)] = &[(Add, Match), (Final, Match)];

const USAGES: [Usage; 29] = {
    use Braces::{Always, Maybe, Never};
    [
        usage(Key::Action, "ACTION", Never, COMPARE, &[]),
        usage(Key::Attr, "ATTR", Always("size"), &[Match, Unmatch, Assign], PLAIN),
        usage(Key::Attrs, "ATTRS", Always("idVendor"), COMPARE, &[]),
        usage(Key::Const, "CONST", Always("arch"), COMPARE, &[]),
        usage(Key::Devpath, "DEVPATH", Never, COMPARE, &[]),
        usage(Key::Driver, "DRIVER", Never, COMPARE, &[]),
        usage(Key::Drivers, "DRIVERS", Never, COMPARE, &[]),
        usage(Key::Env, "ENV", Always("ID_PATH"), &[Match, Unmatch, Assign, Add], NOT_FINAL),
        usage(Key::Goto, "GOTO", Never, &[Assign], &[]),
        usage(Key::Group, "GROUP", Never, NODE, ONCE),
        usage(Key::Import, "IMPORT", Always("builtin"), ACTS, ACTS_TOO),
        usage(Key::Kernel, "KERNEL", Never, COMPARE, &[]),
        usage(Key::Kernels, "KERNELS", Never, COMPARE, &[]),
        usage(Key::Label, "LABEL", Never, &[Assign], &[]),
        usage(Key::Mode, "MODE", Never, NODE, ONCE),
        usage(Key::Name, "NAME", Never, &[Match, Unmatch, Assign, Final], ONCE),
        usage(Key::Options, "OPTIONS", Never, &[Assign, Add, Final], &[]),
        usage(Key::Owner, "OWNER", Never, NODE, ONCE),
        usage(Key::Program, "PROGRAM", Never, ACTS, ACTS_TOO),
        usage(Key::Result, "RESULT", Never, COMPARE, &[]),
        usage(Key::Run, "RUN", Maybe, &[Assign, Add, Final], &[]),
        usage(Key::Seclabel, "SECLABEL", Always("selinux"), &[Assign, Add], NOT_FINAL),
        usage(Key::Subsystem, "SUBSYSTEM", Never, COMPARE, &[]),
        usage(Key::Subsystems, "SUBSYSTEMS", Never, COMPARE, &[]),
        usage(Key::Symlink, "SYMLINK", Never, &[Match, Unmatch, Assign, Add, Remove, Final], &[]),
        usage(Key::Sysctl, "SYSCTL", Always("kernel/ostype"), &[Match, Unmatch, Assign], PLAIN),
        usage(Key::Tag, "TAG", Never, &[Match, Unmatch, Assign, Add, Remove], NOT_FINAL),
        usage(Key::Tags, "TAGS", Never, COMPARE, &[]),
        usage(Key::Test, "TEST", Maybe, COMPARE, &[]),
    ]
};

/// The key of a pair and its operator, which may have been put right.
///
/// # Errors
/// When there is no such key, or it is not used in this way.
pub fn key(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Result<(Key, Operator), Flaw> {
    let Some(usage) = USAGES.iter().find(|usage| usage.name.as_bytes() == pair.key) else {
        return Err(unknown(pair));
    };
    braces(usage, pair)?;
    if usage.operators.contains(&pair.operator) {
        return Ok((usage.key, pair.operator));
    }
    let written = pair.operator.name();
    let at = pair.operator_at.clone();
    let Some((_, meant)) = usage.tolerated.iter().find(|(from, _)| *from == pair.operator) else {
        let wanted: Vec<_> =
            usage.operators.iter().map(|operator| format!("`{}`", operator.name())).collect();
        let name = usage.name;
        let what = format!("{name} cannot be used with `{written}`; {} wanted", either(&wanted));
        return Err(Flaw::error(at, what));
    };
    let what = format!("{} with `{written}` means `{}`", usage.name, meant.name());
    flaws.push(Flaw::warning(at, what));
    Ok((usage.key, *meant))
}

fn unknown(pair: &Pair<'_>) -> Flaw {
    if pair.key.is_empty() {
        return Flaw::error(pair.operator_at.clone(), "a key wanted before the operator");
    }
    let word = pair.key.escape_ascii().to_string();
    let nearest = nearest(&word, USAGES.iter().map(|usage| usage.name)).map(str::to_owned);
    let all: Vec<_> = USAGES.iter().map(|usage| usage.name).collect();
    // the list helps where no word is near
    let what = match nearest {
        Some(_) => format!("unknown key {word}"),
        None => format!("unknown key {word}; one of {} wanted", all.join(", ")),
    };
    Flaw { nearest, ..Flaw::error(pair.key_at.clone(), what) }
}

fn braces(usage: &Usage, pair: &Pair<'_>) -> Result<(), Flaw> {
    let name = usage.name;
    match (usage.braces, pair.attribute) {
        (Braces::Never, Some(_)) => {
            let at = pair.attribute_at.start - 1..pair.attribute_at.end + 1;
            Err(Flaw::error(at, format!("{name} takes no braces")))
        }
        (Braces::Always(example), None | Some(b"")) => {
            let what = format!("{name} wants braces, as in `{name}{{{example}}}`");
            Err(Flaw::error(pair.key_at.clone(), what))
        }
        (Braces::Never, None) | (Braces::Always(_), Some(_)) | (Braces::Maybe, _) => Ok(()),
    }
}

/// `a`, `b` or `c`.
pub fn either(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::token::Pairs;

    fn shown(text: &str) -> String {
        let pair = Pairs::new(text.as_bytes()).next().unwrap().unwrap();
        let mut flaws = Vec::new();
        match key(&pair, &mut flaws) {
            Ok((key, operator)) => format!("{key:?}{}{}", operator.name(), flaws.len()),
            Err(flaw) => format!("{} {:?}", flaw.what, flaw.nearest.unwrap_or_default()),
        }
    }

    #[test]
    fn a_key_is_used_as_the_manual_says_or_the_right_way_is_told() {
        assert_eq!(shown(r#"KERNEL=="x""#), "Kernel==0");
        assert_eq!(
            shown(r#"KERNEL="x""#),
            "KERNEL cannot be used with `=`; `==` or `!=` wanted \"\""
        );
        assert_eq!(shown(r#"KERNEL{a}=="x""#), "KERNEL takes no braces \"\"");
        assert_eq!(shown(r#"ATTR=="x""#), "ATTR wants braces, as in `ATTR{size}` \"\"");
        assert_eq!(shown(r#"KRENEL=="x""#), "unknown key KRENEL \"KERNEL\"");
        assert!(shown(r#"WAIT_FOR_SYSFS="x""#).starts_with("unknown key WAIT_FOR_SYSFS; one of"));
    }

    #[test]
    fn what_udev_tolerates_is_put_right_with_a_warning() {
        assert_eq!(shown(r#"OWNER+="x""#), "Owner=1");
        assert_eq!(shown(r#"ENV{x}:="y""#), "Env=1");
        assert_eq!(shown(r#"PROGRAM="x""#), "Program=0");
        assert_eq!(shown(r#"IMPORT{db}+="x""#), "Import==1");
        assert!(shown(r#"PROGRAM-="x""#).contains("cannot be used"));
    }
}

//! Stage 4: a rule's line in, its tokens out, sorted; one token that cannot be understood costs the rule.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::builtin::Builtin;
use crate::clean::is_blank;
use crate::rules::cursor::Line;
use crate::rules::glob::Pattern;
use crate::rules::grammar::{self, Key, either};
use crate::rules::names::Names;
use crate::rules::problem::nearest;
use crate::rules::rule::{
    AttributeName, Constant, Effects, Import, Matcher, ParentSubject, Subject, Token, What,
};
use crate::rules::settings;
use crate::rules::template::Template;
use crate::rules::token::{Flaw, Operator, Pair, Pairs};

/// Properties that a rule cannot set: the kernel's, and those that the manager keeps itself.
const KEPT: [&str; 18] = [
    "ACTION",
    "CURRENT_TAGS",
    "DEVGID",
    "DEVLINKS",
    "DEVMODE",
    "DEVNAME",
    "DEVPATH",
    "DEVTYPE",
    "DEVUID",
    "DRIVER",
    "IFINDEX",
    "MAJOR",
    "MINOR",
    "SEQNUM",
    "SUBSYSTEM",
    "TAGS",
    "UDEV_DATABASE_VERSION",
    "USEC_INITIALIZED",
];

/// A rule that does not know yet where its GOTO leads.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub tokens: Vec<Token>,
    pub effects: Effects,
    pub label: Option<Box<[u8]>>,
    /// The label to go to, and where it stands in the line.
    pub goto: Option<(Box<[u8]>, Range<usize>)>,
}

/// One pair, understood.
enum Piece {
    Token(What, Operator),
    Label(Box<[u8]>),
    Goto(Box<[u8]>, Range<usize>),
    /// It costs itself only.
    Nothing,
}

/// Reads a rule; `place` gives line and column of a byte of it. `None` if it has an error.
pub fn rule(
    line: &Line,
    place: impl Fn(usize) -> (u32, u32),
    names: &Names,
    flaws: &mut Vec<Flaw>,
) -> Option<Draft> {
    let mut draft = Draft::default();
    for pair in Pairs::new(&line.text) {
        let piece = pair.and_then(|pair| {
            let at = pair.key_at.start;
            piece(&pair, names, flaws).map(|piece| (piece, at))
        });
        let (piece, at) = match piece {
            Ok(piece) => piece,
            Err(flaw) => {
                flaws.push(flaw);
                return None;
            }
        };
        match piece {
            Piece::Token(what, operator) => {
                let (line, column) = place(at);
                draft.effects.add(Effects::of(&what));
                draft.tokens.push(Token { what, operator, line, column });
            }
            Piece::Label(label) => draft.label = Some(label),
            Piece::Goto(_, at) if draft.goto.is_some() => {
                flaws.push(Flaw::warning(at, "a rule can have one GOTO; only its first is used"));
            }
            Piece::Goto(label, at) => draft.goto = Some((label, at)),
            Piece::Nothing => {}
        }
    }
    draft.tokens.sort_by_key(|token| token.what.rank());
    Some(draft)
}

fn piece(pair: &Pair<'_>, names: &Names, flaws: &mut Vec<Flaw>) -> Result<Piece, Flaw> {
    let (key, operator) = grammar::key(pair, flaws)?;
    let acts = matches!(key, Key::Test | Key::Program | Key::Import);
    if pair.nocase && (!operator.is_match() || acts) {
        let at = pair.value_at.start.saturating_sub(2)..pair.value_at.start;
        return Err(Flaw::error(at, "`i\"…\"` is for comparisons of strings"));
    }
    let name = || pair.attribute.unwrap_or_default();
    let own = |subject| What::Match(subject, matcher(pair, operator));
    let up = |subject| What::Parent(subject, matcher(pair, operator));
    let what = match (key, operator.is_match()) {
        (Key::Label, _) => return Ok(Piece::Label(pair.value.as_slice().into())),
        (Key::Goto, _) => {
            return Ok(Piece::Goto(pair.value.as_slice().into(), pair.value_at.clone()));
        }
        (Key::Options, _) => match settings::options(pair, flaws)? {
            Some(setting) => What::Options(setting),
            None => return Ok(Piece::Nothing),
        },
        (Key::Action, _) => own(Subject::Action),
        (Key::Devpath, _) => own(Subject::Devpath),
        (Key::Kernel, _) => own(Subject::Kernel),
        (Key::Symlink, true) => own(Subject::Symlink),
        (Key::Symlink, false) => What::Symlink(template(pair, flaws)),
        (Key::Name, true) => own(Subject::Name),
        (Key::Name, false) => interface_name(pair, flaws)?,
        (Key::Env, true) => own(Subject::Env(name().into())),
        (Key::Env, false) => property(pair, flaws)?,
        (Key::Const, _) => own(Subject::Const(constant(pair)?)),
        (Key::Tag, true) => own(Subject::Tag),
        (Key::Tag, false) => What::Tag(template(pair, flaws)),
        (Key::Subsystem, _) => subsystem(pair, operator),
        (Key::Driver, _) => own(Subject::Driver),
        (Key::Attr, true) => own(Subject::Attr(attribute_name(pair))),
        (Key::Attr, false) => What::Attr { path: name().into(), value: template(pair, flaws) },
        (Key::Sysctl, true) => own(Subject::Sysctl(Template::new(name()).0)),
        (Key::Sysctl, false) => {
            What::Sysctl { path: Template::new(name()).0, value: template(pair, flaws) }
        }
        (Key::Kernels, _) => up(ParentSubject::Kernel),
        (Key::Subsystems, _) => up(ParentSubject::Subsystem),
        (Key::Drivers, _) => up(ParentSubject::Driver),
        (Key::Attrs, _) => {
            warn_of_paths(pair, flaws);
            up(ParentSubject::Attr(attribute_name(pair)))
        }
        (Key::Tags, _) => up(ParentSubject::Tag),
        (Key::Test, _) => test(pair, operator, flaws)?,
        (Key::Program, _) => {
            What::Program { command: template(pair, flaws), negated: negated(pair, operator) }
        }
        (Key::Import, _) => import(pair, operator, flaws)?,
        (Key::Result, _) => What::Result(matcher(pair, operator)),
        (Key::Owner, _) => settings::owner(pair, names, flaws),
        (Key::Group, _) => settings::group(pair, names, flaws),
        (Key::Mode, _) => settings::mode(pair, flaws),
        (Key::Seclabel, _) => {
            What::Seclabel { module: name().into(), label: template(pair, flaws) }
        }
        (Key::Run, _) => run(pair, flaws)?,
    };
    Ok(Piece::Token(what, operator))
}

/// The value as a template; what of it is doubtful is told.
pub(super) fn template(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Template {
    let (template, doubts) = Template::new(&pair.value);
    flaws.extend(doubts.into_iter().map(|doubt| {
        // escapes move what follows them: then the whole value is meant
        let moved = pair.value.len() != pair.value_at.len();
        let start = pair.value_at.start + doubt.at;
        let at = if moved { pair.value_at.clone() } else { start..start + doubt.length };
        Flaw::warning(at, doubt.what)
    }));
    template
}

fn matcher(pair: &Pair<'_>, operator: Operator) -> Matcher {
    let lower;
    let text = if pair.nocase {
        lower = pair.value.to_ascii_lowercase();
        &lower
    } else {
        &pair.value
    };
    Matcher {
        // it makes a difference in lists: an empty one holds it
        pattern: Pattern::new(if is_something(pair) { b"" } else { text }),
        negated: negated(pair, operator),
        nocase: pair.nocase,
        keeps_blanks: pair.value.last().is_none_or(|byte| is_blank(*byte)),
    }
}

/// `?*` is udev's other word for `!=""`.
fn is_something(pair: &Pair<'_>) -> bool {
    pair.value == b"?*"
}

/// Where there is no text to compare, that turns the comparison round all the same, as under udev 252.
fn negated(pair: &Pair<'_>, operator: Operator) -> bool {
    (operator == Operator::Unmatch) != is_something(pair)
}

fn attribute_name(pair: &Pair<'_>) -> AttributeName {
    let name = pair.attribute.unwrap_or_default();
    if name.first() == Some(&b'[') {
        return AttributeName::Elsewhere(name.into());
    }
    AttributeName::Own(Template::new(name).0)
}

/// `subsystem`, `bus` and `class` each stand for all three.
fn subsystem(pair: &Pair<'_>, operator: Operator) -> What {
    let mut matcher = matcher(pair, operator);
    if matches!(pair.value.as_slice(), b"subsystem" | b"bus" | b"class") {
        matcher.pattern = Pattern::new(b"subsystem|bus|class");
    }
    What::Match(Subject::Subsystem, matcher)
}

/// What was once found by its path is a parent's attribute today.
fn warn_of_paths(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) {
    let name = pair.attribute.unwrap_or_default();
    if name.starts_with(b"device/") || name.windows(3).any(|part| part == b"../") {
        let what = "a path through `device/` or `../` depends on the kernel; ATTRS looks at parents \
                    by itself";
        flaws.push(Flaw::warning(pair.attribute_at.clone(), what));
    }
}

fn constant(pair: &Pair<'_>) -> Result<Constant, Flaw> {
    match pair.attribute.unwrap_or_default() {
        b"arch" => Ok(Constant::Arch),
        b"virt" => Ok(Constant::Virt),
        b"cvm" => Ok(Constant::Cvm),
        _ => {
            let what = "unknown constant; `arch`, `virt` or `cvm` wanted";
            Err(Flaw::error(pair.attribute_at.clone(), what))
        }
    }
}

fn test(pair: &Pair<'_>, operator: Operator, flaws: &mut Vec<Flaw>) -> Result<What, Flaw> {
    let mask = match pair.attribute {
        None | Some(b"") => None,
        Some(text) => Some(settings::octal(text).ok_or_else(|| {
            let what = "a mask of permission bits wanted, in octal up to 7777";
            Flaw::error(pair.attribute_at.clone(), what)
        })?),
    };
    Ok(What::Test { path: template(pair, flaws), mask, negated: negated(pair, operator) })
}

fn import(pair: &Pair<'_>, operator: Operator, flaws: &mut Vec<Flaw>) -> Result<What, Flaw> {
    const KINDS: [&str; 6] = ["program", "builtin", "file", "db", "cmdline", "parent"];
    let negated = negated(pair, operator);
    let import = match pair.attribute.unwrap_or_default() {
        b"file" => Import::File(template(pair, flaws)),
        b"program" => match Builtin::of_command(&pair.value) {
            Some(builtin) => Import::Builtin(builtin, template(pair, flaws)),
            None => Import::Program(template(pair, flaws)),
        },
        b"builtin" => Import::Builtin(builtin(pair)?, template(pair, flaws)),
        b"db" => Import::Db(pair.value.as_slice().into()),
        b"cmdline" => Import::Cmdline(pair.value.as_slice().into()),
        b"parent" => Import::Parent(template(pair, flaws)),
        other => {
            let word = String::from_utf8_lossy(other);
            let wanted = KINDS.map(|kind| format!("`{kind}`"));
            let what = format!("unknown kind of IMPORT; {} wanted", either(&wanted));
            let nearest = nearest(&word, KINDS).map(str::to_owned);
            return Err(Flaw { nearest, ..Flaw::error(pair.attribute_at.clone(), what) });
        }
    };
    Ok(What::Import { import, negated })
}

fn builtin(pair: &Pair<'_>) -> Result<Builtin, Flaw> {
    Builtin::of_command(&pair.value).ok_or_else(|| {
        let word = String::from_utf8_lossy(&pair.value);
        let names = Builtin::ALL.map(Builtin::name);
        let nearest = nearest(word.split_whitespace().next().unwrap_or_default(), names);
        let what = format!("unknown builtin; {} wanted", either(&names.map(|n| format!("`{n}`"))));
        let nearest = nearest.map(str::to_owned);
        Flaw { nearest, ..Flaw::error(pair.value_at.clone(), what) }
    })
}

fn run(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Result<What, Flaw> {
    match pair.attribute {
        None | Some(b"program") => Ok(What::RunProgram(template(pair, flaws))),
        Some(b"builtin") => Ok(What::RunBuiltin(builtin(pair)?, template(pair, flaws))),
        Some(_) => {
            let what = "unknown kind of RUN; `program` or `builtin` wanted";
            Err(Flaw::error(pair.attribute_at.clone(), what))
        }
    }
}

fn property(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Result<What, Flaw> {
    let key = pair.attribute.unwrap_or_default();
    if KEPT.iter().any(|kept| kept.as_bytes() == key) {
        let what = "this property is the kernel's or the device manager's own; no rule can set it";
        return Err(Flaw::error(pair.attribute_at.clone(), what));
    }
    Ok(What::Env { key: key.into(), value: template(pair, flaws) })
}

fn interface_name(pair: &Pair<'_>, flaws: &mut Vec<Flaw>) -> Result<What, Flaw> {
    if matches!(pair.value.as_slice(), b"" | b"%k") {
        let what = "the name of a network interface wanted; without NAME it keeps its own";
        return Err(Flaw::error(pair.value_at.clone(), what));
    }
    Ok(What::Name(template(pair, flaws)))
}

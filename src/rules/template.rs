//! Stage 4: a value with `$name`, `%c` and `{arguments}` in it, taken apart when it is loaded.
#![forbid(unsafe_code)]

/// An argument must be shorter than this, as in udev.
const ARGUMENT_MAX: usize = 1024;

/// What a substitution stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Devnode,
    Attr,
    Env,
    Kernel,
    Number,
    Driver,
    Devpath,
    Id,
    Major,
    Minor,
    Result,
    Parent,
    Name,
    Links,
    Root,
    Sys,
}

/// Long names in the order in which they are tried, each as a prefix: `$sysfs` comes before `$sys`.
const NAMES: [(&str, u8, Field); 18] = [
    ("devnode", b'N', Field::Devnode),
    ("tempnode", b'N', Field::Devnode),
    ("attr", b's', Field::Attr),
    ("sysfs", b's', Field::Attr),
    ("env", b'E', Field::Env),
    ("kernel", b'k', Field::Kernel),
    ("number", b'n', Field::Number),
    ("driver", b'd', Field::Driver),
    ("devpath", b'p', Field::Devpath),
    ("id", b'b', Field::Id),
    ("major", b'M', Field::Major),
    ("minor", b'm', Field::Minor),
    ("result", b'c', Field::Result),
    ("parent", b'P', Field::Parent),
    ("name", b'D', Field::Name),
    ("links", b'L', Field::Links),
    ("root", b'r', Field::Root),
    ("sys", b'S', Field::Sys),
];

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Text(Box<[u8]>),
    Field(Field, Option<Box<[u8]>>),
    /// The value ends here: a brace without end or without content.
    Cut,
}

/// A value that is filled in when the rule is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<[u8]>,
    parts: Box<[Part]>,
}

/// A doubtful place in a template: the bytes from `at`, and what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub at: usize,
    pub length: usize,
    pub what: &'static str,
}

impl Template {
    /// Takes a value apart, and tells what of it will not be what it looks like.
    #[must_use]
    pub fn new(text: &[u8]) -> (Self, Vec<Doubt>) {
        let (mut parts, mut doubts, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            let rest = &text[at + 1..];
            let quoted = matches!(byte, b'$' | b'%') && rest.first() == Some(byte);
            let Some((field, length)) = field(*byte, rest).filter(|_| !quoted) else {
                if matches!(byte, b'$' | b'%') && !quoted {
                    let what = "unknown substitution, which stays as it is written; `$$` and `%%` \
                                stand for the characters";
                    doubts.push(Doubt { at, length: 1 + rest.len().min(1), what });
                }
                plain.push(*byte);
                at += if quoted { 2 } else { 1 };
                continue;
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            let start = at;
            at += 1 + length;
            match argument(&text[at..]) {
                Ok((argument, length)) => {
                    at += length;
                    if let Some(what) = wants(field, argument) {
                        doubts.push(Doubt { at: start, length: at - start, what });
                    }
                    parts.push(Part::Field(field, argument.map(Box::from)));
                }
                Err(what) => {
                    doubts.push(Doubt { at: start, length: at - start, what });
                    parts.push(Part::Cut);
                    break;
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        (Self { text: text.into(), parts: parts.into() }, doubts)
    }

    /// As it is written in the rule.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it is the same for every device.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }
}

/// The field that a `$` or `%` begins, and the length of its name.
fn field(sign: u8, rest: &[u8]) -> Option<(Field, usize)> {
    match sign {
        b'$' => NAMES
            .iter()
            .find(|(name, ..)| rest.starts_with(name.as_bytes()))
            .map(|(name, _, field)| (*field, name.len())),
        b'%' => NAMES
            .iter()
            .find(|(_, letter, _)| rest.first() == Some(letter))
            .map(|(.., field)| (*field, 1)),
        _ => None,
    }
}

/// The argument that stands here, if any does, and its length with braces.
fn argument(rest: &[u8]) -> Result<(Option<&[u8]>, usize), &'static str> {
    let Some(b'{') = rest.first() else { return Ok((None, 0)) };
    match rest.iter().position(|byte| *byte == b'}') {
        None => Err("the brace behind this has no end; the value ends here"),
        Some(1) => Err("the braces behind this are empty; the value ends here"),
        Some(end) if end > ARGUMENT_MAX => Err("this argument is too long; the value ends here"),
        Some(end) => Ok((Some(&rest[1..end]), end + 1)),
    }
}

fn wants(field: Field, argument: Option<&[u8]>) -> Option<&'static str> {
    match (field, argument) {
        (Field::Attr, None) => Some("the name of an attribute wanted, as in `$attr{size}`"),
        (Field::Env, None) => Some("the name of a property wanted, as in `$env{ID_PATH}`"),
        (Field::Result, Some(argument)) if word_number(argument).is_none() => {
            Some("the number of a word wanted, as in `$result{2}` or `$result{2+}`")
        }
        _ => None,
    }
}

/// `N` or `N+`: the number of a word, and whether all that follow are meant too.
#[must_use]
pub fn word_number(argument: &[u8]) -> Option<(usize, bool)> {
    let text = std::str::from_utf8(argument).ok()?;
    let (number, rest) = text.strip_suffix('+').map_or((text, false), |number| (number, true));
    let number = number.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let number = number.strip_prefix('+').unwrap_or(number);
    // strtoul(3) with base 0, to which 0b and 0o were added
    let (digits, radix) = match number.get(..2) {
        Some("0x" | "0X") => (&number[2..], 16),
        Some("0b") => (&number[2..], 2),
        Some("0o") => (&number[2..], 8),
        Some(_) | None if number.len() > 1 && number.starts_with('0') => (&number[1..], 8),
        Some(_) | None => (number, 10),
    };
    let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    let number = u32::from_str_radix(digits, radix).ok().filter(|_| valid)?;
    Some((usize::try_from(number).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.escape_ascii().to_string(),
            Part::Field(field, argument) => match argument {
                Some(argument) => format!("<{field:?} {}>", argument.escape_ascii()),
                None => format!("<{field:?}>"),
            },
            Part::Cut => "<!>".to_owned(),
        };
        Template::new(text.as_bytes()).0.parts().iter().map(part).collect()
    }

    #[test]
    fn long_and_short_forms_stand_for_the_same() {
        assert_eq!(shown("a$kernel-%k"), "a<Kernel>-<Kernel>");
        assert_eq!(shown("$attr{a b}%s{c}$sysfs{d}"), "<Attr a b><Attr c><Attr d>");
        assert_eq!(shown("$kernelx$sysx$root{y}"), "<Kernel>x<Sys>x<Root y>");
    }

    #[test]
    fn doubled_signs_and_unknown_names_are_text() {
        assert_eq!(shown("$$kernel%%k"), "$kernel%k");
        assert_eq!(shown("$foo %x 100%"), "$foo %x 100%");
        assert_eq!(Template::new(b"$foo %x 100%").1.len(), 3);
        assert!(Template::new(b"$$x").0.is_plain() && !Template::new(b"%k").0.is_plain());
    }

    #[test]
    fn a_bad_brace_ends_the_value() {
        assert_eq!(shown("a$env{b"), "a<!>");
        assert_eq!(shown("a$kernel{}b"), "a<!>");
        let doubts = Template::new(b"a$env{b").1;
        assert_eq!((doubts[0].at, doubts[0].length), (1, 4));
        assert_eq!(shown("a{b}"), "a{b}");
    }

    #[test]
    fn words_are_counted_as_c_reads_numbers() {
        assert_eq!(word_number(b"2"), Some((2, false)));
        assert_eq!(word_number(b"0x10+"), Some((16, true)));
        assert_eq!((word_number(b"010"), word_number(b"09")), (Some((8, false)), None));
        assert_eq!((word_number(b"-1"), word_number(b"x"), word_number(b"+")), (None, None, None));
        assert_eq!(word_number(b"99999999999"), None);
    }
}

//! Stage 4: a rule's line in, its `KEY{attribute}OPERATOR"value"` pairs out, meaning nothing yet.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::clean::is_blank;
use crate::rules::problem::Severity;

/// What stands between key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Match,
    Unmatch,
    Add,
    Remove,
    Assign,
    /// Assigns, and lets nobody change it later.
    Final,
}

impl Operator {
    /// In the order in which they are tried.
    const ALL: [Self; 6] =
        [Self::Match, Self::Unmatch, Self::Add, Self::Remove, Self::Assign, Self::Final];

    /// As it is written in a rule.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Match => "==",
            Self::Unmatch => "!=",
            Self::Add => "+=",
            Self::Remove => "-=",
            Self::Assign => "=",
            Self::Final => ":=",
        }
    }

    #[must_use]
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match | Self::Unmatch)
    }
}

/// A mistake in a line, not yet at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// In the joined line.
    pub at: Range<usize>,
    pub severity: Severity,
    pub what: String,
    /// The valid word that is nearest to the one written.
    pub nearest: Option<String>,
}

impl Flaw {
    /// A mistake that costs the whole rule.
    pub fn error(at: Range<usize>, what: impl Into<String>) -> Self {
        Self { at, severity: Severity::Error, what: what.into(), nearest: None }
    }

    /// A mistake that costs less than the rule.
    pub fn warning(at: Range<usize>, what: impl Into<String>) -> Self {
        Self { at, severity: Severity::Warning, what: what.into(), nearest: None }
    }
}

/// One pair, and where its parts stand in the joined line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub key_at: Range<usize>,
    /// What stands between braces, `Some` if there are any.
    pub attribute: Option<&'a [u8]>,
    pub attribute_at: Range<usize>,
    pub operator: Operator,
    pub operator_at: Range<usize>,
    /// Without quotes, escapes undone.
    pub value: Vec<u8>,
    /// Less the quotes.
    pub value_at: Range<usize>,
    /// `i"…"`: letters match whatever their case.
    pub nocase: bool,
}

/// The pairs of a line, first to last; after a mistake there is no next.
#[derive(Debug)]
pub struct Pairs<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Pairs<'a> {
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, commas: bool) {
        let skipped = |byte: &u8| is_blank(*byte) || (commas && *byte == b',');
        self.at += self.rest().iter().take_while(|byte| skipped(byte)).count();
    }

    fn pair(&mut self) -> Result<Pair<'a>, Flaw> {
        let key_at = self.at..self.key_end()?;
        self.at = key_at.end;
        let mut attribute = None;
        let mut attribute_at = key_at.end..key_at.end;
        if self.peek() == Some(b'{') {
            let Some(length) = self.rest().iter().position(|byte| *byte == b'}') else {
                let here = self.at..self.at + 1;
                return Err(Flaw::error(here, "this brace has no end; `}` wanted"));
            };
            attribute_at = self.at + 1..self.at + length;
            attribute = Some(&self.text[attribute_at.clone()]);
            self.at += length + 1;
        }
        self.skip(false);
        let Some(operator) =
            Operator::ALL.into_iter().find(|op| self.rest().starts_with(op.name().as_bytes()))
        else {
            let what = "an operator wanted: `==`, `!=`, `=`, `+=`, `-=` or `:=`";
            return Err(Flaw::error(self.here(), what));
        };
        let operator_at = self.at..self.at + operator.name().len();
        self.at = operator_at.end;
        self.skip(false);
        let (value, value_at, nocase) = self.value()?;
        let key = &self.text[key_at.clone()];
        Ok(Pair {
            key,
            key_at,
            attribute,
            attribute_at,
            operator,
            operator_at,
            value,
            value_at,
            nocase,
        })
    }

    fn key_end(&self) -> Result<usize, Flaw> {
        let ends = |at: &usize| match self.text[*at] {
            b'=' | b'{' => true,
            b'+' | b'-' | b'!' | b':' => self.text.get(at + 1) == Some(&b'='),
            byte => is_blank(byte),
        };
        (self.at..self.text.len()).find(ends).ok_or_else(|| {
            let what = "a key, an operator and a quoted value wanted, as in `KERNEL==\"sda\"`";
            Flaw::error(self.at..self.text.len(), what)
        })
    }

    /// The next character, or the end of the line.
    fn here(&self) -> Range<usize> {
        self.at..(self.at + 1).min(self.text.len()).max(self.at)
    }

    /// The value, the range between its quotes, and whether case matters not.
    fn value(&mut self) -> Result<(Vec<u8>, Range<usize>, bool), Flaw> {
        let (mut escaped, mut nocase) = (false, false);
        loop {
            match self.peek() {
                Some(b'e') if !escaped => escaped = true,
                Some(b'i') if !nocase => nocase = true,
                Some(b'"') => break,
                Some(_) | None => {
                    let what = "a value in double quotes wanted";
                    return Err(Flaw::error(self.here(), what));
                }
            }
            self.at += 1;
        }
        let open = self.at;
        self.at += 1;
        let value = if escaped { self.escaped(open)? } else { self.plain(open)? };
        let range = open + 1..self.at;
        self.at += 1;
        Ok((value, range, nocase))
    }

    /// Up to the closing quote; only `\"` is an escape.
    fn plain(&mut self, open: usize) -> Result<Vec<u8>, Flaw> {
        let mut value = Vec::new();
        loop {
            match self.rest() {
                [] => return Err(unclosed(open)),
                [b'"', ..] => return Ok(value),
                [b'\\', b'"', ..] => {
                    value.push(b'"');
                    self.at += 2;
                }
                [byte, ..] => {
                    value.push(*byte);
                    self.at += 1;
                }
            }
        }
    }

    /// Up to the closing quote, with C's escapes.
    fn escaped(&mut self, open: usize) -> Result<Vec<u8>, Flaw> {
        let mut value = Vec::new();
        loop {
            match self.rest() {
                [] | [b'\\'] => return Err(unclosed(open)),
                [b'"', ..] => return Ok(value),
                [b'\\', escape @ ..] => {
                    let Some(length) = unescape(escape, &mut value) else {
                        let what = "unknown escape; one of \\a \\b \\f \\n \\r \\t \\v \\s \\\\ \\\" \
                                    \\' \\xHH \\OOO \\uHHHH \\UHHHHHHHH wanted, and no NUL";
                        return Err(Flaw::error(self.at..self.at + 2, what));
                    };
                    self.at += 1 + length;
                }
                [byte, ..] => {
                    value.push(*byte);
                    self.at += 1;
                }
            }
        }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<Pair<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip(true);
        self.peek()?;
        let pair = self.pair();
        if pair.is_err() {
            self.at = self.text.len();
        }
        Some(pair)
    }
}

fn unclosed(open: usize) -> Flaw {
    Flaw::error(open..open + 1, "this value has no end; `\"` wanted")
}

/// Appends what an escape stands for, and gives its length less the backslash.
fn unescape(escape: &[u8], value: &mut Vec<u8>) -> Option<usize> {
    let simple = match escape.first()? {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b's' => b' ',
        byte @ (b'\\' | b'"' | b'\'') => *byte,
        b'x' => return byte_of(escape.get(1..3)?, 16, value).map(|()| 3),
        b'0'..=b'7' => return byte_of(escape.get(..3)?, 8, value).map(|()| 3),
        b'u' => return character(escape.get(1..5)?, value).map(|()| 5),
        b'U' => return character(escape.get(1..9)?, value).map(|()| 9),
        _ => return None,
    };
    value.push(simple);
    Some(1)
}

fn digits(text: &[u8], radix: u32) -> Option<u32> {
    let all = text.iter().all(|byte| char::from(*byte).is_digit(radix));
    let text = std::str::from_utf8(text).ok().filter(|_| all)?;
    u32::from_str_radix(text, radix).ok().filter(|number| *number != 0)
}

fn byte_of(text: &[u8], radix: u32, value: &mut Vec<u8>) -> Option<()> {
    value.push(u8::try_from(digits(text, radix)?).ok()?);
    Some(())
}

fn character(text: &[u8], value: &mut Vec<u8>) -> Option<()> {
    let character = char::from_u32(digits(text, 16)?)?;
    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `KEY{attribute}OPERATOR[value]`, or where the mistake is.
    fn shown(text: &str) -> Vec<String> {
        let show = |pair: Result<Pair<'_>, Flaw>| match pair {
            Ok(pair) => {
                let attribute = pair.attribute.map(|a| format!("{{{}}}", a.escape_ascii()));
                let (key, value) = (pair.key.escape_ascii(), pair.value.escape_ascii());
                let name = pair.operator.name();
                let nocase = if pair.nocase { "i" } else { "" };
                format!("{key}{}{name}{nocase}[{value}]", attribute.unwrap_or_default())
            }
            Err(flaw) => format!("{:?}", flaw.at),
        };
        Pairs::new(text.as_bytes()).map(show).collect()
    }

    #[test]
    fn pairs_are_separated_by_any_white_space_and_commas_or_by_nothing() {
        let expected = ["A==[x]", "B=[y]"];
        for text in [r#"A=="x"B="y""#, r#", A=="x",,B="y","#, "A == \"x\"\t B\r=  \"y\" , "] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(shown(" , "), Vec::<String>::new());
    }

    #[test]
    fn a_key_ends_before_its_operator() {
        assert_eq!(
            shown(r#"a-b!="1" c+="2" d-="3" e:="4""#),
            ["a-b!=[1]", "c+=[2]", "d-=[3]", "e:=[4]"]
        );
        assert_eq!(shown(r#"ATTR{a==b+=c}="x""#), ["ATTR{a==b+=c}=[x]"]);
        assert_eq!(shown(r#"A{}=="x""#), ["A{}==[x]"]);
    }

    #[test]
    fn a_plain_value_knows_one_escape() {
        assert_eq!(shown(r#"A="a\"b\\c\n""#), [r#"A=[a\"b\\\\c\\n]"#]);
        assert_eq!(shown(r#"A="x\\""#), ["2..3"], "the second backslash quotes the quote");
    }

    #[test]
    fn an_escaped_value_knows_those_of_c() {
        assert_eq!(
            shown(r#"A=e"\x41\102\s\u00e4\"\\" B="z""#),
            [r#"A=[AB \xc3\xa4\"\\]"#, "B=[z]"]
        );
        for bad in [r"\q", r"\x00", r"\000", r"\x4", r"\9", r"\777", r"\ud800", r"\x+1"] {
            assert_eq!(shown(&format!("A=e\"{bad}\"")), ["4..6"], "{bad}");
        }
    }

    #[test]
    fn each_prefix_may_stand_once_in_any_order() {
        assert_eq!(shown(r#"A==i"x" B==ie"\t" C==ei"\t""#), ["A==i[x]", r"B==i[\t]", r"C==i[\t]"]);
        assert_eq!(shown(r#"A==ii"x""#), ["4..5"]);
        assert_eq!(shown(r#"A==x"x""#), ["3..4"]);
    }

    #[test]
    fn a_mistake_ends_the_line_and_is_found_where_it_is() {
        assert_eq!(shown(r#"A=="x" B{c="y" D="z""#), ["A==[x]", "8..9"]);
        assert_eq!(shown(r#"A=="x" word"#), ["A==[x]", "7..11"]);
        assert_eq!(shown("A b"), ["2..3"]);
        assert_eq!(shown("A=="), ["3..3"]);
        assert_eq!(shown(r#"A=="x"#), ["3..4"]);
    }
}

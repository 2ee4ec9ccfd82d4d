//! Stage 1: what was wrong with a packet, in one line of bounded length.
#![forbid(unsafe_code)]

use std::fmt;

use super::parse::MAX_PACKET;

/// How many bad pairs of one packet are named; more are only counted.
pub const MAX_NAMED_DROPS: usize = 4;

/// How many bytes of a hostile packet are quoted in a message.
const MAX_QUOTED: usize = 64;

/// Why one pair was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPair {
    NoEquals,
    EmptyKey,
    /// ACTION, DEVPATH or SEQNUM once more, with the same value.
    Repeated,
    Devname,
    OldPath,
}

impl fmt::Display for BadPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEquals => "no `=`, wanted KEY=VALUE",
            Self::EmptyKey => "empty key, wanted KEY=VALUE",
            Self::Repeated => "said twice, wanted once",
            Self::Devname => "wanted a name below /dev",
            Self::OldPath => "wanted a path below /sys with a leading slash",
        })
    }
}

/// The pairs that were left out of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    named: Vec<(BadPair, Quoted)>,
    more: usize,
}

impl Dropped {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len() + self.more
    }

    pub(super) fn add(&mut self, what: BadPair, pair: &[u8]) {
        if self.named.len() < MAX_NAMED_DROPS {
            self.named.push((what, Quoted::of(pair)));
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, pair)) in self.named.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{pair} ({what})")?;
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Foreign bytes in a message: escaped, in quotes, of bounded length.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(Box<str>);

impl Quoted {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let head = bytes.get(..MAX_QUOTED).unwrap_or(bytes);
        let cut = if head.len() < bytes.len() { "..." } else { "" };
        Self(format!("\"{}\"{cut}", head.escape_ascii()).into())
    }

    pub(super) fn tail(bytes: &[u8]) -> Self {
        let start = bytes.len().saturating_sub(MAX_QUOTED);
        let cut = if start > 0 { "..." } else { "" };
        let tail = bytes.get(start..).unwrap_or_default();
        Self(format!("{cut}\"{}\"", tail.escape_ascii()).into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a packet is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    Oversize(usize),
    NoFinalNul(Quoted),
    Header(Quoted),
    Action(Quoted),
    Devpath(Quoted),
    Disagree { key: &'static str, header: Quoted, value: Quoted },
    Missing(&'static str),
    Seqnum(Quoted),
    TwoSeqnums(u64, u64),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversize(len) => write!(f, "{len} bytes, wanted at most {MAX_PACKET}"),
            Self::NoFinalNul(tail) => write!(f, "ends in {tail}, wanted NUL as the last byte"),
            Self::Header(found) => write!(f, "header {found}, wanted ACTION@DEVPATH"),
            Self::Action(found) => write!(f, "action {found}, wanted one of the kernel's eight"),
            Self::Devpath(found) => {
                write!(f, "devpath {found}, wanted /NAME/NAME without empty, `.` or `..` parts")
            }
            Self::Disagree { key, header, value } => {
                write!(f, "{key}={value}, wanted {header} as in the header")
            }
            Self::Missing(key) => write!(f, "no {key}, wanted {key}=VALUE"),
            Self::Seqnum(found) => write!(f, "SEQNUM={found}, wanted a decimal number of 64 bits"),
            Self::TwoSeqnums(first, second) => {
                write!(f, "SEQNUM={first} and SEQNUM={second}, wanted one")
            }
        }
    }
}

impl std::error::Error for ParseError {}

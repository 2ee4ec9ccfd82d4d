//! Stage 5b: which rules an interface's names follow (systemd.net-naming-scheme(7)): environment and command
//! line in, a [`Naming`] out.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;

use super::values::boolean;
use crate::clean::words;

const SCHEME: &[u8] = b"net.naming-scheme";
const NAMES: &[u8] = b"net.ifnames";

/// How a machine names its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Whether policies of `.link` files give names at all.
    pub names: bool,
    pub scheme: Scheme,
}

impl Default for Naming {
    fn default() -> Self {
        Self { names: true, scheme: Scheme::default() }
    }
}

impl Naming {
    /// As `$NET_NAMING_SCHEME` and the kernel's command line ask for.
    #[must_use]
    pub fn of_machine(command_line: &[u8]) -> Self {
        Self { names: gives_names(command_line), scheme: Scheme::of_machine(command_line) }
    }
}

/// What the last `net.ifnames` says that says anything; alone, it says yes.
fn gives_names(command_line: &[u8]) -> bool {
    let words = words(command_line);
    let mut asked = words.iter().filter_map(|word| match parameter(word, NAMES)? {
        None => Some(true),
        Some(value) => boolean(str::from_utf8(value).ok()?),
    });
    asked.next_back().unwrap_or(true)
}

/// The rules as they were in a version of systemd; a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    V238,
    V239,
    V240,
    V241,
    V243,
    V245,
    V247,
    V249,
    V250,
    V251,
    /// What a machine has that asks for none: a change of systemd's would rename its interfaces.
    #[default]
    V252,
    V253,
    V254,
    V255,
    V257,
}

impl Scheme {
    const ALL: [Self; 15] = [
        Self::V238,
        Self::V239,
        Self::V240,
        Self::V241,
        Self::V243,
        Self::V245,
        Self::V247,
        Self::V249,
        Self::V250,
        Self::V251,
        Self::V252,
        Self::V253,
        Self::V254,
        Self::V255,
        Self::V257,
    ];

    const LATEST: Self = Self::V257;

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V238 => "v238",
            Self::V239 => "v239",
            Self::V240 => "v240",
            Self::V241 => "v241",
            Self::V243 => "v243",
            Self::V245 => "v245",
            Self::V247 => "v247",
            Self::V249 => "v249",
            Self::V250 => "v250",
            Self::V251 => "v251",
            Self::V252 => "v252",
            Self::V253 => "v253",
            Self::V254 => "v254",
            Self::V255 => "v255",
            Self::V257 => "v257",
        }
    }

    fn of_name(name: &[u8]) -> Option<Self> {
        if name == b"latest" {
            return Some(Self::LATEST);
        }
        Self::ALL.into_iter().find(|scheme| scheme.name().as_bytes() == name)
    }

    fn of_machine(command_line: &[u8]) -> Self {
        let environment = std::env::var_os("NET_NAMING_SCHEME");
        Self::chosen(environment.as_deref().map(OsStrExt::as_bytes), command_line)
    }

    /// What is asked for: by `$NET_NAMING_SCHEME`, which a `:` in front puts behind the other, or by
    /// `net.naming-scheme=` on the kernel's command line. An unknown name asks for nothing.
    fn chosen(environment: Option<&[u8]>, command_line: &[u8]) -> Self {
        let words = words(command_line);
        let parameter = words.iter().filter_map(|word| parameter(word, SCHEME)?).next_back();
        let wanted = match environment.map(|value| (value.strip_prefix(b":"), value)) {
            Some((None, value)) => Some(value),
            Some((Some(value), _)) => parameter.or(Some(value)),
            None => parameter,
        };
        wanted.and_then(Self::of_name).unwrap_or_default()
    }
}

/// The value that the word gives the parameter, if it has one; `-` and `_` are the same in its name.
fn parameter<'a>(word: &'a [u8], wanted: &[u8]) -> Option<Option<&'a [u8]>> {
    let end = word.iter().position(|byte| *byte == b'=');
    let name = &word[..end.unwrap_or(word.len())];
    let same = |(a, b): (&u8, &u8)| a == b || [*a, *b] == [b'_', b'-'];
    let found = name.len() == wanted.len() && name.iter().zip(wanted).all(same);
    found.then(|| end.map(|end| &word[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_stands_above_the_command_line_unless_it_says_not_to() {
        let chosen = |environment: Option<&str>, parameter: Option<&str>| {
            let line = parameter.map(|name| format!("quiet net.naming_scheme={name} ro"));
            let line = line.unwrap_or_default();
            Scheme::chosen(environment.map(str::as_bytes), line.as_bytes()).name()
        };
        assert_eq!(chosen(None, None), "v252");
        assert_eq!(chosen(None, Some("v240")), "v240");
        assert_eq!(chosen(Some("v239"), Some("v240")), "v239");
        assert_eq!(chosen(Some(":v239"), Some("v240")), "v240");
        assert_eq!(chosen(Some(":v239"), None), "v239");
        assert_eq!(chosen(None, Some("v242")), "v252");
        assert_eq!(chosen(None, Some("latest")), "v257");
    }
    #[test]
    fn the_last_word_says_whether_policies_give_names() {
        let names = |line: &str| gives_names(line.as_bytes());
        assert!(names("quiet") && names("net.ifnames") && names("net.ifnames=0 net.ifnames=1"));
        assert!(!names("net.ifnames=0 x") && !names("net.ifnames=no net.ifnames=maybe"));
        assert!(names("net.ifnamess=0"));
    }
}

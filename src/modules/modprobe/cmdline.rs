//! Stage 3b: the kernel's command line in, the options and blacklists of modules out.
//!
//! modprobe(8) takes `MODULE.OPTION=VALUE` and `modprobe.blacklist=A,B`; the kernel itself refuses the
//! modules of `module_blacklist=A,B` (`kernel/module/main.c`).
#![forbid(unsafe_code)]

use super::lines::normalized;

/// What the command line says of modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Module and option, in order.
    pub(super) options: Vec<(Vec<u8>, Vec<u8>)>,
    /// As written.
    pub(super) blacklist: Vec<Vec<u8>>,
    /// Modules that the kernel refuses, as written.
    pub(super) refused: Vec<Vec<u8>>,
}

/// One `MODULE.PARAM=VALUE`, while it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Module,
    Param,
    Value,
    /// Nothing of modules, up to the next blank.
    Other,
}

pub(super) fn read(line: &[u8]) -> Said {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut said = Said { refused: refused(line), ..Said::default() };
    let (mut start, mut state) = (0, State::Module);
    // where the dot and the equals sign are
    let (mut dot, mut equals) = (0, None);
    let (mut quoted, mut quoted_from_start) = (false, false);
    for at in 0..=line.len() {
        let byte = line.get(at).copied().unwrap_or(b' ');
        match byte {
            b'"' => {
                quoted = !quoted;
                if quoted && state == State::Module && at == start {
                    (quoted_from_start, start) = (true, at + 1);
                } else if state != State::Value {
                    state = State::Other;
                }
            }
            b' ' | b'\n' | b'\t' | b'\x0b' | b'\x0c' | b'\r' => {
                if quoted && at < line.len() {
                    if state != State::Value {
                        state = State::Other;
                    }
                    continue;
                }
                if matches!(state, State::Param | State::Value) && !quoted {
                    let name = &line[start..dot];
                    let value = equals.map(|equals| &line[equals + 1..at]);
                    let param = &line[dot + 1..equals.unwrap_or(at)];
                    said.add(name, param, value, quoted_from_start);
                }
                (start, state, equals, quoted_from_start) = (at + 1, State::Module, None, false);
            }
            b'.' => match state {
                State::Module => (state, dot) = (State::Param, at),
                State::Param => state = State::Other,
                State::Value | State::Other => {}
            },
            b'=' => match state {
                State::Param => (state, equals) = (State::Value, Some(at)),
                State::Module => state = State::Other,
                State::Value | State::Other => {}
            },
            _ => {}
        }
    }
    said
}

impl Said {
    /// Of `"module.param=value"` the first quote is given back to the value; a list of modules keeps
    /// its quotes too, and a name with one is nobody's.
    fn add(&mut self, module: &[u8], param: &[u8], value: Option<&[u8]>, quoted: bool) {
        let quote: &[u8] = if quoted { b"\"" } else { b"" };
        let value = value.map(|value| [quote, value].concat());
        if let Some(list) =
            value.as_ref().filter(|_| module == b"modprobe" && param == b"blacklist")
        {
            self.blacklist.extend(list.split(|byte| *byte == b',').map(<[u8]>::to_vec));
            return;
        }
        let option = value.map_or(param.to_vec(), |value| [param, b"=", &value].concat());
        // brackets without partners are no module's name
        if let Some(module) = normalized(module) {
            self.options.push((module, option));
        }
    }
}

/// The last `module_blacklist=` that is for the kernel.
fn refused(line: &[u8]) -> Vec<Vec<u8>> {
    let mut quoted = false;
    let words = line.split(|byte| {
        quoted ^= *byte == b'"';
        byte.is_ascii_whitespace() && !quoted
    });
    let value = words.take_while(|word| *word != b"--").filter_map(|word| {
        let word = word.strip_prefix(b"\"").unwrap_or(word);
        let split = word.iter().position(|byte| *byte == b'=')?;
        (normalized(&word[..split])? == b"module_blacklist").then(|| &word[split + 1..])
    });
    let list = value.last().unwrap_or_default();
    let list = list.strip_prefix(b"\"").unwrap_or(list);
    let list = list.strip_suffix(b"\"").unwrap_or(list);
    list.split(|byte| *byte == b',').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Vec<String> {
        let said = read(line.as_bytes());
        let shown = |(module, option): &(Vec<u8>, Vec<u8>)| {
            format!("{} {}", module.escape_ascii(), String::from_utf8_lossy(option))
        };
        said.options.iter().map(shown).collect()
    }

    #[test]
    fn options_are_taken_with_their_quotes() {
        assert_eq!(options("quiet a-b.c=1 root=/dev/x.y d.e\n"), ["a_b c=1", "d e"]);
        assert_eq!(options("a.b=\"x y\" \"c.d=x y\" e.f=\"x"), ["a b=\"x y\"", "c d=\"x y\""]);
        assert_eq!(options("a.b.c=1 \"a b\".c=1 .x=1"), [" x=1"]);
    }

    #[test]
    fn blacklists_are_modprobes_or_the_kernels() {
        let said = read(b"modprobe.blacklist=a-b,c module_blacklist=x module-blacklist=\"d-e,f\" -- module_blacklist=y");
        assert_eq!(said.blacklist, [b"a-b".to_vec(), b"c".to_vec()]);
        assert_eq!(said.refused, [b"d-e".to_vec(), b"f".to_vec()]);
    }
}

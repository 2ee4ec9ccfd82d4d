//! Stage 4: PROGRAM and IMPORT: what others say of the device.
#![forbid(unsafe_code)]

use std::io::ErrorKind;

use crate::builtin::{Builtin, Call, Pair, Ran};
use crate::clean::{OF_INPUT, is_blank, replace_unsafe, trim_end, words};
use crate::rules::decision::Skipped;
use crate::rules::eval::Failed;
use crate::rules::event::Event;
use crate::rules::glob::fnmatch;
use crate::rules::rule::{Import, Token};
use crate::rules::subst::{LINE_MAX, PATH_MAX};
use crate::rules::template::Template;
use crate::uevent::Action;

impl Event<'_> {
    /// PROGRAM: whether it succeeds; what it says is the result for this and later rules.
    pub(super) fn program(&mut self, command: &Template, negated: bool, token: &Token) -> bool {
        self.result.clear();
        let Some(command) = self.fill(command, LINE_MAX) else { return false };
        let mut said = match self.spawn(&command) {
            Ran::Done(said) => said,
            Ran::Failed => return negated,
            Ran::Skipped => return self.skip(command, token),
        };
        text_of(&mut said);
        while said.last() == Some(&b'\n') {
            said.pop();
        }
        replace_unsafe(&mut said, OF_INPUT);
        self.result = said;
        !negated
    }

    fn spawn(&mut self, command: &[u8]) -> Ran<Vec<u8>> {
        let words = words(command);
        if words.is_empty() {
            return Ran::Failed;
        }
        self.world.program(&words, &self.environment())
    }

    fn environment(&self) -> Vec<Pair> {
        let version = (b"UDEV_DATABASE_VERSION".to_vec(), b"1".to_vec());
        std::iter::once(version).chain(self.properties()).collect()
    }

    /// What would have been said is unknown: the rule ends here, whatever it wanted to hear.
    fn skip(&mut self, what: Vec<u8>, token: &Token) -> bool {
        let source = self.source(token);
        self.decision.skipped.push(Skipped { what, source });
        false
    }

    /// IMPORT: whether there was something to import from.
    pub(super) fn import(
        &mut self,
        import: &Import,
        negated: bool,
        token: &Token,
    ) -> Result<bool, Failed> {
        let worked = match import {
            Import::File(path) => {
                let Some(path) = self.fill(path, PATH_MAX) else { return Ok(false) };
                match self.world.file(&path) {
                    Ok(content) => self.take_lines(content.as_deref(), token),
                    // it can be opened, and only then there is nothing to read
                    Err(error) if error.kind() == ErrorKind::IsADirectory => false,
                    Err(error) => {
                        let what = format!("cannot read {}: {error}", path.escape_ascii());
                        return Err(Failed { source: self.source(token), what });
                    }
                }
            }
            Import::Program(command) => {
                let Some(command) = self.fill(command, LINE_MAX) else { return Ok(false) };
                match self.spawn(&command) {
                    Ran::Done(mut said) => {
                        text_of(&mut said);
                        self.take_lines(Some(&said), token)
                    }
                    Ran::Failed => false,
                    Ran::Skipped => return Ok(self.skip(command, token)),
                }
            }
            Import::Builtin(builtin, command) => {
                match self.import_builtin(*builtin, command, token) {
                    Some(worked) => worked,
                    None => return Ok(false),
                }
            }
            Import::Db(key) => {
                let old = self.old.filter(|_| self.device.uevent().action() != Action::Remove);
                let found = old.and_then(|old| old.properties.iter().find(|(k, _)| **k == **key));
                let found = found.map(|(_, value)| value.clone());
                self.take(key, found, token)
            }
            Import::Cmdline(key) => {
                let found = parameter(&self.world.command_line(), key);
                self.take(key, found, token)
            }
            Import::Parent(filter) => {
                let Some(filter) = self.fill(filter, PATH_MAX) else { return Ok(false) };
                self.import_parent(&filter, token)
            }
        };
        Ok(worked != negated)
    }

    fn take(&mut self, key: &[u8], value: Option<Vec<u8>>, token: &Token) -> bool {
        let found = value.is_some();
        if found {
            self.set(key, value, token);
        }
        found
    }

    fn take_lines(&mut self, content: Option<&[u8]>, token: &Token) -> bool {
        let Some(content) = content else { return false };
        for line in content.split(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            if let Some((key, value)) = property(line) {
                self.set(key, Some(value.to_vec()), token);
            }
        }
        true
    }

    /// `None` if the rule ends here.
    fn import_builtin(
        &mut self,
        builtin: Builtin,
        command: &Template,
        token: &Token,
    ) -> Option<bool> {
        let once = matches!(builtin, Builtin::Blkid | Builtin::PathId | Builtin::UsbId);
        if let Some(worked) = self.ran.get(&builtin).filter(|_| once) {
            return Some(*worked);
        }
        let command = self.fill(command, LINE_MAX)?;
        let words = words(&command);
        let call = Call { device: self.device, properties: &self.properties, words: &words };
        let worked = match self.world.builtin(builtin, &call) {
            Ran::Done(pairs) => {
                for (key, value) in pairs {
                    self.set(&key, Some(value), token);
                }
                true
            }
            Ran::Failed => false,
            Ran::Skipped => {
                self.skip(command, token);
                return None;
            }
        };
        self.ran.insert(builtin, worked);
        Some(worked)
    }

    /// All properties of the device above whose names fit; it need not have one.
    fn import_parent(&mut self, filter: &[u8], token: &Token) -> bool {
        let Some(parent) = self.above(1) else { return false };
        let own = |key: &[u8]| matches!(key, b"ACTION" | b"SEQNUM" | b"SYNTH_UUID");
        let said = parent.uevent().properties().filter(|(key, _)| !own(key));
        let mut pairs: Vec<Pair> =
            said.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        pairs.extend(self.world.record(parent.id()).unwrap_or_default().properties);
        for (key, value) in pairs.into_iter().filter(|(key, _)| fnmatch(filter, key)) {
            self.set(&key, Some(value), token);
        }
        true
    }
}

/// What C takes for text: up to a NUL, and no more than a line may have.
fn text_of(said: &mut Vec<u8>) {
    said.truncate(LINE_MAX);
    said.truncate(said.iter().position(|byte| *byte == 0).unwrap_or(said.len()));
}

/// `KEY=value` or `KEY="value"`; `None` for a comment, an empty value, or quotes that are no pair.
fn property(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = trimmed(line);
    if line.first().is_none_or(|byte| *byte == b'#') {
        return None;
    }
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (trimmed(&line[..at]), trimmed(&line[at + 1..]));
    let value = match value {
        [open @ (b'"' | b'\''), inner @ .., close] if open == close => inner,
        [b'"' | b'\'', ..] => return None,
        plain => plain,
    };
    (!key.is_empty() && !value.is_empty()).then_some((key, value))
}

fn trimmed(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len());
    trim_end(&text[start..])
}

/// The value of a parameter of the kernel, `1` if it has none; of several the last.
fn parameter(line: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let same = |left: &[u8]| {
        let plain = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
        left.iter().map(plain).eq(key.iter().map(plain))
    };
    let mut found: Option<Option<Vec<u8>>> = None;
    for word in words(line) {
        match word.iter().position(|byte| *byte == b'=') {
            Some(at) if same(&word[..at]) => found = Some(Some(word[at + 1..].to_vec())),
            None if same(&word) => _ = found.get_or_insert(None),
            Some(_) | None => {}
        }
    }
    found.map(|value| value.unwrap_or_else(|| b"1".to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_properties_if_they_are_well_formed() {
        let read = |line: &str| {
            let line = line.as_bytes();
            property(line).map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii()))
        };
        assert_eq!(read("  A = b c  ").unwrap(), "A=b c");
        assert_eq!(read("A=\"b \"").unwrap(), "A=b ");
        assert_eq!(read("A='b=\"c'").unwrap(), "A=b=\\\"c");
        for none in ["", "  # A=b", "A", "A=", "=b", "A=\"b", "A=\"b'", "A=\"", "A=\"\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_parameter_counts_with_dash_or_underscore_and_the_last_value_holds() {
        let line = b"quiet a-b=1 a_b=2 x=\"y z\" net.x flag= ";
        assert_eq!(parameter(line, b"a-b").unwrap(), b"2");
        assert_eq!(parameter(line, b"quiet").unwrap(), b"1");
        assert_eq!(parameter(line, b"x").unwrap(), b"y z");
        assert_eq!((parameter(line, b"flag").unwrap(), parameter(line, b"y")), (Vec::new(), None));
    }
}

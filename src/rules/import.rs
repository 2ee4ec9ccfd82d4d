//! Stage 4: PROGRAM and IMPORT: what others say of the device.
#![forbid(unsafe_code)]

use std::io::ErrorKind;

use crate::builtin::{Builtin, Call, Pair, Ran};
use crate::clean::{OF_INPUT, is_blank, replace_unsafe, trim_end, words};
use crate::device::Device;
use crate::exec::Said;
use crate::rules::decision::{Asked, Skipped};
use crate::rules::eval::{Failed, errno};
use crate::rules::event::{Event, remembered};
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
        let mut said = match self.spawn(&command, token) {
            Ran::Done(said) => said,
            Ran::Failed | Ran::Broken(_) => return negated,
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

    fn spawn(&mut self, command: &[u8], token: &Token) -> Ran<Vec<u8>> {
        let words = words(command);
        if words.is_empty() {
            return Ran::Failed;
        }
        let source = self.source(token);
        let environment = environment(self.properties());
        let Some(said) = self.world.program(&words, &environment, &source) else {
            return Ran::Skipped;
        };
        let success = said.is_success();
        let Said { outcome, stdout } = said;
        self.decision.asked.push(Asked { command: command.to_vec(), outcome, source });
        if success { Ran::Done(stdout) } else { Ran::Failed }
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
                        let (source, errno) = (self.source(token), errno(&error));
                        return Err(Failed { source, what, errno });
                    }
                }
            }
            Import::Program(command) => {
                let Some(command) = self.fill(command, LINE_MAX) else { return Ok(false) };
                match self.spawn(&command, token) {
                    Ran::Done(mut said) => {
                        text_of(&mut said);
                        self.take_lines(Some(&said), token)
                    }
                    Ran::Failed | Ran::Broken(_) => false,
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
                let found = self.of_record(key);
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
        let ran = self.world.builtin(builtin, &call);
        let worked = matches!(ran, Ran::Done(_));
        match ran {
            Ran::Done(pairs) | Ran::Broken(pairs) => {
                for (key, value) in pairs {
                    self.set(&key, Some(value), token);
                }
            }
            Ran::Failed => {}
            Ran::Skipped => {
                self.skip(command, token);
                return None;
            }
        }
        self.ran.insert(builtin, worked);
        Some(worked)
    }

    /// All properties of the device above whose names fit; it need not have one.
    fn import_parent(&mut self, filter: &[u8], token: &Token) -> bool {
        let Some(parent) = self.above(1) else { return false };
        let pairs = remembered(parent, self.world.record(parent.id()).as_ref());
        for (key, value) in pairs.into_iter().filter(|(key, _)| fnmatch(filter, key)) {
            self.set(&key, Some(value), token);
        }
        true
    }

    /// A property of the device as it was before this event; of one that goes away, none.
    fn of_record(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.device.uevent().action() == Action::Remove {
            return None;
        }
        let value = |pairs: &[Pair]| {
            pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        };
        // most are of the record, and then sysfs is not asked
        self.old.and_then(|old| value(&old.properties)).or_else(|| {
            let device = Device::at(self.device.sysfs(), self.device.uevent().devpath())?;
            value(&remembered(&device, self.old))
        })
    }
}

/// What programs get: a device's properties, after what udev puts in front of them.
#[must_use]
pub fn environment(properties: Vec<Pair>) -> Vec<Pair> {
    let version = (b"UDEV_DATABASE_VERSION".to_vec(), b"1".to_vec());
    std::iter::once(version).chain(properties).collect()
}

/// What C takes for text: up to a NUL, and no more than a line may have.
fn text_of(said: &mut Vec<u8>) {
    said.truncate(LINE_MAX);
    said.truncate(said.iter().position(|byte| *byte == 0).unwrap_or(said.len()));
}

/// `KEY=value` or `KEY="value"`; `None` for a comment, no value (`""` is one), or quotes that are no pair.
fn property(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = trimmed(line);
    if line.first().is_none_or(|byte| *byte == b'#') {
        return None;
    }
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (trimmed(&line[..at]), trimmed(&line[at + 1..]));
    if key.is_empty() || value.is_empty() {
        return None;
    }
    let value = match value {
        [open @ (b'"' | b'\''), inner @ .., close] if open == close => inner,
        [b'"' | b'\'', ..] => return None,
        plain => plain,
    };
    Some((key, value))
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
        assert_eq!((read("A=\"\"").unwrap(), read("A=''").unwrap()), ("A=".into(), "A=".into()));
        for none in ["", "  # A=b", "A", "A=", "=b", "A=\"b", "A=\"b'", "A=\""] {
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

//! Stage 4: templates filled in with what is known of the event.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::clean::{OF_INPUT, is_space, join_blanks, replace_unsafe, trim_end};
use crate::device::last_element;
use crate::rules::event::{Event, Found};
use crate::rules::template::{Field, Part, Template, word_number};
use crate::uevent::Uevent;

/// Names, values: bytes that fit, the NUL of C not among them.
pub(super) const NAME_MAX: usize = 511;
pub(super) const PATH_MAX: usize = 1023;
pub(super) const LINE_MAX: usize = 16383;

impl Event<'_> {
    /// A template filled in; `None` if the result is longer than `limit`: it then has no effect.
    pub(super) fn fill(&mut self, template: &Template, limit: usize) -> Option<Vec<u8>> {
        self.fill_in(template, limit, false)
    }

    /// As [`Event::fill`], with white space in what is filled in made `_`; `$result` keeps its own.
    pub(super) fn fill_in(
        &mut self,
        template: &Template,
        limit: usize,
        joined: bool,
    ) -> Option<Vec<u8>> {
        let mut filled = Vec::new();
        for part in template.parts() {
            match part {
                Part::Text(text) => filled.extend_from_slice(text),
                Part::Field(field, argument) => match self.field(*field, argument.as_deref()) {
                    Ok(value) if joined && *field != Field::Result => {
                        filled.extend(join_blanks(&value));
                    }
                    Ok(value) => filled.extend(value),
                    Err(Stop::Cut) => break,
                    Err(Stop::TooLong) => return None,
                },
                Part::Cut => break,
            }
            if filled.len() > limit {
                return None;
            }
        }
        Some(filled)
    }

    fn field(&mut self, field: Field, argument: Option<&[u8]>) -> Result<Vec<u8>, Stop> {
        let device = self.device;
        let number = |of: fn(&Uevent) -> u32| of(device.uevent()).to_string().into_bytes();
        Ok(match field {
            Field::Devnode => device.devname().map(with_dev).unwrap_or_default(),
            Field::Attr => self.attribute_of_device_or_parent(argument.ok_or(Stop::Cut)?)?,
            Field::Env => {
                self.property(argument.ok_or(Stop::Cut)?).map(Cow::into_owned).unwrap_or_default()
            }
            Field::Kernel => device.sysname(),
            Field::Number => trailing_number(last_element(device.uevent().devpath())).to_vec(),
            Field::Driver => match self.found {
                Found::Nowhere => Vec::new(),
                Found::At(0) => device.driver().unwrap_or_default(),
                Found::At(_) => self.found_above().and_then(|d| d.driver()).unwrap_or_default(),
            },
            Field::Devpath => device.uevent().devpath().to_vec(),
            Field::Id => match self.found {
                Found::Nowhere => Vec::new(),
                Found::At(0) => device.sysname(),
                Found::At(_) => self.found_above().map(|d| d.sysname()).unwrap_or_default(),
            },
            Field::Major => number(|uevent| uevent.devnum().map_or(0, |number| number.major)),
            Field::Minor => number(|uevent| uevent.devnum().map_or(0, |number| number.minor)),
            Field::Result => words_of(&self.result, argument)?,
            Field::Parent => {
                let parent = self.above(1);
                parent.and_then(|parent| parent.devname().map(<[u8]>::to_vec)).unwrap_or_default()
            }
            Field::Name => match &self.decision.name {
                Some(name) => name.clone(),
                None => device.devname().map_or_else(|| device.sysname(), <[u8]>::to_vec),
            },
            Field::Links => {
                let names = self.decision.links.iter().map(|link| link.name.as_slice());
                names.collect::<Vec<_>>().join(&b' ')
            }
            Field::Root => b"/dev".to_vec(),
            Field::Sys => b"/sys".to_vec(),
        })
    }

    /// `$attr{…}`: of another device, of the event's, or of the parent found last.
    fn attribute_of_device_or_parent(&mut self, name: &[u8]) -> Result<Vec<u8>, Stop> {
        let value = match self.elsewhere(name) {
            Some(value) => value,
            None => {
                let above = |event: &mut Self| event.found_above()?.attribute(name);
                let own = self.device.attribute(name);
                let Some(value) = own.or_else(|| above(self)) else {
                    return Ok(Vec::new());
                };
                value.into_vec()
            }
        };
        if value.len() > NAME_MAX {
            return Err(Stop::TooLong);
        }
        let mut value = trim_end(&value).to_vec();
        replace_unsafe(&mut value, OF_INPUT);
        Ok(value)
    }

    /// The attribute that `[subsystem/kernel]attribute` speaks of, empty if the device has none or does not
    /// show it; `None` without such a device, if it is no file, or if the text has another form.
    pub(super) fn elsewhere(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (devpath, attribute) = self.device.sysfs().elsewhere(text)?;
        if attribute.is_empty() {
            return None;
        }
        let sysfs = self.device.sysfs();
        let value = match sysfs.attribute(&devpath, attribute) {
            None if sysfs.is_absent(&devpath, attribute) => Box::default(),
            value => value?,
        };
        Some(value.iter().take(NAME_MAX).copied().collect())
    }
}

/// Why nothing is filled in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The value ends where this stands.
    Cut,
    /// The value is not to be used.
    TooLong,
}

fn with_dev(name: &[u8]) -> Vec<u8> {
    [b"/dev/", name].concat()
}

/// The digits at the end of a kernel name; none if there is nothing else in it.
fn trailing_number(name: &[u8]) -> &[u8] {
    let start = name.iter().rposition(|byte| !byte.is_ascii_digit()).map(|last| last + 1);
    start.map_or(&[], |start| &name[start..])
}

/// `{N}`, `{N+}`, or all of a program's words.
fn words_of(result: &[u8], argument: Option<&[u8]>) -> Result<Vec<u8>, Stop> {
    let Some(argument) = argument.filter(|_| !result.is_empty()) else {
        return Ok(result.to_vec());
    };
    let (wanted, rest) = word_number(argument).ok_or(Stop::Cut)?;
    if wanted == 0 {
        return Ok(result.to_vec());
    }
    let mut left = result;
    for number in 1.. {
        let blank = left.iter().take_while(|byte| is_space(byte)).count();
        left = &left[blank..];
        if left.is_empty() {
            break;
        }
        let length = left.iter().position(is_space).unwrap_or(left.len());
        if number == wanted {
            return Ok(if rest { left } else { &left[..length] }.to_vec());
        }
        left = &left[length..];
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_result_are_counted_from_one() {
        let word = |argument: &str| words_of(b" a  b c ", Some(argument.as_bytes())).ok().unwrap();
        assert_eq!(word("1"), b"a");
        assert_eq!(word("2+"), b"b c ");
        assert_eq!((word("0"), word("9")), (b" a  b c ".to_vec(), Vec::new()));
        assert!(words_of(b"a", Some(b"x")).is_err());
        assert!(words_of(b"", Some(b"x")).is_ok_and(|value| value.is_empty()));
    }

    #[test]
    fn a_name_of_digits_has_no_number() {
        assert_eq!(trailing_number(b"sda12"), b"12");
        assert_eq!(
            (trailing_number(b"12"), trailing_number(b"a")),
            (b"".as_slice(), b"".as_slice())
        );
    }
}

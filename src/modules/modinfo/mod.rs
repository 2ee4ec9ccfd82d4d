//! Stage 3b: the bytes of a module in, what it declares about itself out, without loading it.
//!
//! `.modinfo` holds `key=value` strings, each ended by NUL (`include/linux/moduleparam.h`). The file
//! is hostile input: every offset is checked, and nothing is allocated that the file is not as large as.
#![forbid(unsafe_code)]

mod elf;

use std::fmt;

use crate::uevent::Devnum;
pub(super) use elf::Object;

/// What a module says of itself: every key of its `.modinfo`, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ModInfo<'f> {
    section: &'f [u8],
}

/// Why a file is not taken for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModInfoError {
    /// No ELF file, or one whose header cannot be.
    Header(String),
    /// Something lies outside the file: it is cut off or damaged.
    Outside(&'static str),
    /// An ELF file, but without a readable section `.modinfo`.
    Missing,
    /// `.modinfo` is larger than any real one; its size in bytes.
    TooLarge(u64),
}

impl fmt::Display for ModInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(what) => write!(f, "an ELF file wanted: {what}"),
            Self::Outside(what) => write!(f, "{what} lies outside the file: cut off or damaged"),
            Self::Missing => f.write_str("section .modinfo wanted: no kernel module"),
            Self::TooLarge(size) => {
                write!(f, ".modinfo of {size} bytes is larger than any real one")
            }
        }
    }
}

impl std::error::Error for ModInfoError {}

/// Reads the `.modinfo` of an ELF file of either class and byte order.
///
/// # Errors
/// When the file is no ELF file, is damaged, or has no `.modinfo`.
pub fn parse(file: &[u8]) -> Result<ModInfo<'_>, ModInfoError> {
    Object::parse(file)?.modinfo()
}

/// Reads `modules.builtin.modinfo`: the name of a built-in module, and its key and value.
///
/// Entries are `name.key=value`, each ended by NUL; what has another form is left out.
pub fn builtin(file: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    file.split(|byte| *byte == 0).filter_map(|entry| {
        let (head, value) = split(entry, b'=')?;
        let (name, key) = split(head, b'.')?;
        Some((name, key, value))
    })
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

impl<'f> ModInfo<'f> {
    /// Of bytes in the section's form, `key=value` ended by NUL.
    #[must_use]
    pub fn of(section: &'f [u8]) -> Self {
        Self { section }
    }

    /// Every key and value, in the order of the file; what has no `=` is left out.
    pub fn entries(self) -> impl Iterator<Item = (&'f [u8], &'f [u8])> {
        self.section.split(|byte| *byte == 0).filter_map(|entry| split(entry, b'='))
    }

    /// The values of a key, in the order of the file.
    pub fn all(self, key: &[u8]) -> impl Iterator<Item = &'f [u8]> {
        self.entries().filter(move |(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The module's name as built, with underscores.
    #[must_use]
    pub fn name(self) -> Option<&'f [u8]> {
        self.all(b"name").next()
    }

    /// The kernel the module was built for.
    #[must_use]
    pub fn vermagic(self) -> Option<&'f [u8]> {
        self.all(b"vermagic").next()
    }

    /// What the module offers to be loaded for: modaliases, device numbers, device names.
    pub fn aliases(self) -> impl Iterator<Item = &'f [u8]> {
        self.all(b"alias")
    }

    /// The aliases that are neither a device name nor a device number.
    pub fn modaliases(self) -> impl Iterator<Item = &'f [u8]> {
        let own = |alias: &[u8]| alias.starts_with(b"devname:") || devnum(alias).is_some();
        self.aliases().filter(move |alias| !own(alias))
    }

    /// Names of the modules that must be loaded before.
    pub fn depends(self) -> impl Iterator<Item = &'f [u8]> {
        let lists = self.all(b"depends");
        lists.flat_map(|list| list.split(|byte| *byte == b',')).filter(|name| !name.is_empty())
    }

    /// Soft dependencies as written: `pre: a b post: c`.
    pub fn softdeps(self) -> impl Iterator<Item = &'f [u8]> {
        self.all(b"softdep")
    }

    /// Files that the module asks for.
    pub fn firmware(self) -> impl Iterator<Item = &'f [u8]> {
        self.all(b"firmware")
    }

    /// The names below /dev that the module declares.
    #[must_use]
    pub fn devnames(self) -> Vec<(&'f [u8], Option<Devnum>)> {
        devnames(self.aliases())
    }
}

impl fmt::Debug for ModInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.entries().map(|(key, value)| (key.escape_ascii(), value.escape_ascii()));
        f.debug_map().entries(pairs.map(|(k, v)| (k.to_string(), v.to_string()))).finish()
    }
}

/// The device names among a module's aliases, with the number that depmod(8) would give.
///
/// An alias does not say to which name a number belongs. depmod writes one line a module: it takes
/// the last name and the last number up to where it has both. Other names have no number until the
/// module is loaded.
fn devnames<'f>(aliases: impl Iterator<Item = &'f [u8]>) -> Vec<(&'f [u8], Option<Devnum>)> {
    let mut found: Vec<(&'f [u8], Option<Devnum>)> = Vec::new();
    let mut number = None;
    let mut paired = false;
    for alias in aliases {
        if let Some(name) = alias.strip_prefix(b"devname:") {
            found.push((name, None));
        } else if !paired {
            number = devnum(alias).or(number);
        }
        if !paired
            && number.is_some()
            && let Some(last) = found.last_mut()
        {
            last.1 = number;
            paired = true;
        }
    }
    found
}

/// The number in `char-major-M-m…` or `block-major-M-m…`; `None` for `char-major-M-*`.
fn devnum(alias: &[u8]) -> Option<Devnum> {
    let (block, rest) = match alias.strip_prefix(b"char-major-") {
        Some(rest) => (false, rest),
        None => (true, alias.strip_prefix(b"block-major-")?),
    };
    let (major, rest) = number(rest)?;
    let (minor, _) = number(rest.strip_prefix(b"-")?)?;
    // 12 and 20 bits: MINORBITS in include/linux/kdev_t.h
    (major < 1 << 12 && minor < 1 << 20).then_some(Devnum { block, major, minor })
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(aliases: &[&str]) -> Vec<(String, String)> {
        let shown = |number: Option<Devnum>| number.map_or("-".to_owned(), |n| n.to_string());
        devnames(aliases.iter().map(|alias| alias.as_bytes()))
            .into_iter()
            .map(|(name, number)| (String::from_utf8(name.to_vec()).unwrap(), shown(number)))
            .collect()
    }

    fn pair(name: &str, number: &str) -> (String, String) {
        (name.to_owned(), number.to_owned())
    }

    #[test]
    fn a_name_gets_its_number_from_either_side() {
        assert_eq!(names(&["devname:net/tun", "char-major-10-200"]), [pair("net/tun", "c10:200")]);
        assert_eq!(names(&["block-major-7-0", "devname:l0"]), [pair("l0", "b7:0")]);
        assert_eq!(names(&["devname:x", "char-major-116-*"]), [pair("x", "-")]);
        assert_eq!(names(&["pci:v*"]), []);
    }

    #[test]
    fn of_several_only_the_first_complete_pair_has_a_number() {
        let aliases = ["devname:a", "devname:b", "char-major-1-2", "devname:c", "char-major-1-3"];
        assert_eq!(names(&aliases), [pair("a", "-"), pair("b", "c1:2"), pair("c", "-")]);
        let aliases = ["char-major-1-2", "block-major-3-4", "devname:a"];
        assert_eq!(names(&aliases), [pair("a", "b3:4")]);
    }

    #[test]
    fn numbers_beyond_the_kernels_are_none() {
        let aliases = ["devname:x", "char-major-4096-0"];
        assert_eq!(names(&aliases), [pair("x", "-")]);
        assert_eq!(devnum(b"char-major-4294967296-0"), None);
        assert_eq!(devnum(b"char-major--1"), None);
    }

    #[test]
    fn built_in_modules_are_read_from_their_list() {
        let list = b"loop.alias=devname:loop-control\0loop.parm=max:a=b.c\0broken\0\0";
        let read: Vec<_> = builtin(list).collect();
        assert_eq!(read[0], (&b"loop"[..], &b"alias"[..], &b"devname:loop-control"[..]));
        assert_eq!(read[1], (&b"loop"[..], &b"parm"[..], &b"max:a=b.c"[..]));
        assert_eq!(read.len(), 2);
    }
}

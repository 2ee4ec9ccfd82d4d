//! Stage 3b: the database of modules as one piece of memory, written once and read in place.
//!
//! All numbers are 32 bits, little endian, and every one is checked where it is used: a damaged store
//! gives wrong answers at worst, and its checksum finds it before. `cache.rs` keeps it in a file.
//!
//! A head of [`HEAD`] words, then the sections one behind the other: records of a fixed number of
//! words each, the tree of aliases (`alias.rs`), and text that the others point to by place and length.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The last digit is the format's version.
const MAGIC: &[u8; 8] = b"mapdevM1";
/// Words before the first section: magic, length, checksum, release, folder, root of the
/// aliases, one that is free, counts of the sections.
const HEAD: usize = 10 + SECTIONS;
const SECTIONS: usize = 8;
/// Larger is no database of modules; Debian's largest is below 5 MiB.
const SIZE_LIMIT: usize = 1 << 30;

/// Files: path, size, mtime and its nanoseconds, inode, info, state.
pub(super) const FILE: usize = 12;
/// Modules: name, file, info, dependencies (first, count), place in the order of depmod(8).
pub(super) const MODULE: usize = 8;
/// Names below /dev: name, module, kind and major, minor.
pub(super) const DEVNAME: usize = 5;
/// Problems: file and what.
pub(super) const PROBLEM: usize = 4;
/// Stands for "none" where a number of a record is wanted.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Files,
    Modules,
    Devnames,
    Problems,
    Dependencies,
    Nodes,
    Classes,
    Text,
}

const ORDER: [Section; SECTIONS] = [
    Section::Files,
    Section::Modules,
    Section::Devnames,
    Section::Problems,
    Section::Dependencies,
    Section::Nodes,
    Section::Classes,
    Section::Text,
];

impl Section {
    /// Bytes of one record.
    fn size(self) -> usize {
        match self {
            Self::Files => 4 * FILE,
            Self::Modules => 4 * MODULE,
            Self::Devnames => 4 * DEVNAME,
            Self::Problems => 4 * PROBLEM,
            Self::Dependencies | Self::Nodes => 4,
            Self::Classes => 4 * 8,
            Self::Text => 1,
        }
    }
}

/// What is written, section by section.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) files: Vec<[u32; FILE]>,
    pub(super) modules: Vec<[u32; MODULE]>,
    pub(super) devnames: Vec<[u32; DEVNAME]>,
    pub(super) problems: Vec<[u32; PROBLEM]>,
    pub(super) dependencies: Vec<u32>,
    pub(super) nodes: Vec<u32>,
    pub(super) classes: Vec<u32>,
    pub(super) alias_root: u32,
    text: Vec<u8>,
    /// Short texts repeat: parts of aliases, names.
    known: HashMap<Box<[u8]>, u32>,
}

impl Builder {
    /// Keeps a text and returns its place and length.
    pub(super) fn text(&mut self, text: &[u8]) -> (u32, u32) {
        let number = |value: usize| u32::try_from(value).unwrap_or(NONE);
        if let Some(place) = self.known.get(text) {
            return (*place, number(text.len()));
        }
        let place = number(self.text.len());
        self.text.extend_from_slice(text);
        if text.len() <= 64 {
            self.known.insert(text.into(), place);
        }
        (place, number(text.len()))
    }

    /// All as one piece of memory.
    fn finish(mut self, folder: &Path, release: &str) -> (Vec<u8>, [(usize, usize); SECTIONS]) {
        let release = self.text(release.as_bytes());
        let folder = self.text(folder.as_os_str().as_bytes());
        let words: [Vec<u32>; SECTIONS - 1] = [
            self.files.into_flattened(),
            self.modules.into_flattened(),
            self.devnames.into_flattened(),
            self.problems.into_flattened(),
            self.dependencies,
            self.nodes,
            self.classes,
        ];
        let number = |value: usize| u32::try_from(value).unwrap_or(NONE);
        let length = 4 * HEAD + 4 * words.iter().map(Vec::len).sum::<usize>() + self.text.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(MAGIC);
        let head =
            [number(length), 0, release.0, release.1, folder.0, folder.1, self.alias_root, 0];
        for word in head {
            bytes.extend(word.to_le_bytes());
        }
        let counts = words.iter().zip(ORDER).map(|(w, section)| 4 * w.len() / section.size());
        let mut sections = [(0, 0); SECTIONS];
        let mut place = 4 * HEAD;
        for (index, count) in counts.chain([self.text.len()]).enumerate() {
            bytes.extend(number(count).to_le_bytes());
            sections[index] = (place, count);
            place += count * ORDER[index].size();
        }
        for word in words.into_iter().flatten() {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.text);
        let sum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        (bytes, sections)
    }
}

/// Of everything but the word that holds it.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// Why bytes are no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreError {
    /// Not ours, or another version's.
    Magic,
    /// Cut off, or longer than it says.
    Length,
    Checksum,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "a module database of this version wanted",
            Self::Length => "its length is not what it says",
            Self::Checksum => "its checksum is wrong",
        })
    }
}

impl std::error::Error for StoreError {}

/// The memory and where its sections are.
pub(super) struct Store {
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// First byte and count of records.
    sections: [(usize, usize); SECTIONS],
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("sections", &self.sections).finish_non_exhaustive()
    }
}

impl Store {
    /// What was collected, ready to be read.
    pub(super) fn written(builder: Builder, folder: &Path, release: &str) -> Self {
        let (bytes, sections) = builder.finish(folder, release);
        Self { bytes: Box::new(bytes), sections }
    }

    /// Takes memory that should hold a store.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn open(bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, StoreError> {
        let all = (*bytes).as_ref();
        if !all.starts_with(MAGIC) {
            return Err(StoreError::Magic);
        }
        let words = all.as_chunks::<4>().0;
        let number = |index: usize| {
            let word = words.get(index).copied().map(u32::from_le_bytes);
            word.and_then(|word| usize::try_from(word).ok()).ok_or(StoreError::Length)
        };
        if number(2)? != all.len() || all.len() < 4 * HEAD || all.len() > SIZE_LIMIT {
            return Err(StoreError::Length);
        }
        if words[3] != checksum(all).to_le_bytes() {
            return Err(StoreError::Checksum);
        }
        let mut sections = [(0, 0); SECTIONS];
        let mut place = 4 * HEAD;
        for (index, section) in ORDER.into_iter().enumerate() {
            let count = number(HEAD - SECTIONS + index)?;
            sections[index] = (place, count);
            let size = count.checked_mul(section.size()).ok_or(StoreError::Length)?;
            place = place.checked_add(size).ok_or(StoreError::Length)?;
        }
        if place != all.len() {
            return Err(StoreError::Length);
        }
        Ok(Self { bytes, sections })
    }

    /// With a checksum that is made to be right, so that tests come to what it protects.
    #[cfg(test)]
    pub(super) fn open_unchecked(mut bytes: Vec<u8>) -> Result<Self, StoreError> {
        let sum = checksum(&bytes).to_le_bytes();
        bytes[12..16].copy_from_slice(&sum);
        Self::open(Box::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    fn section(&self, section: Section) -> &[u8] {
        let (place, count) = self.sections[section as usize];
        self.bytes().get(place..place + count * section.size()).unwrap_or_default()
    }

    pub(super) fn count(&self, section: Section) -> usize {
        self.sections[section as usize].1
    }

    /// One record of a section whose records have `N` words.
    pub(super) fn record<const N: usize>(
        &self,
        section: Section,
        index: usize,
    ) -> Option<[u32; N]> {
        debug_assert_eq!(4 * N, section.size(), "{section:?}");
        let words = self.section(section).as_chunks::<4>().0.as_chunks::<N>().0;
        words.get(index).map(|record| record.map(u32::from_le_bytes))
    }

    /// Empty if it lies outside.
    pub(super) fn text(&self, place: u32, length: u32) -> &[u8] {
        let range = usize::try_from(place).ok().zip(usize::try_from(length).ok());
        range
            .and_then(|(place, length)| {
                self.section(Section::Text).get(place..place.checked_add(length)?)
            })
            .unwrap_or_default()
    }

    /// The modules that a module depends on, by number.
    pub(super) fn dependencies(&self, first: u32, count: u32) -> impl Iterator<Item = u32> {
        let words = self.section(Section::Dependencies).as_chunks::<4>().0;
        let range = usize::try_from(first).ok().zip(usize::try_from(count).ok());
        let list = range.and_then(|(first, count)| words.get(first..first.checked_add(count)?));
        list.unwrap_or_default().iter().map(|word| u32::from_le_bytes(*word))
    }

    pub(super) fn release(&self) -> &[u8] {
        self.text(self.head(4), self.head(5))
    }

    pub(super) fn folder(&self) -> &[u8] {
        self.text(self.head(6), self.head(7))
    }

    pub(super) fn alias_root(&self) -> u32 {
        self.head(8)
    }

    fn head(&self, index: usize) -> u32 {
        self.bytes().as_chunks::<4>().0.get(index).copied().map_or(0, u32::from_le_bytes)
    }

    /// The tree's words from a node on.
    pub(super) fn node(&self, number: u32) -> Option<&[[u8; 4]]> {
        self.section(Section::Nodes).as_chunks::<4>().0.get(usize::try_from(number).ok()?..)
    }

    /// Whether a bracket expression holds a byte.
    pub(super) fn class_holds(&self, class: u32, byte: u8) -> bool {
        let index = usize::try_from(class).unwrap_or(usize::MAX);
        let class = self.record::<8>(Section::Classes, index).unwrap_or_default();
        class[usize::from(byte >> 5)] & (1 << (byte & 31)) != 0
    }
}

//! Stage 3: the compiled hardware database: the bytes of a `hwdb.bin` and a modalias in, properties out.
//!
//! The file is a tree of patterns (`KSLPHHRH`, little endian, all offsets from the file's begin). A node
//! has a text that goes before its children, children by their first byte, and values. No offset and no
//! length in it is believed: whatever leads outside is not there.
#![forbid(unsafe_code)]

use std::fmt;

use crate::device::hwdb::walk::Walk;

/// What the file begins with.
pub(super) const SIGNATURE: &[u8; 8] = b"KSLPHHRH";
/// Sizes of the newest format: header, node, child, value.
pub(super) const HEADER: usize = 80;
pub(super) const NODE: usize = 24;
pub(super) const CHILD: usize = 16;
pub(super) const VALUE: usize = 32;
/// A value without file and line, as older versions wrote it.
const PLAIN_VALUE: usize = 16;

/// Why bytes are no hardware database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Signature,
    /// What the header says, and what there is.
    Length(u64, usize),
    /// The header gives a part of the tree less room than it needs.
    Sizes,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("it does not begin as a hardware database does"),
            Self::Length(said, there) => {
                write!(f, "it has {there} bytes, and its header says {said}")
            }
            Self::Sizes => f.write_str("the sizes in its header are those of no known version"),
        }
    }
}

impl std::error::Error for Damage {}

/// The tree in the bytes of a file.
#[derive(Clone, Copy)]
pub struct Trie<'a> {
    bytes: &'a [u8],
    node: usize,
    child: usize,
    value: usize,
    root: usize,
}

impl fmt::Debug for Trie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trie of {} bytes", self.bytes.len())
    }
}

/// A node, with what its counts promise lying inside the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    prefix: usize,
    /// Where its children begin, and how many there are.
    children: usize,
    child_count: usize,
    values: usize,
    value_count: usize,
}

impl Node {
    pub(super) fn child_count(&self) -> usize {
        self.child_count
    }

    pub(super) fn value_count(&self) -> usize {
        self.value_count
    }
}

/// Who wins when two patterns give a property: the later file, then the later line.
pub(super) type Rank = (u64, u32);

/// A property as a node has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// `None` where the file does not tell: then the one that is found last wins.
    pub(super) rank: Option<Rank>,
}

impl<'a> Trie<'a> {
    /// # Errors
    /// When these are not the bytes of a hardware database.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Damage> {
        if !bytes.starts_with(SIGNATURE) || bytes.len() < HEADER {
            return Err(Damage::Signature);
        }
        let word = |at: usize| word(bytes, at).unwrap_or(u64::MAX);
        if u64::try_from(bytes.len()) != Ok(word(16)) {
            return Err(Damage::Length(word(16), bytes.len()));
        }
        let size = |at: usize, least: usize| {
            let size = usize::try_from(word(at)).ok();
            size.filter(|size| (least..=4096).contains(size)).ok_or(Damage::Sizes)
        };
        let root = usize::try_from(word(56)).unwrap_or(usize::MAX);
        let (node, child) = (size(32, NODE)?, size(40, CHILD)?);
        Ok(Self { bytes, node, child, value: size(48, PLAIN_VALUE)?, root })
    }

    /// The properties of a modalias, in the order in which the tree tells them; each key once.
    ///
    /// `None` if it takes more work than a database that somebody wrote can cause.
    #[must_use]
    pub fn look_up(&self, modalias: &[u8]) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        Walk::new(self).look_up(modalias)
    }

    pub(super) fn root(&self) -> Option<Node> {
        self.node(self.root)
    }

    fn node(&self, at: usize) -> Option<Node> {
        let prefix = usize::try_from(word(self.bytes, at)?).ok()?;
        let child_count = usize::from(*self.bytes.get(at.checked_add(8)?)?);
        let value_count = usize::try_from(word(self.bytes, at.checked_add(16)?)?).ok()?;
        let children = at.checked_add(self.node)?;
        let values = children.checked_add(child_count * self.child)?;
        let end = values.checked_add(value_count.checked_mul(self.value)?)?;
        (end <= self.bytes.len()).then_some(Node {
            prefix,
            children,
            child_count,
            values,
            value_count,
        })
    }

    /// The text before a node's children; empty if it has none.
    pub(super) fn prefix(&self, node: &Node) -> Option<&'a [u8]> {
        if node.prefix == 0 { Some(b"") } else { self.text(node.prefix) }
    }

    /// A child's first byte, and the child.
    pub(super) fn child(&self, node: &Node, index: usize) -> Option<(u8, Node)> {
        let at = (index < node.child_count).then(|| node.children + index * self.child)?;
        let child = usize::try_from(word(self.bytes, at + 8)?).ok()?;
        Some((*self.bytes.get(at)?, self.node(child)?))
    }

    /// The child that begins with a byte; children are sorted.
    pub(super) fn child_of(&self, node: &Node, byte: u8) -> Option<Node> {
        let (mut low, mut high) = (0, node.child_count);
        while low < high {
            let middle = usize::midpoint(low, high);
            let at = node.children + middle * self.child;
            match self.bytes.get(at)?.cmp(&byte) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return self.child(node, middle).map(|(_, child)| child);
                }
            }
        }
        None
    }

    pub(super) fn value(&self, node: &Node, index: usize) -> Option<Value<'a>> {
        let at = (index < node.value_count).then(|| node.values + index * self.value)?;
        let text = |at| self.text(usize::try_from(word(self.bytes, at)?).ok()?);
        let rank = (self.value >= VALUE).then(|| self.rank(at)).flatten();
        Some(Value { key: text(at)?, value: text(at + 8)?, rank })
    }

    /// Files are numbered since version 239; before, names that were stored later came later.
    fn rank(&self, at: usize) -> Option<Rank> {
        let [low, high, ..] = *self.bytes.get(at + 28..at + 32)? else { return None };
        let line = u32::try_from(word(self.bytes, at + 24)? & u64::from(u32::MAX)).ok()?;
        match u16::from_le_bytes([low, high]) {
            0 => Some((word(self.bytes, at + 16)?, line)),
            priority => Some((u64::from(priority), line)),
        }
    }

    /// The bytes from an offset up to a NUL.
    fn text(&self, at: usize) -> Option<&'a [u8]> {
        let rest = self.bytes.get(at..)?;
        let rest = &rest[..rest.len().min(TEXT_MAX)];
        Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
    }
}

/// A source's line has at most that many bytes, and what is stored is part of one.
pub(super) const TEXT_MAX: usize = 1 << 20;

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    word.try_into().ok().map(u64::from_le_bytes)
}

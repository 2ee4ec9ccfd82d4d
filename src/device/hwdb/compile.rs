//! Stage 3: properties and their patterns in, the bytes of a `hwdb.bin` out.
//!
//! The result is the same, byte for byte, as `systemd-hwdb update` makes it.
#![forbid(unsafe_code)]

use crate::device::hwdb::source::Property;
use crate::device::hwdb::texts::Texts;
use crate::device::hwdb::trie::{CHILD, HEADER, NODE, SIGNATURE, VALUE};

/// Who first wrote this form: the version of systemd whose form it is.
const TOOL_VERSION: u64 = 252;

/// A tree of patterns that grows.
#[derive(Debug)]
pub struct Compiler {
    texts: Texts,
    /// The first is the root.
    nodes: Vec<Node>,
    files: u16,
}

#[derive(Debug, Default)]
struct Node {
    /// Where in the texts the node's own begins; it ends at a NUL.
    prefix: usize,
    /// Sorted by byte.
    children: Vec<(u8, usize)>,
    /// Sorted by key.
    values: Vec<Value>,
}

#[derive(Debug)]
struct Value {
    key: usize,
    value: usize,
    file: usize,
    line: u32,
    priority: u16,
}

impl Default for Compiler {
    fn default() -> Self {
        Self { texts: Texts::default(), nodes: vec![Node::default()], files: 0 }
    }
}

impl Compiler {
    /// Adds what a file says; of two files, the later one wins.
    pub fn add(&mut self, file: &[u8], properties: &[Property<'_>]) {
        self.files = self.files.saturating_add(1);
        for property in properties {
            for pattern in &property.patterns {
                let node = self.node_of(pattern);
                self.put(node, property, file);
            }
        }
    }

    /// The node of a pattern; it is made if there is none.
    fn node_of(&mut self, pattern: &[u8]) -> usize {
        let (mut node, mut rest) = (0, pattern);
        loop {
            let prefix = self.texts.text(self.nodes[node].prefix);
            let same = prefix.iter().zip(rest).take_while(|(left, right)| left == right).count();
            if same < prefix.len() {
                self.split(node, same);
            }
            rest = &rest[same..];
            let Some((first, tail)) = rest.split_first() else { return node };
            let place = self.nodes[node].children.binary_search_by_key(first, |(byte, _)| *byte);
            match place {
                Ok(at) => node = self.nodes[node].children[at].1,
                Err(at) => {
                    let prefix = self.texts.add(tail);
                    let child = self.nodes.len();
                    self.nodes.push(Node { prefix, ..Node::default() });
                    self.nodes[node].children.insert(at, (*first, child));
                    return child;
                }
            }
            rest = tail;
        }
    }

    /// Keeps the first bytes of a node's text in it; the rest becomes its only child.
    fn split(&mut self, node: usize, keep: usize) {
        let old = self.nodes[node].prefix;
        let text = self.texts.text(old);
        let (kept, first) = (text[..keep].to_vec(), text[keep]);
        let prefix = self.texts.add(&kept);
        let lower = self.nodes.len();
        let new = Node { prefix, children: vec![(first, lower)], values: Vec::new() };
        let upper = std::mem::replace(&mut self.nodes[node], new);
        self.nodes.push(Node { prefix: old + keep + 1, ..upper });
    }

    fn put(&mut self, node: usize, property: &Property<'_>, file: &[u8]) {
        let key = self.texts.add(property.key);
        let value = self.texts.add(property.value);
        let file = self.texts.add(file);
        let new = Value { key, value, file, line: property.line, priority: self.files };
        let texts = &self.texts;
        let values = &mut self.nodes[node].values;
        match values.binary_search_by(|known| texts.text(known.key).cmp(property.key)) {
            // the same pattern and key: the later one holds
            Ok(at) => values[at] = Value { key: values[at].key, ..new },
            Err(at) => values.insert(at, new),
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let order = self.children_first();
        let size = |node: &Node| NODE + node.children.len() * CHILD + node.values.len() * VALUE;
        let mut places = vec![0; self.nodes.len()];
        let mut end = HEADER;
        for node in &order {
            places[*node] = end;
            end += size(&self.nodes[*node]);
        }
        let texts = self.texts.bytes();
        let mut out = Vec::with_capacity(end + texts.len());
        out.extend_from_slice(SIGNATURE);
        let file = end + texts.len();
        word(&mut out, TOOL_VERSION);
        for number in [file, HEADER, NODE, CHILD, VALUE, places[0], end - HEADER, texts.len()] {
            word(&mut out, number as u64);
        }
        for node in &order {
            let node = &self.nodes[*node];
            word(&mut out, (end + node.prefix) as u64);
            // one child for each byte but NUL: at most 255
            word(&mut out, node.children.len() as u64);
            word(&mut out, node.values.len() as u64);
            for (byte, child) in &node.children {
                word(&mut out, u64::from(*byte));
                word(&mut out, places[*child] as u64);
            }
            for value in &node.values {
                for text in [value.key, value.value, value.file] {
                    word(&mut out, (end + text) as u64);
                }
                word(&mut out, u64::from(value.line) | u64::from(value.priority) << 32);
            }
        }
        out.extend_from_slice(texts);
        out
    }

    /// Each node after all that is below it.
    fn children_first(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut path = vec![(0, 0)];
        while let Some((node, next)) = path.last_mut() {
            match self.nodes[*node].children.get(*next) {
                Some((_, child)) => {
                    *next += 1;
                    path.push((*child, 0));
                }
                None => {
                    order.push(*node);
                    path.pop();
                }
            }
        }
        order
    }
}

fn word(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

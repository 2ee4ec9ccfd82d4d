//! Stage 3b: the aliases that modules offer, as one tree that a modalias is looked up in.
//!
//! Patterns are those of fnmatch(3); `-` and `_` are one byte outside brackets, as for libkmod. The
//! tree branches at wildcards too, so that a look-up costs about the length of the modalias, however
//! many patterns there are. It lies in the store as words, and the reader believes none of them.
#![forbid(unsafe_code)]

use super::store::{Builder, Store};

/// A pattern that is longer is no alias: a uevent as a whole has 2,048 bytes.
pub(super) const PATTERN_LIMIT: usize = 1024;
/// Steps that one look-up may take: a thousand times what the largest real one does.
const STEPS_LIMIT: u32 = 1 << 20;
/// Words of a node before its values: counts, prefix, and the node behind a star.
const NODE_HEAD: usize = 5;
/// A bracket expression as one bit a byte.
const CLASS_WORDS: usize = 8;
/// Literal branches keep their byte beside the node's number.
const NODE_BITS: u32 = 24;

const STAR: u16 = 256;
const CLASS: u16 = 257;

type Class = [u32; CLASS_WORDS];

/// Collects patterns, and writes the tree.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    all: Vec<(Box<[u16]>, u32)>,
    classes: Vec<Class>,
}

impl Patterns {
    /// Adds what a module offers; false if it is too long to be an alias.
    pub(super) fn add(&mut self, pattern: &[u8], module: u32) -> bool {
        if pattern.len() > PATTERN_LIMIT {
            return false;
        }
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            let token = match byte {
                // two stars are one
                b'*' if tokens.last() == Some(&STAR) => continue,
                b'*' => STAR,
                b'?' => self.class([u32::MAX; CLASS_WORDS]),
                b'[' => match bracket(pattern, at) {
                    Some((class, next)) => {
                        at = next;
                        self.class(class)
                    }
                    None => u16::from(b'['),
                },
                b'\\' if at < pattern.len() => {
                    at += 1;
                    u16::from(folded(pattern[at - 1]))
                }
                _ => u16::from(folded(byte)),
            };
            tokens.push(token);
        }
        self.all.push((tokens.into(), module));
        true
    }

    fn class(&mut self, class: Class) -> u16 {
        let known = self.classes.iter().position(|other| *other == class);
        let index = known.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        });
        // more different brackets than 16 bits count do not fit any kernel; they match nothing
        u16::try_from(index).ok().and_then(|index| index.checked_add(CLASS)).unwrap_or(u16::MAX)
    }

    /// Writes the tree and returns its root.
    pub(super) fn write(mut self, store: &mut Builder) -> u32 {
        self.all.sort_unstable();
        self.all.dedup();
        for class in &self.classes {
            store.classes.extend(class);
        }
        // number 0 says that there is no node
        store.nodes.push(0);
        node(&self.all, 0, store)
    }
}

/// Writes the node of sorted patterns that agree up to `depth`, its children before it.
fn node(patterns: &[(Box<[u16]>, u32)], depth: usize, store: &mut Builder) -> u32 {
    let common = common_literals(patterns, depth);
    let prefix: Vec<u8> = common.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
    let inner = depth + common.len();
    let ended = patterns.partition_point(|(tokens, _)| tokens.len() == inner);
    let (ended, rest) = patterns.split_at(ended);
    let (mut literals, mut classes, mut star) = (Vec::new(), Vec::new(), 0);
    for group in rest.chunk_by(|(a, _), (b, _)| a[inner] == b[inner]) {
        let child = node(group, inner + 1, store);
        match group[0].0[inner] {
            STAR => star = child,
            token if token < STAR => literals.push(u32::from(token) << NODE_BITS | child),
            token => classes.extend([u32::from(token - CLASS), child]),
        }
    }
    let (prefix, prefix_len) = store.text(&prefix);
    let count = |list: &[u32]| u32::try_from(list.len()).unwrap_or(u32::MAX);
    let values: Vec<u32> = ended.iter().map(|(_, module)| *module).collect();
    let counts = (count(&literals) << 16) | (count(&classes) / 2);
    let number = count(&store.nodes);
    store.nodes.extend([counts, prefix, prefix_len, star, count(&values)]);
    store.nodes.extend(values.into_iter().chain(literals).chain(classes));
    number
}

/// The literal bytes that all of the sorted patterns have next.
fn common_literals(patterns: &[(Box<[u16]>, u32)], depth: usize) -> &[u16] {
    let (Some((first, _)), Some((last, _))) = (patterns.first(), patterns.last()) else {
        return &[];
    };
    let pairs = first[depth..].iter().zip(&last[depth..]);
    let same = pairs.take_while(|(a, b)| a == b && **a < STAR).count();
    &first[depth..depth + same]
}

fn folded(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// Reads a bracket expression behind its `[`, and where it ends; `None` if it has no end.
fn bracket(pattern: &[u8], start: usize) -> Option<(Class, usize)> {
    let negated = matches!(pattern.get(start), Some(b'!' | b'^'));
    let first = start + usize::from(negated);
    let mut class = [0; CLASS_WORDS];
    let mut at = first;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            if negated {
                class = class.map(|word: u32| !word);
            }
            return Some((class, at + 1));
        }
        let range = pattern.get(at + 1) == Some(&b'-');
        let high = pattern.get(at + 2).copied().filter(|high| range && *high != b']');
        at += if high.is_some() { 3 } else { 1 };
        for byte in low..=high.unwrap_or(low) {
            class[usize::from(byte >> 5)] |= 1 << (byte & 31);
        }
    }
}

/// The modules whose patterns match, in no order, one as often as patterns of it do.
pub(super) fn matching(store: &Store, modalias: &[u8]) -> Vec<u32> {
    let text: Vec<u8> = modalias.iter().copied().map(folded).collect();
    let mut search = Search { store, text: &text, found: Vec::new(), stars: Vec::new() };
    if text.len() <= 2 * PATTERN_LIMIT {
        search.run();
    }
    search.found
}

struct Search<'a> {
    store: &'a Store,
    text: &'a [u8],
    found: Vec<u32>,
    /// Nodes behind a star, and the first place from which all places were tried there.
    stars: Vec<(u32, usize)>,
}

impl Search<'_> {
    fn run(&mut self) {
        let mut open = vec![(self.store.alias_root(), 0)];
        for _ in 0..STEPS_LIMIT {
            let Some((node, at)) = open.pop() else { return };
            // words that make no sense end this branch alone
            let _ = self.visit(node, at, &mut open);
        }
    }

    fn visit(&mut self, number: u32, at: usize, open: &mut Vec<(u32, usize)>) -> Option<()> {
        let node = self.store.node(number)?;
        let (&head, rest) = node.split_first_chunk::<NODE_HEAD>()?;
        let [counts, prefix, prefix_len, star, values] = head.map(u32::from_le_bytes);
        let rest_of_text = self.text.get(at..)?;
        let prefix = self.store.text(prefix, prefix_len);
        if !rest_of_text.starts_with(prefix) {
            return None;
        }
        let at = at + prefix.len();
        let values = usize::try_from(values).ok()?;
        let literals = usize::try_from(counts >> 16).ok()?;
        let classes = usize::try_from(counts & 0xffff).ok()?;
        if star != 0 {
            self.try_star(star, at, open);
        }
        let Some(&byte) = self.text.get(at) else {
            self.found.extend(rest.get(..values)?.iter().map(|word| u32::from_le_bytes(*word)));
            return Some(());
        };
        let literals = rest.get(values..values + literals)?;
        let place =
            literals.partition_point(|word| u32::from_le_bytes(*word) >> NODE_BITS < byte.into());
        if let Some(word) = literals.get(place).copied().map(u32::from_le_bytes)
            && word >> NODE_BITS == u32::from(byte)
        {
            open.push((word & ((1 << NODE_BITS) - 1), at + 1));
        }
        let first_class = values + literals.len();
        for pair in rest.get(first_class..first_class + 2 * classes)?.chunks_exact(2) {
            if self.store.class_holds(u32::from_le_bytes(pair[0]), byte) {
                open.push((u32::from_le_bytes(pair[1]), at + 1));
            }
        }
        Some(())
    }

    /// Tries the node behind a star at every place from `at` that was not tried before.
    fn try_star(&mut self, node: u32, at: usize, open: &mut Vec<(u32, usize)>) {
        let end = self.text.len() + 1;
        let tried = match self.stars.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(place) => {
                let tried = self.stars[place].1;
                self.stars[place].1 = at.min(tried);
                tried
            }
            Err(place) => {
                self.stars.insert(place, (node, at));
                end
            }
        };
        // most go on with a literal: only where it stands need they be visited
        let prefix = self.store.node(node).and_then(|node| node.get(1..3)).unwrap_or(&[[0; 4]; 2]);
        let prefix = self.store.text(u32::from_le_bytes(prefix[0]), u32::from_le_bytes(prefix[1]));
        let first = prefix.first();
        let fits = |place: &usize| first.is_none() || self.text.get(*place) == first;
        open.extend((at..tried).filter(fits).map(|place| (node, place)));
    }
}

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
/// Words of a node before its prefix: how many literals and classes, the prefix's bytes and how many
/// values, and the node behind a star. Then follow the prefix, the values, the literals, the classes.
const NODE_HEAD: usize = 3;
/// A bracket expression as one bit a byte.
const CLASS_WORDS: usize = 8;
/// Literal branches keep their byte beside the node's number.
const NODE_BITS: u32 = 24;

/// What half a word counts to.
const HALF_MAX: usize = 0xffff;

const STAR: u16 = 256;
const CLASS: u16 = 257;

type Class = [u32; CLASS_WORDS];

/// Collects patterns, and writes the tree.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// The tokens of all patterns, one behind the other.
    tokens: Vec<u16>,
    all: Vec<Pattern>,
    classes: Vec<Class>,
}

/// Where its tokens begin and end, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    start: usize,
    end: usize,
    module: u32,
}

impl Patterns {
    /// Adds what a module offers; false if it is too long to be an alias.
    pub(super) fn add(&mut self, pattern: &[u8], module: u32) -> bool {
        if pattern.len() > PATTERN_LIMIT {
            return false;
        }
        let start = self.tokens.len();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            let token = match byte {
                // two stars are one
                b'*' if self.tokens[start..].last() == Some(&STAR) => continue,
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
            self.tokens.push(token);
        }
        self.all.push(Pattern { start, end: self.tokens.len(), module });
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
    pub(super) fn write(self, store: &mut Builder) -> u32 {
        let Self { tokens, mut all, classes } = self;
        let key = |pattern: &Pattern| (&tokens[pattern.start..pattern.end], pattern.module);
        all.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        all.dedup_by(|a, b| key(a) == key(b));
        for class in &classes {
            store.classes.extend(class);
        }
        // number 0 says that there is no node
        store.nodes.push(0);
        Tree { tokens: &tokens, nodes: &mut store.nodes, branches: Vec::new() }.node(&all, 0)
    }
}

/// Writes nodes, children before their parents.
struct Tree<'a> {
    tokens: &'a [u16],
    nodes: &'a mut Vec<u32>,
    /// Branches of the nodes that are not written yet: a token and the child's number.
    branches: Vec<(u16, u32)>,
}

impl Tree<'_> {
    /// The node of sorted patterns that agree in their first `depth` tokens.
    fn node(&mut self, patterns: &[Pattern], depth: usize) -> u32 {
        let tokens = self.tokens;
        let of = |pattern: &Pattern| &tokens[pattern.start..pattern.end];
        let inner = depth + common_literals(patterns, depth, of);
        let ended = patterns.partition_point(|pattern| of(pattern).len() == inner);
        let (ended, rest) = patterns.split_at(ended);
        let first_branch = self.branches.len();
        let mut star = 0;
        for group in rest.chunk_by(|a, b| of(a)[inner] == of(b)[inner]) {
            let token = of(&group[0])[inner];
            let child = self.node(group, inner + 1);
            if token == STAR { star = child } else { self.branches.push((token, child)) }
        }
        let prefix = patterns.first().map_or(&[][..], |first| &of(first)[depth..inner]);
        let branches = &self.branches[first_branch..];
        // sorted, so that the literals come first
        let (literals, classes) = branches.split_at(branches.partition_point(|b| b.0 < STAR));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let number = count(self.nodes.len());
        // as many modules with one and the same alias there are not
        let ended = &ended[..ended.len().min(HALF_MAX)];
        self.nodes.extend([
            (count(literals.len()) << 16) | count(classes.len()),
            (count(prefix.len()) << 16) | count(ended.len()),
            star,
        ]);
        let bytes = |part: &[u16]| {
            let mut word = [0; 4];
            for (byte, token) in word.iter_mut().zip(part) {
                // a prefix holds literals alone
                *byte = u8::try_from(*token).unwrap_or_default();
            }
            u32::from_le_bytes(word)
        };
        self.nodes.extend(prefix.chunks(4).map(bytes));
        self.nodes.extend(ended.iter().map(|pattern| pattern.module));
        let literal = |(token, child): &(u16, u32)| (u32::from(*token) << NODE_BITS) | child;
        self.nodes.extend(literals.iter().map(literal));
        let class = |(token, child): &(u16, u32)| [u32::from(token - CLASS), *child];
        self.nodes.extend(classes.iter().flat_map(class));
        self.branches.truncate(first_branch);
        number
    }
}

/// How many literal bytes all of the sorted patterns have next.
fn common_literals<'a>(
    patterns: &[Pattern],
    depth: usize,
    of: impl Fn(&Pattern) -> &'a [u16],
) -> usize {
    let (Some(first), Some(last)) = (patterns.first(), patterns.last()) else { return 0 };
    let pairs = of(first)[depth..].iter().zip(&of(last)[depth..]);
    pairs.take_while(|(a, b)| a == b && **a < STAR).count()
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
        let [branches, counts, star] = head.map(u32::from_le_bytes);
        let rest_of_text = self.text.get(at..)?;
        let [literals, classes] = halves(branches);
        let [prefix, values] = halves(counts);
        let (prefix, rest) = prefix_of(rest, prefix)?;
        if !rest_of_text.starts_with(prefix) {
            return None;
        }
        let at = at + prefix.len();
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
        let first = self.store.node(node).and_then(|node| {
            let (head, rest) = node.split_first_chunk::<NODE_HEAD>()?;
            let [prefix, _] = halves(u32::from_le_bytes(head[1]));
            prefix_of(rest, prefix)?.0.first()
        });
        let fits = |place: &usize| first.is_none() || self.text.get(*place) == first;
        open.extend((at..tried).filter(fits).map(|place| (node, place)));
    }
}

/// The upper and the lower half.
fn halves(word: u32) -> [usize; 2] {
    [word >> 16, word & 0xffff].map(|half| usize::try_from(half).unwrap_or(HALF_MAX))
}

/// A prefix of so many bytes, and the words behind it.
fn prefix_of(words: &[[u8; 4]], length: usize) -> Option<(&[u8], &[[u8; 4]])> {
    let (prefix, rest) = words.split_at_checked(length.div_ceil(4))?;
    Some((prefix.as_flattened().get(..length)?, rest))
}

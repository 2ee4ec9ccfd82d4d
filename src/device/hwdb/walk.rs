//! Stage 3: walks the tree of a hardware database for one modalias.
//!
//! Up to the first wildcard a pattern is compared literally. From there on, the walk carries with it
//! which places of the modalias the pattern so far can have reached, and leaves a branch when there are none.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::device::hwdb::trie::{Node, Rank, Trie};
use crate::glob::fnmatch;

/// The longest pattern, and the deepest a walk goes below a wildcard.
pub const PATTERN_MAX: usize = 2048;

/// A message of the kernel has 2048 bytes at most, and a rule's command is not much longer.
const MODALIAS_MAX: usize = 4096;

/// Steps that one look-up may take. Debian's database takes 130 in the median, and 135,000 at most.
const WORK_LIMIT: usize = 1 << 24;

/// Begins what is not literal.
const WILD: &[u8] = b"*?[";

/// A look-up under way.
pub(super) struct Walk<'t, 'a> {
    trie: &'t Trie<'a>,
    /// In the order in which keys were first seen.
    found: Vec<Found<'a>>,
    keys: HashMap<&'a [u8], usize>,
    work: usize,
}

struct Found<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rank: Option<Rank>,
}

/// There was more to do than any real database causes.
struct TooMuch;

/// A node that the walk is in, below a wildcard.
struct Level {
    node: Node,
    /// The child that is next.
    next: usize,
    /// What the pattern had before this node.
    pattern: usize,
    /// Where this node's places begin.
    places: usize,
    /// Whether places are known: brackets and backslashes are matched at the pattern's end.
    known: bool,
}

impl<'t, 'a> Walk<'t, 'a> {
    pub(super) fn new(trie: &'t Trie<'a>) -> Self {
        Self { trie, found: Vec::new(), keys: HashMap::new(), work: 0 }
    }

    pub(super) fn look_up(mut self, modalias: &[u8]) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        let modalias = modalias.split(|byte| *byte == 0).next().unwrap_or_default();
        if modalias.len() > MODALIAS_MAX {
            return None;
        }
        self.literal(modalias).ok()?;
        Some(self.found.into_iter().map(|found| (found.key, found.value)).collect())
    }

    fn spend(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.work = self.work.saturating_add(steps);
        if self.work > WORK_LIMIT { Err(TooMuch) } else { Ok(()) }
    }

    fn literal(&mut self, modalias: &[u8]) -> Result<(), TooMuch> {
        let Some(mut node) = self.trie.root() else { return Ok(()) };
        let mut rest = modalias;
        loop {
            let Some(prefix) = self.trie.prefix(&node) else { return Ok(()) };
            self.spend(prefix.len() + 1)?;
            let wild = prefix.iter().position(|byte| WILD.contains(byte));
            let Some(tail) = rest.strip_prefix(&prefix[..wild.unwrap_or(prefix.len())]) else {
                return Ok(());
            };
            rest = tail;
            if let Some(wild) = wild {
                return self.wild(node, &prefix[wild..], rest);
            }
            for byte in WILD {
                if let Some(child) = self.trie.child_of(&node, *byte)
                    && let Some(prefix) = self.trie.prefix(&child)
                {
                    self.wild(child, &[&[*byte], prefix].concat(), rest)?;
                }
            }
            let Some((first, tail)) = rest.split_first() else { return self.take(&node) };
            let Some(child) = self.trie.child_of(&node, *first) else { return Ok(()) };
            (node, rest) = (child, tail);
        }
    }

    /// Takes all below a node, `first` being the pattern from its first wildcard to the node's end.
    fn wild(&mut self, node: Node, first: &[u8], rest: &[u8]) -> Result<(), TooMuch> {
        let mut pattern = Vec::new();
        let mut places = vec![0];
        let mut levels: Vec<Level> = Vec::new();
        let begin = Level { node, next: 0, pattern: 0, places: 0, known: true };
        self.enter(begin, first, rest, &mut pattern, &mut places, &mut levels)?;
        while let Some(level) = levels.last_mut() {
            if level.next < level.node.child_count() {
                let (node, index, known) = (level.node, level.next, level.known);
                let from = level.places;
                level.next += 1;
                self.spend(1)?;
                let Some((byte, child)) = self.trie.child(&node, index) else { continue };
                let Some(prefix) = self.trie.prefix(&child) else { continue };
                let begin = Level {
                    node: child,
                    next: 0,
                    pattern: pattern.len(),
                    places: places.len(),
                    known,
                };
                places.extend_from_within(from..);
                let added = [&[byte], prefix].concat();
                self.enter(begin, &added, rest, &mut pattern, &mut places, &mut levels)?;
                continue;
            }
            if level.node.value_count() > 0 {
                let (node, known) = (level.node, level.known);
                let matches = if known {
                    places[level.places..].last() == Some(&rest.len())
                } else {
                    self.spend(pattern.len() * (rest.len() + 1))?;
                    fnmatch(&pattern, rest)
                };
                if matches {
                    self.take(&node)?;
                }
            }
            if let Some(level) = levels.pop() {
                pattern.truncate(level.pattern);
                places.truncate(level.places);
            }
        }
        Ok(())
    }

    /// Goes into a node, unless its text ends every way that the modalias could have gone.
    fn enter(
        &mut self,
        mut level: Level,
        added: &[u8],
        rest: &[u8],
        pattern: &mut Vec<u8>,
        places: &mut Vec<usize>,
        levels: &mut Vec<Level>,
    ) -> Result<(), TooMuch> {
        self.spend(added.len())?;
        let mut ended = pattern.len() + added.len() > PATTERN_MAX;
        for byte in added {
            if ended || !level.known {
                break;
            }
            self.spend(places.len() - level.places)?;
            level.known = step(places, level.places, *byte, rest);
            ended = level.known && places.len() == level.places;
        }
        if ended {
            places.truncate(level.places);
        } else {
            pattern.extend_from_slice(added);
            levels.push(level);
        }
        Ok(())
    }

    /// Takes the properties of a node whose pattern matches.
    fn take(&mut self, node: &Node) -> Result<(), TooMuch> {
        for index in 0..node.value_count() {
            let Some(value) = self.trie.value(node, index) else { continue };
            self.spend(value.key.len() + value.value.len() + 1)?;
            // what begins in another way is for versions to come
            let Some(key) = value.key.strip_prefix(b" ") else { continue };
            let new = Found { key, value: value.value, rank: value.rank };
            match self.keys.get(key).and_then(|at| self.found.get_mut(*at)) {
                Some(old) if new.rank.is_some() && new.rank < old.rank => {}
                Some(old) => *old = new,
                None => {
                    self.keys.insert(key, self.found.len());
                    self.found.push(new);
                }
            }
        }
        Ok(())
    }
}

/// Moves the places from `begin` on over one byte of the pattern; `false` if that takes more to see.
fn step(places: &mut Vec<usize>, begin: usize, byte: u8, rest: &[u8]) -> bool {
    match byte {
        b'[' | b'\\' => return false,
        b'*' => {
            if let Some(least) = places.get(begin).copied() {
                places.truncate(begin);
                places.extend(least..=rest.len());
            }
            return true;
        }
        _ => {}
    }
    let mut kept = begin;
    for index in begin..places.len() {
        let place = places[index];
        if rest.get(place).is_some_and(|at| byte == b'?' || *at == byte) {
            places[kept] = place + 1;
            kept += 1;
        }
    }
    places.truncate(kept);
    true
}

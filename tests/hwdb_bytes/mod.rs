//! What holds for any bytes taken for a hardware database or for its sources; for tests and for the fuzzer.

use std::collections::BTreeMap;
use std::path::Path;

use mapdev::device::hwdb::Trie;
use mapdev::device::hwdb::compile::Compiler;
use mapdev::device::hwdb::source::{Property, parse};
use mapdev::glob::fnmatch;

/// Looked up in whatever it is.
const ASKED: [&[u8]; 4] = [b"", b"a", b"usb:v1D6Bp0002:Hub", b"evdev:input:b0003v046DpC52B*"];

/// Takes the bytes for both.
pub fn check(bytes: &[u8]) {
    let mut asked: Vec<Vec<u8>> = ASKED.iter().map(|asked| asked.to_vec()).collect();
    asked.push(bytes[..bytes.len().min(24)].to_vec());
    compiled(bytes, &asked);
    compiled(&sound_header(bytes), &asked);
    sources(bytes);
}

/// Nothing is said that the file does not hold, and no key twice.
pub fn compiled(bytes: &[u8], asked: &[Vec<u8>]) {
    let Ok(trie) = Trie::new(bytes) else { return };
    let within = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr());
    for modalias in asked {
        // what takes too long is given up
        let Some(found) = trie.look_up(modalias) else { continue };
        let mut keys: Vec<_> = found.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), found.len(), "a key twice");
        for (key, value) in found {
            assert!(within(key) && within(value) && !key.contains(&0) && !value.contains(&0));
        }
    }
}

/// The same with a header that is believed, so that the tree is looked at.
fn sound_header(bytes: &[u8]) -> Vec<u8> {
    let mut sound = bytes.to_vec();
    sound.resize(sound.len().max(104), 0);
    let length = sound.len() as u64;
    sound[..8].copy_from_slice(b"KSLPHHRH");
    for (at, size) in [(16, length), (24, 80), (32, 24), (40, 16)] {
        sound[at..at + 8].copy_from_slice(&size.to_le_bytes());
    }
    // of both forms of values
    let value: u64 = if sound[48] & 1 == 0 { 32 } else { 16 };
    sound[48..56].copy_from_slice(&value.to_le_bytes());
    sound
}

/// What is compiled says the same as a reader that tries one pattern after the other.
fn sources(text: &[u8]) {
    let (properties, problems) = parse(Path::new("a.hwdb"), text);
    let lines = text.iter().filter(|byte| matches!(**byte, b'\n' | b'\r' | 0)).count() + 1;
    for problem in problems {
        assert!((1..=lines).contains(&usize::try_from(problem.line).unwrap()), "{problem}");
    }
    let mut compiler = Compiler::default();
    compiler.add(b"a.hwdb", &properties);
    let bytes = compiler.finish();
    let trie = Trie::new(&bytes).unwrap();
    for modalias in asked(&properties) {
        let found = trie.look_up(&modalias).unwrap().into_iter().collect::<BTreeMap<_, _>>();
        let wanted = tried(&properties, &modalias);
        assert_eq!(found, wanted, "{}", modalias.escape_ascii());
    }
}

/// Modaliases that some patterns may match: themselves, with something in the place of wildcards.
fn asked(properties: &[Property<'_>]) -> Vec<Vec<u8>> {
    let patterns = properties.iter().flat_map(|property| property.patterns.iter().copied());
    let mut asked = vec![Vec::new()];
    for (index, pattern) in patterns.enumerate().take(32) {
        let filled = pattern.iter().filter_map(|byte| match byte {
            b'*' => (index % 2 == 0).then_some(b'x'),
            b'?' => Some(b'y'),
            byte => Some(*byte),
        });
        asked.push(filled.filter(|byte| !b"[]\\".contains(byte)).collect());
        asked.push(pattern.to_vec());
    }
    // a wildcard in a modalias can match its own branch, depending on where the tree branches
    asked.retain(|modalias| !modalias.iter().any(|byte| b"*?[".contains(byte)));
    asked
}

/// The last property of each key that holds.
fn tried<'a>(properties: &[Property<'a>], modalias: &[u8]) -> BTreeMap<&'a [u8], &'a [u8]> {
    let mut found = BTreeMap::new();
    for property in properties {
        if property.patterns.iter().any(|pattern| matches(pattern, modalias))
            && let Some(key) = property.key.strip_prefix(b" ")
        {
            found.insert(key, property.value);
        }
    }
    found
}

/// Literally up to the first wildcard.
fn matches(pattern: &[u8], modalias: &[u8]) -> bool {
    let wild = pattern.iter().position(|byte| b"*?[".contains(byte));
    let (literal, glob) = pattern.split_at(wild.unwrap_or(pattern.len()));
    let rest = modalias.strip_prefix(literal);
    rest.is_some_and(|rest| if glob.is_empty() { rest.is_empty() } else { fnmatch(glob, rest) })
}

//! Modaliases that patterns of the sources match, or nearly match.

use std::path::Path;

use mapdev::device::hwdb::source::parse;
use mapdev::device::hwdb::update::texts;

use crate::random::Random;

/// Every pattern of the sources below a root, of each file by itself.
pub(crate) fn patterns(root: &Path) -> Vec<Vec<Vec<u8>>> {
    let (texts, _) = texts(root);
    let of_file = |text: &mapdev::device::hwdb::update::Text| {
        let (properties, _) = parse(&text.path, &text.bytes);
        let patterns = properties.iter().flat_map(|property| property.patterns.iter());
        let mut patterns: Vec<Vec<u8>> = patterns.map(|pattern| pattern.to_vec()).collect();
        patterns.dedup();
        patterns
    };
    texts.iter().map(of_file).filter(|patterns| !patterns.is_empty()).collect()
}

/// One that a pattern matches; one time in five a byte of it is another.
pub(crate) fn filled(pattern: &[u8], random: &mut Random) -> Vec<u8> {
    const LETTERS: &[u8] = b"0123456789ABCDEFabcdefpvsn:-_. *";
    let letter = |random: &mut Random| LETTERS[random.below(LETTERS.len())];
    let mut out = Vec::new();
    let mut rest = pattern;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'*' => out.extend((0..random.below(8)).map(|_| letter(random))),
            b'?' => out.push(letter(random)),
            b'[' => {
                let end = tail.iter().position(|byte| *byte == b']').unwrap_or(0);
                out.push(tail[random.below(end.max(1))]);
                rest = &tail[(end + 1).min(tail.len())..];
            }
            byte => out.push(*byte),
        }
    }
    if random.below(5) == 0 && !out.is_empty() {
        let at = random.below(out.len());
        out[at] = letter(random);
    }
    out.retain(|byte| !matches!(byte, 0 | b'\n'));
    out
}

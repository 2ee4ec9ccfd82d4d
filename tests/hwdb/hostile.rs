//! Damaged databases and damaged sources.

use std::fs;
use std::path::Path;

use mapdev::device::hwdb::compile::Compiler;
use mapdev::device::hwdb::source::parse;

use crate::hwdb_bytes::{check, compiled};
use crate::random::Random;

fn changed(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(changed.len());
        match random.below(4) {
            0 => changed[at] ^= 1 << random.below(8),
            1 => changed[at] = [0, 0xff, b'*', b' '][random.below(4)],
            // a pointer somewhere else, most of all to an earlier place
            2 if at + 8 <= changed.len() => {
                let to = random.below(changed.len()) as u64;
                changed[at..at + 8].copy_from_slice(&to.to_le_bytes());
            }
            _ => drop(changed.remove(at)),
        }
    }
    changed
}

#[test]
fn damaged_databases_end_no_look_up() {
    let mut random = Random::new();
    let text =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hwdb/sample.hwdb")).unwrap();
    let (properties, problems) = parse(Path::new("a.hwdb"), &text);
    assert_eq!(problems, []);
    let mut compiler = Compiler::default();
    compiler.add(b"a.hwdb", &properties);
    let bytes = compiler.finish();
    check(&text);
    check(&bytes);
    for _ in 0..3_000 {
        check(&changed(&bytes, &mut random));
        check(&changed(&text, &mut random));
    }
}

#[test]
fn a_tree_that_leads_into_itself_is_given_up() {
    // one node below the root with two children, both itself, and a value
    let mut bytes = b"KSLPHHRH".to_vec();
    let mut word = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    let (root, own, texts) = (80, 80 + 24 + 16, 80 + 24 + 16 + 24 + 32 + 16);
    for number in [252, texts + 8, 80, 24, 16, 16, root, texts - 80, 8] {
        word(number);
    }
    for number in [texts, 1, 0, u64::from(b'*'), own] {
        word(number);
    }
    for number in [texts, 2, 1, u64::from(b'*'), own, u64::from(b'?'), own, texts + 1, texts + 4] {
        word(number);
    }
    bytes.extend_from_slice(b"\0 A\0b\0\0\0");
    let trie = mapdev::device::hwdb::Trie::new(&bytes).unwrap();
    assert_eq!(trie.look_up(&[b'a'; 2000]), None);
    compiled(&bytes, &[b"a".to_vec(), vec![b'a'; 4000]]);
}

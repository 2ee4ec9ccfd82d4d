//! Texts of rules, damaged at random: what holds for any text holds for them.

use std::fs;
use std::path::Path;

use crate::random::Random;
use crate::rules_text::check;

fn texts() -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rules");
    let folders = [fixtures.as_path(), Path::new("/usr/lib/udev/rules.d")];
    let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn whole_files_are_read_as_any_text_is() {
    let texts = texts();
    assert!(texts.len() >= 5);
    texts.iter().for_each(|text| check(text));
}

#[test]
fn damaged_texts_cost_themselves_only() {
    let mut random = Random::new();
    let texts = texts();
    let pieces: [&[u8]; 12] =
        [b"\"", b"{", b"}", b"\\\n", b"\n", b"==", b"+=", b"$", b"%c{", b"\0", b"\xff", b"e\"\\"];
    for _ in 0..2000 {
        let text = &texts[random.below(texts.len())];
        // a few rules, so that one text takes no time
        let start = random.below(text.len());
        let mut text = text[start..(start + 400).min(text.len())].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            let end = (at + random.below(3)).min(text.len());
            let piece = pieces[random.below(pieces.len())];
            text.splice(at..end, piece.iter().copied());
        }
        check(&text);
    }
}

//! Damaged texts of `.link` files cost themselves only. `MAPDEV_TEST_SEED` repeats a run.

use crate::link_text::check;
use crate::random::Random;

const TEXTS: usize = 20_000;

#[test]
fn damaged_texts_cost_themselves_only() {
    let cases = [
        include_str!("../fixtures/net/matches.txt"),
        include_str!("../fixtures/net/names.txt"),
        include_str!("../fixtures/net/settings.txt"),
        include_str!("../fixtures/net/syntax.txt"),
    ];
    let cases: Vec<_> = cases.iter().flat_map(|file| file.split("=== ").skip(1)).collect();
    let mut random = Random::new();
    for _ in 0..TEXTS {
        let mut text = cases[random.below(cases.len())].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(text.len());
            let byte = u8::try_from(random.below(256)).unwrap();
            match random.below(4) {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => text.truncate(at + 1),
                _ => drop(text.remove(at)),
            }
            if text.is_empty() {
                text.push(byte);
            }
        }
        check(&text);
    }
}

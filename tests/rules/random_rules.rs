//! Rules made at random decide as `udevadm test` decides them. `MAPDEV_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mapdev::rules::names::Names;

use crate::answer::{self, Answer};
use crate::generate::{Text, case, kind, shrunk, text};
use crate::peer::private;
use crate::random::Random;
use crate::table::{GONE, ours, theirs};
use crate::tree::Tree;

const CASES: usize = 2000;

/// How many cases each kind of pair must have decided.
const EACH: usize = 10;

/// Texts that were damaged.
const DAMAGED: usize = 1500;

/// Our tree on `/sys`, and nobody else's rules.
pub(crate) fn alone() -> Tree {
    let mut mask = Command::new("mount");
    mask.args(["-t", "tmpfs", "tmpfs", "/usr/lib/udev/rules.d"]);
    assert!(mask.status().unwrap().success());
    Tree::mount()
}

#[test]
fn random_rules_are_decided_as_udevadm_decides_them() {
    private(module_path!(), "random_rules_are_decided_as_udevadm_decides_them", || {
        let tree = alone();
        let names = Names::load(Path::new("/"));
        let mut random = Random::new();
        let mut decided: BTreeMap<String, usize> = BTreeMap::new();
        for number in 0..CASES {
            let (case, rules) = case(&mut random);
            let answer = ours(&case, &tree, &names);
            let differs = |rules: &Text| {
                let case = case.with(text(rules));
                let ours = ours(&case, &tree, &names);
                ours != fresh(&ours, theirs(&case, &tree))
            };
            if answer != fresh(&answer, theirs(&case, &tree)) {
                let small = shrunk(rules, differs);
                let case = case.with(text(&small));
                println!("case {number}: {} {}\n{}", case.action, case.device, case.record);
                println!("{}", String::from_utf8_lossy(&case.rules));
                answer::differences(&ours(&case, &tree, &names), &theirs(&case, &tree));
                panic!("decided differently");
            }
            for kind in kinds(&rules).into_iter() {
                let count = decided.entry(kind.clone()).or_default();
                if *count < EACH {
                    let less = case.with(text(&without(&rules, &kind)));
                    *count += usize::from(ours(&less, &tree, &names) != answer);
                }
            }
        }
        println!("{CASES} cases; {decided:?}");
        let rare: Vec<_> = decided.iter().filter(|(_, count)| **count < EACH).collect();
        assert!(rare.is_empty(), "these decided too few cases: {rare:?}");
    });
}

/// The peer shows a list as it was before it became empty; what it remembers is right.
fn fresh(ours: &Answer, mut theirs: Answer) -> Answer {
    for list in ["DEVLINKS", "TAGS", "CURRENT_TAGS"] {
        if !ours.contains_key(list) {
            theirs.remove(list);
        }
    }
    theirs
}

fn kinds(rules: &Text) -> Vec<String> {
    let mut kinds: Vec<_> = rules.iter().flatten().map(|pair| kind(pair)).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn without(rules: &Text, unwanted: &str) -> Text {
    let less = |pairs: &Vec<String>| -> Vec<String> {
        pairs.iter().filter(|pair| kind(pair) != unwanted).cloned().collect()
    };
    rules.iter().map(less).collect()
}

#[test]
fn damaged_rules_are_understood_as_udevadm_understands_them() {
    private(module_path!(), "damaged_rules_are_understood_as_udevadm_understands_them", || {
        let tree = alone();
        let names = Names::load(Path::new("/"));
        let mut random = Random::new();
        let mut changed = 0;
        for number in 0..DAMAGED {
            let (case, rules) = case(&mut random);
            let damaged = damaged(&mut random, text(&rules));
            if ours_alone(&damaged) {
                continue;
            }
            let differs = |text: &Vec<u8>| {
                let case = case.with(text.clone());
                let [ours, theirs] =
                    [ours(&case, &tree, &names), theirs(&case, &tree)].map(without_labels);
                // systemd 252 ends on some empty tags, and `A=B=C` may mean two things
                let clear = !ours.keys().any(|key| key.contains('='));
                let replaced = theirs.get("(node)").is_some_and(|node| node == GONE);
                clear && !replaced && theirs.contains_key("ACTION") && ours != fresh(&ours, theirs)
            };
            if differs(&damaged) {
                let small = less_bytes(damaged, differs);
                let case = case.with(small);
                println!("case {number}: {} {}", case.action, case.device);
                println!("{}", case.rules.escape_ascii());
                answer::differences(&ours(&case, &tree, &names), &theirs(&case, &tree));
                panic!("understood differently");
            }
            let (before, after) = (case.with(text(&rules)), case.with(damaged));
            changed += usize::from(ours(&before, &tree, &names) != ours(&after, &tree, &names));
        }
        println!("{DAMAGED} texts, {changed} decided otherwise than before they were damaged");
        assert!(changed > DAMAGED / 6);
    });
}

/// The peer tells of labels in its log alone, in which damaged text may look like one.
fn without_labels(mut answer: Answer) -> Answer {
    answer.remove("(labels)");
    answer
}

/// What newer versions know and 252 does not, or what we do apart on purpose.
fn ours_alone(text: &[u8]) -> bool {
    let has = |piece: &[u8]| text.windows(piece.len()).any(|part| part == piece);
    [b"SYMLINK-=".as_slice(), b"i\"", b"cvm", b"/.", b"//", b"./", b"\"/"].into_iter().any(has)
}

fn damaged(random: &mut Random, mut text: Vec<u8>) -> Vec<u8> {
    const PIECES: [&[u8]; 22] = [
        b"", b"", b"", b"\"", b"\"", b"{", b"}", b"\\\n", b"\n", b"=", b"==", b"!", b"+", b":",
        b",", b" ", b"#", b"e\"", b"$", b"%", b"\\", b"\r\n",
    ];
    for _ in 0..=random.below(5) {
        let at = random.below(text.len());
        let end = (at + random.below(3)).min(text.len());
        text.splice(at..end, PIECES[random.below(PIECES.len())].iter().copied());
    }
    text
}

/// The smallest text that still fails, by leaving out ever shorter parts.
fn less_bytes(mut text: Vec<u8>, fails: impl Fn(&Vec<u8>) -> bool) -> Vec<u8> {
    let mut length = text.len() / 2;
    while length > 0 {
        let mut at = 0;
        while at < text.len() {
            let mut less = text.clone();
            less.drain(at..(at + length).min(text.len()));
            if fails(&less) {
                text = less;
            } else {
                at += length;
            }
        }
        length /= 2;
    }
    text
}

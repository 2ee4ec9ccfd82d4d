//! Rules made at random decide as `udevadm test` decides them. `MAPDEV_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mapdev::rules::names::Names;

use crate::answer::{self, Answer};
use crate::generate::{Text, case, kind, shrunk, text};
use crate::peer::private;
use crate::random::Random;
use crate::table::{ours, theirs};
use crate::tree::Tree;

const CASES: usize = 2000;

/// How many cases each kind of pair must have decided.
const EACH: usize = 10;

#[test]
fn random_rules_are_decided_as_udevadm_decides_them() {
    private(module_path!(), "random_rules_are_decided_as_udevadm_decides_them", || {
        let mut mask = Command::new("mount");
        mask.args(["-t", "tmpfs", "tmpfs", "/usr/lib/udev/rules.d"]);
        assert!(mask.status().unwrap().success());
        let tree = Tree::mount();
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

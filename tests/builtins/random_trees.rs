//! Machines made at random are seen as udevadm sees them. `MAPDEV_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::Path;

use mapdev::builtin::Kit;

use crate::ask::{ASKED, differences, ours, private, theirs};
use crate::generate::machine;
use crate::random::Random;
use crate::recording::Recording;

const CASES: usize = 500;

/// How many results of each builtin there must be.
const EACH: usize = 50;

/// How many differences are shown.
const SHOWN: usize = 3;

/// Names of naming schemes that both sides know.
const SCHEMES: [&str; 11] =
    ["v238", "v239", "v240", "v241", "v243", "v245", "v247", "v249", "v250", "v251", "v252"];

#[test]
fn random_machines_are_seen_as_udevadm_sees_them() {
    private(module_path!(), "random_machines_are_seen_as_udevadm_sees_them", || {
        let mut random = Random::new();
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut count, mut wrong) = (0, 0);
        for number in 0..CASES {
            let (recording, asked) = machine(&mut random);
            let scheme = SCHEMES[random.below(SCHEMES.len())];
            let line = format!("quiet net.naming-scheme={scheme}");
            recording.unpack(Path::new("/sys"));
            for devpath in &asked {
                let (our, their) = (
                    ours(devpath, &Kit::default().with_command_line(line.as_bytes())),
                    theirs(devpath, &line),
                );
                count += 1;
                for builtin in ASKED {
                    let ran = their.contains_key(&format!("RAN_{}", builtin.name()));
                    *results.entry(builtin.name()).or_default() += usize::from(ran);
                }
                if our != their {
                    wrong += 1;
                    if wrong <= SHOWN {
                        show(number, &recording, devpath, &line);
                    }
                }
            }
        }
        println!("{CASES} machines, {count} devices, {wrong} differ; results: {results:?}");
        assert_eq!(wrong, 0);
        assert!(results.values().all(|results| *results >= EACH), "too few results");
    });
}

/// Leaves out lines as long as both sides still differ in the same.
fn show(number: usize, recording: &Recording, devpath: &str, line: &str) {
    let kit = Kit::default().with_command_line(line.as_bytes());
    let found = |recording: &Recording| {
        if !recording.devpaths().iter().any(|path| path == devpath) {
            return Vec::new();
        }
        recording.unpack(Path::new("/sys"));
        differences(&ours(devpath, &kit), &theirs(devpath, line))
    };
    let all = found(recording);
    let mut small = recording.clone();
    for at in (0..small.lines.len()).rev() {
        let mut less = small.clone();
        less.lines.remove(at);
        if !small.lines[at].is_empty() && !small.lines[at].starts_with('P') && found(&less) == all {
            small = less;
        }
    }
    small.lines.retain(|line| !line.is_empty());
    println!("case {number}: {devpath}, {line}\n{}", small.lines.join("\n"));
    println!("    {}", all.join("\n    "));
    recording.unpack(Path::new("/sys"));
}

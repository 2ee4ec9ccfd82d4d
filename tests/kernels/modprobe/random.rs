//! Configurations that nobody would write: lines from a few words, good and bad, in several files.

use std::fs;

use mapdev::modules::modprobe::Config;

use super::peer::{Question, each, ours, same, theirs};
use crate::kernels;
use crate::random::Random;

struct Dice(Random);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.below(sides)
    }

    fn one<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.roll(words.len())]
    }

    fn some(&mut self, words: &[&str], most: usize, between: &str) -> String {
        let count = self.roll(most + 1);
        (0..count).map(|_| self.one(words)).collect::<Vec<_>>().join(between)
    }
}

const NAMES: [&str; 22] = [
    "ext4",
    "mbcache",
    "jbd2",
    "tun",
    "tap",
    "crc32c",
    "crc32c-intel",
    "crc32c_generic",
    "loop",
    "btrfs",
    "dm-mod",
    "dm_mod",
    "veth",
    "nosuch",
    "foo",
    "foo-bar",
    "foo_baz",
    "unix",
    "rtc-cmos",
    "fs-ext4",
    "snd-hda-intel",
    "foo.bar",
];
const PATTERNS: [&str; 14] = [
    "ext?",
    "foo*",
    "foo-*",
    "*",
    "[a-f]*",
    "foo[-_]bar",
    "crc32c*",
    "f[",
    "b]",
    "dm[!a]mod",
    "t[au][np]",
    "loo\\\\p",
    "[[:alpha:]]oop",
    "?",
];
const BLANKS: [&str; 6] = [" ", " ", " ", "  ", "\t", " \\\n"];
const OPTIONS: [&str; 8] = ["a=1", "b=\"x y\"", "c", "d=1,2", "e=\\\\x", "\tf=2", "g=\\n", " h= "];
const COMMANDS: [&str; 6] = [
    "/bin/true",
    "modprobe --ignore-install tun $CMDLINE_OPTS",
    "echo \"a  b\"\t\\\\n",
    ":",
    " x ",
    "a && \\\n b",
];
const SOFTDEP: [&str; 9] = ["pre:", "pre:", "post:", "post:", "x:", "pre:a", "\t", " ", "junk"];

fn name<'w>(dice: &mut Dice) -> &'w str {
    if dice.roll(5) == 0 { dice.one(&PATTERNS) } else { dice.one(&NAMES) }
}

fn softdeps(dice: &mut Dice) -> String {
    let words = (0..dice.roll(7))
        .map(|_| if dice.roll(2) == 0 { dice.one(&SOFTDEP) } else { dice.one(&NAMES) });
    words.collect::<Vec<_>>().join(" ")
}

fn line(dice: &mut Dice) -> String {
    let gap = dice.one(&BLANKS);
    let (first, second) = (name(dice), name(dice));
    match dice.roll(16) {
        0..=2 => format!("alias{gap}{first}{}{second}", dice.one(&BLANKS)),
        3..=4 => format!("blacklist{gap}{first}"),
        5..=7 => format!("options{gap}{first}{}{}", dice.one(&BLANKS), dice.some(&OPTIONS, 3, gap)),
        8..=9 => format!("install{gap}{first}{}{}", dice.one(&BLANKS), dice.one(&COMMANDS)),
        10 => format!("remove{gap}{first} {}", dice.one(&COMMANDS)),
        11..=13 => format!("softdep{gap}{first} {}", softdeps(dice)),
        14 => format!(" {gap}alias {first} {second} x"),
        _ => dice
            .one(&[
                "#alias foo tun",
                " # x",
                "alias",
                "options foo",
                "weakdep a b",
                "\r",
                "\\",
                "x\0y",
                "include /x",
                "alias foo\0bar tun",
            ])
            .to_owned(),
    }
}

#[test]
fn random_configurations_load_what_modprobe_loads() {
    let count: u64 = std::env::var("MAPDEV_RANDOM").map_or(250, |count| count.parse().unwrap());
    for kernel in kernels() {
        let cases: Vec<u64> = (1..=count).collect();
        let compared = each(&cases, |case| {
            let mut dice = Dice(Random(case.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            let folder = tempfile::tempdir().unwrap();
            let mut text = String::new();
            for file in ["a.conf", "modules.conf", "zz.conf"].into_iter().take(1 + dice.roll(3)) {
                let lines: Vec<_> = (0..1 + dice.roll(8)).map(|_| line(&mut dice)).collect();
                let lines = lines.join("\n");
                fs::write(folder.path().join(file), &lines).unwrap();
                text.push_str(&format!("== {file}\n{lines}\n"));
            }
            let cmdline = super::machine_cmdline();
            let config = Config::of_folders(&[folder.path().to_owned()], &cmdline);
            let questions = (0..6).map(|_| Question {
                blacklist: dice.roll(3) == 0,
                ignore_install: dice.roll(5) == 0,
                options: if dice.roll(4) == 0 { "p=1 q=2".to_owned() } else { String::new() },
                ..Question::of(dice.one(&NAMES))
            });
            questions
                .map(|asked| {
                    let theirs = theirs(kernel, folder.path(), None, &asked);
                    (format!("{case} {asked:?}\n{text}"), ours(kernel, &config, &asked), theirs)
                })
                .collect::<Vec<_>>()
        });
        let what = format!("{}, {count} random configurations", kernel.db.release());
        same(&what, &compared.concat());
    }
}

//! Sources made at random, right ones and wrong ones, in folders that hide each other: systemd's bytes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use mapdev::device::hwdb::Hwdb;
use mapdev::device::hwdb::update::{FOLDERS, compile, texts, write};

use crate::modaliases::{filled, patterns};
use crate::random::Random;

/// Short and much alike, so that they share nodes and texts.
const PARTS: [&str; 20] = [
    "a",
    "b",
    "ab",
    "usb:v1D6B",
    "usb:v046Dp",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[a",
    "p",
    ":",
    "0",
    "evdev:",
    "x*y",
    "\\",
    "\\*",
    "é",
    " ",
    "**",
];

const KEYS: [&str; 8] = ["A", "B", "AB", "ID_VENDOR", "VENDOR", "é", "A B", "KEYBOARD_KEY_1e"];

fn pattern(random: &mut Random) -> String {
    (0..1 + random.below(5)).map(|_| PARTS[random.below(PARTS.len())]).collect()
}

/// A line of a source; a seventh of them is of no use or has an odd form.
fn line(random: &mut Random) -> String {
    const ODD: [&str; 14] = [
        "# a comment\n",
        "\n",
        "   \n",
        " # indented\n",
        " =1\n",
        "  NOTHING\n",
        "\tA=1\n",
        " \tA=1\n",
        " A=1\r\n",
        "\r",
        "\n\r",
        "a\0b\n",
        " A=2 # c\n",
        "\x0b\n",
    ];
    match random.below(14) {
        0 | 1 => ODD[random.below(ODD.len())].to_owned(),
        2 | 3 => "\n".to_owned(),
        4..8 => format!("{}\n", pattern(random)),
        _ => {
            let blanks = " ".repeat(1 + random.below(2));
            let value = ["", "1", "vendor", " x=y ", "a#b"][random.below(5)];
            format!("{blanks}{}={value}\n", KEYS[random.below(KEYS.len())])
        }
    }
}

/// Up to four files of one name or another, some empty, one in ten a link to /dev/null or a folder.
fn fill(root: &Path, random: &mut Random) {
    for folder in FOLDERS.iter().filter(|folder| !folder.starts_with("usr")) {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for name in ["10-a.hwdb", "20-b.hwdb", "9.hwdb", ".hidden.hwdb", "x.hwdb~", "ä.hwdb"] {
            let path = folder.join(name);
            match random.below(12) {
                0..4 => {}
                4 => symlink("/dev/null", path).unwrap(),
                5 => fs::write(path, "").unwrap(),
                6 if random.below(4) == 0 => symlink("nowhere", path).unwrap(),
                6 if random.below(4) == 0 => fs::create_dir(path).unwrap(),
                _ => {
                    let lines = (0..1 + random.below(24)).map(|_| line(random));
                    fs::write(path, lines.collect::<String>()).unwrap();
                }
            }
        }
    }
}

#[test]
fn random_sources_are_compiled_to_the_same_bytes_and_answer_alike() {
    if !crate::is_there() {
        return;
    }
    let mut random = Random::new();
    let (mut files, mut asked, mut answered, mut mistakes) = (0, 0, 0, 0);
    for _ in 0..100 {
        let root = tempfile::tempdir().unwrap();
        fill(root.path(), &mut random);
        let made =
            Command::new("systemd-hwdb").args(["update", "--root"]).arg(root.path()).output();
        assert!(made.unwrap().status.success());
        let file = root.path().join("etc/udev/hwdb.bin");
        let theirs = fs::read(&file).ok();
        let (texts, _) = texts(root.path());
        let (ours, problems) = compile(&texts);
        mistakes += problems.len();
        let ours = (!texts.is_empty()).then_some(ours);
        if ours != theirs {
            let kept = root.keep();
            panic!("the compiled files of {} differ", kept.display());
        }
        let Some(ours) = ours else { continue };
        files += 1;
        write(&file, &ours).unwrap();
        let hwdb = Hwdb::below(root.path());
        let patterns = patterns(root.path()).concat();
        for _ in 0..patterns.len().min(3) {
            let modalias = filled(&patterns[random.below(patterns.len())], &mut random);
            let said = crate::ours(&hwdb, &modalias);
            answered += usize::from(!said.is_empty());
            let theirs = crate::query(root.path(), &modalias);
            let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
            assert_eq!(shown(&said), shown(&theirs), "{}", shown(&modalias));
            asked += 1;
        }
    }
    println!("{files} files, {mistakes} mistakes, {asked} questions, {answered} with an answer");
    assert!(files > 60 && answered > 50 && mistakes > 60);
}

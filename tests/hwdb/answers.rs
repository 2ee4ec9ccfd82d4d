//! The machine's own database: 10,000 modaliases, and what is compiled of the installed sources.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mapdev::device::hwdb::Hwdb;
use mapdev::device::hwdb::update::{compile, texts, write};

use crate::modaliases::{filled, patterns};
use crate::random::Random;

/// The answers of libudev, one for each modalias, in the form of systemd-hwdb; sorted.
fn libudev(modaliases: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("query");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hwdb/query.c");
    let built = Command::new("cc").arg("-o").arg(&program).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success());
    let mut child = Command::new(&program);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let asked = modaliases.join(&b'\n');
    let writer = std::thread::spawn(move || {
        input.write_all(&asked).unwrap();
        input.write_all(b"\n").unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let mut answers = vec![Vec::new()];
    for line in output.stdout.split_inclusive(|byte| *byte == b'\n') {
        if line == b"--\n" {
            answers.push(Vec::new());
        } else {
            answers.last_mut().unwrap().extend_from_slice(line);
        }
    }
    answers.pop();
    answers
}

fn sorted(answer: &[u8]) -> Vec<u8> {
    let mut lines: Vec<_> = answer.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_by_key(|line| line.split(|byte| *byte == b'=').next());
    lines.concat()
}

#[test]
fn ten_thousand_modaliases_are_answered_as_libudev_and_systemd_hwdb_answer_them() {
    if !crate::is_there() {
        return;
    }
    let mut random = Random::new();
    let patterns = patterns(Path::new("/"));
    assert!(patterns.len() >= 20, "the sources of Debian wanted");
    let mut modaliases = Vec::new();
    while modaliases.len() < 10_000 {
        // as many of a small file as of a large one
        let file = &patterns[random.below(patterns.len())];
        let pattern = &file[random.below(file.len())];
        modaliases.push(filled(pattern, &mut random));
    }
    let theirs = libudev(&modaliases);
    assert_eq!(theirs.len(), modaliases.len());
    let hwdb = Hwdb::default();
    // the tool takes some milliseconds each
    let all = std::env::var_os("MAPDEV_HWDB_ALL").is_some();
    let (mut wrong, mut answered, mut by_tool) = (0, 0, 0);
    for (index, (modalias, theirs)) in modaliases.iter().zip(&theirs).enumerate() {
        let ours = crate::ours(&hwdb, modalias);
        answered += usize::from(!ours.is_empty());
        let tool = (all || index % 20 == 0).then(|| crate::query(Path::new("/"), modalias));
        by_tool += usize::from(tool.is_some());
        if sorted(&ours) != *theirs || tool.as_ref().is_some_and(|tool| *tool != ours) {
            wrong += 1;
            println!("{}", modalias.escape_ascii());
            println!("  ours {}\n  theirs {}", ours.escape_ascii(), theirs.escape_ascii());
        }
    }
    println!("{by_tool} of them by systemd-hwdb as well");
    println!("{} modaliases, {answered} with an answer, {wrong} differ", modaliases.len());
    assert!(wrong == 0 && answered > 5_000);
}

#[test]
fn the_installed_sources_are_compiled_to_the_bytes_that_systemd_hwdb_writes() {
    if !crate::is_there() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("lib/udev/hwdb.d");
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir("/usr/lib/udev/hwdb.d").unwrap().flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let made = Command::new("systemd-hwdb").args(["update", "--root"]).arg(root.path()).status();
    assert!(made.unwrap().success());
    let file = root.path().join("etc/udev/hwdb.bin");
    let theirs = fs::read(&file).unwrap();
    let (texts, problems) = texts(root.path());
    let (ours, more) = compile(&texts);
    assert_eq!((problems, more), (Vec::new(), Vec::new()));
    println!("{} sources, {} bytes", texts.len(), ours.len());
    assert!(ours == theirs, "the files differ");
    write(&file, &ours).unwrap();
    let modalias = b"usb:v1D6Bp0002";
    assert_eq!(
        crate::query(root.path(), modalias),
        crate::ours(&Hwdb::below(root.path()), modalias)
    );
}

//! Writes the packets of `tests/fixtures/uevents` as files, for the fuzzer to begin with; into a folder
//! whose name ends in `rules`, the cases of `tests/fixtures/rules`; in `hwdb`, a source and what is compiled of it;
//! in `link`, the cases of `tests/fixtures/net`.

#[path = "../tests/uevent_packets/mod.rs"]
#[allow(dead_code, reason = "packets are checked by the target")]
mod uevent_packets;

use std::fs;
use std::path::{Path, PathBuf};

use mapdev::device::hwdb::compile::Compiler;
use mapdev::device::hwdb::source::parse;
use uevent_packets::{hostile, packets};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or("corpus/uevent".into()));
    fs::create_dir_all(&folder)?;
    if folder.ends_with("rules") {
        return rules(&folder);
    }
    if folder.ends_with("link") {
        return links(&folder);
    }
    if folder.ends_with("hwdb") {
        return hwdb(&folder);
    }
    let good = [
        packets(include_str!("../tests/fixtures/uevents/sysfs.txt")),
        packets(include_str!("../tests/fixtures/uevents/typical.txt")),
    ];
    let hostile = hostile(include_str!("../tests/fixtures/uevents/hostile.txt"));
    let all = good.concat().into_iter().chain(hostile.into_iter().map(|(_, _, packet)| packet));
    for (index, packet) in all.enumerate() {
        fs::write(folder.join(format!("seed-{index:03}")), packet)?;
    }
    Ok(())
}

fn links(folder: &Path) -> std::io::Result<()> {
    let cases = [
        include_str!("../tests/fixtures/net/matches.txt"),
        include_str!("../tests/fixtures/net/names.txt"),
        include_str!("../tests/fixtures/net/settings.txt"),
        include_str!("../tests/fixtures/net/syntax.txt"),
    ];
    let cases = cases.iter().flat_map(|file| file.split("=== ")).filter(|case| !case.is_empty());
    for (index, case) in cases.enumerate() {
        let lines = case.lines().skip(1).filter(|line| !line.starts_with("--- "));
        // the first byte says where the drop-in begins
        let text = ["\x7f"].into_iter().chain(lines).collect::<Vec<_>>().join("\n");
        fs::write(folder.join(format!("seed-{index:03}")), text)?;
    }
    Ok(())
}

fn hwdb(folder: &Path) -> std::io::Result<()> {
    let source = b"usb:v1D6B*\nusb:v046Dp[Cc]*\n A=1\n B=two # c\n\nevdev:*:dmi:?vn\n A=3\n";
    let (properties, _) = parse(Path::new("a.hwdb"), source);
    let mut compiler = Compiler::default();
    compiler.add(b"a.hwdb", &properties);
    fs::write(folder.join("source"), source)?;
    fs::write(folder.join("compiled"), compiler.finish())
}

fn rules(folder: &Path) -> std::io::Result<()> {
    let cases = [
        include_str!("../tests/fixtures/rules/assignments.txt"),
        include_str!("../tests/fixtures/rules/imports.txt"),
        include_str!("../tests/fixtures/rules/matches.txt"),
        include_str!("../tests/fixtures/rules/substitutions.txt"),
        include_str!("../tests/fixtures/rules/syntax.txt"),
    ];
    let cases = cases.iter().flat_map(|file| file.split("=== ")).filter(|case| !case.is_empty());
    for (index, case) in cases.enumerate() {
        let rules = case.lines().skip(1).filter(|line| !line.starts_with("--- "));
        let rules = rules.collect::<Vec<_>>().join("\n");
        fs::write(folder.join(format!("seed-{index:03}")), rules)?;
    }
    Ok(())
}

//! The rules that Debian's packages ship, as `scripts/rules.sh` fetches them: what we refuse, systemd-udevd
//! refuses, and the reverse.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mapdev::rules::Rules;
use mapdev::rules::names::Names;
use mapdev::rules::problem::Severity;

use crate::peer::private;

const FETCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/rules");

/// So that a comparison of nothing is not taken for agreement.
const REFUSED: &str =
    "KERNEL==\"a\", \\\n  KRENEL==\"b\", \\\n  TAG+=\"x\"\nTAG+=\"x\"\nATTR==\"1\", TAG+=\"x\"\n";

/// What systemd-udevd 252 only warns of.
const WARNINGS: [&str; 5] =
    ["Unknown user", "Unknown group", "Invalid value for OPTIONS", "assuming", "replacing"];

/// A file, and the last line of a rule in it.
type Place = (String, usize);

/// Copies the files to where both look for rules, by package and name. Gives the packages' count.
fn install() -> usize {
    let to = Path::new("/run/rules");
    fs::create_dir_all(to).unwrap();
    fs::write(to.join("00-refused.rules"), REFUSED).unwrap();
    let packages: Vec<_> = fs::read_dir(FETCHED).unwrap().flatten().map(|e| e.path()).collect();
    let packages: Vec<_> = packages.into_iter().filter(|path| path.is_dir()).collect();
    for package in &packages {
        for entry in fs::read_dir(package).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let name = name
                .replace(".rules", &format!("@{}.rules", package.file_name().unwrap().display()));
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
    let mut mount = Command::new("mount");
    mount.args(["--bind", "/run/rules", "/usr/lib/udev/rules.d"]);
    assert!(mount.status().unwrap().success());
    packages.len()
}

/// Where a rule ends that has something in a line.
fn end_of_rule(file: &Path, line: usize) -> usize {
    let text = fs::read(file).unwrap();
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let continued = lines[line - 1..].iter().take_while(|line| line.ends_with(b"\\"));
    line + continued.count()
}

fn ours() -> (BTreeSet<Place>, usize) {
    let (rules, problems) = Rules::load(Path::new("/"), &Names::load(Path::new("/")));
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let places = errors.map(|problem| {
        println!("{problem}");
        let name = problem.file.file_name().unwrap().to_str().unwrap().to_owned();
        (name, end_of_rule(&problem.file, problem.line.try_into().unwrap()))
    });
    (places.collect(), rules.files().len())
}

fn theirs() -> BTreeSet<Place> {
    let mut command = Command::new("udevadm");
    command.args(["test", "/sys/devices/virtual/mem/null"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let place = |line: &str| {
        let (place, what) = line.strip_prefix("/usr/lib/udev/rules.d/")?.split_once(' ')?;
        let (file, number) = place.split_once(':')?;
        let refused = !WARNINGS.iter().any(|warning| what.contains(warning));
        refused.then_some((file.to_owned(), number.trim_end_matches(':').parse().ok()?))
    };
    text.lines().filter_map(place).collect()
}

#[test]
fn the_rules_of_packages_load_as_udevadm_loads_them() {
    private(module_path!(), "the_rules_of_packages_load_as_udevadm_loads_them", || {
        if !Path::new(FETCHED).exists() {
            assert!(std::env::var_os("MAPDEV_REQUIRE_RULES").is_none(), "no rules were fetched");
            println!("skipped: scripts/rules.sh has not fetched the packages' rules");
            return;
        }
        let packages = install();
        let (ours, files) = ours();
        let theirs = theirs();
        println!("{files} files of {packages} packages; {} rules refused", ours.len());
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 2, "none but those that are wrong on purpose: {ours:?}");
        assert!(packages >= 40, "{packages} packages");
    });
}

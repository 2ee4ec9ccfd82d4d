//! Recorded devices of other machines (`tests/fixtures/recordings`, whose README tells where from).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mapdev::builtin::{Builtin, Kit};

use crate::ask::{ASKED, differences, ours, private, theirs};
use crate::recording::Recording;

/// How many devices there must be, and how many results of each builtin.
const DEVICES: usize = 100;
const EACH: usize = 20;

pub(crate) fn all() -> Vec<(String, Recording)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "umockdev"));
    files.sort();
    let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), Recording::read(file))).collect()
}

#[test]
fn recorded_devices_are_identified_as_udevadm_identifies_them() {
    private(module_path!(), "recorded_devices_are_identified_as_udevadm_identifies_them", || {
        let kit = Kit::default().with_command_line(b"");
        let (mut count, mut wrong) = (0, 0);
        let mut results: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, recording) in all() {
            recording.unpack(Path::new("/sys"));
            for devpath in recording.devpaths() {
                let (our, their) = (ours(&devpath, &kit), theirs(&devpath, ""));
                count += 1;
                for builtin in ASKED {
                    let ran = format!("RAN_{}", builtin.name());
                    let of_input = builtin == Builtin::InputId && !their.contains_key("ID_INPUT");
                    let of_net =
                        builtin == Builtin::NetId && !their.contains_key("ID_NET_NAMING_SCHEME");
                    let empty = of_input || of_net;
                    *results.entry(builtin.name()).or_default() +=
                        usize::from(their.contains_key(&ran) && !empty);
                }
                let found = differences(&our, &their);
                if !found.is_empty() {
                    wrong += 1;
                    println!("{name} {devpath}\n    {}", found.join("\n    "));
                }
            }
        }
        println!("{count} devices, {wrong} differ; results: {results:?}");
        assert_eq!(wrong, 0);
        assert!(count >= DEVICES, "too few devices");
        assert!(results.values().all(|results| *results >= EACH), "too few results");
    });
}

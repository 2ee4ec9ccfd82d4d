//! The rules that the machine has, on all of its devices, beside `udevadm test`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mapdev::coldplug;
use mapdev::device::record::Records;
use mapdev::device::replay::replay;
use mapdev::device::{Device, Sysfs};
use mapdev::rules;
use mapdev::rules::Rules;
use mapdev::rules::event::Event;
use mapdev::rules::names::Names;
use mapdev::uevent::{Action, action_name};

use crate::answer;
use crate::peer::private;
use crate::world::Doing;

/// Rules write to attributes, and these are the machine's.
const READ_ONLY: &str = "mount --bind /sys /sys && mount -o remount,bind,ro /sys";

/// Copies the rules, with files that do not exist for builtins, so that both sides do without them.
fn without_builtins() {
    let folder = Path::new("/run/rules");
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir("/usr/lib/udev/rules.d").unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let text = text.replace("IMPORT{builtin}", "IMPORT{file}");
        fs::write(folder.join(entry.file_name()), text).unwrap();
    }
    let mount = format!("{READ_ONLY} && mount --bind /run/rules /usr/lib/udev/rules.d");
    assert!(Command::new("sh").args(["-euc", &mount]).status().unwrap().success());
}

#[test]
fn the_machines_rules_decide_its_devices_as_udevadm_does() {
    private(module_path!(), "the_machines_rules_decide_its_devices_as_udevadm_does", || {
        without_builtins();
        fs::create_dir_all("/run/udev/data").unwrap();
        let names = Names::load(Path::new("/"));
        let (rules, problems) = Rules::load(Path::new("/"), &names);
        assert_eq!(problems, []);
        let sysfs = Sysfs::new("/sys");
        let records = Records::open(Path::new("/run/udev/data")).unwrap();
        let (mut count, mut wrong, mut more, mut spent) = (0, 0, 0, Duration::ZERO);
        let paths = coldplug::devpaths(&sysfs).into_values().flatten();
        for path in paths.filter(|path| !path.starts_with(b"/bus") && !path.starts_with(b"/module"))
        {
            for action in [Action::Add, Action::Change, Action::Remove] {
                let Some(uevent) = replay(&sysfs, &path, action, 0) else { continue };
                let device = Device::new(sysfs.clone(), Arc::new(uevent));
                let world = Doing::new();
                let old = records.read(device.id());
                let begun = Instant::now();
                let decision = rules::decide(&device);
                let mut event = Event::new(&device, &world, &names, old.as_ref(), decision);
                rules.apply(&mut event).unwrap();
                spent += begun.elapsed();
                let (ours, decision) = answer::ours(event);
                let name = str::from_utf8(&path).unwrap();
                let (theirs, _) = answer::theirs(name, action_name(action));
                count += 1;
                more += usize::from(!decision.steps.is_empty() || !decision.run.is_empty());
                if ours != theirs {
                    wrong += 1;
                    println!("{action:?} {name}");
                    answer::differences(&ours, &theirs);
                }
            }
        }
        println!(
            "{count} events, {more} with something decided, {wrong} differ; {spent:?} in our rules"
        );
        assert_eq!(wrong, 0);
        assert!(more > 50, "nearly nothing was decided");
    });
}

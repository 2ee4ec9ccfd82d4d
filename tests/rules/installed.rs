//! The rules that the machine has, on all of its devices, beside `udevadm test`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
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
use mapdev::rules::plan::Plans;
use mapdev::uevent::{Action, action_name};
use rustix::fs::{CWD, FileType, Mode, makedev};

use crate::answer;
use crate::peer::private;
use crate::world::complete;

/// Rules write to attributes, and these are the machine's.
const READ_ONLY: &str = "mount --bind /sys /sys && mount -o remount,bind,ro /sys";

fn read_only() {
    assert!(Command::new("sh").args(["-euc", READ_ONLY]).status().unwrap().success());
}

fn path(device: &Device) -> Option<PathBuf> {
    let name = device.devname().filter(|_| device.devnum().is_some())?;
    Some(Path::new("/dev").join(OsStr::from_bytes(name)))
}

/// As the kernel makes a node that nothing is said of.
fn make_node(device: &Device) {
    let (Some(path), Some(number)) = (path(device), device.devnum()) else { return };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(fs::remove_file(&path));
    let kind = if number.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), makedev(number.major, number.minor))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn node(device: &Device) -> Option<String> {
    let meta = fs::metadata(path(device)?).unwrap();
    Some(format!("{}:{} {:04o}", meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

#[test]
fn the_machines_rules_decide_its_devices_as_udevadm_does() {
    private(module_path!(), "the_machines_rules_decide_its_devices_as_udevadm_does", || {
        read_only();
        fs::create_dir_all("/run/udev/data").unwrap();
        let names = Names::load(Path::new("/"));
        let (rules, problems) = Rules::load(Path::new("/"), &names);
        assert_eq!(problems, []);
        let sysfs = Sysfs::new("/sys");
        let records = Records::open(Path::new("/run/udev/data")).unwrap();
        let (mut count, mut wrong, mut more) = (0, 0, 0);
        let (mut spent, mut each, mut plans) = (Duration::ZERO, Duration::ZERO, Plans::default());
        let paths = coldplug::devpaths(&sysfs).into_values().flatten();
        for path in paths.filter(|path| !path.starts_with(b"/bus") && !path.starts_with(b"/module"))
        {
            for action in [Action::Add, Action::Change, Action::Remove] {
                let Some(uevent) = replay(&sysfs, &path, action, 0) else { continue };
                let device = Device::new(sysfs.clone(), Arc::new(uevent));
                let world = complete();
                make_node(&device);
                let old = records.read(device.id());
                let begin = |device| {
                    Event::new(device, &world, &names, old.as_ref(), rules::decide(device))
                };
                let plan = plans.of(1, &rules, &device);
                let begun = Instant::now();
                let mut event = begin(&device);
                rules.apply_plan(&plan, &mut event).unwrap();
                spent += begun.elapsed();
                let (mut ours, mut decision) = answer::ours(event);
                let again = Device::new(sysfs.clone(), device.uevent().clone());
                let begun = Instant::now();
                let mut event = begin(&again);
                rules.apply(&mut event).unwrap();
                each += begun.elapsed();
                assert_eq!(answer::ours(event), (ours.clone(), decision.clone()));
                decision.finish();
                make_node(&device);
                let name = str::from_utf8(&path).unwrap();
                let (mut theirs, _) = answer::theirs(name, action_name(action));
                if let Some(node) = node(&device).filter(|_| action != Action::Remove) {
                    let [uid, gid] =
                        [decision.owner, decision.group].map(Option::unwrap_or_default);
                    let mode = decision.mode.unwrap_or(0o600);
                    ours.insert("(node)".into(), format!("{uid}:{gid} {mode:04o}"));
                    theirs.insert("(node)".into(), node);
                }
                count += 1;
                more += usize::from(!decision.steps.is_empty() || !decision.run.is_empty());
                if ours != theirs {
                    wrong += 1;
                    println!("{action:?} {name}");
                    answer::differences(&ours, &theirs);
                }
            }
        }
        println!("{count} events, {more} with something decided, {wrong} differ");
        println!("{spent:?} in our rules by plan, {each:?} rule by rule");
        assert_eq!(wrong, 0);
        assert!(more > 50, "nearly nothing was decided");
    });
}

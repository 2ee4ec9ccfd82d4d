//! C6: mode and owner are changed by ordinary calls, and the kernel writes them into the map.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use mapdev::map::shim::Told;
use mapdev::map::{Change, Lookup, MapReader, Node};
use serde_json::{Value, json};

use super::acls::grant;
use super::daemon::{Machine, wait};
use super::world::{EPERM, World, char_device, null};

/// Changes of names beside changes of owners.
const ROUNDS: u32 = 5000;

pub(super) fn read(world: &World, name: &str) -> (u32, u32, u32) {
    let reader = MapReader::open(world.map.read_only_fd().unwrap()).unwrap();
    let Lookup::Found(entry) = reader.lookup(name.as_bytes()) else { panic!("{name} is there") };
    (entry.permissions(), entry.fields.uid, entry.fields.gid)
}

fn chmod(world: &World, name: &str, mode: u32) {
    fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn told(world: &mut World) -> Vec<String> {
    let mut said = Vec::new();
    for told in world.told() {
        match told {
            Told::CompareAll => said.push("all".to_owned()),
            Told::Changed(change) => {
                let found = world.map.changed_by_kernel(&change);
                let Some(found) = found.filter(|found| found.news != 0) else { continue };
                let Node { mode, uid, gid, .. } = found.node;
                assert_eq!(found.by, Some((std::process::id(), 0)));
                said.push(format!("{} {mode:o} {uid}:{gid}", found.path.escape_ascii()));
            }
        }
    }
    said
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_chmod_and_chown_are_written_into_the_map_by_the_kernel() {
    let mut world = World::new();
    world.put("tty1", &char_device(4, 1, 0o620));
    world.put("null", &null());
    let before = world.map.generation();
    chown(world.path("tty1"), Some(1000), Some(5)).unwrap();
    assert_eq!(read(&world, "tty1"), (0o620, 1000, 5));
    chmod(&world, "tty1", 0o600);
    assert_eq!(read(&world, "tty1"), (0o600, 1000, 5));
    assert_eq!(world.mode("tty1"), (0o600, 1000, 5));
    assert_eq!(world.map.generation(), before, "no name changed");
    // two events, and the first is taken in with what the second brought
    assert_eq!(told(&mut world), ["tty1 600 1000:5"]);
    assert_eq!(read(&world, "null"), (0o666, 0, 0));
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_what_the_daemon_changes_is_an_ordinary_chmod_too() {
    let mut world = World::new();
    world.put("tty1", &char_device(4, 1, 0o620));
    let file = fs::File::open(world.path("")).unwrap();
    assert_eq!(world.mode("tty1"), (0o620, 0, 0));
    let node = Node { uid: 3, gid: 4, ..char_device(4, 1, 0o640) };
    assert_eq!(world.map.upsert(b"tty1", &node).unwrap(), Change::Attributes);
    assert_eq!(world.mode("tty1"), (0o640, 3, 4));
    assert_eq!(read(&world, "tty1"), (0o640, 3, 4));
    assert!(told(&mut world).is_empty(), "the daemon knows what it did");
    drop(file);
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_an_owner_stays_through_a_replaced_entry_and_a_replaced_map() {
    let mut world = World::new();
    world.put("tty1", &char_device(4, 1, 0o620));
    chown(world.path("tty1"), Some(1000), Some(5)).unwrap();
    for n in 0..500 {
        world.put(&format!("other{n}"), &null());
    }
    assert!(world.map.stats().republished > 0, "the map grew");
    assert_eq!(world.mode("tty1"), (0o620, 1000, 5));
    chmod(&world, "tty1", 0o602);
    assert_eq!(read(&world, "tty1"), (0o602, 1000, 5));
    assert_eq!(told(&mut world).last().unwrap(), "tty1 602 1000:5");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_chown_that_races_with_growth_is_never_lost_from_sight() {
    let mut world = World::new();
    let names: Vec<String> = (0..8).map(|n| format!("tty{n}")).collect();
    for (n, name) in (0..).zip(&names) {
        world.put(name, &char_device(4, n, 0o600));
    }
    let paths: Vec<_> = names.iter().map(|name| world.path(name)).collect();
    let stop = &AtomicBool::new(false);
    let owners = std::thread::scope(|scope| {
        let chowner = scope.spawn(|| {
            let (mut round, mut owners) = (0, [0_u32; 8]);
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let at = usize::try_from(round % 8).unwrap();
                chown(&paths[at], Some(round), None).unwrap();
                owners[at] = round;
                let seen: Vec<u32> =
                    paths.iter().map(|path| fs::metadata(path).unwrap().uid()).collect();
                assert_eq!(seen, owners, "after {round} changes");
            }
            owners
        });
        let mut n = 0;
        while world.map.stats().republished < 6 && !chowner.is_finished() {
            world.put(&format!("other{n}"), &null());
            n += 1;
        }
        stop.store(true, Ordering::Relaxed);
        chowner.join().unwrap()
    });
    assert!(owners.iter().all(|round| *round > 0), "{owners:?}");
    let in_map: Vec<u32> = names.iter().map(|name| read(&world, name).1).collect();
    assert_eq!(in_map, owners);
}

#[test]
#[ignore = "in the virtual machine"]
fn no_look_fails_because_of_a_change_of_mode_or_owner() {
    let mut world = World::new();
    for n in 0..4 {
        world.put(&format!("tty{n}"), &char_device(4, n, 0o600));
    }
    let stop = &AtomicBool::new(false);
    let paths: Vec<_> = (0..4).map(|n| world.path(&format!("tty{n}"))).collect();
    std::thread::scope(|scope| {
        let changers = [0, 1].map(|which| {
            let path = &paths[which];
            scope.spawn(move || {
                let mut round = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    chown(path, Some(round), None).unwrap();
                }
            })
        });
        let lookers = [0, 1].map(|which| {
            let path = &paths[which];
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    fs::metadata(path).unwrap();
                }
            })
        });
        // each makes all names be looked up anew
        for _ in 0..ROUNDS {
            world.put("other", &null());
            assert!(world.map.remove(b"other"));
        }
        stop.store(true, Ordering::Relaxed);
        changers.into_iter().chain(lookers).for_each(|thread| thread.join().unwrap());
    });
}

#[test]
#[ignore = "in the virtual machine"]
fn events_that_are_dropped_mean_compare_everything() {
    let mut world = World::new();
    for n in 0..3000 {
        world.put(&format!("tty{n}"), &char_device(4, n, 0o600));
    }
    for n in 0..3000 {
        chown(world.path(&format!("tty{n}")), Some(n + 1), None).unwrap();
    }
    assert_eq!(world.told(), [Told::CompareAll]);
    assert!(world.told().is_empty());
    let found = world.map.compare();
    assert_eq!(found.len(), 3000);
    for change in found {
        let n: u32 = std::str::from_utf8(&change.path[3..]).unwrap().parse().unwrap();
        assert_eq!(change.node.uid, n + 1);
    }
}

/// Reads a device as somebody else; the exit status of the shell.
fn as_user(world: &World, name: &str) -> bool {
    let script = format!(": < {}", world.path(name).display());
    Command::new("/bin/sh").args(["-c", &script]).uid(1000).gid(1000).status().unwrap().success()
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_permission_is_the_kernels_own_check_with_acls() {
    let mut world = World::new();
    world.put("null", &char_device(1, 3, 0o600));
    fs::set_permissions(&world.root, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!as_user(&world, "null"));
    grant(&world.path("null"), 0);
    assert!(as_user(&world, "null"));
    assert_eq!(read(&world, "null").0, 0o660, "the mask is the group's bits");
    // it stays when everything cached is thrown away, and when the map is replaced
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    for n in 0..500 {
        world.put(&format!("other{n}"), &null());
    }
    assert!(as_user(&world, "null"));
    assert!(world.map.remove(b"null"));
    world.put("null", &char_device(1, 3, 0o600));
    assert!(!as_user(&world, "null"), "another device inherits nothing");
    assert_eq!(fs::metadata(world.path("null")).unwrap().mode() & 0o777, 0o600);
}

#[test]
#[ignore = "in the virtual machine"]
fn the_daemon_changes_nothing_that_userspace_made_in_place_of_a_name() {
    let mut world = World::new();
    fs::write(world.path("null"), b"").unwrap();
    chmod(&world, "null", 0o600);
    world.put("null", &null());
    assert!(world.map.upsert(b"null", &Node { uid: 7, ..null() }).is_err());
    assert_eq!(world.mode("null"), (0o600, 0, 0), "this file is none of the daemon's");
    fs::remove_file(world.path("null")).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("file"), b"").unwrap();
    let before = fs::metadata(elsewhere.path().join("file")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), world.path("dir")).unwrap();
    world.put("dir/file", &null());
    assert!(world.map.upsert(b"dir/file", &Node { uid: 7, ..null() }).is_err());
    let after = fs::metadata(elsewhere.path().join("file")).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    fs::remove_file(world.path("dir")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn an_unprivileged_user_changes_nothing() {
    let mut world = World::new();
    world.put("null", &null());
    let chmod = |program: &str, word: &str| {
        let path = world.path("null");
        let mut command = Command::new("/bin/busybox");
        command.args([program, word]).arg(path).uid(1000).gid(1000);
        command.stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    assert!(!chmod("chmod", "777"));
    assert!(!chmod("chown", "1000"));
    assert_eq!(read(&world, "null"), (0o666, 0, 0));
    let refused = Command::new("/bin/sh").args(["-c", ": < /dev/mapdev"]).uid(1000).status();
    assert!(!refused.unwrap().success());
    let error = fs::remove_file(world.path("null")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EPERM), "root neither, a name of the map");
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_who_changed_owner_group_and_mode_is_told_of_each() {
    let machine = Machine::new();
    let daemon = machine.start();
    let change = |program: &str, word: &str| {
        let mut command = Command::new("/bin/busybox");
        let mut child = command.args([program, word]).arg(machine.path("tty1")).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        format!("uid 0 (process {})", child.id())
    };
    let explained = |attribute: &str| {
        let story = machine.ask(&["explain", "tty1", attribute]);
        let steps = story["attributes"][0]["steps"].as_array().unwrap().clone();
        let last = steps.into_iter().next_back().filter(|step| step["file"] != "");
        last.map(|step| (step["file"].as_str().unwrap().to_owned(), step["new"].clone()))
    };
    let (group, mode) = (change("chgrp", "5"), change("chmod", "611"));
    // its own word comes after what it was told before
    wait("the mode", || machine.ask(&["info", "tty1"])["mode"] == 0o611);
    assert_eq!(machine.ask(&["info", "tty1"])["changed_by"], mode);
    assert_eq!(explained("mode"), Some((mode, "0611".into())));
    assert_eq!(explained("group"), Some((group, "5".into())));
    assert_eq!(machine.ask(&["explain", "tty1", "owner"])["attributes"][0]["steps"], json!([]));
    drop(daemon);
    change("chown", "7");
    let _daemon = machine.start();
    for (attribute, value) in [("owner", "7"), ("group", "5"), ("mode", "0611")] {
        assert_eq!(explained(attribute), Some(("somebody".to_owned(), value.into())));
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c6_a_chown_is_told_by_the_daemon_as_the_kernels() {
    let machine = Machine::new();
    let _daemon = machine.start();
    chown(machine.path("tty1"), Some(1000), Some(5)).unwrap();
    let info = || machine.ask(&["info", "tty1"]);
    wait("the change", || info()["owner"] == 1000);
    let told = info();
    assert_eq!((&told["group"], &told["origin"]), (&Value::from(5), &Value::from("kernel")));
    let by = format!("uid 0 (process {})", std::process::id());
    assert_eq!(told["changed_by"], by);
    // an event of the device decides it again; nobody decided its owner, which stays
    fs::write("/sys/class/tty/tty1/uevent", "change").unwrap();
    machine.ask(&["settle"]);
    assert_eq!(info()["changed_by"], by, "as long as it is so");
    let dump = machine.ask(&["map", "dump"]);
    let row = dump.as_array().unwrap().iter().find(|row| row["path"] == "tty1").unwrap();
    assert_eq!((&row["decided_by"], &row["changed_by"]), (&"kernel".into(), &by.into()));
    let stat = fs::metadata(machine.path("tty1")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (1000, 5));
}

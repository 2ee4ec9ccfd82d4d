//! Shadow mode touches nothing outside the daemon's runtime folder, and the map cannot be written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager, Options};
use crate::listen::Listener;
use crate::machine::private;
use crate::storm::{Permissions, Storm};

#[test]
fn shadow_mode_touches_nothing_and_announces_nothing() {
    private(module_path!(), "shadow_mode_touches_nothing_and_announces_nothing", |mut machine| {
        let mut storm = Storm::new(Permissions::Vary);
        machine.policy("50-live.toml", &Storm::policy());
        storm.fill(&mut machine);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let listener = Listener::new();
        // the folder's own appearance is the daemon's work
        fs::create_dir(&machine.place.runtime).unwrap();
        fs::write(machine.place.runtime.with_extension("log"), "").unwrap();
        let runtime = machine.place.runtime.clone();
        let look = || {
            let mut found = BTreeMap::new();
            for folder in ["/dev", "/run", "/etc", "/var/lib"] {
                snapshot(Path::new(folder), &runtime, &mut found);
            }
            found
        };
        let before = look();
        assert!(before.len() > 1000, "only {} files seen", before.len());
        let shadow = Options { mode: "shadow", ..ACTIVE };
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &shadow);
        for _ in 0..1000 {
            storm.change(&mut machine);
        }
        bus.settle();
        let words = ["/org/mapdev1", "org.mapdev1.Manager", "ListMismatches"];
        let differ = bus.call(0, &words).unwrap();
        assert!(differ.contains("c4000_") && differ.contains("mode"), "{differ}");
        daemon.stop();
        let after = look();
        let names = before.keys().chain(after.keys());
        let changed: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
        assert!(changed.is_empty(), "changed: {changed:?}");
        assert!(listener.waiting().is_empty(), "shadow mode announced something");
    });
}

/// Everything below a folder but the daemon's own, and the log that this test keeps.
fn snapshot(folder: &Path, but: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        if path == but || path == but.with_extension("log") || path.starts_with("/dev/fd") {
            continue;
        }
        let target = fs::read_link(&path).unwrap_or_default();
        let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
        let (size, time) = (stat.size(), (stat.mtime(), stat.mtime_nsec()));
        let line = format!("{mode:o} {uid}:{gid} {:x} {size} {time:?} {target:?}", stat.rdev());
        found.insert(path.display().to_string(), line);
        if stat.is_dir() {
            snapshot(&path, but, found);
        }
    }
}

#[test]
fn another_uid_that_holds_the_map_cannot_open_it_for_writing() {
    let name = "another_uid_that_holds_the_map_cannot_open_it_for_writing";
    private(module_path!(), name, |mut machine| {
        let mut storm = Storm::new(Permissions::Vary);
        storm.fill(&mut machine);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let _daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let open = |how: &str| {
            let map: std::os::fd::OwnedFd = crate::bus::run(async {
                let builder = zbus::connection::Builder::address(bus.address.as_str());
                let connection = builder.build().await.unwrap();
                let (to, path, interface) = ("org.mapdev1", "/org/mapdev1", "org.mapdev1.Manager");
                let call = connection.call_method(Some(to), path, Some(interface), "GetMap", &());
                let answer = call.await.unwrap();
                let (map, _): (zbus::OwnedFd, u64) = answer.body().deserialize().unwrap();
                map.into()
            });
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", how]);
            command.stdin(map).output().unwrap()
        };
        let read = open("head -c 8 <&0");
        assert!(read.status.success() && read.stdout.len() == 8, "{read:?}");
        for how in [
            ": <>/proc/self/fd/0",
            ": >>/proc/self/fd/0",
            "chmod 0666 /proc/self/fd/0",
            "printf x >&0",
            "truncate -s 0 /proc/self/fd/0",
        ] {
            let written = open(how);
            assert!(!written.status.success(), "`{how}` worked");
        }
    });
}

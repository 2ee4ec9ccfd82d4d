//! The daemon in a storm of events, while everything is asked of its names at once.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::daemon::{Machine, hot_add, module, sorted};
use super::world::{list, seconds};

/// How often each kind of look was made.
#[derive(Default)]
struct Counts {
    stats: AtomicU64,
    opens: AtomicU64,
    listings: AtomicU64,
    chmods: AtomicU64,
    stop: AtomicBool,
}

/// Repeats a look until the storm is over.
fn again<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    counts: &'env Counts,
    count: &'env AtomicU64,
    mut look: impl FnMut() + Send + 'scope,
) -> ScopedJoinHandle<'scope, ()> {
    scope.spawn(move || {
        while !counts.stop.load(Ordering::Relaxed) {
            look();
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn watch(root: &Path) -> OwnedFd {
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&fd, root, WatchFlags::CREATE | WatchFlags::DELETE).unwrap();
    fd
}

/// Takes what inotify has told: whether each name is there, and how often one came.
fn hear(fd: &OwnedFd, there: &mut BTreeMap<String, bool>) -> u64 {
    let mut buffer = [MaybeUninit::uninit(); 65536];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut came = 0;
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::AGAIN) => return came,
            Err(error) => panic!("{error}"),
        };
        assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
        let name = event.file_name().unwrap().to_str().unwrap().to_owned();
        let comes = event.events().contains(ReadFlags::CREATE);
        came += u64::from(comes);
        let before = there.insert(name.clone(), comes);
        assert_ne!(before, Some(comes), "{name} came or went twice");
    }
}

fn storm(machine: &Machine) -> u32 {
    let (started, mut events) = (Instant::now(), 0);
    while started.elapsed() < seconds() {
        for n in 0..64 {
            fs::write(format!("/sys/class/tty/tty{n}/uevent"), "change").unwrap();
            events += 1;
        }
        module("modprobe", "mapdev_probe");
        module("rmmod", "mapdev_probe");
        hot_add();
        chown(machine.path("tty1"), Some(events), None).unwrap();
    }
    machine.ask(&["settle"]);
    events
}

fn chmod(path: &Path, round: &mut u32) {
    *round += 1;
    let mode = if round.is_multiple_of(2) { 0o600 } else { 0o620 };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode, "{}", path.display());
}

#[test]
#[ignore = "in the virtual machine"]
fn nothing_is_torn_or_missed_in_a_storm_of_events() {
    let machine = Machine::new();
    drop(Command::new("/sbin/rmmod").arg("mapdev_probe").stderr(Stdio::null()).status());
    module("modprobe", "zram");
    let _daemon = machine.start();
    machine.ask(&["settle"]);
    let root = machine.path("");
    let all = sorted(&root);
    let tops: Vec<String> = list(&root).into_iter().collect();
    let opened: Vec<PathBuf> = ["null", "zero", "full"].map(|name| machine.path(name)).into();
    let (changed, counts) = (machine.path("tty3"), Counts::default());
    let (watched, mut there) = (watch(&root), BTreeMap::new());
    let (mut next, mut round, mut came) = (0, 0, 0);
    let events = std::thread::scope(|scope| {
        let looks = [
            again(scope, &counts, &counts.stats, || {
                let (name, rdev, _) = &all[next % all.len()];
                next += 1;
                let stat = fs::symlink_metadata(root.join(name)).unwrap();
                assert_eq!(stat.rdev(), *rdev, "{}", name.display());
            }),
            again(scope, &counts, &counts.opens, || {
                for (path, minor) in opened.iter().zip([3, 5, 7]) {
                    assert_eq!(
                        File::open(path).unwrap().metadata().unwrap().rdev(),
                        1 << 8 | minor
                    );
                }
            }),
            again(scope, &counts, &counts.listings, || {
                let seen = list(&root);
                let missing: Vec<_> = tops.iter().filter(|name| !seen.contains(*name)).collect();
                assert!(missing.is_empty(), "{missing:?}");
                came += hear(&watched, &mut there);
            }),
            again(scope, &counts, &counts.chmods, || chmod(&changed, &mut round)),
        ];
        let events = storm(&machine);
        counts.stop.store(true, Ordering::Relaxed);
        looks.into_iter().for_each(|look| look.join().unwrap());
        events
    });
    came += hear(&watched, &mut there);
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (stats, opens) = (of(&counts.stats), of(&counts.opens) * 3);
    let (listings, chmods) = (of(&counts.listings), of(&counts.chmods));
    println!(
        "# storm: {events} events, {stats} stats, {opens} opens, {listings} listings, {chmods} \
        chmods, {came} names came"
    );
    assert!(came > 0 && there.values().all(|there| !there), "{there:?}");
    assert_eq!(fs::metadata(machine.path("tty1")).unwrap().uid(), events);
    assert_eq!(machine.ask(&["info", "tty1"])["owner"], events);
    assert_eq!(sorted(&root), all);
}

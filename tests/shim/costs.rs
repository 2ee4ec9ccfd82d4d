//! What a look-up costs beside devtmpfs and tmpfs. With SHIM_COSTS the machine's clock counts
//! instructions (`-icount`), so that the ratios are exact and have limits; else they are printed.
#![expect(clippy::print_stdout, reason = "the figures are the point")]

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, mknodat, open, openat, statat};

use super::world::{World, char_device, null};

const ROUNDS: u32 = 6;

fn folder(path: &Path) -> OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// The least of some runs; the first fills the caches.
fn least(times: u32, mut run: impl FnMut()) -> Duration {
    let timed = (0..=ROUNDS).map(|_| {
        let started = Instant::now();
        (0..times).for_each(|_| run());
        started.elapsed()
    });
    timed.skip(1).min().unwrap()
}

fn stats(dir: &OwnedFd, name: &str, there: bool) -> Duration {
    least(20_000, || {
        assert_eq!(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok(), there);
    })
}

fn opens(dir: &OwnedFd, name: &str) -> Duration {
    least(10_000, || drop(openat(dir, name, OFlags::RDONLY, Mode::empty()).unwrap()))
}

fn listing(path: &Path, count: usize) -> Duration {
    let mut buffer = [MaybeUninit::uninit(); 32_768];
    least(u32::try_from((20_000 / count).max(1)).unwrap(), || {
        let mut names = 0;
        let dir = folder(path);
        let mut raw = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = raw.next() {
            entry.unwrap();
            names += 1;
        }
        assert_eq!(names, count + 2);
    })
}

fn compare(what: &str, ours: Duration, theirs: Duration, limit: f64) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("# cost: {what}: {ratio:.3} (limit {limit}), {ours:?} to {theirs:?}");
    if std::env::var("SHIM_COSTS").is_ok_and(|word| !word.is_empty()) {
        assert!(ratio <= limit, "{what}: {ratio:.3}");
    }
}

fn on_tmpfs(count: u32) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for n in 0..count {
        let path = place.path().join(format!("tty{n}"));
        mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), 0x0401).unwrap();
    }
    place
}

#[test]
#[ignore = "in the virtual machine"]
fn c1_a_look_up_costs_what_it_costs_in_devtmpfs() {
    let mut world = World::new();
    world.put("null", &null());
    let (ours, theirs) = (folder(&world.root), folder(Path::new("/dev")));
    compare("stat", stats(&ours, "null", true), stats(&theirs, "null", true), 1.02);
    compare("open", opens(&ours, "null"), opens(&theirs, "null"), 1.02);
    compare("absent name", stats(&ours, "none", false), stats(&theirs, "none", false), 1.15);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_listing_costs_about_what_it_costs_in_tmpfs() {
    let mut world = World::new();
    for count in [1000, 10_000] {
        let place = on_tmpfs(count);
        for n in 0..count {
            world.put(&format!("d{count}/tty{n}"), &char_device(4, n, 0o600));
        }
        let ours = world.path(&format!("d{count}"));
        let names = usize::try_from(count).unwrap();
        let what = format!("listing {count} names");
        compare(&what, listing(&ours, names), listing(place.path(), names), 1.5);
    }
    for n in 0..3 {
        world.put(&format!("few/tty{n}"), &char_device(4, n, 0o600));
    }
    let place = on_tmpfs(3);
    let what = "listing 3 names in a map of 11,000";
    compare(what, listing(&world.path("few"), 3), listing(place.path(), 3), 1.5);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_new_name_costs_the_same_in_a_large_map() {
    let publish = |size: u32| {
        let mut world = World::of(mapdev::map::MapWriter::create(size * 4).unwrap());
        for n in 0..size {
            world.put(&format!("tty{n}"), &char_device(4, n, 0o600));
        }
        drop(fs::metadata(world.path("null")));
        least(64, || {
            world.put("null", &null());
            assert!(world.map.remove(b"null"));
        })
    };
    compare("a new name in 10,000 beside 100", publish(10_000), publish(100), 2.0);
}

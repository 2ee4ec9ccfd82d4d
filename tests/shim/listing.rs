//! A directory of the map in which userspace makes things is listed once, whatever comes and goes in it.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::RawDir;

use super::world::{World, char_device, null};

/// Listings of each stress.
const LISTINGS: u32 = 2000;

fn tun() -> mapdev::map::Node {
    char_device(10, 200, 0o600)
}

/// Lists a directory one name at a time, and calls `between` with how many there were so far.
fn list_slowly(dir: &Path, mut between: impl FnMut(usize)) -> Vec<String> {
    let (dir, mut room) = (File::open(dir).unwrap(), [MaybeUninit::uninit(); 32]);
    let (mut entries, mut names) = (RawDir::new(&dir, &mut room), Vec::new());
    loop {
        between(names.len());
        let Some(entry) = entries.next() else { return names };
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
    }
}

fn once(names: &[String], wanted: &str, when: impl std::fmt::Debug) {
    let found = names.iter().filter(|name| *name == wanted).count();
    assert_eq!(found, 1, "{wanted} in {names:?}, {when:?}");
}

#[derive(Clone, Copy, Debug)]
enum Event {
    UserspaceMakesTheFirst,
    UserspaceRemovesTheLast,
    MapLosesIt,
    MapHasItAgain,
    /// It is the map's alone then, behind where the listing was.
    MapHasItAgainAlone,
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_of_both_is_listed_once_whatever_happens_to_it_meanwhile() {
    use Event::{
        MapHasItAgain, MapHasItAgainAlone, MapLosesIt, UserspaceMakesTheFirst,
        UserspaceRemovesTheLast,
    };
    let mut world = World::new();
    for n in 0..3 {
        world.put(&format!("old{n}"), &null());
    }
    world.put("net/tun", &tun());
    for n in 0..3 {
        world.put(&format!("new{n}"), &null());
    }
    fs::create_dir(world.path("mine")).unwrap();
    let (root, first) = (world.root.clone(), world.path("net/first"));
    for event in [
        UserspaceMakesTheFirst,
        UserspaceRemovesTheLast,
        MapLosesIt,
        MapHasItAgain,
        MapHasItAgainAlone,
    ] {
        for moment in 0..11 {
            if !matches!(event, UserspaceMakesTheFirst) {
                fs::write(&first, b"").unwrap();
            }
            if matches!(event, MapHasItAgain | MapHasItAgainAlone) {
                assert!(world.map.remove(b"net/tun"));
            }
            let names = list_slowly(&root, |seen| match event {
                _ if seen != moment => {}
                UserspaceMakesTheFirst => fs::write(&first, b"").unwrap(),
                UserspaceRemovesTheLast => fs::remove_file(&first).unwrap(),
                MapLosesIt => assert!(world.map.remove(b"net/tun")),
                MapHasItAgain => world.put("net/tun", &tun()),
                MapHasItAgainAlone => {
                    world.put("net/tun", &tun());
                    fs::remove_file(&first).unwrap();
                }
            });
            once(&names, "net", (event, moment));
            once(&names, "mine", (event, moment));
            assert_eq!(names.len(), 10, "{names:?}");
            world.put("net/tun", &tun());
            drop(fs::remove_file(&first));
        }
    }
    fs::remove_dir(world.path("mine")).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn all_that_userspace_made_is_listed_once_beside_what_is_held() {
    let mut world = World::new();
    world.put("dev/net/tun", &tun());
    world.put("dev/bus/usb", &null());
    let dir = world.path("dev");
    let mine = |n| dir.join(format!("mine{n}"));
    (0..500).for_each(|n| fs::write(mine(n), b"").unwrap());
    fs::write(dir.join("net/first"), b"").unwrap();
    (500..1000).for_each(|n| fs::write(mine(n), b"").unwrap());
    fs::remove_file(mine(7)).unwrap();
    fs::rename(mine(0), mine(1000)).unwrap();
    for names in [list_slowly(&dir, |_| {}), super::world::list(&dir).into_iter().collect()] {
        assert_eq!(names.iter().filter(|name| name.starts_with("mine")).count(), 999);
        (1..=1000).filter(|n| *n != 7).for_each(|n| once(&names, &format!("mine{n}"), ""));
        once(&names, "net", "held");
        once(&names, "bus", "the map's");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_listing_goes_on_where_it_is_sent_back_to() {
    let mut world = World::new();
    for name in ["a/tun", "b/tun", "c/tun", "d/tun"] {
        world.put(name, &tun());
    }
    ["a/first", "b/first", "c/first"].iter().for_each(|name| drop(File::create(world.path(name))));
    // held by userspace alone, and by both
    assert!(world.map.remove(b"a/tun") && world.map.remove(b"b/tun"));
    fs::write(world.path("mine"), b"").unwrap();
    let dir = File::open(&world.root).unwrap();
    let mut room = [MaybeUninit::uninit(); 32];
    let mut entries = RawDir::new(&dir, &mut room);
    let (mut listed, mut places) = (Vec::new(), vec![0]);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        listed.push(entry.file_name().to_str().unwrap().to_owned());
        places.push(entry.next_entry_cookie());
    }
    assert_eq!(listed.len(), 7, "{listed:?}");
    // the map has it behind the walk, then alone
    world.put("a/tun", &tun());
    fs::remove_file(world.path("a/first")).unwrap();
    for (from, place) in places.iter().enumerate().skip(4).rev() {
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(*place)).unwrap();
        let mut room = [MaybeUninit::uninit(); 32];
        let (mut entries, mut again) = (RawDir::new(&dir, &mut room), Vec::new());
        while let Some(entry) = entries.next() {
            again.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        }
        assert_eq!(again, listed[from..], "from the place of entry {from}");
    }
}

/// Does something again and again, until the listings are done.
fn again(stop: &AtomicBool, done: &AtomicU64, mut act: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        act();
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_of_the_map_is_listed_once_while_userspace_comes_and_goes_in_it() {
    let mut world = World::new();
    for n in 0..20 {
        world.put(&format!("tty{n}"), &char_device(4, n, 0o600));
    }
    world.put("net/tun", &tun());
    world.put("bus/usb/001/002", &char_device(189, 1, 0o600));
    let (stop, made, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let root = &world.root;
    let path = |name| root.join(name);
    std::thread::scope(|scope| {
        let makers = [
            scope.spawn(|| {
                again(&stop, &made, || {
                    fs::write(path("net/first"), b"").unwrap();
                    fs::remove_file(path("net/first")).unwrap();
                });
            }),
            scope.spawn(|| {
                again(&stop, &made, || {
                    fs::create_dir(path("bus/usb/001/mine")).unwrap();
                    fs::remove_dir(path("bus/usb/001/mine")).unwrap();
                });
            }),
            // root may try, and it is the map's whoever holds it
            scope.spawn(|| {
                again(&stop, &refused, || {
                    for name in ["net", "bus", "bus/usb"] {
                        fs::remove_dir(path(name)).unwrap_err();
                        fs::rename(path(name), path("other")).unwrap_err();
                    }
                });
            }),
        ];
        for listing in 0..LISTINGS {
            let names: Vec<String> = if listing % 2 == 0 {
                list_slowly(&world.root, |_| {})
            } else {
                let entries = fs::read_dir(&world.root).unwrap();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            };
            once(&names, "net", listing);
            once(&names, "bus", listing);
            let below = list_slowly(&path("bus"), |_| {});
            once(&below, "usb", listing);
            if makers.iter().any(|maker| maker.is_finished()) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("# listing: {LISTINGS} listings, {} made, {} refused", of(&made), of(&refused));
    assert!(of(&made) > 100 && of(&refused) > 10);
}

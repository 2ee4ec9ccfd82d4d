//! inotify hears of names that the daemon writes into the map.

use std::fs::{self, File, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use mapdev::map::MapWriter;
use mapdev::map::shim::Told;
use rustix::fs::RawDir;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::kept::in_another_namespace;
use super::world::{World, char_device, null};

fn heard(fd: &OwnedFd) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 65536];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut said = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_str().unwrap().to_owned());
                let mut word = String::new();
                for (flag, text) in [
                    (ReadFlags::CREATE, "came"),
                    (ReadFlags::DELETE, "went"),
                    (ReadFlags::ATTRIB, "attributes"),
                    (ReadFlags::DELETE_SELF, "ended"),
                ] {
                    if event.events().contains(flag) {
                        word.push_str(text);
                    }
                }
                if event.events().contains(ReadFlags::ISDIR) {
                    word.push('/');
                }
                if word.is_empty() {
                    continue;
                }
                said.push(format!("{word} {}", name.unwrap_or_default()));
            }
            Err(Errno::AGAIN) => return said,
            Err(error) => panic!("{error}"),
        }
    }
}

fn watch(world: &World, name: &str) -> OwnedFd {
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    let all =
        WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF;
    inotify::add_watch(&fd, world.path(name), all).unwrap();
    fd
}

#[test]
#[ignore = "in the virtual machine"]
fn a_watched_directory_tells_of_names_that_come_and_go() {
    let mut world = World::new();
    world.put("input/event0", &char_device(13, 64, 0o660));
    let (root, input) = (watch(&world, ""), watch(&world, "input"));
    world.put("null", &null());
    world.put("input/event1", &char_device(13, 65, 0o660));
    world.put("snd/timer", &char_device(116, 33, 0o660));
    assert!(world.map.remove(b"input/event0"));
    assert_eq!(heard(&root), ["came null", "came/ snd"]);
    assert_eq!(heard(&input), ["came event1", "went event0"]);
    assert!(world.map.remove(b"snd/timer"));
    assert_eq!(heard(&root), ["went/ snd"]);
    chown(world.path("input/event1"), Some(1), None).unwrap();
    assert_eq!(heard(&input), ["attributes event1"]);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_watch_ends_with_its_device_and_not_before() {
    let mut world = World::new();
    world.put("null", &null());
    let watched = watch(&world, "null");
    for n in 0..500 {
        world.put(&format!("other{n}"), &null());
    }
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    chown(world.path("null"), Some(1), None).unwrap();
    assert_eq!(heard(&watched), ["attributes "], "the map was replaced several times");
    assert!(world.map.remove(b"null"));
    assert_eq!(heard(&watched), ["attributes ", "ended "][1..], "unlinked");
}

/// That what a listing says of a directory is what stat says.
fn has_one_number(world: &World, name: &str) {
    let (dir, mut room) = (File::open(&world.root).unwrap(), [MaybeUninit::uninit(); 1024]);
    let mut entries = RawDir::new(&dir, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap() == name {
            assert_eq!(entry.ino(), fs::metadata(world.path(name)).unwrap().ino());
            return;
        }
    }
    panic!("{name} is not listed");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_that_the_map_loses_and_has_again_is_the_one_that_it_was() {
    let mut world = World::new();
    world.put("net/tun", &char_device(10, 200, 0o600));
    File::create(world.path("net/mine")).unwrap();
    let net = watch(&world, "net");
    assert!(world.map.remove(b"net/tun"));
    fs::set_permissions(world.path("net"), Permissions::from_mode(0o711)).unwrap();
    world.put("net/tap", &char_device(10, 201, 0o600));
    assert_eq!(heard(&net), ["went tun", "attributes/ ", "came tap"]);
    has_one_number(&world, "net");
    assert_eq!(world.mode("net"), (0o711, 0, 0), "as of any directory that is not empty");
    // the map has been told, for when nobody holds the directory any more
    let told = world.told();
    assert!(matches!(told[..], [Told::Changed(change)] if change.pid == 0), "{told:?}");
    fs::set_permissions(world.path("net"), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(world.told()[..], [Told::Changed(_)]), "of its new object");
    fs::remove_file(world.path("net/mine")).unwrap();
    world.put("net/tun", &char_device(10, 200, 0o600));
    assert_eq!(heard(&net), ["attributes/ ", "went mine", "came tun"], "the watch goes on");
    has_one_number(&world, "net");
    assert!(world.map.remove(b"net/tun") && world.map.remove(b"net/tap"));
    assert_eq!(heard(&net), ["went tun", "went tap", "ended "]);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_that_is_held_is_the_one_of_a_fresh_map() {
    let mut world = World::new();
    world.put("bus/usb/001/002", &char_device(189, 1, 0o600));
    world.put("net/tun", &char_device(10, 200, 0o600));
    File::create(world.path("net/mine")).unwrap();
    let net = watch(&world, "net");
    let kernel = world.map.detach_kernel().unwrap();
    world.map = MapWriter::create(64).unwrap();
    world.put("disk/by-id/x", &null());
    world.put("net/tap", &char_device(10, 201, 0o600));
    world.map.attach(kernel).unwrap();
    has_one_number(&world, "net");
    fs::remove_file(world.path("net/mine")).unwrap();
    world.put("net/tun", &char_device(10, 200, 0o600));
    assert_eq!(heard(&net), ["went mine", "came tun"]);
    has_one_number(&world, "net");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_that_is_mounted_on_elsewhere_is_watched_on() {
    let mut world = World::new();
    world.put("net/tun", &char_device(10, 200, 0o600));
    let (path, watched) = (world.path("net"), watch(&world, "net"));
    let cover = || mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).unwrap();
    let replug = || {
        assert!(world.map.remove(b"net/tun"));
        world.put("net/tap", &char_device(10, 201, 0o600));
        has_one_number(&world, "net");
    };
    in_another_namespace(cover, replug, || ());
    assert_eq!(heard(&watched), ["went tun", "came tap"]);
}

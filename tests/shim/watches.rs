//! inotify hears of names that the daemon writes into the map.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

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
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    chown(world.path("null"), Some(1), None).unwrap();
    assert_eq!(heard(&watched), ["attributes "], "the map was replaced several times");
    assert!(world.map.remove(b"null"));
    assert_eq!(heard(&watched), ["attributes ", "ended "][1..], "unlinked");
}

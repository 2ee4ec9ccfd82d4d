//! What somebody keeps of a name that is gone: a descriptor, an open directory, a mount on it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;

use mapdev::map::{MapWriter, Node};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::UnshareFlags;

use super::daemon::wait;
use super::world::{World, absent, char_device, device, list, names, null};

const USER: u32 = 1000;

fn users(minor: u32) -> Node {
    Node { uid: USER, ..char_device(1, minor, 0o600) }
}

fn keep(world: &World, name: &str) -> OwnedFd {
    open(world.path(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// What a user does with a descriptor, by its name in /proc.
fn as_user(kept: &OwnedFd, what: &str) -> bool {
    let mut shell = Command::new("/bin/busybox");
    shell.args(["sh", "-c", &format!("{what} /proc/self/fd/0")]).uid(USER).gid(USER);
    shell.stdin(kept.try_clone().unwrap()).stderr(Stdio::null());
    shell.status().unwrap().success()
}

fn opens(kept: &OwnedFd) -> bool {
    as_user(kept, ": <")
}

#[test]
#[ignore = "in the virtual machine"]
fn a_kept_descriptor_gives_no_right_to_what_has_the_number_later() {
    let mut world = World::new();
    world.put("mine", &users(3));
    let kept = keep(&world, "mine");
    world.put("other", &null());
    assert!(opens(&kept), "it is still there");
    assert!(world.map.remove(b"mine"));
    assert!(!opens(&kept), "it is gone");
    world.put("secret", &char_device(1, 3, 0o600));
    assert!(!opens(&kept), "this is another device");
    assert!(!as_user(&kept, "/bin/busybox chmod 666"));
    assert_eq!(world.mode("secret"), (0o600, 0, 0));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_kept_descriptor_gives_no_right_to_a_name_that_was_taken_away() {
    let mut world = World::new();
    world.put("mine", &users(3));
    let kept = keep(&world, "mine");
    // the same object with another number; then the owner is another
    world.put("mine", &users(5));
    assert!(!opens(&kept), "no device has this number now");
    chown(world.path("mine"), Some(0), None).unwrap();
    assert!(!as_user(&kept, "/bin/busybox chmod 666"));
    assert_eq!(world.mode("mine"), (0o600, 0, 0));
    world.map.compare();
    world.put("mine", &Node { uid: 0, ..users(3) });
    assert!(!opens(&kept), "the number is back, its owner is not");
    assert!(!as_user(&kept, "/bin/busybox chmod 666"));
    assert_eq!(world.mode("mine"), (0o600, 0, 0));
}

fn by_descriptor(of: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", of.as_raw_fd()).into()
}

#[test]
#[ignore = "in the virtual machine"]
fn ids_of_a_fresh_map_are_no_ids_of_the_lost_one() {
    let mut world = World::new();
    world.put("net/tun", &users(3));
    let (directory, node) = (keep(&world, "net"), keep(&world, "net/tun"));
    assert!(opens(&node));
    let kernel = world.map.detach_kernel().unwrap();
    world.map = MapWriter::create(64).unwrap();
    world.map.attach(kernel).unwrap();
    // the same ids, cells and numbers, of other objects
    world.put("disk/secret", &users(3));
    assert_eq!(list(&world.path("disk")), names(&["secret"]));
    assert_eq!(list(&by_descriptor(&directory)), BTreeSet::new());
    assert!(openat(&directory, "secret", OFlags::PATH, Mode::empty()).is_err());
    assert!(!opens(&node));
    let file = File::open(world.path("disk/secret")).unwrap();
    chown(world.path("disk/secret"), Some(7), None).unwrap();
    assert_eq!(file.metadata().unwrap().uid(), 7);
}

/// Does something in a mount namespace of its own, then `look` in it when `meanwhile` is done.
pub(crate) fn in_another_namespace<T: Send>(
    act: impl FnOnce() + Send,
    meanwhile: impl FnOnce(),
    look: impl FnOnce() -> T + Send,
) -> T {
    let (ready, is_ready) = sync_channel(1);
    let (go_on, goes_on) = sync_channel(1);
    // what fails here must not leave the other waiting
    std::thread::scope(move |scope| {
        let other = scope.spawn(move || {
            #[expect(unsafe_code, reason = "a mount namespace wants its own root and folder")]
            // SAFETY: nothing but mounts and the folder of this thread alone changes.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                .unwrap();
            let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            mount_change("/", private).unwrap();
            act();
            ready.send(()).unwrap();
            goes_on.recv().unwrap();
            look()
        });
        is_ready.recv().unwrap();
        meanwhile();
        go_on.send(()).unwrap();
        other.join().unwrap()
    })
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_on_a_name_in_another_namespace_ends_with_its_device() {
    let mut world = World::new();
    world.put("null", &null());
    fs::write("/tmp/hidden", b"hidden").unwrap();
    let (path, seen) = (world.path("null"), world.path("null"));
    let hide = || {
        mount_bind("/tmp/hidden", &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hidden");
    };
    let replug = || {
        // an owner, or another origin, is the same device
        chown(world.path("null"), Some(1), None).unwrap();
        world.put("other", &null());
        assert!(world.map.remove(b"null"));
        absent(fs::metadata(world.path("null")));
        world.put("null", &char_device(1, 5, 0o666));
        assert_eq!(fs::metadata(world.path("null")).unwrap().rdev(), 1 << 8 | 5);
    };
    let number = in_another_namespace(hide, replug, || fs::metadata(seen).unwrap().rdev());
    assert_eq!(number, 1 << 8 | 5, "as in devtmpfs, what hid the old device does not hide this");
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_on_a_directory_in_another_namespace_freezes_it_for_nobody() {
    let mut world = World::new();
    world.put("net/tun", &null());
    let (path, seen) = (world.path("net"), world.path("net"));
    let cover = || {
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(path.join("private"), b"").unwrap();
    };
    let replug = || {
        assert!(world.map.remove(b"net/tun"));
        assert!(world.list("net").is_empty());
        world.put("net/tap", &char_device(1, 5, 0o666));
        assert_eq!(world.list("net"), names(&["tap"]), "under another id");
        assert_eq!(fs::metadata(world.path("net/tap")).unwrap().rdev(), 1 << 8 | 5);
    };
    let listed = in_another_namespace(cover, replug, || list(&seen));
    assert_eq!(listed, names(&["private"]));
    assert!(world.map.remove(b"net/tap"));
    // a thread that was joined may not have left its namespace yet, where the mount holds the folder
    wait("the folder's end", || fs::metadata(world.path("net")).is_err());
    absent(fs::metadata(world.path("net")));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_on_a_name_outlives_a_time_without_a_map() {
    let mut world = World::new();
    world.put("null", &null());
    fs::write("/tmp/hidden", b"hidden").unwrap();
    mount_bind("/tmp/hidden", world.path("null")).unwrap();
    drop((world.map.detach_kernel(), world.events.take()));
    device().withdraw().unwrap();
    assert_eq!(fs::read(world.path("null")).unwrap(), b"hidden");
    let shim = device();
    world.events = Some(shim.events().unwrap());
    world.map.attach(Box::new(shim)).unwrap();
    world.put("other", &null());
    assert_eq!(fs::read(world.path("null")).unwrap(), b"hidden");
    unmount(world.path("null"), UnmountFlags::empty()).unwrap();
    assert_eq!(fs::metadata(world.path("null")).unwrap().rdev(), 1 << 8 | 3);
}

#[test]
#[ignore = "in the virtual machine"]
fn directories_above_a_mounted_one_stay_without_their_devices() {
    let mut world = World::new();
    world.put("bus/usb/001/001", &null());
    mount("tmpfs", world.path("bus/usb"), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(world.path("bus/usb/private"), b"").unwrap();
    let watched = File::open(world.path("bus")).unwrap();
    assert!(world.map.remove(b"bus/usb/001/001"));
    assert_eq!(world.list("bus/usb"), names(&["private"]));
    chown(world.path("bus"), Some(7), None).unwrap();
    // under other ids
    world.put("bus/usb/002/001", &char_device(1, 5, 0o666));
    assert_eq!(world.list("bus/usb"), names(&["private"]));
    assert_eq!(world.list("bus"), names(&["usb"]));
    assert_eq!(list(&by_descriptor(&watched)), names(&["usb"]), "it is the one that it was");
    assert_eq!(world.mode("bus"), (0o755, 7, 0));
    unmount(world.path("bus/usb"), UnmountFlags::empty()).unwrap();
    assert_eq!(fs::metadata(world.path("bus/usb/002/001")).unwrap().rdev(), 1 << 8 | 5);
    absent(fs::metadata(world.path("bus/usb/001")));
    // what nothing is mounted on any more goes
    mount("tmpfs", world.path("bus/usb"), "tmpfs", MountFlags::empty(), None).unwrap();
    assert!(world.map.remove(b"bus/usb/002/001"));
    assert_eq!(world.list("bus/usb"), BTreeSet::new());
    unmount(world.path("bus/usb"), UnmountFlags::empty()).unwrap();
    absent(fs::metadata(world.path("bus")));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_deep_in_another_namespace_outlives_another_map() {
    let mut world = World::new();
    world.put("bus/usb/001/001", &null());
    let (path, seen) = (world.path("bus/usb"), world.path("bus/usb"));
    let cover = || {
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(path.join("private"), b"").unwrap();
    };
    let renew = || {
        let kernel = world.map.detach_kernel().unwrap();
        world.map = MapWriter::create(64).unwrap();
        world.map.attach(kernel).unwrap();
        absent(fs::metadata(world.path("bus/usb/001")));
        world.put("other", &null());
        world.put("bus/usb/002/001", &char_device(1, 5, 0o666));
        assert_eq!(world.list("bus/usb"), names(&["002"]));
    };
    let listed = in_another_namespace(cover, renew, || list(&seen));
    assert_eq!(listed, names(&["private"]));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_in_a_directory_outlives_a_time_without_a_map() {
    let mut world = World::new();
    // in memory to both sides of it
    let all = ["net/before/more/tun", "net/deep/tun", "net/later/more/tun"];
    for name in all {
        world.put(name, &null());
        assert!(fs::metadata(world.path(name)).is_ok());
    }
    fs::write("/tmp/hidden", b"hidden").unwrap();
    mount_bind("/tmp/hidden", world.path("net/deep/tun")).unwrap();
    drop((world.map.detach_kernel(), world.events.take()));
    device().withdraw().unwrap();
    assert!(world.list("net").is_empty());
    assert_eq!(fs::read(world.path("net/deep/tun")).unwrap(), b"hidden");
    let shim = device();
    world.events = Some(shim.events().unwrap());
    world.map.attach(Box::new(shim)).unwrap();
    world.put("other", &null());
    assert_eq!(world.list("net/deep"), names(&["tun"]));
    assert_eq!(fs::read(world.path("net/deep/tun")).unwrap(), b"hidden");
    // with its device it goes, and does not keep the directories
    for name in all {
        assert!(world.map.remove(name.as_bytes()));
    }
    absent(fs::metadata(world.path("net")));
}

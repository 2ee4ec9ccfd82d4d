//! Who may publish what, and what stays when the publisher is gone.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mapdev::map::MapWriter;
use mapdev::map::kernel::{Kernel, Published, Since};
use mapdev::map::shim;
use rustix::fs::{
    CWD, FileType, MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create,
    mknodat,
};
use rustix::io::Errno;

use super::world::{World, char_device, device, errno, names, null};

#[test]
#[ignore = "in the virtual machine"]
fn the_map_is_served_on_when_its_daemon_is_gone_and_given_back() {
    let mut world = World::new();
    world.put("null", &null());
    world.put("net/tun", &char_device(10, 200, 0o600));
    assert!(world.map.detach_kernel().is_some());
    world.events = None;
    let old = std::mem::replace(&mut world.map, MapWriter::create(16).unwrap());
    drop(old);
    assert_eq!(world.list(""), names(&["null", "net"]));
    chown(world.path("net/tun"), Some(77), None).unwrap();

    let shim = device();
    let memory = shim.memory().unwrap().expect("the kernel has kept it");
    let mut map = MapWriter::adopt(memory).unwrap();
    assert!(!map.take_replaced());
    assert_eq!(map.get(b"net/tun").unwrap().uid, 77, "what happened meanwhile is known");
    world.events = Some(shim.events().unwrap());
    map.attach(Box::new(shim)).unwrap();
    world.map = map;
    world.put("zero", &char_device(1, 5, 0o666));
    assert_eq!(world.list(""), names(&["null", "net", "zero"]));
    assert_eq!(world.mode("net/tun").1, 77);
}

#[test]
#[ignore = "in the virtual machine"]
fn there_is_one_publisher_at_a_time() {
    let world = World::new();
    let mut second = device();
    let memory = world.map.as_fd().try_clone_to_owned().unwrap();
    let len = world.map.stats().bytes;
    assert_eq!(errno(&second.publish(memory.as_fd(), len, Since::Lost).unwrap_err()), Errno::BUSY);
    assert_eq!(errno(&second.withdraw().unwrap_err()), Errno::BUSY);
    assert_eq!(errno(&second.memory().unwrap_err()), Errno::BUSY);
    assert_eq!(errno(&second.events().unwrap().take().unwrap_err()), Errno::PERM);
    assert_eq!(second.stats().unwrap().publisher, 1);
    second.sync().unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn a_publication_that_is_out_of_date_is_refused() {
    let mut world = World::new();
    world.put("null", &null());
    let mut shim = world.map.detach_kernel().unwrap();
    let before = world.map.attribute_changes();
    chown(world.path("null"), Some(1), None).unwrap();
    let memory = world.map.as_fd().try_clone_to_owned().unwrap();
    let len = world.map.stats().bytes;
    let mut publish =
        |changes| shim.publish(memory.as_fd(), len, Since::Unchanged(changes)).unwrap();
    assert_eq!(publish(before), Published::OutOfDate);
    assert_eq!(publish(before + 1), Published::Done);
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

fn memory(mode: u32, seals: SealFlags, from: &World) -> OwnedFd {
    let fd = memfd_create(c"other", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    fchmod(&fd, Mode::from_raw_mode(mode)).unwrap();
    let contents = from.map.read_only_fd().unwrap();
    ftruncate(&fd, from.map.stats().bytes).unwrap();
    let mut bytes = vec![0; usize::try_from(from.map.stats().bytes).unwrap()];
    rustix::io::pread(&contents, &mut bytes, 0).unwrap();
    rustix::io::pwrite(&fd, &bytes, 0).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

#[test]
#[ignore = "in the virtual machine"]
fn attributes_that_were_changed_since_the_copy_are_carried_over_and_counted_on() {
    let mut world = World::new();
    world.put("null", &null());
    let (path, len) = (world.path("null"), world.map.stats().bytes);
    let copies = [memory(0o400, SEALS, &world), memory(0o400, SEALS, &world)];
    let mut shim = world.map.detach_kernel().unwrap();
    chown(&path, Some(7), Some(8)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let count = || device().stats().unwrap().chg;
    let before = count();
    let ended = shim.publish(copies[0].as_fd(), len, Since::CarriedOver).unwrap();
    assert_eq!(ended, Published::Done);
    assert_eq!(world.mode("null"), (0o640, 7, 8));
    assert_eq!(count(), before, "the copy has an older count");
    let ended = shim.publish(copies[1].as_fd(), len, Since::Unchanged(before)).unwrap();
    assert_eq!(ended, Published::Done);
    assert_eq!(world.mode("null"), (0o666, 0, 0), "nothing is carried that was not asked for");
    assert_eq!(count(), before);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_new_publisher_hears_nothing_that_the_last_one_was_told() {
    let mut world = World::new();
    world.put("null", &null());
    let memory = world.map.as_fd().try_clone_to_owned().unwrap();
    let len = world.map.stats().bytes;
    chown(world.path("null"), Some(1), None).unwrap();
    drop((world.map.detach_kernel(), world.events.take()));
    let mut shim = device();
    shim.publish(memory.as_fd(), len, Since::Lost).unwrap();
    let events = shim.events().unwrap();
    assert_eq!(events.take().unwrap(), []);
    chown(world.path("null"), Some(2), None).unwrap();
    assert_eq!(events.take().unwrap().len(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn only_root_of_the_machine_opens_the_control_device_whatever_its_mode() {
    let place = tempfile::tempdir().unwrap();
    let every_one = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    every_one(place.path());
    let (node, number) = (place.path().join("mapdev"), fs::metadata(shim::DEVICE).unwrap().rdev());
    mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o600), number).unwrap();
    every_one(&node);
    let script = format!("test \"$(id -u)\" = $0 && exec 3<> {}", node.display());
    let open = |program: &str, words: &[&str], user: u32| {
        let mut shell = Command::new(program);
        shell.args(words).args(["-c", &script, &user.to_string()]).uid(user).gid(user);
        let ended = shell.output().unwrap();
        (ended.status.success(), String::from_utf8(ended.stderr).unwrap())
    };
    assert_eq!(open("/bin/sh", &[], 0), (true, String::new()));
    for (opened, said) in
        [open("/bin/sh", &[], 1000), open("/bin/unshare", &["-U", "-r", "/bin/sh"], 0)]
    {
        // and not the file system's "permission denied"
        assert!(!opened && said.contains("Operation not permitted"), "{said}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn memory_that_others_could_write_is_refused() {
    let mut world = World::new();
    let seals = SEALS;
    let len = world.map.stats().bytes;
    let mut shim = world.map.detach_kernel().unwrap();
    let mut publish = |fd: &OwnedFd, len| shim.publish(fd.as_fd(), len, Since::Lost);
    let mut refused = |fd: OwnedFd, len, wanted| {
        assert_eq!(errno(&publish(&fd, len).unwrap_err()), wanted);
    };
    refused(memory(0o600, seals, &world), len, Errno::ACCESS);
    refused(memory(0o777, seals, &world), len, Errno::ACCESS);
    refused(memory(0o400, SealFlags::SHRINK | SealFlags::GROW, &world), len, Errno::ACCESS);
    refused(memory(0o400, seals | SealFlags::FUTURE_WRITE, &world), len, Errno::ACCESS);
    refused(memory(0o400, seals, &world), len - 4096, Errno::INVAL);
    refused(memory(0o400, seals, &world), len + 1, Errno::INVAL);
    refused(world.map.read_only_fd().unwrap(), len, Errno::BADF);
    let file = fs::File::options().read(true).write(true).open("/dev/zero").unwrap();
    refused(file.into(), 4096, Errno::INVAL);
    let given_away = memory(0o400, seals, &world);
    rustix::fs::fchown(&given_away, Some(rustix::fs::Uid::from_raw(5)), None).unwrap();
    refused(given_away, len, Errno::ACCESS);
    let fine = memory(0o400, seals, &world);
    shim.publish(fine.as_fd(), len, Since::Lost).unwrap();
}

#[test]
#[ignore = "in the virtual machine"]
fn a_publisher_that_is_stopped_and_goes_on_is_not_refused() {
    let mut world = World::of(MapWriter::create(50_000).unwrap());
    let memory = world.map.as_fd().try_clone_to_owned().unwrap();
    let len = world.map.stats().bytes;
    let mut shim = world.map.detach_kernel().unwrap();
    let own = std::process::id();
    // as a debugger does it; a signal that is only ignored would not be seen. The shell ends by itself:
    // if it were killed between two signals, nobody would make this process go on
    let going_on = tempfile::NamedTempFile::new().unwrap();
    let flag = going_on.path().display();
    let script = format!("while [ -e {flag} ]; do kill -STOP {own}; kill -CONT {own}; done");
    let mut stops = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    let ended: Vec<_> = (0..200).map(|_| shim.publish(memory.as_fd(), len, Since::Lost)).collect();
    drop(going_on);
    stops.wait().unwrap();
    for publication in ended {
        assert_eq!(publication.unwrap(), Published::Done);
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn what_the_kernel_wrote_is_in_memory_that_it_has_given_back() {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
    let mut world = World::new();
    for n in 0..1000 {
        world.put(&format!("tty{n}"), &char_device(4, n, 0o600));
    }
    for n in 0..1000 {
        chown(world.path(&format!("tty{n}")), Some(n + 1), None).unwrap();
    }
    let memory = world.map.as_fd().try_clone_to_owned().unwrap();
    let len = usize::try_from(world.map.stats().bytes).unwrap();
    drop((world.map.detach_kernel(), world.events.take()));
    world.map = MapWriter::create(16).unwrap();
    device().withdraw().unwrap();
    #[expect(unsafe_code, reason = "pages are taken away as under memory pressure")]
    // SAFETY: a fresh mapping that nobody reads, of memory whose size is sealed.
    unsafe {
        let at = mmap(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ,
            MapFlags::SHARED | MapFlags::POPULATE,
            &memory,
            0,
        )
        .unwrap();
        madvise(at, len, Advice::LinuxPageOut).unwrap();
    }
    let map = MapWriter::adopt(memory).unwrap();
    for n in 0..1000 {
        let node = map.now(format!("tty{n}").as_bytes()).unwrap();
        assert_eq!(node.uid, n + 1, "tty{n}");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_hundred_thousand_names_work() {
    let mut world = World::new();
    for n in 0..100_000 {
        world.put(&format!("d{}/n{n}", n % 100), &char_device(4, n, 0o600));
    }
    assert_eq!(world.list("").len(), 100);
    assert_eq!(world.list("d7").len(), 1000);
    assert_eq!(world.mode("d99/n99999"), (0o600, 0, 0));
    let stats = device().stats().unwrap();
    assert!(stats.entries >= 100_000 && stats.mounted == 1, "{stats:?}");
}

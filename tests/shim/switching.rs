//! The map in devtmpfs's place on the machine's own /dev, and back.

mod xattrs;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mapdev::map::shim;
use mapdev::switch::{self, Wanted, mounts};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, mount};

use super::c4_loads::unload;
use super::daemon::{Machine, module, sorted, wait};
use super::own_dev::{LOCK, depth};
use super::world::patient;

fn mapdevctl(words: &[&str]) -> Output {
    Command::new("/bin/mapdevctl").args(words).output().unwrap()
}

fn attach() {
    let done = mapdevctl(&["shim", "attach", "/dev"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(shim::is_mounted_on(Path::new("/dev")));
}

pub(crate) fn detach() {
    let done = mapdevctl(&["shim", "detach", "/dev"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!shim::is_mounted_on(Path::new("/dev")));
}

/// What a machine has in its /dev beside devices.
struct Things {
    log: UnixDatagram,
    control: UnixListener,
    pipe: File,
    open: File,
}

const MOUNTS: [(&str, &str); 4] =
    [("pts", "devpts"), ("shm", "tmpfs"), ("mqueue", "mqueue"), ("hugepages", "hugetlbfs")];
const LINKS: [(&str, &str); 5] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

impl Things {
    fn make() -> Self {
        let dev = Path::new("/dev");
        for (name, kind) in MOUNTS {
            fs::create_dir(dev.join(name)).unwrap();
            mount(kind, dev.join(name), kind, MountFlags::NOSUID, None).unwrap();
        }
        fs::set_permissions("/dev/shm", fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write("/dev/shm/file", "in memory").unwrap();
        LINKS.iter().for_each(|(name, target)| symlink(target, dev.join(name)).unwrap());
        let rw = Mode::from_raw_mode(0o600);
        mknodat(CWD, "/dev/initctl", FileType::Fifo, rw, 0).unwrap();
        mknodat(CWD, "/dev/mine", FileType::CharacterDevice, rw, 1 << 8 | 3).unwrap();
        chown("/dev/mine", Some(1000), Some(5)).unwrap();
        fs::write("/dev/closed", "closed").unwrap();
        fs::set_permissions("/dev/closed", fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir_all("/dev/other/folder").unwrap();
        symlink("../../null", "/dev/other/folder/link").unwrap();
        Self {
            log: UnixDatagram::bind("/dev/log").unwrap(),
            control: UnixListener::bind("/dev/control").unwrap(),
            pipe: File::options().read(true).write(true).open("/dev/initctl").unwrap(),
            open: File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open("/dev/open")
                .unwrap(),
        }
    }

    fn work(&mut self) {
        UnixDatagram::unbound().unwrap().send_to(b"hello", "/dev/log").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(self.log.recv(&mut bytes).unwrap(), 5);
        drop(UnixStream::connect("/dev/control").unwrap());
        self.control.accept().unwrap();
        File::options().write(true).open("/dev/initctl").unwrap().write_all(b"pipe").unwrap();
        self.pipe.read_exact(&mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"pipe");
        // who has it open and who opens it now have one file
        self.open.set_len(0).unwrap();
        self.open.seek(SeekFrom::Start(0)).unwrap();
        self.open.write_all(b"written on").unwrap();
        assert_eq!(fs::read_to_string("/dev/open").unwrap(), "written on");
        assert_eq!(fs::read_to_string("/dev/closed").unwrap(), "closed");
        assert_eq!(fs::metadata("/dev/closed").unwrap().mode() & 0o7777, 0o640);
        let mine = fs::metadata("/dev/mine").unwrap();
        assert_eq!((mine.rdev(), mine.uid(), mine.gid()), (1 << 8 | 3, 1000, 5));
        assert_eq!(fs::metadata("/dev/other/folder/link").unwrap().rdev(), 1 << 8 | 3);
        for (name, target) in LINKS {
            assert_eq!(fs::read_link(Path::new("/dev").join(name)).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_to_string("/dev/shm/file").unwrap(), "in memory");
        assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
        let all = mounts::read().unwrap();
        for (name, kind) in MOUNTS {
            let seen = mounts::top(&all, &Path::new("/dev").join(name)).unwrap();
            assert_eq!(seen.kind, kind.as_bytes(), "{name}");
        }
        // a new terminal: /dev/ptmx looks for pts beside itself
        let script = "exec 3<>/dev/ptmx && [ -c /dev/pts/ptmx ] && ls /dev/pts | grep -q '^[0-9]'";
        assert!(Command::new("/bin/sh").args(["-c", script]).status().unwrap().success());
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn dev_becomes_the_map_and_devtmpfs_again_and_nothing_is_lost() {
    let machine = Machine::on_dev();
    let _daemon = machine.start();
    chown("/dev/tty1", Some(1000), Some(5)).unwrap();
    let mut things = Things::make();
    things.work();
    let devices = sorted(Path::new("/dev"));
    for round in 0..3 {
        attach();
        things.work();
        assert_eq!(sorted(Path::new("/dev")), devices);
        assert_eq!(fs::metadata("/dev/tty1").unwrap().uid(), 1000);
        assert_eq!(fs::read_link("/dev/char/1:3").unwrap(), Path::new("../null"));
        // changes of the time when it was the map
        let name = format!("/dev/other/came-{round}");
        fs::write(&name, "x").unwrap();
        chown("/dev/tty2", Some(round), None).unwrap();
        detach();
        things.work();
        assert_eq!(sorted(Path::new("/dev")), devices);
        assert_eq!(fs::metadata("/dev/tty1").unwrap().uid(), 1000);
        assert_eq!(fs::metadata("/dev/tty2").unwrap().uid(), round);
        assert_eq!(fs::read_to_string(&name).unwrap(), "x");
        assert_eq!(fs::read_link("/dev/char/1:3").unwrap(), Path::new("../null"));
        assert_eq!(depth(), 1, "round {round}: what is taken off is gone");
    }
    attach();
    // what goes while it is the map does not come back with devtmpfs
    fs::remove_file("/dev/fd").unwrap();
    fs::remove_file("/dev/other/came-1").unwrap();
    detach();
    fs::symlink_metadata("/dev/fd").unwrap_err();
    fs::symlink_metadata("/dev/other/came-1").unwrap_err();
    symlink("/proc/self/fd", "/dev/fd").unwrap();
    // a mount that came meanwhile needs another devtmpfs on top
    attach();
    let socket = UnixDatagram::bind("/dev/other/late").unwrap();
    detach();
    things.work();
    UnixDatagram::unbound().unwrap().send_to(b"late", "/dev/other/late").unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
    assert_eq!(depth(), 3);
}

#[test]
#[ignore = "in the virtual machine"]
fn devices_come_and_go_on_either_side_of_a_switch() {
    let machine = Machine::on_dev();
    let rule = "schema = 1\n[[rule]]\nid = \"probe\"\nmatch.devname = \"mapdev-probe\"\n\
        set = { owner = \"user\", mode = \"0640\", symlink = { add = [\"probe/of/tests\"] } }\n";
    machine.policy(rule);
    let _daemon = machine.start_with(&["--mount-dev"]);
    assert!(shim::is_mounted_on(Path::new("/dev")), "mounted before the daemon is ready");
    let link = Path::new("/dev/probe/of/tests");
    let settled = || {
        let there = fs::metadata(link).is_ok_and(|stat| {
            stat.file_type().is_char_device() && stat.uid() == 1000 && stat.mode() & 0o777 == 0o640
        });
        there && File::open("/dev/mapdev-probe").is_ok()
    };
    module("modprobe", "mapdev_probe");
    wait("the node in the map", settled);
    detach();
    wait("the node in devtmpfs", settled);
    module("rmmod", "mapdev_probe");
    wait("its end", || fs::symlink_metadata(link).is_err());
    module("modprobe", "mapdev_probe");
    wait("the node in devtmpfs", settled);
    attach();
    wait("the node in the map", settled);
    module("rmmod", "mapdev_probe");
    wait("its end", || fs::symlink_metadata(link).is_err());
    detach();
    assert!(fs::symlink_metadata(link).is_err());
    assert_eq!(depth(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_mount_over_dev_that_was_refused_is_tried_again() {
    let machine = Machine::on_dev();
    unload("mapdev_probe");
    // a name of the map, as something that cannot be carried: no mount tells when it goes
    let in_the_way = Path::new("/dev/mapdev-probe");
    fs::create_dir(in_the_way).unwrap();
    let _daemon = machine.start_with(&["--mount-dev"]);
    assert!(!shim::is_mounted_on(Path::new("/dev")));
    fs::remove_dir(in_the_way).unwrap();
    wait("the map on /dev", || shim::is_mounted_on(Path::new("/dev")));
    detach();
    assert_eq!(depth(), 1);
}

/// How often this process has the file open.
fn open_files(path: &str) -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    files.filter(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(path))).count()
}

#[test]
#[ignore = "in the virtual machine"]
fn a_switch_waits_for_the_one_under_way() {
    let machine = Machine::on_dev();
    let _daemon = machine.start();
    let under_way = File::create(LOCK).unwrap();
    under_way.lock().unwrap();
    let refused = mapdevctl(&["shim", "attach", "/dev"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("another switch is under way; try again when it has ended"), "{told}");
    assert_eq!(depth(), 1);
    let second = std::thread::spawn(|| {
        switch::switch(Path::new("/dev"), Path::new("/sys"), Wanted::Map, patient(60))
    });
    // it has the file open for as long as it waits
    wait("one that waits", || open_files(LOCK) == 2 || second.is_finished());
    assert!(!second.is_finished());
    drop(under_way);
    assert!(second.join().unwrap().unwrap().switched);
    assert_eq!(fs::metadata(LOCK).unwrap().mode() & 0o777, 0o600, "nobody else can hold it");
    detach();
    assert_eq!(depth(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_watched_disk_is_watched_on_the_other_side_of_a_switch() {
    let rules = Path::new("/etc/udev/rules.d/50-watch.rules");
    let seen = Path::new("/run/watched");
    fs::create_dir_all(rules.parent().unwrap()).unwrap();
    let rule = "KERNEL==\"zram0\", OPTIONS+=\"watch\"\n\
        KERNEL==\"zram0\", ACTION==\"change\", RUN+=\"/bin/touch /run/watched\"\n";
    fs::write(rules, rule).unwrap();
    module("modprobe", "zram");
    fs::write("/sys/block/zram0/disksize", "1M").unwrap();
    let machine = Machine::on_dev();
    let daemon = machine.start();
    for switch in [attach, detach] {
        switch();
        // the daemon looks at /dev before it answers
        machine.ask(&["settle"]);
        drop(fs::remove_file(seen));
        drop(File::options().write(true).open("/dev/zram0").unwrap());
        wait("what follows a write", || seen.exists());
        machine.ask(&["settle"]);
    }
    drop(daemon);
    drop((fs::remove_file(rules), fs::remove_file(seen)));
    unload("zram");
}

#[test]
#[ignore = "in the virtual machine"]
fn dev_moves_to_another_root_and_the_next_daemon_goes_on_with_it() {
    let machine = Machine::on_dev();
    // as in an initramfs: no service manager, and the daemon ends before the root is switched
    let daemon = machine.start_with(&["--mount-dev"]);
    chown("/dev/tty1", Some(77), None).unwrap();
    drop(daemon);
    let root = tempfile::tempdir().unwrap();
    let dev = root.path().join("dev");
    fs::create_dir(&dev).unwrap();
    rustix::mount::mount_move("/dev", &dev).unwrap();
    assert!(shim::is_mounted_on(&dev) && !shim::is_mounted_on(Path::new("/dev")));
    assert_eq!(fs::metadata(dev.join("tty1")).unwrap().uid(), 77, "served on");
    rustix::mount::mount_move(&dev, "/dev").unwrap();
    let _daemon = machine.start();
    assert_eq!(fs::metadata("/dev/tty1").unwrap().uid(), 77);
    assert_eq!(machine.ask(&["info", "tty1"])["owner"], 77);
    detach();
    assert_eq!(depth(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn what_cannot_be_carried_is_listed_and_nothing_is_switched() {
    let machine = Machine::on_dev();
    unload("mapdev_probe");
    let daemon = machine.start();
    fs::write("/dev/mapdev-probe", "mine").unwrap();
    fs::create_dir("/dev/loop-control2").unwrap();
    let refused = mapdevctl(&["shim", "attach", "/dev"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    fs::remove_file("/dev/mapdev-probe").unwrap();
    fs::remove_dir("/dev/loop-control2").unwrap();
    // it is a name of the map: a module declares it
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("/dev stays as it is") && told.contains("\n  mapdev-probe: "), "{told}");
    assert!(!told.contains("loop-control2"), "{told}");
    assert!(!shim::is_mounted_on(Path::new("/dev")));
    assert!(!Path::new("/run/mapdev-switch").exists());
    drop(daemon);
    super::world::device().withdraw().unwrap();
    let refused = mapdevctl(&["shim", "attach", "/dev"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    // a list of all that is missing ends before null where many modules are loaded
    assert!(told.contains("console: the map has no such device; is mapdevd running?"), "{told}");
    assert_eq!(mapdevctl(&["shim", "detach", "/dev"]).status.code(), Some(1));
    assert_eq!(depth(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_switch_that_is_killed_leaves_one_or_the_other() {
    let machine = Machine::on_dev();
    let _daemon = machine.start();
    let mut things = Things::make();
    let (mut killed, mut switched) = (0, 0);
    // how long one takes, to kill in the middle of it
    let started = Instant::now();
    attach();
    let whole = started.elapsed();
    detach();
    let kills = std::env::var("SHIM_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = kills.unwrap_or(5_u32).max(20);
    for n in 0..kills {
        let verb = if shim::is_mounted_on(Path::new("/dev")) { "detach" } else { "attach" };
        let mut child = Command::new("/bin/mapdevctl")
            .args(["shim", verb, "/dev"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (started, pause) = (Instant::now(), whole * (n * 37 % 100) / 100);
        while started.elapsed() < pause {
            std::thread::sleep(Duration::from_micros(200));
            assert_eq!(fs::metadata("/dev/null").unwrap().rdev(), 1 << 8 | 3);
        }
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        switched += u32::from(shim::is_mounted_on(Path::new("/dev")) == (verb == "attach"));
        things.work();
    }
    println!("# {killed} of {kills} switches killed, {switched} were made");
    if shim::is_mounted_on(Path::new("/dev")) {
        detach();
    }
    // the next one has cleared away what killed ones left
    attach();
    detach();
    assert!(!Path::new("/run/mapdev-switch").exists());
    things.work();
}

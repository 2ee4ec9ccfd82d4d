//! C4: opening a name loads its module; looking at it does not, nor does who may not open it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mapdev::map::layout::{ATTR_SIZE, E_LIVE, E_MODULE, attr, header};
use mapdev::map::{Kind, Node};
use memmap2::{MmapOptions, MmapRaw};

use super::hostile::word;
use super::world::{ENXIO, Parameter, World, device, names, null};

const O_NONBLOCK: i32 = 0o4000;

pub(crate) fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).join("refcnt").exists()
}

pub(crate) fn unload(module: &str) {
    if is_loaded(module) {
        assert!(Command::new("/sbin/rmmod").arg(module).status().unwrap().success());
    }
}

pub(crate) fn pending(alias: &str, block: bool, mode: u32) -> Node {
    let kind = Kind::Pending { block, alias: alias.as_bytes().into() };
    Node { kind, mode, uid: 0, gid: 0, flags: E_MODULE }
}

pub(crate) fn open_as(path: PathBuf, user: u32) -> bool {
    let script = format!("exec 3< {}", path.display());
    let mut shell = Command::new("/bin/sh");
    let status =
        shell.args(["-c", &script]).uid(user).gid(user).stderr(std::process::Stdio::null());
    status.status().unwrap().success()
}

/// Stands in for the daemon: waits for the device of a name, and fills its number in.
pub(crate) fn fill_in(world: &mut World, name: &str, sysfs: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(number) = fs::read_to_string(Path::new(sysfs).join("dev")) else {
            std::thread::yield_now();
            continue;
        };
        let (major, minor) = number.trim().split_once(':').unwrap();
        let (major, minor) = (major.parse().unwrap(), minor.parse().unwrap());
        let old = world.map.get(name.as_bytes()).unwrap().clone();
        let kind = match old.kind {
            Kind::Pending { block: true, .. } => Kind::Block { major, minor },
            Kind::Pending { block: false, .. }
            | Kind::Char { .. }
            | Kind::Block { .. }
            | Kind::Link { .. } => Kind::Char { major, minor },
        };
        world.put(name, &Node { kind, flags: E_LIVE | E_MODULE, ..old });
        return;
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_opening_a_name_with_a_static_number_loads_its_module() {
    for (name, module, minor) in
        [("net/tun", "tun", 200), ("loop-control", "loop", 237), ("uinput", "uinput", 223)]
    {
        unload(module);
        let mut world = World::new();
        let kind = Kind::Char { major: 10, minor };
        world.put(name, &Node { kind, mode: 0o660, uid: 1000, gid: 0, flags: E_MODULE });
        assert_eq!(world.mode(name), (0o660, 1000, 0));
        assert!(!is_loaded(module), "stat loads nothing");
        assert!(!open_as(world.path(name), 1001), "no permission");
        assert!(!is_loaded(module), "no permission, no load");
        assert!(open_as(world.path(name), 1000), "{name}");
        assert!(is_loaded(module), "{name}");
        assert_eq!(world.mode(name), (0o660, 1000, 0));
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn c4_opening_a_pending_name_loads_its_module_and_waits_for_the_number() {
    let cases = [
        (
            "mapdev-probe",
            "devname:mapdev-probe",
            "mapdev_probe",
            "/sys/class/misc/mapdev-probe",
            false,
        ),
        ("nvme-fabrics", "nvme-fabrics", "nvme_fabrics", "/sys/class/misc/nvme-fabrics", false),
        ("zram0", "zram", "zram", "/sys/class/block/zram0", true),
    ];
    let timeouts = device().stats().unwrap().timeouts;
    for (name, alias, module, sysfs, block) in cases {
        unload(module);
        let mut world = World::new();
        world.put(name, &Node { uid: 1000, ..pending(alias, block, 0o600) });
        assert!(fs::metadata(world.path(name)).is_ok());
        assert!(!open_as(world.path(name), 1001));
        assert!(!is_loaded(module), "no permission, no load");
        let stop = Arc::new(AtomicBool::new(false));
        let openers: Vec<_> = (0..4)
            .map(|_| {
                let path = world.path(name);
                std::thread::spawn(move || open_as(path, 1000))
            })
            .collect();
        fill_in(&mut world, name, sysfs, &stop);
        for opener in openers {
            assert!(opener.join().unwrap(), "{name}");
        }
        assert!(is_loaded(module));
        assert_eq!(world.mode(name), (0o600, 1000, 0), "the owner stays");
        assert_ne!(fs::metadata(world.path(name)).unwrap().rdev(), 0);
    }
    assert_eq!(device().stats().unwrap().timeouts, timeouts);
}

#[test]
#[ignore = "in the virtual machine"]
fn an_owner_changed_while_the_number_is_awaited_is_checked_again() {
    unload("mapdev_probe");
    let mut world = World::new();
    world.put("mapdev-probe", &Node { uid: 1000, ..pending("devname:mapdev-probe", false, 0o600) });
    let path = world.path("mapdev-probe");
    let before = device().stats().unwrap().pending_opens;
    let opener = std::thread::spawn(move || open_as(path, 1000));
    while device().stats().unwrap().pending_opens == before || !is_loaded("mapdev_probe") {
        std::thread::yield_now();
    }
    std::os::unix::fs::chown(world.path("mapdev-probe"), Some(0), None).unwrap();
    for told in world.told() {
        if let mapdev::map::shim::Told::Changed(change) = told {
            world.map.changed_by_kernel(&change);
        }
    }
    fill_in(&mut world, "mapdev-probe", "/sys/class/misc/mapdev-probe", &AtomicBool::new(false));
    assert!(!opener.join().unwrap(), "the second walk finds no permission");
    assert_eq!(world.mode("mapdev-probe"), (0o600, 0, 0));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_missing_module_and_a_number_that_never_comes_are_enxio() {
    let mut world = World::new();
    world.put("nothing", &pending("devname:no-such-name", false, 0o600));
    let error = File::open(world.path("nothing")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENXIO), "no such module");

    let timeout = Parameter::set("open_timeout_ms", 200);
    unload("mapdev_probe");
    world.put("silent", &pending("devname:mapdev-probe", false, 0o600));
    let (timeouts, started) = (device().stats().unwrap().timeouts, Instant::now());
    let error = File::open(world.path("silent")).unwrap_err();
    drop(timeout);
    assert_eq!(error.raw_os_error(), Some(ENXIO));
    assert!(started.elapsed() >= Duration::from_millis(190));
    assert_eq!(device().stats().unwrap().timeouts, timeouts + 1);
    assert_eq!(world.list(""), names(&["nothing", "silent"]));
}

#[test]
#[ignore = "in the virtual machine"]
fn a_block_device_of_a_module_is_opened_by_its_static_number() {
    unload("loop");
    let mut world = World::new();
    let kind = Kind::Block { major: 7, minor: 0 };
    world.put("loop0", &Node { kind, mode: 0o600, uid: 0, gid: 0, flags: E_MODULE });
    assert_eq!(fs::metadata(world.path("loop0")).unwrap().rdev(), 7 << 8);
    assert!(!is_loaded("loop"));
    let before = device().stats().unwrap().loads;
    let mut log = File::options().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").unwrap();
    log.seek(SeekFrom::End(0)).unwrap();
    let opened: io::Result<File> = File::open(world.path("loop0"));
    opened.unwrap();
    assert!(is_loaded("loop"));
    // the kernel of `make check-kasan` leaves it to us; Debian's loads it by itself, and says so
    let by_kernel = lines(&mut log).contains("block device autoloading is deprecated");
    assert_eq!(device().stats().unwrap().loads - before, u64::from(!by_kernel));
}

/// What the kernel has logged; each read gives one record.
fn lines(log: &mut File) -> String {
    let (mut text, mut record) = (String::new(), [0; 8192]);
    while let Ok(len) = log.read(&mut record) {
        text += &String::from_utf8_lossy(&record[..len]);
    }
    text
}

/// Makes every cell of owner and mode look as if it were just being written, or the contrary.
fn write_cells(memory: &mut MmapRaw, being_written: bool) {
    let mut header = |at| word(memory, at).load(Ordering::Relaxed);
    let (first, cells) = (header(header::ATTRS_OFF), header(header::N_ENTRIES));
    for cell in 0..cells {
        let at = usize::try_from(first + cell * ATTR_SIZE).unwrap();
        let seq = word(memory, at + attr::SEQ);
        seq.store(
            seq.load(Ordering::Relaxed) / 2 * 2 + u32::from(being_written),
            Ordering::Release,
        );
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn an_open_waits_for_the_number_also_while_the_owner_is_being_changed() {
    unload("mapdev_probe");
    let mut world = World::new();
    world.put("slow", &pending("devname:mapdev-probe", false, 0o600));
    let path = world.path("slow");
    assert_eq!(fs::metadata(&path).unwrap().rdev(), 0);
    let mut memory = MmapOptions::new().map_raw(&world.map.as_fd()).unwrap();
    write_cells(&mut memory, true);
    let opener = std::thread::spawn(move || File::open(path));
    while !is_loaded("mapdev_probe") && !opener.is_finished() {
        std::thread::yield_now();
    }
    write_cells(&mut memory, false);
    world.put("slow", &null());
    assert_eq!(opener.join().unwrap().unwrap().metadata().unwrap().rdev(), 1 << 8 | 3);
}

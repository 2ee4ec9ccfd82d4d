//! Modules that are installed, damaged and removed while the daemon runs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mapdev::map::layout::E_MODULE;
use mapdev::map::{Lookup, MapReader, Walk};
use mapdev::modules::scan::{running_release, scan};

use crate::bus::{Bus, run};
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::{Machine, private};
use crate::random::Random;

const PATIENCE: Duration = Duration::from_secs(30);

/// Real modules of Debian's kernel; `None` where no kernel is unpacked.
pub(crate) fn real() -> Option<PathBuf> {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels/bookworm/lib/modules");
    let found = fs::read_dir(suite).into_iter().flatten().flatten().next();
    if found.is_none() {
        assert!(std::env::var_os("MAPDEV_REQUIRE_KERNELS").is_none(), "no kernel is unpacked");
        println!("skipped: no kernel is unpacked (scripts/kernels.sh)");
    }
    found.map(|entry| entry.path().join("kernel"))
}

/// The machine's folder of modules.
pub(crate) fn tree(machine: &Machine) -> PathBuf {
    machine.root.join("lib/modules").join(running_release().unwrap())
}

/// Installs a module of Debian's as a package manager does.
pub(crate) fn install(machine: &Machine, name: &str) {
    let to = tree(machine).join("kernel").join(name);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let new = to.with_extension("ko.dpkg-new");
    fs::copy(real().unwrap().join(name), &new).unwrap();
    fs::rename(new, to).unwrap();
}

/// The map as anybody may read it.
pub(crate) struct Map {
    reader: MapReader,
    address: String,
}

impl Map {
    pub(crate) fn open(bus: &Bus) -> Self {
        Self { reader: reader(&bus.address), address: bus.address.clone() }
    }

    fn again(&mut self) {
        self.reader = reader(&self.address);
    }

    pub(crate) fn has(&mut self, name: &str) -> bool {
        loop {
            match self.reader.lookup(name.as_bytes()) {
                Lookup::Found(_) => return true,
                Lookup::Absent => return false,
                Lookup::Busy => {}
                Lookup::Replaced => self.again(),
            }
        }
    }

    /// The names that modules which are not loaded serve.
    fn names(&mut self) -> BTreeSet<String> {
        loop {
            match self.reader.walk() {
                Walk::Found(all) => {
                    let ours = all.into_iter().filter(|(_, e)| e.fields.flags & E_MODULE != 0);
                    return ours
                        .map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
                        .collect();
                }
                Walk::Busy => {}
                Walk::Replaced => self.again(),
            }
        }
    }

    /// Waits until the name is there, or is not, and says how long that took.
    pub(crate) fn until(&mut self, name: &str, there: bool) -> Duration {
        let started = Instant::now();
        while self.has(name) != there {
            assert!(started.elapsed() < PATIENCE, "{name}: still {}", !there);
            std::thread::yield_now();
        }
        started.elapsed()
    }
}

fn reader(address: &str) -> MapReader {
    let map: std::os::fd::OwnedFd = run(async {
        let connection = zbus::connection::Builder::address(address).build().await.unwrap();
        let (to, path, interface) = ("org.mapdev1", "/org/mapdev1", "org.mapdev1.Manager");
        let call = connection.call_method(Some(to), path, Some(interface), "GetMap", &());
        let (map, _): (zbus::OwnedFd, u64) = call.await.unwrap().body().deserialize().unwrap();
        map.into()
    });
    MapReader::open(map).unwrap()
}

#[test]
fn an_installed_module_is_in_the_map_in_time_and_never_by_halves() {
    let name = "an_installed_module_is_in_the_map_in_time_and_never_by_halves";
    private(module_path!(), name, |machine| {
        let Some(real) = real() else { return };
        install(&machine, "fs/fuse/fuse.ko");
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let mut map = Map::open(&bus);
        assert!(map.has("fuse") && !map.has("net/tun"));
        let node = machine.place.dev.join("net/tun");
        let file = tree(&machine).join("kernel/drivers/net/tun.ko");
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..5 {
            install(&machine, "drivers/net/tun.ko");
            times[0].push(map.until("net/tun", true));
            fs::remove_file(&file).unwrap();
            times[1].push(map.until("net/tun", false));

            // in place, in small pieces, with somebody who looks all the time
            let bytes = fs::read(real.join("drivers/net/tun.ko")).unwrap();
            let mut slow = File::create(&file).unwrap();
            for piece in bytes.chunks(bytes.len().div_ceil(50)) {
                slow.write_all(piece).unwrap();
                let until = Instant::now() + Duration::from_millis(4);
                while Instant::now() < until {
                    assert!(!map.has("net/tun"), "the map shows a name whose file is half written");
                }
                // another package comes meanwhile, so that the tree is read
                install(&machine, "drivers/block/loop.ko");
            }
            drop(slow);
            times[2].push(map.until("net/tun", true));
            assert!(map.has("loop-control"));
            fs::remove_file(&file).unwrap();
            map.until("net/tun", false);
        }
        for (what, times) in ["moved in", "removed", "copied in place"].iter().zip(&mut times) {
            times.sort_unstable();
            println!("{what}: {times:?}");
        }
        bus.settle();
        assert!(!node.exists(), "the node of a removed module stays");
        daemon.stop();
    });
}

/// A Debian package with these folders of the kernel's, for the running kernel's release.
fn package(machine: &Machine, folders: &[&str]) -> PathBuf {
    let top = machine.top.join("package");
    let release = running_release().unwrap();
    for folder in folders {
        let to = top.join("lib/modules").join(&release).join("kernel").join(folder);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(real().unwrap().join(folder)).unwrap().flatten() {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    fs::create_dir(top.join("DEBIAN")).unwrap();
    let control = "Package: some-modules\nVersion: 1\nArchitecture: all\n\
                   Maintainer: nobody <nobody@localhost>\nDescription: modules\n";
    fs::write(top.join("DEBIAN/control"), control).unwrap();
    for folder in ["info", "updates"] {
        fs::create_dir_all(machine.root.join("var/lib/dpkg").join(folder)).unwrap();
    }
    fs::write(machine.root.join("var/lib/dpkg/status"), "").unwrap();
    let file = machine.top.join("some-modules.deb");
    dpkg("dpkg-deb", &["-Znone", "--build", top.to_str().unwrap(), file.to_str().unwrap()]);
    file
}

fn dpkg(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_package_of_modules_is_in_the_map_when_dpkg_has_ended() {
    let name = "a_package_of_modules_is_in_the_map_when_dpkg_has_ended";
    private(module_path!(), name, |machine| {
        if real().is_none() {
            return;
        }
        let file = package(&machine, &["drivers/net", "fs/fuse", "drivers/block", "drivers/vhost"]);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let mut map = Map::open(&bus);
        let root = format!("--root={}", machine.root.display());
        let names = ["net/tun", "fuse", "cuse", "loop-control", "vhost-net", "vhost-vsock"];
        for _ in 0..3 {
            dpkg("dpkg", &[&root, "--install", file.to_str().unwrap()]);
            let ended = Instant::now();
            let count = tree_size(&tree(&machine));
            for name in names {
                map.until(name, true);
            }
            println!("{count} modules installed: the last name after {:?}", ended.elapsed());
            assert!(count > 30);
            dpkg("dpkg", &[&root, "--remove", "some-modules"]);
            let ended = Instant::now();
            for name in names {
                map.until(name, false);
            }
            println!("removed: the last name went after {:?}", ended.elapsed());
        }
        assert!(!machine.place.dev.join("net/tun").exists());
        daemon.stop();
    });
}

fn tree_size(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let size = |path: PathBuf| if path.is_dir() { tree_size(&path) } else { 1 };
    entries.map(|entry| size(entry.path())).sum()
}

#[test]
fn two_hundred_changes_good_and_bad_end_in_what_a_scan_finds() {
    let name = "two_hundred_changes_good_and_bad_end_in_what_a_scan_finds";
    private(module_path!(), name, |machine| {
        let Some(real) = real() else { return };
        let all = [
            "drivers/net/tun.ko",
            "fs/fuse/fuse.ko",
            "fs/fuse/cuse.ko",
            "drivers/block/loop.ko",
            "drivers/vhost/vhost_net.ko",
            "fs/btrfs/btrfs.ko",
        ];
        let contents = all.map(|name| fs::read(real.join(name)).unwrap());
        let top = tree(&machine).join("kernel");
        fs::create_dir_all(&top).unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let mut map = Map::open(&bus);
        let mut random = Random::new();
        let (mut worst, mut damaged) = (Duration::ZERO, 0);
        for _ in 0..200 {
            let which = random.below(all.len());
            let folder = if random.below(3) == 0 { "updates" } else { "kernel" };
            let file = top.with_file_name(folder).join(all[which]);
            let mut bytes = contents[which].clone();
            match random.below(8) {
                0 => bytes.truncate(random.below(contents[which].len())),
                1 => (0..64).for_each(|_| {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }),
                2 => bytes = vec![0; random.below(5000)],
                _ => {}
            }
            damaged += usize::from(bytes != contents[which]);
            match random.below(4) {
                0 => drop(fs::remove_file(&file)),
                1 => drop(fs::remove_dir_all(top.with_file_name(folder))),
                how => {
                    fs::create_dir_all(file.parent().unwrap()).unwrap();
                    let to = if how == 2 { file.with_extension("new") } else { file.clone() };
                    fs::write(&to, bytes).unwrap();
                    fs::rename(to, file).unwrap();
                }
            }
            let changed = Instant::now();
            let db = scan(&machine.root, &running_release().unwrap());
            let wanted: BTreeSet<String> = db
                .devnames()
                .map(|found| String::from_utf8_lossy(found.name).into_owned())
                .collect();
            while map.names() != wanted {
                let now = map.names();
                assert!(changed.elapsed() < PATIENCE, "{now:?}, not {wanted:?}: {}", daemon.log());
                std::thread::yield_now();
            }
            worst = worst.max(changed.elapsed());
        }
        println!("200 changes, {damaged} files damaged; the slowest was seen after {worst:?}");
        assert!(damaged > 10);
        daemon.stop();
    });
}

//! Names that are there before their devices: in the map, in `/dev`, and what a live device does to them.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::bus::{Bus, NOBODY};
use crate::daemon::{ACTIVE, Daemon, Manager, Options};
use crate::listen::Listener;
use crate::machine::{Machine, private};
use crate::modules::{Map, install, real, tree};
use crate::sysfs::Device;

const RULES: &str = r#"
KERNEL=="tun", GROUP="lab", MODE="0666", OPTIONS+="static_node=net/tun", TAG+="uaccess"
KERNEL=="tun", SUBSYSTEM=="misc", MODE="0622"
KERNEL=="fuse", GROUP="lab", OPTIONS+="static_node=fuse"
KERNEL=="nothing", MODE="0666", OPTIONS+="static_node=nothing"
"#;

const TMPFILES: &str = "\
z /dev/net/tun 0600 - - -
z /dev/loop-* 0640 alice - -
c /dev/extra 0620 root lab - 240:7
";

const POLICY: &str = r#"schema = 1

[[rule]]
id = "fuse"
match.devname = "fuse"
set = { owner = "alice", mode = "0640" }

[[rule]]
id = "zram"
match.devname = "zram0"
set = { group = "lab", mode = "0660", module = "zram", autoload = true }

[[rule]]
id = "wrong"
match.devname = "wram0"
set = { module = "zrma" }

[[rule]]
id = "never"
match.devname = "btrfs-control"
set = { autoload = false }
"#;

fn prepare(machine: &Machine) -> bool {
    if real().is_none() {
        return false;
    }
    for name in ["drivers/net/tun.ko", "fs/fuse/fuse.ko", "drivers/block/loop.ko"] {
        install(machine, name);
    }
    install(machine, "drivers/block/zram/zram.ko");
    install(machine, "fs/btrfs/btrfs.ko");
    for (folder, name, text) in [
        ("etc/udev/rules.d", "50-test.rules", RULES),
        ("usr/lib/tmpfiles.d", "x.conf", TMPFILES),
        ("etc/mapdev/policy.d", "50-names.toml", POLICY),
    ] {
        fs::create_dir_all(machine.root.join(folder)).unwrap();
        fs::write(machine.root.join(folder).join(name), text).unwrap();
    }
    true
}

fn tun() -> Device {
    Device::new(
        "/devices/virtual/misc/tun",
        "misc",
        &[("MAJOR", "10"), ("MINOR", "200"), ("DEVNAME", "net/tun"), ("DEVMODE", "0622")],
    )
}

/// As the map has it: owner, group, mode, origin, alias.
fn entry(bus: &Bus, name: &str) -> Option<String> {
    let map = bus.json(&["map", "dump", "--numeric"]);
    let entry = map.as_array().unwrap().iter().find(|entry| entry["path"] == name)?.clone();
    let mode = entry["mode"].as_u64().unwrap();
    let origin: Vec<_> =
        entry["origin"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
    let kind = entry["type"].as_str().unwrap();
    let number = format!("{}:{}", entry["major"], entry["minor"]);
    let alias = entry["alias"].as_str().unwrap_or("-");
    let (uid, gid, origin) = (&entry["uid"], &entry["gid"], origin.join(","));
    Some(format!("{kind} {number} {uid}:{gid} {mode:04o} {origin} {alias}"))
}

/// As /dev has it.
fn node(dev: &Path, name: &str) -> Option<String> {
    let stat = fs::symlink_metadata(dev.join(name)).ok()?;
    let kind = if stat.file_type().is_char_device() { "char" } else { "other" };
    let number = format!("{}:{}", rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    Some(format!("{kind} {number} {}:{} {:04o}", stat.uid(), stat.gid(), stat.mode() & 0o7777))
}

fn is(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn names_are_there_before_their_devices() {
    private(module_path!(), "names_are_there_before_their_devices", |machine| {
        if !prepare(&machine) {
            return;
        }
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let dev = machine.place.dev.clone();
        fs::write(dev.join("loop-control"), "somebody's file").unwrap();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        assert_eq!(entry(&bus, "net/tun"), is("char 10:200 0:4321 0666 module -"));
        assert_eq!(entry(&bus, "fuse"), is("char 10:229 1234:4321 0640 module -"));
        assert_eq!(entry(&bus, "loop-control"), is("char 10:237 1234:0 0640 module -"));
        assert_eq!(entry(&bus, "extra"), is("char 240:7 0:4321 0620  -"));
        assert_eq!(entry(&bus, "zram0"), is("block 0:0 0:4321 0660 module,pending zram"));
        assert_eq!(entry(&bus, "nothing"), None);
        assert_eq!(entry(&bus, "btrfs-control"), None, "policy says that nothing loads it");
        let log = daemon.log();
        let wanted = "50-names.toml:16:18: warning: there is no module \"zrma\"";
        assert!(log.contains(wanted) && log.contains("did you mean \"zram\"?"), "{log}");

        assert_eq!(node(&dev, "net/tun"), is("char 10:200 0:4321 0666"));
        assert_eq!(node(&dev, "fuse"), is("char 10:229 1234:4321 0640"));
        assert_eq!(node(&dev, "extra"), is("char 240:7 0:4321 0620"));
        assert_eq!(fs::metadata(dev.join("net")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(node(&dev, "zram0"), None, "a node without number cannot be made");
        assert_eq!(fs::read_to_string(dev.join("loop-control")).unwrap(), "somebody's file");
        let tags = machine.place.records.with_file_name("static_node-tags");
        let tag = fs::read_link(tags.join("uaccess").join("net\\x2ftun")).unwrap();
        assert_eq!(tag, Path::new("/dev/net/tun"));

        let story = bus.json(&["explain", "fuse", "mode"]).to_string();
        assert!(story.contains("50-test.rules") && story.contains("50-names.toml"), "{story}");
        let story = bus.json(&["explain", "/dev/loop-control", "owner"]).to_string();
        assert!(story.contains("tmpfiles") && story.contains("x.conf"), "{story}");

        let text = POLICY
            .replace("devname = \"fuse\"", "devname = \"net/tun\"")
            .replace("autoload = false", "mode = \"0600\"");
        machine.policy("50-names.toml", &text);
        let generation = || bus.json(&["map", "stats"])["generation"].as_u64().unwrap();
        let before = generation();
        daemon.signal(Signal::HUP);
        daemon.wait_ready(&manager, &bus);
        bus.settle();
        assert_eq!(generation(), before + 1, "one name came, the others stay or change in place");
        assert_eq!(entry(&bus, "net/tun"), is("char 10:200 1234:4321 0640 module -"));
        assert_eq!(node(&dev, "net/tun"), is("char 10:200 1234:4321 0640"));
        assert_eq!(entry(&bus, "fuse"), is("char 10:229 0:4321 0660 module -"));
        assert_eq!(node(&dev, "fuse"), is("char 10:229 0:4321 0660"));
        assert_eq!(node(&dev, "btrfs-control"), is("char 10:234 0:0 0600"));
        daemon.stop();
    });
}

#[test]
fn a_live_device_takes_its_name_over_and_gives_it_back() {
    private(
        module_path!(),
        "a_live_device_takes_its_name_over_and_gives_it_back",
        |mut machine| {
            if !prepare(&machine) {
                return;
            }
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let dev = machine.place.dev.clone();
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            let listener = Listener::new();
            let (name, dead) = ("net/tun", is("char 10:200 0:4321 0666 module -"));
            assert_eq!(entry(&bus, name), dead);
            // the node is there: the kernel leaves it as it is, and later does not remove it
            machine.sysfs.add_device(&tun());
            let number = machine.tell("add", &tun(), &[]);
            listener.until(number);
            let live = is("char 10:200 0:4321 0622 module,live -");
            assert_eq!(entry(&bus, name), live);
            assert_eq!(node(&dev, name), is("char 10:200 0:4321 0622"));

            // the package goes while the device is there: both stay until the device goes
            let file = tree(&machine).join("kernel/drivers/net/tun.ko");
            let aside = file.with_extension("aside");
            fs::rename(&file, &aside).unwrap();
            while entry(&bus, name) == live {}
            assert_eq!(entry(&bus, name), is("char 10:200 0:4321 0622 live -"));
            assert!(node(&dev, name).is_some());
            fs::rename(&aside, &file).unwrap();
            while entry(&bus, name) != live {}

            // over a restart the device keeps its name, and the daemon its knowledge whose node it is
            daemon.signal(Signal::KILL);
            drop(daemon);
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
            assert_eq!(entry(&bus, name), live);

            let number = machine.tell("remove", &tun(), &[]);
            machine.sysfs.remove_device(&tun());
            listener.until(number);
            assert_eq!(entry(&bus, name), dead, "the name comes back");
            assert_eq!(node(&dev, name), is("char 10:200 0:4321 0666"));
            fs::rename(&file, &aside).unwrap();
            Map::open(&bus).until(name, false);
            bus.settle();
            assert_eq!(node(&dev, name), None, "a node that we made goes with its module");
            assert_eq!(node(&dev, "fuse"), is("char 10:229 1234:4321 0640"));
            daemon.stop();
        },
    );
}

#[test]
fn busctl_asks_for_names_and_loads_a_module() {
    private(module_path!(), "busctl_asks_for_names_and_loads_a_module", |machine| {
        if !prepare(&machine) {
            return;
        }
        let loaded = machine.top.join("loaded");
        let install = format!("install fuse echo $CMDLINE_OPTS > {}\n", loaded.display());
        fs::create_dir_all(machine.root.join("etc/modprobe.d")).unwrap();
        let text = format!("{install}options fuse max=3\nblacklist btrfs\n");
        fs::write(machine.root.join("etc/modprobe.d/x.conf"), text).unwrap();
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let call = |uid: u32, words: &[&str]| {
            bus.call(uid, &[&["/org/mapdev1", "org.mapdev1.Modules"], words].concat())
        };
        let query = call(NOBODY, &["Query", "s", "/dev/net/tun"]);
        assert_eq!(query.as_deref(), Ok("a(ssuub) 1 \"tun\" \"char\" 10 200 false"));
        let list = call(NOBODY, &["List"]).unwrap();
        println!("{list}");
        assert!(list.contains("\"zram0\" \"zram\" \"block\" 0 0 false"), "{list}");
        call(NOBODY, &["Load", "sa{sv}", "fuse", "0"]).unwrap_err();
        call(0, &["Load", "sa{sv}", "fuse", "1", "dry-run", "b", "true"]).unwrap();
        assert!(!loaded.exists(), "a dry run loads nothing");
        let refused = call(0, &["Load", "sa{sv}", "char-major-10-234", "0"]).unwrap_err();
        assert!(refused.contains("blacklist"), "{refused}");
        let refused = call(0, &["Load", "sa{sv}", "fuze", "0"]).unwrap_err();
        assert!(refused.contains("No module has this name"), "{refused}");
        // for no machine that there is: whatever kernel this is, it refuses it
        let mut bytes = fs::read(real().unwrap().join("drivers/net/dummy.ko")).unwrap();
        bytes[18..20].fill(0xff);
        let file = tree(&machine).join("kernel/dummy.ko");
        fs::write(&file, bytes).unwrap();
        let mut refused = String::new();
        while !refused.contains("annot load dummy") {
            refused = call(0, &["Load", "sa{sv}", "dummy", "0"]).unwrap_err();
        }
        println!("{refused}");
        assert!(refused.contains(&*file.to_string_lossy()), "{refused}");
        call(0, &["Load", "sa{sv}", "char-major-10-229", "0"]).unwrap();
        assert_eq!(fs::read_to_string(&loaded).unwrap(), "max=3\n");
        daemon.stop();
        let shadow = Options { mode: "shadow", ..ACTIVE };
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &shadow);
        let refused = call(0, &["Load", "sa{sv}", "fuse", "0"]).unwrap_err();
        assert!(refused.contains("shadow mode"), "{refused}");
        daemon.stop();
    });
}

#[test]
fn in_shadow_mode_names_are_in_the_map_alone() {
    private(module_path!(), "in_shadow_mode_names_are_in_the_map_alone", |machine| {
        if !prepare(&machine) {
            return;
        }
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let shadow = Options { mode: "shadow", ..ACTIVE };
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &shadow);
        assert_eq!(entry(&bus, "net/tun"), is("char 10:200 0:4321 0666 module -"));
        assert_eq!(fs::read_dir(&machine.place.dev).unwrap().count(), 0);
        let tag = machine.place.runtime.join("static_node-tags/uaccess/net\\x2ftun");
        assert!(tag.is_symlink());
        assert!(!machine.place.records.with_file_name("static_node-tags").exists());
        daemon.stop();
    });
}

const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";

/// What the peers do when a machine starts, each with its own files, on this namespace's /dev.
const PEERS: &str = "
depmod -b $ROOT
mkdir $ROOT/over && mv $ROOT/lib/modules $ROOT/over/modules
ln -s ../over/modules $ROOT/lib/modules
mount -t overlay -o lowerdir=$ROOT/over:/usr/lib overlay /usr/lib
for file in etc/passwd etc/group etc/udev/rules.d usr/lib/tmpfiles.d; do
    mount --bind $ROOT/$file /$file
done
rm -f /etc/tmpfiles.d/*.conf
kmod static-nodes --format=tmpfiles --output=/run/tmpfiles.d/static-nodes.conf
systemd-tmpfiles --prefix=/dev --create --boot
setpriv --bounding-set=-net_admin,-sys_module $UDEVD & udevd=$!
until udevadm control --ping --timeout=20; do kill -0 $udevd; done
udevadm control --exit
wait $udevd
";

#[test]
fn nodes_are_those_that_kmod_tmpfiles_and_udev_make_in_turn() {
    let name = "nodes_are_those_that_kmod_tmpfiles_and_udev_make_in_turn";
    private(module_path!(), name, |machine| {
        if !prepare(&machine) {
            return;
        }
        if !Path::new(UDEVD).exists() {
            assert!(std::env::var_os("MAPDEV_REQUIRE_UDEV").is_none(), "{UDEVD} wanted");
            println!("skipped: there is no systemd-udevd to compare with");
            return;
        }
        install(&machine, "drivers/vhost/vhost_net.ko");
        install(&machine, "sound/core/snd-timer.ko");
        machine.policy("50-names.toml", "");
        let root = machine.root.to_str().unwrap();
        let run = |script: &str| {
            let mut peers = Command::new("sh");
            peers.args(["-euxc", script]).env("ROOT", root).env("UDEVD", UDEVD);
            let output = peers.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        // all that this machine has, with users and groups, and more
        run("cat /etc/passwd >>$ROOT/etc/passwd; cat /etc/group >>$ROOT/etc/group
            cp -r /usr/lib/tmpfiles.d $ROOT/usr/lib; mkdir $ROOT/usr/lib/udev /run/tmpfiles.d
            cp -r /usr/lib/udev/rules.d $ROOT/usr/lib/udev; mkdir -p /etc/tmpfiles.d
            mount -t tmpfs tmpfs /etc/tmpfiles.d");
        let write = |name: &str, text: &str| {
            fs::write(machine.root.join("usr/lib/tmpfiles.d").join(name), text).unwrap();
        };
        write("x.conf", TMPFILES);
        write(
            "a.conf",
            "z /dev/vhost-net ~0666 - lab -\nc! /dev/btrfs-control 0604 - lab - 10:234\n",
        );
        write("zz.conf", "c /dev/net/tun 0666 - - - 10:200\nz /dev/snd/* 0640 - :lab -\n");
        run(PEERS);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let names = "fuse net/tun loop-control extra vhost-net snd/timer btrfs-control";
        for name in names.split(' ') {
            let (ours, theirs) = (node(&machine.place.dev, name), node(Path::new("/dev"), name));
            println!("{name}: {ours:?}");
            assert!(ours.is_some() && ours == theirs, "{name}: {ours:?}, theirs {theirs:?}");
        }
        let links = |folder: &Path| {
            let mut links: Vec<_> = Vec::new();
            for tag in fs::read_dir(folder).unwrap().flatten() {
                for link in fs::read_dir(tag.path()).unwrap().flatten() {
                    let name = link.path().strip_prefix(folder).unwrap().to_owned();
                    links.push((name, fs::read_link(link.path()).unwrap()));
                }
            }
            links.sort();
            links
        };
        let tags = machine.place.records.with_file_name("static_node-tags");
        let (ours, theirs) = (links(&tags), links(Path::new("/run/udev/static_node-tags")));
        println!("{ours:?}");
        assert!(ours.len() > 1 && ours == theirs, "{ours:?}, theirs {theirs:?}");
        daemon.stop();
    });
}

//! Run-time changes with plain busctl, on a bus with the policy that we ship.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::Uid;
use rustix::process::Signal;

use crate::bus::{Bus, NOBODY};
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::listen::Listener;
use crate::machine::private;
use crate::sysfs::Device;

const MANAGER: [&str; 2] = ["/org/mapdev1", "org.mapdev1.Manager"];
const DEVICE: [&str; 2] = ["/org/mapdev1/device/c4000_1", "org.mapdev1.Device"];
const ALICE: u32 = 1234;

/// Whom a rule of polkit allows what we ask for; everybody else would have to say a password.
const TRUSTED: u32 = 1;

fn device(more: &[(&str, &str)]) -> Device {
    let pairs = [("MAJOR", "4000"), ("MINOR", "1"), ("DEVNAME", "livec1"), ("DEVMODE", "0640")];
    Device::new("/devices/live/livec1", "live", &[&pairs, more].concat())
}

fn set_owner<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let count = if options.is_empty() { "0" } else { "1" };
    [&DEVICE[..], &["SetOwner", "sa{sv}", "alice", count], options].concat()
}

#[test]
fn busctl_changes_an_owner_until_the_device_goes() {
    private(module_path!(), "busctl_changes_an_owner_until_the_device_goes", |mut machine| {
        let device = device(&[]);
        machine.add(&device);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let listener = Listener::new();
        let node = machine.place.dev.join("livec1");
        let owner = || fs::metadata(&node).unwrap().uid();
        // somebody else's work, which the daemon has to undo
        let spoil = || rustix::fs::chown(&node, Some(Uid::from_raw(99)), None).unwrap();

        for uid in [0, NOBODY] {
            let list = bus.call(uid, &[&MANAGER[..], &["ListDevices", "a{sv}", "0"]].concat());
            assert!(list.as_ref().is_ok_and(|list| list.contains(DEVICE[0])), "{list:?}");
            let found = [&MANAGER[..], &["ResolveDevice", "s", "/dev/livec1"]].concat();
            assert_eq!(bus.call(uid, &found), Ok(format!("o \"{}\"", DEVICE[0])));
        }
        let refused = bus.call(NOBODY, &set_owner(&[])).unwrap_err();
        println!("without polkit: {refused}");
        assert_eq!(owner(), 0);

        bus.call(0, &set_owner(&["dry-run", "b", "true"])).unwrap();
        assert_eq!(owner(), 0, "a dry run changes nothing");
        let kept = bus.call(0, &set_owner(&["persist", "b", "true"])).unwrap_err();
        assert!(kept.contains("no key of its own"), "{kept}");
        bus.call(0, &set_owner(&[])).unwrap();
        assert_eq!(owner(), ALICE);
        bus.call(0, &[&DEVICE[..], &["SetMode", "ua{sv}", "384", "0"]].concat()).unwrap();
        assert_eq!(fs::metadata(&node).unwrap().mode() & 0o7777, 0o600);

        spoil();
        let number = machine.change(&device);
        listener.until(number);
        assert_eq!(owner(), ALICE, "the change outlives an event");
        spoil();
        daemon.signal(Signal::HUP);
        daemon.wait_ready(&manager, &bus);
        bus.settle();
        assert_eq!(owner(), ALICE, "the change outlives a reload");
        daemon.stop();
        spoil();
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        assert_eq!(owner(), ALICE, "the change outlives a restart");
        let story = bus.json(&["explain", "livec1", "owner"]).to_string();
        assert!(story.contains("runtime"), "{story}");

        machine.remove(&device);
        let number = machine.add(&device);
        listener.until(number);
        assert_eq!(owner(), 0, "the next device of that number inherits nothing");
        assert_eq!(fs::metadata(&node).unwrap().mode() & 0o7777, 0o640);
        let file = machine.place.runtime.join("policy.d/95-dbus.toml");
        assert!(!fs::read_to_string(file).unwrap().contains("livec1"));
        daemon.stop();
    });
}

#[test]
fn a_kept_change_follows_the_devices_serial_number() {
    private(module_path!(), "a_kept_change_follows_the_devices_serial_number", |mut machine| {
        let device = device(&[("ID_SERIAL", "stick-7")]);
        machine.add(&device);
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let listener = Listener::new();
        let node = machine.place.dev.join("livec1");
        bus.call(0, &set_owner(&["persist", "b", "true"])).unwrap();
        assert_eq!(fs::metadata(&node).unwrap().uid(), ALICE);
        machine.remove(&device);
        listener.until(machine.add(&device));
        assert_eq!(fs::metadata(&node).unwrap().uid(), ALICE, "the same stick came back");
        machine.remove(&device);
        let other = self::device(&[("ID_SERIAL", "stick-8")]);
        listener.until(machine.add(&other));
        assert_eq!(fs::metadata(&node).unwrap().uid(), 0, "another stick came");
        daemon.stop();
    });
}

#[test]
fn polkit_says_who_may_change_an_owner() {
    private(module_path!(), "polkit_says_who_may_change_an_owner", |mut machine| {
        machine.add(&device(&[]));
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let _daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let node = machine.place.dev.join("livec1");
        let owner = || fs::metadata(&node).unwrap().uid();
        for uid in [TRUSTED, NOBODY] {
            bus.call(uid, &set_owner(&[])).unwrap_err();
        }
        let _polkit = Polkit::start(&machine.top, &bus);
        let refused = bus.call(NOBODY, &set_owner(&[])).unwrap_err();
        println!("with polkit: {refused}");
        assert_eq!(owner(), 0);
        bus.call(TRUSTED, &set_owner(&[])).unwrap();
        assert_eq!(owner(), ALICE);
        let mode = [&DEVICE[..], &["SetMode", "ua{sv}", "511", "0"]].concat();
        bus.call(TRUSTED, &mode).unwrap_err();
        assert_eq!(fs::metadata(&node).unwrap().mode() & 0o7777, 0o640);
    });
}

/// The real polkitd with our actions alone; ends with the test.
struct Polkit(Child);

impl Polkit {
    fn start(top: &Path, bus: &Bus) -> Self {
        let rule = format!(
            "polkit.addRule(function(action, subject) {{ if (action.id == \
             'org.mapdev1.set-owner' && subject.user == '{}') return polkit.Result.YES; }});\n",
            user_name(TRUSTED)
        );
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/dbus/org.mapdev1.policy");
        let rules = top.join("rules.d");
        let actions = top.join("actions");
        [&rules, &actions].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(rules.join("10-live.rules"), rule).unwrap();
        fs::copy(ours, actions.join("org.mapdev1.policy")).unwrap();
        for (from, to) in
            [(&rules, "/etc/polkit-1/rules.d"), (&actions, "/usr/share/polkit-1/actions")]
        {
            let bound = Command::new("mount").arg("--bind").arg(from).arg(to).status().unwrap();
            assert!(bound.success(), "cannot mount over {to}");
        }
        let daemon = Command::new("/usr/lib/polkit-1/polkitd")
            .arg("--no-debug")
            .env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)
            .stdin(Stdio::null())
            .spawn()
            .expect("wanted polkitd");
        bus.wait_for("org.freedesktop.PolicyKit1");
        Self(daemon)
    }
}

impl Drop for Polkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let wanted = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
    passwd.lines().find(wanted).unwrap().split(':').next().unwrap().to_owned()
}

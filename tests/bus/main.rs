//! The D-Bus service on a private bus, called with busctl as root and as somebody else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod modules;
mod polkit;
mod rig;
mod signals;

use mapdev::bus::polkit::{Access, TABLE};
use mapdev::bus::surface::{self, DEVICE, LOG_CONTROL};
use mapdev::dispatch::command::Change;
use mapdev::rules::decision::Attribute;
use rig::{Appears, OTHER, Rig, connect, known, wait};

/// What busctl makes of `org.freedesktop.DBus.Error.AccessDenied`, whatever its message.
const DENIED: &str = "Access denied";

const TUN: &str = "/org/mapdev1/device/c10_200";

#[test]
fn busctl_lists_and_resolves_without_privilege_or_polkit() {
    let rig = Rig::new();
    for uid in [0, OTHER] {
        let all = rig.manager(uid, &["ListDevices", "a{sv}", "0"]).unwrap();
        assert!(all.starts_with("a(oaysuu) 3 "), "{all}");
        let disks = rig.manager(uid, &["ListDevices", "a{sv}", "1", "devtype", "s", "disk"]);
        let disk = "a(oaysuu) 1 \"/org/mapdev1/device/b8_0\" 8 47 100 101 118 47 115 100 97 \
                    \"block\" 8 0";
        assert_eq!(disks.unwrap(), disk);
        let raw = rig.manager(uid, &["ListDevices", "a{sv}", "1", "initialized", "b", "false"]);
        assert!(raw.unwrap().contains("\"/org/mapdev1/device/s_usb_1_2d1\""));
        let tun = rig.manager(uid, &["ResolveDevice", "s", "/dev/net/tun"]).unwrap();
        assert_eq!(tun, format!("o \"{TUN}\""));
    }
    let error = rig.manager(OTHER, &["ResolveDevice", "s", "nosuch"]).unwrap_err();
    assert!(error.contains("no device 'nosuch'") && error.contains("ListDevices"), "{error}");
    let error = rig.manager(0, &["ListDevices", "a{sv}", "1", "color", "s", "red"]).unwrap_err();
    assert!(error.contains("no filter 'color'"), "{error}");
}

#[test]
fn a_device_tells_what_it_is() {
    let rig = Rig::new();
    let get = |name: &str| {
        let arguments = ["get-property", "org.mapdev1", TUN, DEVICE, name];
        rig.busctl(OTHER, &arguments).unwrap()
    };
    assert_eq!(get("OwnerName"), "s \"root\"");
    assert_eq!(get("GroupName"), "s \"lab\"");
    assert_eq!(get("Mode"), "u 384");
    assert_eq!(get("Node"), "ay 12 47 100 101 118 47 110 101 116 47 116 117 110");
    assert_eq!(get("Acl"), "a(ssu) 0");
    assert_eq!(get("Initialized"), "b true");
    let properties = rig.tun(OTHER, &["GetProperties"]).unwrap();
    assert!(properties.contains("\"BAD\" 3 97 255 98"), "bytes stay bytes: {properties}");
    let steps = rig.tun(0, &["Explain", "s", "mode"]).unwrap();
    assert_eq!(steps, "a(ssuusss) 1 \"kernel\" \"\" 0 0 \"=\" \"\" \"0600\"");
    let error = rig.tun(0, &["Explain", "s", "colour"]).unwrap_err();
    assert!(error.contains("owner, group, mode, links"), "{error}");
}

#[test]
fn the_manager_tells_its_figures() {
    let rig = Rig::new();
    let get = |name: &str| {
        let object = ["get-property", "org.mapdev1", "/org/mapdev1", surface::MANAGER, name];
        rig.busctl(OTHER, &object).unwrap()
    };
    assert_eq!(get("Mode"), "s \"shadow\"");
    assert_eq!(get("Devices"), "t 3");
    assert_eq!(get("ShimAttached"), "b false");
    assert_eq!(get("Throttled"), "ao 0");
    assert_eq!(rig.manager(OTHER, &["Settle", "t", "1000000"]).unwrap(), "b true");
    let map = rig.manager(OTHER, &["GetMap"]).unwrap();
    assert!(map.starts_with("ht ") && map.ends_with(" 9"), "{map}");
    let differ = rig.manager(OTHER, &["ListMismatches"]).unwrap();
    assert_eq!(differ, "a(osss) 1 \"/org/mapdev1/device/b8_0\" \"mode\" \"0600\" \"0660\"");
    let error = rig.manager(OTHER, &["WaitInitialized", "st", "later", "1000"]).unwrap_err();
    assert!(error.contains("No device 'later' came within 1 ms"), "{error}");
}

#[test]
fn objects_are_found_by_introspection_and_by_their_manager() {
    let rig = Rig::new();
    let tree = rig.busctl(OTHER, &["tree", "--list", "org.mapdev1"]).unwrap();
    for path in [TUN, "/org/mapdev1/device/s_usb_1_2d1", "/org/freedesktop/LogControl1"] {
        assert!(tree.lines().any(|line| line == path), "{path} in {tree}");
    }
    let described = rig.busctl(OTHER, &["introspect", "org.mapdev1", TUN]).unwrap();
    for interface in surface::INTERFACES.iter().filter(|interface| interface.name == DEVICE) {
        for name in interface.methods.iter().map(|method| method.name) {
            assert!(described.contains(&format!(".{name} ")), "{name} in {described}");
        }
        for name in interface.properties.iter().map(|property| property.name) {
            assert!(described.contains(&format!(".{name} ")), "{name} in {described}");
        }
    }
    let objects = ["call", "org.mapdev1", "/org/mapdev1", surface::OBJECT_MANAGER];
    let objects = rig.busctl(OTHER, &[&objects[..], &["GetManagedObjects"]].concat()).unwrap();
    assert!(objects.starts_with("a{oa{sa{sv}}} 3 "), "{objects}");
}

#[test]
fn root_changes_a_node_without_polkit() {
    let rig = Rig::new();
    let options = ["a{sv}", "2", "reason", "s", "for the lab", "dry-run", "b", "false"];
    let call = [&["SetOwner", "sa{sv}", "alice"], &options[1..]].concat();
    rig.tun(0, &call).unwrap();
    rig.tun(0, &["SetMode", "ua{sv}", "432", "0"]).unwrap();
    rig.tun(0, &["SetGroup", "sa{sv}", "lab", "0"]).unwrap();
    rig.tun(0, &["Reset", "a{sv}", "0"]).unwrap();
    let changes = rig.changed();
    let set = |attribute, value| Change::Set { attribute, value };
    let made: Vec<_> = changes.iter().map(|(_, change, _)| change.clone()).collect();
    let wanted =
        [set(Attribute::Owner, 1000), set(Attribute::Mode, 0o660), set(Attribute::Group, 77)];
    assert_eq!(made, [&wanted[..], &[Change::Reset]].concat());
    let (id, _, terms) = &changes[0];
    assert_eq!(id.to_string(), "c10:200");
    assert_eq!((&*terms.reason, terms.persist, terms.dry_run), ("for the lab", false, false));
    assert!(terms.by.starts_with("uid 0 (:1."), "{}", terms.by);
    assert_eq!(terms.instance, Some(42), "bound to the device that was asked for");
    let owner = ["get-property", "org.mapdev1", TUN, DEVICE, "OwnerName"];
    assert_eq!(rig.busctl(0, &owner).unwrap(), "s \"alice\"");
}

#[test]
fn what_is_wrong_in_a_change_is_said() {
    let rig = Rig::new();
    let says = |call: &[&str], words: &str| {
        let error = rig.tun(0, call).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    says(&["SetOwner", "sa{sv}", "bob", "0"], "no user 'bob'; see 'getent passwd'");
    says(&["SetGroup", "sa{sv}", "bob", "0"], "no group 'bob'; see 'getent group'");
    says(&["SetMode", "ua{sv}", "4096", "1", "force", "b", "true"], "no option 'force'");
    says(&["SetMode", "ua{sv}", "33188", "0"], "permission bits");
    says(&["SetMode", "ua{sv}", "0", "1", "confirm-usec", "t", "5"], "belongs to transactions");
    says(&["SetMode", "ua{sv}", "0", "1", "persist", "s", "yes"], "write it as 'b'");
    says(&["SetMode", "s", "0660"], "SetMode takes the arguments (u mode, a{sv} options)");
    says(&["Grant", "s", "x"], "no method 'Grant'");
    let usb = "/org/mapdev1/device/s_usb_1_2d1";
    let call = ["call", "org.mapdev1", usb, DEVICE, "SetMode", "ua{sv}", "0", "0"];
    assert!(rig.busctl(0, &call).unwrap_err().contains("has no node"));
    let gone = call.map(|word| if word == usb { "/org/mapdev1/device/c1_1" } else { word });
    assert!(rig.busctl(0, &gone).unwrap_err().contains("no device"));
    assert_eq!(rig.changed(), []);
}

/// Calls an entry of the table with arguments of the right form.
fn call_entry(rig: &Rig, uid: u32, interface: &str, member: &str) -> Result<String, String> {
    let path = match interface {
        DEVICE => TUN,
        LOG_CONTROL => "/org/freedesktop/LogControl1",
        _ => "/org/mapdev1",
    };
    let known = surface::interface(interface).unwrap();
    let Some(method) = known.method(member) else {
        let set = ["set-property", "org.mapdev1", path, interface, member, "s", "debug"];
        return rig.busctl(uid, &set);
    };
    let signature: String = method.inputs.iter().map(|(_, signature)| *signature).collect();
    let mut call = vec!["call", "org.mapdev1", path, interface, member, signature.as_str()];
    for (_, signature) in method.inputs {
        match *signature {
            "s" => call.push("root"),
            "u" | "t" | "a{sv}" => call.push("0"),
            "v" => call.extend(["s", "debug"]),
            other => panic!("no argument for {other}: teach this test"),
        }
    }
    rig.busctl(uid, &call)
}

#[test]
fn every_change_is_refused_without_permission() {
    let rig = Rig::new();
    for (interface, member, access) in TABLE {
        let answer = call_entry(&rig, OTHER, interface, member);
        match access {
            Access::Inspect => {
                let denied = answer.is_err_and(|error| error.contains(DENIED));
                assert!(!denied, "{member} needs no permission");
            }
            Access::Granted(_) => {
                let error = answer.expect_err(member);
                assert!(error.contains(DENIED), "{member}: {error}");
            }
        }
    }
    assert_eq!(rig.changed(), []);
    assert!(rig.loaded.lock().unwrap().is_empty());
}

#[test]
fn every_call_of_the_table_is_answered_to_root() {
    let rig = Rig::new();
    for (interface, member, _) in TABLE {
        if let Err(error) = call_entry(&rig, 0, interface, member) {
            for unknown in ["There is no method", "Nobody may", "There is no object"] {
                assert!(!error.contains(unknown), "{interface}.{member}: {error}");
            }
        }
    }
}

#[test]
fn the_log_level_is_changed_by_root_only() {
    let rig = Rig::new();
    let path = "/org/freedesktop/LogControl1";
    let get = ["get-property", "org.mapdev1", path, LOG_CONTROL, "LogLevel"];
    let set = ["set-property", "org.mapdev1", path, LOG_CONTROL, "LogLevel", "s", "debug"];
    assert_eq!(rig.busctl(OTHER, &get).unwrap(), "s \"info\"");
    assert!(rig.busctl(OTHER, &set).unwrap_err().contains(DENIED));
    rig.busctl(0, &set).unwrap();
    assert_eq!(rig.busctl(OTHER, &get).unwrap(), "s \"debug\"");
    let target = ["set-property", "org.mapdev1", path, LOG_CONTROL, "LogTarget", "s", "null"];
    assert!(rig.busctl(0, &target).unwrap_err().contains("read only"));
}

#[test]
fn it_comes_back_when_the_bus_does() {
    let mut rig = Rig::new();
    drop(rig.daemon.take());
    let (daemon, address) = rig::daemon(rig.folder.path());
    let appears = Appears::watch(&address);
    // whether it has come back before or after we looked: it is there in the end
    if rig.busctl(0, &["status", "org.mapdev1"]).is_err() {
        appears.wait();
    }
    assert_eq!(rig.manager(0, &["Settle", "t", "1000000"]).unwrap(), "b true");
    drop(daemon);
}

#[test]
fn it_waits_until_its_name_is_free() {
    let (folder, daemon, address) = Rig::empty();
    let taken = wait(async {
        let other = connect(&address).await;
        other.request_name("org.mapdev1").await.unwrap();
        let rig = Rig::serve(rig::table(), folder, daemon, address);
        // the attempt was made and refused
        rig.notices.send(mapdev::dispatch::command::Notice::Behind).await.unwrap();
        let appears = tokio::task::spawn_blocking({
            let address = rig.address.clone();
            move || Appears::watch(&address)
        });
        let appears = appears.await.unwrap();
        other.release_name("org.mapdev1").await.unwrap();
        (rig, appears)
    });
    taken.1.wait();
    assert!(taken.0.manager(0, &["ListDevices", "a{sv}", "0"]).is_ok());
}

#[test]
fn five_thousand_devices_come_in_one_answer() {
    let devices = (0..5000_u32).map(|minor| {
        let (name, minor) = (format!("d{minor}"), minor.to_string());
        let pairs: [(&str, &[u8]); 4] = [
            ("SUBSYSTEM", b"misc"),
            ("MAJOR", b"240"),
            ("MINOR", minor.as_bytes()),
            ("DEVNAME", name.as_bytes()),
        ];
        std::sync::Arc::new(known(&format!("/devices/virtual/misc/{name}"), &pairs))
    });
    let started = std::time::Instant::now();
    let rig = Rig::with(devices.collect());
    let served = started.elapsed();
    wait(async {
        let client = connect(&rig.address).await;
        let (name, manager) = (Some("org.mapdev1"), Some(surface::OBJECT_MANAGER));
        let asked = std::time::Instant::now();
        let reply =
            client.call_method(name, "/org/mapdev1", manager, "GetManagedObjects", &()).await;
        let bytes = reply.unwrap().body().len();
        println!(
            "on the bus after {served:?}; {bytes} bytes of objects after {:?}",
            asked.elapsed()
        );
        assert!(bytes > 5000 * 500, "every device is in it with its properties");
    });
}

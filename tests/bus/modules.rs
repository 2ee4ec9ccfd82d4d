//! `org.mapdev1.Modules`: the names that modules serve, and loading one.

use mapdev::dispatch::command::{Served, Waiting};
use mapdev::dispatch::known::{KernelHand, KernelHands};
use mapdev::nodes::Permissions;
use mapdev::rules::decision::{Attribute, Decision, Place, Source};
use mapdev::uevent::Devnum;

use super::DENIED;
use super::rig::{OTHER, Rig};

/// A module that is loaded and serves a number, and one that will say its number.
pub(crate) fn served() -> Vec<Served> {
    let tun = Devnum { block: false, major: 10, minor: 200 };
    let row = |name: &[u8], module: &str, number: Option<Devnum>| Served {
        name: name.into(),
        module: module.into(),
        block: number.is_none(),
        number,
        loaded: number.is_some(),
    };
    vec![row(b"net/tun", "tun", Some(tun)), row(b"zram0", "zram", None)]
}

/// Whose owner somebody has changed.
pub(crate) fn zram() -> Waiting {
    let mut decision = Decision::default();
    let place = Place { file: "/etc/x.conf".into(), line: 7, column: 0 };
    decision.set(Attribute::Mode, 0o640, Source::Tmpfiles(place));
    let by = KernelHand { process: Some(7), user: Some(1000) };
    let by_kernel = KernelHands { owner: Some(by), last: Some(by), ..KernelHands::default() };
    Waiting { decision, permissions: Permissions { uid: 1000, gid: 0, mode: 0o640 }, by_kernel }
}

#[test]
fn modules_tell_which_names_they_serve() {
    let rig = Rig::new();
    let all = "a(sssuub) 2 \"net/tun\" \"tun\" \"char\" 10 200 true \"zram0\" \"zram\" \"block\" 0 0 false";
    assert_eq!(rig.modules(OTHER, &["List"]).unwrap(), all);
    for name in ["net/tun", "/dev/net/tun"] {
        let found = rig.modules(OTHER, &["Query", "s", name]).unwrap();
        assert_eq!(found, "a(ssuub) 1 \"tun\" \"char\" 10 200 true");
    }
    assert_eq!(rig.modules(OTHER, &["Query", "s", "sda"]).unwrap(), "a(ssuub) 0");
    let steps = rig.modules(0, &["Explain", "ss", "/dev/zram0", "mode"]).unwrap();
    assert_eq!(steps, "a(ssuusss) 1 \"tmpfiles\" \"/etc/x.conf\" 7 0 \"=\" \"\" \"0640\"");
    let steps = rig.modules(0, &["Explain", "ss", "zram0", "owner"]).unwrap();
    let by = "uid 1000 (process 7)";
    assert_eq!(steps, format!("a(ssuusss) 1 \"kernel\" \"{by}\" 0 0 \"=\" \"\" \"1000\""));
    assert_eq!(rig.modules(OTHER, &["Changed"]).unwrap(), format!("a(ss) 1 \"zram0\" \"{by}\""));
    let error = rig.modules(0, &["Explain", "ss", "net/tun", "mode"]).unwrap_err();
    assert!(error.contains("No module, tmpfiles.d line or policy names 'net/tun'"), "{error}");
    let error = rig.modules(0, &["Explain", "ss", "zram0", "colour"]).unwrap_err();
    assert!(error.contains("owner, group, mode, links"), "{error}");
}

#[test]
fn a_module_is_loaded_by_root_and_checked_by_a_dry_run() {
    let rig = Rig::new();
    rig.modules(0, &["Load", "sa{sv}", "tun", "1", "dry-run", "b", "true"]).unwrap();
    rig.modules(0, &["Load", "sa{sv}", "tun", "0"]).unwrap();
    let error = rig.modules(0, &["Load", "sa{sv}", "nun", "0"]).unwrap_err();
    assert!(error.contains("No module has this name."), "{error}");
    let error =
        rig.modules(0, &["Load", "sa{sv}", "tun", "1", "persist", "b", "true"]).unwrap_err();
    assert!(error.contains("modules-load.d"), "{error}");
    assert!(rig.modules(OTHER, &["Load", "sa{sv}", "tun", "0"]).unwrap_err().contains(DENIED));
    let loaded = [("tun", true), ("tun", false), ("nun", false)];
    let loaded = loaded.map(|(name, dry_run)| (name.as_bytes().to_vec(), dry_run));
    assert_eq!(*rig.loaded.lock().unwrap(), loaded);
}

//! The interface files of `dbus/` are what the daemon says of itself. `UPDATE=1` writes them anew.

use std::fs;
use std::path::Path;

#[test]
fn the_checked_in_interfaces_are_those_of_the_daemon() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus");
    for (interface, xml) in mapdev::bus::introspection() {
        let file = folder.join(format!("{interface}.xml"));
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &xml).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(kept, xml, "{} is old: run this test with UPDATE=1", file.display());
    }
}

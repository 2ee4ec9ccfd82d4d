//! Extended attributes of names in /dev: the map has none but access lists.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, lremovexattr, lsetxattr};

use super::super::daemon::Machine;
use super::super::own_dev::depth;
use super::super::taking_over::list;
use super::{attach, detach, mapdevctl};

#[test]
#[ignore = "in the virtual machine"]
fn attributes_that_the_map_cannot_have_are_listed_and_nothing_is_switched() {
    let machine = Machine::on_dev();
    let _daemon = machine.start();
    fs::create_dir("/dev/labelled").unwrap();
    symlink("../null", "/dev/labelled/link").unwrap();
    let list = list();
    let given = [
        ("null", "security.selinux", &b"x"[..]),
        ("labelled", "trusted.of-tests", b"x"),
        ("labelled", "system.posix_acl_default", &list),
        ("labelled/link", "security.SMACK64", b"x"),
    ];
    for (name, attribute, value) in given {
        let path = Path::new("/dev").join(name);
        lsetxattr(&path, attribute, value, XattrFlags::empty()).unwrap();
        let refused = mapdevctl(&["shim", "attach", "/dev"]);
        // other tests have this /dev, too
        lremovexattr(&path, attribute).unwrap();
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        let wanted = format!("\n  {name}: its attribute `{attribute}` cannot be set there: ");
        assert!(told.contains(&wanted), "{told}");
        assert_eq!(depth(), 1, "{attribute}");
    }
    attach();
    detach();
    assert_eq!(depth(), 1);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_file_that_has_attributes_stays_the_same_object() {
    let machine = Machine::on_dev();
    let _daemon = machine.start();
    fs::write("/dev/labelled", "text").unwrap();
    lsetxattr("/dev/labelled", "trusted.of-tests", b"x", XattrFlags::empty()).unwrap();
    for switch in [attach, detach] {
        switch();
        let mut bytes = [0; 8];
        assert_eq!(getxattr("/dev/labelled", "trusted.of-tests", &mut bytes), Ok(1));
        assert_eq!(fs::read_to_string("/dev/labelled").unwrap(), "text");
    }
}

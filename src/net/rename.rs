//! Stage 5b: an interface's new name in, the interface called so, and the event as it reads then.

use std::io;

use rustix::io::Errno;

use super::interface::Interfaces;
use super::values::{NAME_LIMIT, is_interface_name};
use crate::device::last_element;
use crate::uevent::{Action, Uevent};

/// What became of an interface that was to have another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    Done,
    /// It is up, and stays as it is called.
    Busy,
}

/// Whether an event renames its interface: when it comes, and is not called so already.
#[must_use]
pub fn is_renamed(uevent: &Uevent, name: &[u8]) -> bool {
    uevent.action() == Action::Add
        && uevent.ifindex().is_some()
        && last_element(uevent.devpath()) != name
        && is_interface_name(name, NAME_LIMIT)
}

/// Gives an interface of our network namespace another name; `move` is what the kernel says then.
///
/// # Errors
/// `EEXIST` when somebody has the name, or what the kernel says; then it is called as before.
pub fn rename(index: u32, name: &[u8]) -> io::Result<Renamed> {
    match Interfaces::open()?.rename(index, name) {
        Ok(()) => Ok(Renamed::Done),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Ok(Renamed::Busy),
        Err(error) => Err(error),
    }
}

/// The event of an interface that has another name by now: `DEVPATH` and `INTERFACE` are the new ones,
/// `INTERFACE_OLD` says how it was called.
#[must_use]
pub fn renamed(uevent: &Uevent, name: &[u8]) -> Uevent {
    let devpath = uevent.devpath();
    let folder = &devpath[..devpath.len() - last_element(devpath).len()];
    let old = uevent.get(b"INTERFACE").unwrap_or(last_element(devpath));
    let own = |key: &[u8]| matches!(key, b"INTERFACE" | b"INTERFACE_OLD");
    let mut properties: Vec<_> = uevent.properties().filter(|(key, _)| !own(key)).collect();
    properties.extend([(b"INTERFACE".as_slice(), name), (b"INTERFACE_OLD", old)]);
    let devpath = [folder, name].concat();
    Uevent::synthetic(uevent.origin, uevent.action(), &devpath, uevent.seqnum(), &properties)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uevent::Origin;

    fn event(action: Action, devpath: &[u8]) -> Uevent {
        let pairs: [(&[u8], &[u8]); 3] =
            [(b"SUBSYSTEM", b"net"), (b"INTERFACE", b"eth0"), (b"IFINDEX", b"7")];
        Uevent::synthetic(Origin::Kernel, action, devpath, 9, &pairs)
    }

    #[test]
    fn an_interface_is_renamed_when_it_comes_and_only_to_another_name() {
        let path = b"/devices/virtual/net/eth0";
        assert!(is_renamed(&event(Action::Add, path), b"lan0"));
        assert!(!is_renamed(&event(Action::Move, path), b"lan0"));
        for name in [b"eth0".as_slice(), b"12", b"", b"all", b"a/b", b"sixteen_letters_"] {
            assert!(!is_renamed(&event(Action::Add, path), name));
        }
    }

    #[test]
    fn the_event_reads_as_that_of_the_new_name() {
        let after = renamed(&event(Action::Add, b"/devices/virtual/net/eth0"), b"lan0");
        assert_eq!(after.devpath(), b"/devices/virtual/net/lan0");
        let get = |key: &[u8]| after.get(key).unwrap().to_vec();
        assert_eq!(
            (get(b"INTERFACE"), get(b"INTERFACE_OLD")),
            (b"lan0".to_vec(), b"eth0".to_vec())
        );
        assert_eq!((after.seqnum(), after.ifindex(), after.origin), (9, Some(7), Origin::Kernel));
    }
}

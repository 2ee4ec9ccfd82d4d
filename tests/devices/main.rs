//! Builtins at devices of a real kernel, under systemd-udevd and under mapdevd with the same rules, in a virtual
//! machine: `tests/vm/devices.sh` builds and boots it. Each manager runs once, for all tests.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and shows what the manager said"
)]

mod disks;
mod drivers;
mod event_node;
mod input;
mod manager;
mod uhid;

use std::sync::LazyLock;

use manager::{Running, both};

/// What was found out under one manager.
struct Facts {
    keyboard: input::Keyboard,
    own_keyboard: input::OwnKeyboard,
    tablets: [input::Tablet; 2],
    modules: drivers::Modules,
    interfaces: drivers::Interfaces,
    disks: disks::Disks,
}

/// Under systemd-udevd, then under mapdevd.
static FACTS: LazyLock<[Facts; 2]> = LazyLock::new(|| both(Facts::gather));

impl Facts {
    fn gather(running: &Running) -> Self {
        Self {
            modules: drivers::modules(running),
            interfaces: drivers::interfaces(running),
            keyboard: input::keyboard(running),
            own_keyboard: input::own_keyboard(running),
            tablets: input::tablets(running),
            disks: disks::disks(running),
        }
    }
}

/// A part of what was found out under both, which must be the same; mapdevd's.
fn same<T: PartialEq + std::fmt::Debug>(part: impl Fn(&'static Facts) -> &'static T) -> &'static T {
    let [theirs, ours] = &*FACTS;
    assert_eq!(part(ours), part(theirs), "under mapdevd, and under systemd-udevd");
    part(ours)
}

//! The machine of the test, on which programs are run and attributes are written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mapdev::device::record::Records;
use mapdev::exec::Programs;
use mapdev::net::{self, LinkFiles};
use mapdev::probe::Probe;
use mapdev::rules::machine::Machine;

/// The kernel's command line, for both sides.
pub(crate) const COMMAND_LINE: &str =
    "quiet root=/dev/x1 a-b=1 a_b=2 flag= both both=3 one=1 one q='x y'";

/// The daemon's, as in active mode.
pub(crate) fn doing() -> Machine {
    let records = Records::open(Path::new("/run/udev/data")).unwrap();
    let machine = Machine::new(records).running(Programs::default()).writing();
    machine.with_command_line(COMMAND_LINE.as_bytes())
}

/// As [`doing`], and it reads disks and the machine's `.link` files.
pub(crate) fn complete() -> Machine {
    let probe = env!("CARGO_BIN_EXE_mapdev-probe");
    let machine = doing().probing(Probe::new(probe, "/dev", Duration::from_secs(20)));
    let host = net::Machine::read(Path::new("/"), Path::new("/sys"));
    machine.set_links(&Arc::new(LinkFiles::load(Path::new("/"), &host).0));
    machine
}

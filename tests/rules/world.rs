//! The machine of the test, on which programs are run and attributes are written.

use std::path::Path;

use mapdev::device::record::Records;
use mapdev::exec::Programs;
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

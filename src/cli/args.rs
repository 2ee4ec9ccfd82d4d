//! The command line of `mapdevctl`.

use clap::{Parser, Subcommand};

use super::output::Color;
use super::{
    chmod, chown, completions, event, explain, hwdb, info, list, log_level, man, map, module,
    reload, reset, settle, shim, test, test_builtin, verify,
};

const AFTER_HELP: &str = "\
A DEVICE is a node (/dev/sda, or sda for short), a link to one, a path below /sys or as the kernel \
tells it (/devices/...), or a device number with its kind (b8:0, c10:200).

On a terminal, output is a table with a heading. In a pipe there is no heading, and columns are \
separated by one tab. Control characters in the names of devices are shown as \\xHH. With --json, \
each command prints one JSON document, and monitor one a line.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such device or module, 4 refused (permission, lockout \
guard, shadow mode).

Environment: MAPDEV_BUS_ADDRESS is used when --bus is not given; NO_COLOR turns colour off.";

/// Ask and steer mapdevd, the device manager
#[derive(Debug, Parser)]
#[command(name = "mapdevctl", version, after_long_help = AFTER_HELP, max_term_width = 100)]
#[command(
    after_help = "See mapdevctl --help for what a DEVICE is, forms of output and exit codes."
)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// The bus that mapdevd is on: `system`, or a D-Bus address [default: system]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub bus: Option<String>,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the daemon is doing
    Status,
    /// List devices
    List(list::Args),
    /// Show everything about one device
    Info(info::Args),
    /// Show each event as it is processed, until Ctrl-C
    ///
    /// The time is in seconds since the machine started, as in the kernel's log. Storms of events
    /// and, in shadow mode, differences from the other device manager are shown too. Ends with
    /// exit code 1 when the daemon leaves the bus.
    Monitor,
    /// Wait until all events are processed, or until one device is ready
    Settle(settle::Args),
    /// Read the shared map of /dev
    Map(map::Args),
    /// Look modules up by the names that they serve, and load them; needs no daemon
    Module(module::Args),
    /// Change the owner, the group or both of a device
    ///
    /// The change lasts until the device is removed, or with --persist for good.
    Chown(chown::Args),
    /// Change the mode of a device
    ///
    /// The change lasts until the device is removed, or with --persist for good.
    Chmod(chmod::Args),
    /// Give a device back the owner, group and mode that rules and policy say
    Reset(reset::Args),
    /// Tell who gave a device its owner, group, mode, links and tags, and in what order
    Explain(explain::Args),
    /// Show where the nodes of /dev differ from what the daemon decided
    ///
    /// In shadow mode this is what would change if the daemon managed the machine.
    Compare,
    /// Make the daemon read rules and policy anew
    ///
    /// Policy is applied to every device at once; udev rules, as under udev, with a device's next event
    /// (`udevadm trigger`).
    Reload(reload::Args),
    /// Show or set how much the daemon logs
    LogLevel(log_level::Args),
    /// Handle one event from start to end, as the daemon does in active mode; needs no daemon
    ///
    /// The device is looked up in sysfs, and one that was removed is described by --property. Rules and
    /// policy decide, programs are run and attributes written; then come node, links, record, tags and the
    /// RUN list, and libudev's clients are told. For
    /// scripts of an initramfs, for tests and to find mistakes: beside a daemon, the later one of both wins.
    /// No node is watched (OPTIONS+="watch"): that is the daemon's, which begins with it when it starts.
    /// Exit code 1 if the rules ended early.
    Event(event::Args),
    /// Show what rules and policy decide for a device; needs no daemon, and changes nothing
    ///
    /// The device is looked up in sysfs. PROGRAM and IMPORT{program} are run, as `udevadm test` of systemd
    /// 252 does, since rules decide by what they say; --no-programs leaves them out and tells what was
    /// left out. Builtins are asked, but for what they would change: kmod loads nothing, keyboard and
    /// net_setup_link set nothing. Nothing of the RUN list is run, and nothing is written.
    Test(test::Args),
    /// Show what a builtin of udev rules says of a device; needs no daemon, and changes nothing
    ///
    /// Prints the properties that it finds, as udevadm test-builtin does. Modules are not loaded, and
    /// neither keyboards nor network interfaces are set up: lines that begin with # tell so, and for
    /// keyboard what would be done. Exit code 1 if it finds nothing.
    TestBuiltin(test_builtin::Args),
    /// Ask the hardware database, and compile it; needs no daemon
    Hwdb(hwdb::Args),
    /// Look after the kernel module that serves the map as a file system
    Shim(shim::Args),
    /// Check udev rules for mistakes; needs no daemon
    ///
    /// Finds what loading refuses, names of users and groups that nobody has, GOTOs that lead
    /// nowhere and comparisons that can never hold. Exit code 1 if there is an error, that is, a
    /// rule or a file that has no effect; warnings alone are exit code 0.
    Verify(verify::Args),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions(completions::Args),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(man::Args),
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command};
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_an_option_of_every_command_before_and_after_it() {
        for line in [["mapdevctl", "--json", "status"], ["mapdevctl", "status", "--json"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.json && matches!(cli.command, Command::Status));
        }
    }
}

//! Stage 4: what rules need beside the device: programs, builtins, files, the machine.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use crate::builtin::{Builtin, Call, Pair, Ran};
use crate::device::DeviceId;
use crate::device::record::Record;
use crate::exec::Said;
use crate::rules::rule::Constant;
use crate::rules::source::Source;

/// Everything outside of the device that a rule can ask for or change.
pub trait World: Debug {
    /// Runs a program to its end; `None` if no programs are run here. `words` is not empty;
    /// `environment` is all that it gets.
    fn program(&self, words: &[Vec<u8>], environment: &[Pair], by: &Source) -> Option<Said>;

    /// Runs a builtin, and gives the properties that it found.
    fn builtin(&self, builtin: Builtin, call: &Call<'_>) -> Ran<Vec<Pair>>;

    /// A file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn file(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The permission bits of what a path leads to; `None` if that is nothing.
    fn mode(&self, path: &[u8]) -> Option<u32>;

    /// The names in a folder, less those that begin with a dot.
    fn names(&self, folder: &[u8]) -> Vec<Vec<u8>>;

    /// Writes to a file below `root`, which is sysfs or `/proc/sys`; no link and no `..` leads out of
    /// there. `None` if nothing is written here.
    ///
    /// # Errors
    /// When that was not possible.
    fn write(&self, root: &Path, path: &[u8], value: &[u8]) -> Option<io::Result<()>>;

    fn constant(&self, constant: Constant) -> Vec<u8>;

    /// The kernel's command line.
    fn command_line(&self) -> Vec<u8>;

    /// What is remembered of another device.
    fn record(&self, id: &DeviceId) -> Option<Record>;
}

//! The machine of the test, on which programs are run and attributes are written.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mapdev::builtin::{Builtin, Call, Pair, Ran};
use mapdev::device::DeviceId;
use mapdev::device::record::{Record, Records};
use mapdev::rules::machine::Machine;
use mapdev::rules::rule::Constant;
use mapdev::rules::world::World;

/// The kernel's command line, for both sides.
pub(crate) const COMMAND_LINE: &str =
    "quiet root=/dev/x1 a-b=1 a_b=2 flag= both both=3 one=1 one q='x y'";

/// Reads like the real one; runs and writes at once.
#[derive(Debug)]
pub(crate) struct Doing(pub(crate) Machine);

impl Doing {
    pub(crate) fn new() -> Self {
        Self(Machine::new(Records::open(Path::new("/run/udev/data")).unwrap()))
    }
}

impl World for Doing {
    fn program(&self, words: &[Vec<u8>], environment: &[Pair]) -> Ran<Vec<u8>> {
        let name = Path::new("/usr/lib/udev").join(OsStr::from_bytes(&words[0]));
        let mut command = Command::new(name);
        command.args(words[1..].iter().map(|word| OsStr::from_bytes(word))).env_clear();
        command.envs(environment.iter().map(|(k, v)| (OsStr::from_bytes(k), OsStr::from_bytes(v))));
        match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
            Ok(output) if output.status.success() => Ran::Done(output.stdout),
            Ok(_) | Err(_) => Ran::Failed,
        }
    }

    fn builtin(&self, _: Builtin, _: &Call<'_>) -> Ran<Vec<Pair>> {
        Ran::Skipped
    }

    fn file(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.0.file(path)
    }

    fn mode(&self, path: &[u8]) -> Option<u32> {
        self.0.mode(path)
    }

    fn names(&self, folder: &[u8]) -> Vec<Vec<u8>> {
        self.0.names(folder)
    }

    fn write(&self, path: &[u8], value: &[u8]) -> io::Result<()> {
        // as into an attribute: what is there is not cut off first
        let mut file = OpenOptions::new().write(true).open(OsStr::from_bytes(path))?;
        file.write_all(value)
    }

    fn constant(&self, constant: Constant) -> Vec<u8> {
        self.0.constant(constant)
    }

    fn command_line(&self) -> Vec<u8> {
        COMMAND_LINE.as_bytes().to_vec()
    }

    fn record(&self, id: &DeviceId) -> Option<Record> {
        self.0.record(id)
    }
}

//! Stage 4: the machine as rules see it: files, constants, records. Runs nothing and changes nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::builtin::{Builtin, Call, Kit, Pair, Ran};
use crate::device::DeviceId;
use crate::device::record::{Record, Records};
use crate::host::{architecture, command_line, virtualization};
use crate::rules::rule::Constant;
use crate::rules::world::World;

/// No file of properties is that large; what is beyond is not read.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads the machine that we run on. Programs, builtins and writes are skipped, and say so.
#[derive(Clone, Debug)]
pub struct Machine {
    records: Records,
    kit: Kit,
    command_line: Vec<u8>,
    virtualization: &'static str,
}

impl Machine {
    /// `records` is where other devices' records are looked up.
    #[must_use]
    pub fn new(records: Records) -> Self {
        let kit = Kit::default();
        Self { records, kit, command_line: command_line(), virtualization: virtualization() }
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl World for Machine {
    fn program(&self, _: &[Vec<u8>], _: &[Pair]) -> Ran<Vec<u8>> {
        Ran::Skipped
    }

    fn builtin(&self, builtin: Builtin, call: &Call<'_>) -> Ran<Vec<Pair>> {
        self.kit.run(builtin, call)
    }

    fn file(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // a fifo would wait for a writer
        let meta = match fs::metadata(path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            meta => meta?,
        };
        if meta.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::other("a regular file wanted"));
        }
        let mut content = Vec::new();
        File::open(path(name))?.take(FILE_LIMIT).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn mode(&self, name: &[u8]) -> Option<u32> {
        fs::metadata(path(name)).ok().map(|meta| meta.permissions().mode())
    }

    fn names(&self, folder: &[u8]) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(path(folder)) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().as_bytes().to_vec());
        names.filter(|name| !name.starts_with(b".")).collect()
    }

    fn write(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("not done here"))
    }

    fn constant(&self, constant: Constant) -> Vec<u8> {
        match constant {
            Constant::Arch => architecture().as_bytes().to_vec(),
            Constant::Virt => self.virtualization.as_bytes().to_vec(),
            Constant::Cvm => b"none".to_vec(),
        }
    }

    fn command_line(&self) -> Vec<u8> {
        self.command_line.clone()
    }

    fn record(&self, id: &DeviceId) -> Option<Record> {
        self.records.read(id)
    }
}

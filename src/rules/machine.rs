//! Stage 4: the machine as rules see it: files, constants, records; programs and writes where it is told to.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::builtin::{Builtin, Call, Kit, Pair, Ran};
use crate::config::EVENT_TIME;
use crate::device::DeviceId;
use crate::device::record::{Record, Records};
use crate::exec::{Pause, Programs, Said, Task};
use crate::host::{architecture, command_line, virtualization};
use crate::modules::ModuleDb;
use crate::net::LinkFiles;
use crate::probe::Probe;
use crate::rules::rule::Constant;
use crate::rules::source::Source;
use crate::rules::world::World;

/// No file of properties is that large; what is beyond is not read.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads the machine that we run on. It runs no programs and writes nothing, unless it was told to.
#[derive(Clone, Debug)]
pub struct Machine {
    records: Records,
    kit: Kit,
    command_line: Vec<u8>,
    virtualization: &'static str,
    programs: Option<Programs>,
    writes: bool,
    /// Of the event at hand: when it began, and whether it may write.
    begun: Cell<Instant>,
    repeated: Cell<bool>,
}

impl Machine {
    /// `records` is where other devices' records are looked up.
    #[must_use]
    pub fn new(records: Records) -> Self {
        let command_line = command_line();
        let kit = Kit::default().with_command_line(&command_line);
        Self {
            records,
            kit,
            command_line,
            virtualization: virtualization(),
            programs: None,
            writes: false,
            begun: Cell::new(Instant::now()),
            repeated: Cell::new(false),
        }
    }

    /// It runs programs.
    #[must_use]
    pub fn running(self, programs: Programs) -> Self {
        Self { programs: Some(programs), ..self }
    }

    /// It reads disks in another way.
    #[must_use]
    pub fn probing(self, probe: Probe) -> Self {
        Self { kit: self.kit.probing(probe), ..self }
    }

    /// Who is told when it waits for a program, a disk or a module.
    #[must_use]
    pub fn with_pause(self, pause: Arc<dyn Pause>) -> Self {
        let told = Some(pause.clone());
        let programs = self.programs.map(|programs| Programs { pause: told, ..programs });
        Self { programs, kit: self.kit.with_pause(pause), ..self }
    }

    /// It writes to sysfs and to sysctls.
    #[must_use]
    pub fn writing(self) -> Self {
        Self { writes: true, ..self }
    }

    /// With the hardware database and modprobe.d of this root, and nodes in `dev`.
    #[must_use]
    pub fn below(self, root: &Path, dev: &Path) -> Self {
        Self { kit: Kit::below(root, dev).with_command_line(&self.command_line), ..self }
    }

    /// Looks anew at what was read once, after a reload; `modules` are those that there are now.
    pub fn refresh(&self, modules: &Arc<ModuleDb>) {
        self.kit.refresh(modules);
    }

    /// With another command line than the kernel was given.
    #[must_use]
    pub fn with_command_line(self, line: &[u8]) -> Self {
        Self { kit: self.kit.with_command_line(line), command_line: line.to_vec(), ..self }
    }

    /// Goes on with other `.link` files.
    pub fn set_links(&self, links: &Arc<LinkFiles>) {
        self.kit.set_links(links);
    }

    /// What follows is of an event that began at `begun`. What was done when the device was handled
    /// before is not done again: a `repeated` event writes nothing.
    pub fn begin(&self, begun: Instant, repeated: bool) {
        self.begun.set(begun);
        self.repeated.set(repeated);
        let time = self.programs.as_ref().map_or(EVENT_TIME, |programs| programs.time);
        self.kit.probe.until(begun + time);
        self.kit.allow_changes(self.writes && !repeated);
    }

    /// Runs a program in what is left of the event's time; `None` if no programs are run here.
    pub fn run(&self, words: &[Vec<u8>], environment: &[Pair], by: &Source) -> Option<Said> {
        let programs = self.programs.as_ref()?;
        let until = self.begun.get() + programs.time;
        Some(programs.run(&Task { words, environment, by: &by.to_string(), until }))
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Writes at once, as attributes want it, to a file that is there.
fn write_below(root: &Path, name: &Path, value: &[u8]) -> io::Result<()> {
    let below = name.strip_prefix(root).map_err(io::Error::other)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    // a fifo would wait for a reader
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(&root, below, flags, Mode::empty(), inside)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("a regular file wanted"));
    }
    let mut file = file;
    file.write_all(value)
}

impl World for Machine {
    fn program(&self, words: &[Vec<u8>], environment: &[Pair], by: &Source) -> Option<Said> {
        self.run(words, environment, by)
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

    fn write(&self, root: &Path, name: &[u8], value: &[u8]) -> Option<io::Result<()>> {
        let writes = self.writes && !self.repeated.get();
        writes.then(|| write_below(root, path(name), value))
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

//! Stage 3b: does what a [`Plan`] says: loads modules into the running kernel, and runs commands.
//!
//! Blocks for as long as a module's start or a command takes.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::system::{finit_module, init_module};

use super::plan::{Action, Plan, Step, Target};
use super::shell;
use super::state::State;
use crate::modules::ModuleDb;
use crate::modules::unpack::{self, Buffers};

/// MODULE_INIT_COMPRESSED_FILE of include/uapi/linux/module.h.
const COMPRESSED: i32 = 4;
/// How the files of modules may be packed: what they begin with, and what the kernel calls it.
const PACKINGS: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x1f\x8b", "gzip")];

/// Where and how to load.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'l> {
    pub db: &'l ModuleDb,
    /// `/sys`
    pub sysfs: &'l Path,
    /// How long an install command may take; the kernel's own time is not limited.
    pub command_time: Duration,
}

impl Loader<'_> {
    /// As long as udev gives an event by default.
    pub const COMMAND_TIME: Duration = Duration::from_secs(180);
}

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    Loaded,
    /// It was loaded before, or by somebody else in the same moment.
    AlreadyLoaded,
    /// It is part of the kernel.
    Builtin,
    /// The install command ended well.
    CommandRan,
    /// `blacklist` keeps it out.
    Blacklisted,
    /// It was only a soft dependency, and the rest went on.
    Failed(Why),
}

/// One module that was dealt with.
#[derive(Debug)]
pub struct Done {
    pub module: Vec<u8>,
    pub outcome: Outcome,
}

/// Why a module could not be loaded.
#[derive(Debug)]
pub enum Why {
    /// The configuration names a module that there is not.
    Missing,
    /// `module_blacklist=` on the kernel's command line.
    Refused,
    /// The file cannot be read or unpacked.
    File(PathBuf, String),
    /// What the kernel said to the file.
    Kernel(PathBuf, Errno),
    /// A NUL in its options.
    Options,
    /// `/bin/sh` cannot be run.
    Shell(io::Error),
    Exit(i32),
    Signal(i32),
    TimeUp(Duration),
    /// Its command runs itself again.
    Loop,
    /// A part of the kernel cannot be removed.
    Builtin,
    /// Who uses it, as far as these are modules.
    InUse(Vec<String>),
}

/// A plan that was not done to its end.
#[derive(Debug)]
pub struct LoadError {
    pub module: Vec<u8>,
    pub why: Why,
    /// What was done before.
    pub done: Vec<Done>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot load {}: {}", self.module.escape_ascii(), self.why)
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("there is no such module; see alias and softdep in modprobe.d")
            }
            Self::Refused => {
                f.write_str("the kernel refuses it: module_blacklist= is on its command line")
            }
            Self::File(path, what) => write!(f, "{}: {what}", path.display()),
            Self::Kernel(path, errno) => {
                write!(f, "{}: {}{}", path.display(), io::Error::from(*errno), advice(*errno))
            }
            Self::Options => f.write_str("options without NUL wanted"),
            Self::Shell(error) => write!(f, "its command in modprobe.d: /bin/sh: {error}"),
            Self::Exit(code) => write!(f, "its command in modprobe.d ended with exit code {code}"),
            Self::Signal(signal) => {
                write!(f, "its command in modprobe.d was ended by signal {signal}")
            }
            Self::TimeUp(limit) => {
                write!(f, "its command in modprobe.d was ended after {} s", limit.as_secs_f32())
            }
            Self::Loop => f.write_str(
                "its command in modprobe.d runs itself again; --ignore-install wanted there",
            ),
            Self::Builtin => f.write_str("it is part of the kernel"),
            Self::InUse(holders) if holders.is_empty() => f.write_str("it is in use"),
            Self::InUse(holders) => write!(f, "it is used by {}", holders.join(", ")),
        }
    }
}

/// What an answer of the kernel means, and what to do.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => "; needs root, and a kernel that is not locked (kernel.modules_disabled)",
        Errno::NOEXEC => "; it was built for another kernel or is damaged, see dmesg",
        Errno::NOENT => "; it wants a symbol or an option that there is not, see dmesg",
        Errno::INVAL => "; an option is wrong or the kernel is another, see dmesg",
        Errno::NODEV => "; what it drives is not in this machine",
        Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG => "; its signature is not good here",
        Errno::BUSY => "; something that it wants is taken, see dmesg",
        Errno::NOSYS => "; this kernel was built to load no modules",
        Errno::NOMEM => "",
        _ => "; see dmesg",
    }
}

impl Loader<'_> {
    /// Does what a plan says. A module that is there already is not loaded again, nor is what it
    /// needs; soft dependencies may fail.
    ///
    /// # Errors
    /// When a module that was asked for, or one that it needs, cannot be loaded.
    pub fn load(&self, plan: &Plan) -> Result<Vec<Done>, LoadError> {
        let mut done = Vec::new();
        for target in &plan.targets {
            if let Err((module, why)) = self.target(target, &mut done) {
                return Err(LoadError { module, why, done });
            }
        }
        Ok(done)
    }

    /// Whether anything of a plan is left to be done: that may take long.
    #[must_use]
    pub fn has_work(&self, plan: &Plan) -> bool {
        let idle = |target: &Target| target.blacklisted || self.there(&target.module).is_some();
        !plan.targets.iter().all(idle)
    }

    fn target(&self, target: &Target, done: &mut Vec<Done>) -> Result<(), (Vec<u8>, Why)> {
        let mut add = |module: &[u8], outcome| {
            done.push(Done { module: module.to_vec(), outcome });
        };
        if let Some(there) = self.there(&target.module) {
            add(&target.module, there);
            return Ok(());
        }
        if target.blacklisted {
            add(&target.module, Outcome::Blacklisted);
            return Ok(());
        }
        for step in &target.steps {
            match self.there(&step.module).map_or_else(|| self.step(step), Ok) {
                Ok(outcome) => add(&step.module, outcome),
                Err(why) if step.required => return Err((step.module.clone(), why)),
                Err(why) => add(&step.module, Outcome::Failed(why)),
            }
        }
        Ok(())
    }

    fn there(&self, module: &[u8]) -> Option<Outcome> {
        match State::of(self.db, self.sysfs, module) {
            State::Builtin => Some(Outcome::Builtin),
            State::Live => Some(Outcome::AlreadyLoaded),
            // the kernel waits for whoever loads or removes it, and then answers
            State::Loading | State::Unloading | State::NotLoaded => None,
        }
    }

    fn step(&self, step: &Step) -> Result<Outcome, Why> {
        match &step.action {
            Action::Builtin => Ok(Outcome::Builtin),
            Action::Missing => Err(Why::Missing),
            Action::Command(command) => {
                shell::run(&step.module, command, &step.options, self.command_time)?;
                Ok(Outcome::CommandRan)
            }
            Action::Insert(path) => match self.insert(path, &step.options) {
                Ok(()) => Ok(Outcome::Loaded),
                Err(Why::Kernel(_, Errno::EXIST)) => Ok(Outcome::AlreadyLoaded),
                Err(Why::Kernel(_, Errno::PERM)) if step.refused => Err(Why::Refused),
                Err(why) => Err(why),
            },
        }
    }

    fn insert(&self, path: &Path, options: &[u8]) -> Result<(), Why> {
        let options = CString::new(options).map_err(|_| Why::Options)?;
        let unreadable = |error: io::Error| Why::File(path.to_owned(), error.to_string());
        // asked before the file is opened: opening a FIFO would wait
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(Why::File(path.to_owned(), "a regular file wanted".to_owned()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut magic = [0; 6];
        let read = file.read_at(&mut magic, 0).map_err(unreadable)?;
        let packing = PACKINGS.iter().find(|(start, _)| magic[..read].starts_with(start));
        let said = match packing {
            None => finit_module(&file, &options, 0),
            Some((_, name)) if self.kernel_unpacks(name) => {
                finit_module(&file, &options, COMPRESSED)
            }
            Some(_) => Err(Errno::OPNOTSUPP),
        };
        let said = match said {
            // neither the kernel nor its file system can, but we can
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let mut buffers = Buffers::default();
                let image = unpack::read(path, &mut buffers);
                let image = image.map_err(|what| Why::File(path.to_owned(), what))?;
                init_module(image, &options)
            }
            said => said,
        };
        said.map_err(|errno| Why::Kernel(path.to_owned(), errno))
    }

    /// Whether the kernel was built to unpack this by itself.
    fn kernel_unpacks(&self, packing: &str) -> bool {
        let said = fs::read_to_string(self.sysfs.join("module/compression"));
        said.is_ok_and(|said| said.trim_ascii_end() == packing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::modprobe::{Config, Request, plan};

    fn loaded(conf: &str, sysfs: &[(&str, &str)], name: &str) -> Result<Vec<Done>, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), conf).unwrap();
        for (module, state) in sysfs {
            let folder = dir.path().join("module").join(module);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("initstate"), state).unwrap();
        }
        let db = ModuleDb::default();
        let config = Config::of_folders(&[dir.path().to_owned()], b"");
        let request = Request { name: name.as_bytes(), ..Request::default() };
        let plan = plan(&db, &config, &request).unwrap();
        let limit = Duration::from_secs(20);
        Loader { db: &db, sysfs: dir.path(), command_time: limit }.load(&plan)
    }

    fn outcomes(done: &[Done]) -> Vec<String> {
        let shown = |done: &Done| format!("{} {:?}", done.module.escape_ascii(), done.outcome);
        done.iter().map(shown).collect()
    }

    #[test]
    fn what_is_live_is_not_loaded_again() {
        let conf =
            "install a exit 1\ninstall b true\nalias x a\nalias x b\nblacklist c\nalias x c\n";
        let done = loaded(conf, &[("a", "live\n")], "x").unwrap();
        assert_eq!(outcomes(&done), ["a AlreadyLoaded", "b CommandRan", "c Blacklisted"]);
    }

    #[test]
    fn a_soft_dependency_may_fail_and_the_module_may_not() {
        let conf =
            "install a exit 1\ninstall b exit 2\nsoftdep x pre: a\ninstall x true\nalias y x\n";
        let failed = loaded(conf, &[], "y").unwrap_err();
        // with soft dependencies the install command is not run, and there is nothing else
        assert_eq!(outcomes(&failed.done), ["a Failed(Exit(1))"]);
        assert_eq!(
            failed.to_string(),
            "cannot load x: there is no such module; see alias and softdep in modprobe.d"
        );
        let failed = loaded(conf, &[], "b").unwrap_err();
        assert_eq!(
            failed.to_string(),
            "cannot load b: its command in modprobe.d ended with exit code 2"
        );
    }

    #[test]
    fn a_file_that_is_no_module_is_named_with_the_kernels_answer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.ko");
        fs::write(&file, "no module").unwrap();
        let db = ModuleDb::default();
        let loader = Loader { db: &db, sysfs: dir.path(), command_time: Loader::COMMAND_TIME };
        let said = loader.insert(&file, b"").unwrap_err().to_string();
        assert!(
            said.starts_with(&format!("{}: ", file.display())) && said.contains("; "),
            "{said}"
        );
        fs::remove_file(&file).unwrap();
        let said = loader.insert(&file, b"").unwrap_err().to_string();
        assert!(said.contains("No such file"), "{said}");
    }
}

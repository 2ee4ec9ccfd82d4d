//! Stage 3b: takes modules out of the running kernel, as `modprobe -r` does.
//!
//! What is there and who uses it changes with every step, so nothing is planned: soft dependencies that
//! came after the module go first, then the module, then what nobody needs any more.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::system::delete_module;

use super::config::Config;
use super::load::{Loader, Why};
use super::plan::{Asked, Lookup, PlanError};
use super::shell;
use super::state::State;

/// What became of a module.
#[derive(Debug)]
pub enum Removal {
    Removed,
    NotLoaded,
    /// The remove command ended well.
    CommandRan,
    /// It was only needed by another or a soft dependency, and stays.
    Kept(Why),
}

/// One module that was dealt with.
#[derive(Debug)]
pub struct Gone {
    pub module: Vec<u8>,
    pub outcome: Removal,
}

/// Why not everything was removed.
#[derive(Debug)]
pub enum RemoveError {
    /// No such module.
    Name(PlanError),
    /// The module that could not be removed, and what was done before.
    Module { module: Vec<u8>, why: Why, done: Vec<Gone> },
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Module { module, why, .. } => {
                write!(f, "cannot remove {}: {why}", module.escape_ascii())
            }
        }
    }
}

impl std::error::Error for RemoveError {}

impl Loader<'_> {
    /// Removes the modules that a name stands for, and what they needed and nobody uses then.
    ///
    /// `ignore_remove`: neither remove commands nor soft dependencies count.
    ///
    /// # Errors
    /// When a module that was asked for stays, or there is none.
    pub fn remove(
        &self,
        config: &Config,
        name: &[u8],
        ignore_remove: bool,
    ) -> Result<Vec<Gone>, RemoveError> {
        let lookup = Lookup { db: self.db, config };
        let found = lookup.find(name).map_err(RemoveError::Name)?;
        if found.is_empty() {
            return Err(RemoveError::Name(PlanError::NotFound));
        }
        let mut removing = Removing {
            loader: self,
            lookup,
            ignore_remove,
            seen: HashSet::new(),
            done: Vec::new(),
        };
        for asked in found {
            match removing.module(&asked) {
                Ok(true) => {}
                Ok(false) => removing.add(&asked, Removal::NotLoaded),
                Err(why) => {
                    let done = removing.done;
                    return Err(RemoveError::Module { module: asked.module, why, done });
                }
            }
        }
        Ok(removing.done)
    }
}

struct Removing<'a> {
    loader: &'a Loader<'a>,
    lookup: Lookup<'a>,
    ignore_remove: bool,
    /// Each module is dealt with once, however soft dependencies go round.
    seen: HashSet<Vec<u8>>,
    done: Vec<Gone>,
}

impl Removing<'_> {
    fn add(&mut self, asked: &Asked, outcome: Removal) {
        self.done.push(Gone { module: asked.module.clone(), outcome });
    }

    /// False if there was nothing to remove.
    fn module(&mut self, asked: &Asked) -> Result<bool, Why> {
        self.seen.insert(asked.module.clone());
        let (pre, post) = match self.ignore_remove {
            true => (Vec::new(), Vec::new()),
            false => self.lookup.softdeps(&asked.module),
        };
        let command = self.lookup.config.remove_command(&asked.module);
        let command = command.filter(|_| !self.ignore_remove);
        if command.is_none() {
            match State::of(self.loader.db, self.loader.sysfs, &asked.module) {
                State::NotLoaded => return Ok(false),
                State::Builtin => return Err(Why::Builtin),
                State::Live | State::Loading | State::Unloading => {}
            }
        }
        self.others(post.iter().rev());
        let outcome = match command {
            Some(command) => {
                shell::run(&asked.module, command, b"", self.loader.command_time)?;
                Removal::CommandRan
            }
            None => {
                self.delete(&asked.module)?;
                Removal::Removed
            }
        };
        self.add(asked, outcome);
        let needs: Vec<_> = self.lookup.needs(&asked.module).collect();
        // in the order of loading, as kmod: what is needed by one of these was in use a moment ago
        self.unused(needs.iter());
        self.others(pre.iter().rev());
        Ok(true)
    }

    /// Removes soft dependencies, as far as they can be.
    fn others<'m>(&mut self, modules: impl Iterator<Item = &'m Asked>) {
        for asked in modules {
            if self.seen.contains(&asked.module) {
                continue;
            }
            match self.module(asked) {
                Ok(_) | Err(Why::Builtin) => {}
                Err(why) => self.add(asked, Removal::Kept(why)),
            }
        }
    }

    /// Removes what was needed and has no user left, without its commands and soft dependencies.
    fn unused<'m>(&mut self, modules: impl Iterator<Item = &'m Asked>) {
        let (db, sysfs) = (self.loader.db, self.loader.sysfs);
        for asked in modules {
            let live = State::of(db, sysfs, &asked.module) == State::Live;
            if !live || self.users(&asked.module) != 0 {
                continue;
            }
            let outcome =
                self.delete(&asked.module).map_or_else(Removal::Kept, |()| Removal::Removed);
            self.add(asked, outcome);
        }
    }

    fn delete(&self, module: &[u8]) -> Result<(), Why> {
        if self.users(module) != 0 {
            return Err(Why::InUse(self.holders(module)));
        }
        let name = CString::new(module).map_err(|_| Why::Missing)?;
        // else the kernel waits for the last user, for ever if need be
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        match delete_module(&name, flags) {
            // somebody else was faster
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::BUSY | Errno::AGAIN) => Err(Why::InUse(self.holders(module))),
            Err(errno) => Err(Why::Kernel(self.folder(module), errno)),
        }
    }

    fn folder(&self, module: &[u8]) -> PathBuf {
        self.loader.sysfs.join("module").join(OsStr::from_bytes(module))
    }

    /// 0 also where the kernel does not count.
    fn users(&self, module: &[u8]) -> u64 {
        let count = fs::read_to_string(self.folder(module).join("refcnt"));
        count.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    fn holders(&self, module: &[u8]) -> Vec<String> {
        let entries = fs::read_dir(self.folder(module).join("holders"));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = names.map(|e| e.file_name().display().to_string()).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::ModuleDb;
    use std::path::Path;

    fn live(sysfs: &Path, module: &str, users: &str, holders: &[&str]) {
        let folder = sysfs.join("module").join(module);
        fs::create_dir_all(folder.join("holders")).unwrap();
        fs::write(folder.join("initstate"), "live\n").unwrap();
        fs::write(folder.join("refcnt"), users).unwrap();
        for holder in holders {
            fs::write(folder.join("holders").join(holder), "").unwrap();
        }
    }

    fn removed(sysfs: &Path, conf: &str, name: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), conf).unwrap();
        let config = Config::of_folders(&[dir.path().to_owned()], b"");
        let db = ModuleDb::default();
        let loader = Loader { db: &db, sysfs, command_time: Loader::COMMAND_TIME };
        let shown = |gone: Gone| format!("{} {:?}", gone.module.escape_ascii(), gone.outcome);
        let done = loader.remove(&config, name.as_bytes(), false);
        done.map(|done| done.into_iter().map(shown).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn who_uses_a_module_is_named_and_it_stays() {
        let sysfs = tempfile::tempdir().unwrap();
        live(sysfs.path(), "tap", "2\n", &["macvtap", "ipvtap"]);
        live(sysfs.path(), "tun", "1\n", &[]);
        let said = removed(sysfs.path(), "alias x tap\n", "x").unwrap_err();
        assert_eq!(said, "cannot remove tap: it is used by ipvtap, macvtap");
        let said = removed(sysfs.path(), "alias x tun\n", "x").unwrap_err();
        assert_eq!(said, "cannot remove tun: it is in use");
    }

    #[test]
    fn soft_dependencies_go_the_other_way_round_and_may_stay() {
        let sysfs = tempfile::tempdir().unwrap();
        live(sysfs.path(), "used", "1\n", &[]);
        let conf = "remove a true\nremove b exit 3\nremove c true\ninstall used true\n\
                    softdep a pre: b used post: c a\n";
        let done = removed(sysfs.path(), conf, "a").unwrap();
        let wanted = ["c CommandRan", "a CommandRan", "used Kept(InUse([]))", "b Kept(Exit(3))"];
        assert_eq!(done, wanted);
        assert_eq!(removed(sysfs.path(), "alias x nosuch\n", "x").unwrap(), ["nosuch NotLoaded"]);
        assert!(removed(sysfs.path(), "", "nosuch").unwrap_err().contains("no module"));
    }
}

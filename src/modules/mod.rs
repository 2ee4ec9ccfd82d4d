//! Stage 3b: which module serves which name below /dev, without loading any.
//!
//! Read `scan.rs` first: it walks the tree (`tree.rs`), reads what changed (`unpack.rs`,
//! `modinfo/`, `links.rs`) and builds the database (`build.rs`, `order.rs`, `alias.rs`), which is one piece of
//! memory (`store.rs`) that `cache.rs` keeps in a file.

mod alias;
mod build;
pub mod cache;
mod describe;
mod ear;
pub mod lease;
mod links;
pub mod modinfo;
pub mod modprobe;
mod order;
pub mod scan;
mod store;
mod tree;
pub mod unpack;
pub mod watch;

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::uevent::Devnum;
use build::Contents;
pub use describe::Description;
use modinfo::ModInfo;
use store::{Builder, DEVNAME, FILE, MODULE, PROBLEM, Section, Store};
use tree::Found;

/// A name below /dev that a module declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devname<'db> {
    /// Without `/dev/`; never leads out of it.
    pub name: &'db [u8],
    pub module: &'db str,
    /// The module is part of the kernel.
    pub builtin: bool,
    /// `None` if the module says none, or not which of its names has it.
    pub number: Option<Devnum>,
}

/// A file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanProblem {
    pub file: PathBuf,
    pub what: String,
}

impl fmt::Display for ScanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// The modules of one kernel and what they declare. It does not change: a change makes a new one.
#[derive(Debug)]
pub struct ModuleDb {
    folder: PathBuf,
    release: String,
    store: Store,
    problems: Vec<ScanProblem>,
}

impl Default for ModuleDb {
    fn default() -> Self {
        Self::built(Path::new(""), "", empty())
    }
}

/// A database without modules has a tree of aliases all the same.
fn empty() -> Builder {
    let mut store = Builder::default();
    store.alias_root = alias::Patterns::default().write(&mut store);
    store
}

impl ModuleDb {
    fn built(folder: &Path, release: &str, store: Builder) -> Self {
        let store = Store::written(store, folder, release);
        Self::of(folder, release, store)
    }

    fn of(folder: &Path, release: &str, store: Store) -> Self {
        let problems = (0..store.count(Section::Problems)).filter_map(|index| {
            let record: [u32; PROBLEM] = store.record(Section::Problems, index)?;
            let file = store.text(record[0], record[1]);
            let what = store.text(record[2], record[3]);
            Some(ScanProblem {
                file: std::ffi::OsStr::from_bytes(file).into(),
                what: String::from_utf8_lossy(what).into_owned(),
            })
        });
        let problems = problems.collect();
        Self { folder: folder.to_owned(), release: release.to_owned(), store, problems }
    }

    fn missing(release: &str, problem: ScanProblem) -> Self {
        let mut db = Self::built(Path::new(""), release, empty());
        db.problems.push(problem);
        db
    }

    /// The kernel's, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The folder that paths of modules are below; empty if there is none.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many modules there are, those of the kernel itself among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.count(Section::Modules)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was left out, and why.
    #[must_use]
    pub fn problems(&self) -> &[ScanProblem] {
        &self.problems
    }

    /// All modules, sorted by name.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = Module<'_>> {
        (0..self.len())
            .map(|index| self.at(index).unwrap_or(Module { db: self, record: [0; MODULE] }))
    }

    /// By name, in which `-` equals `_`; of two, the one that is part of the kernel.
    #[must_use]
    pub fn module(&self, name: &[u8]) -> Option<Module<'_>> {
        self.named(name).next()
    }

    /// By name, in which `-` equals `_`, and with a file; a part of the kernel may have its name too.
    #[must_use]
    pub fn loadable(&self, name: &[u8]) -> Option<Module<'_>> {
        self.named(name).find(|module| !module.is_builtin())
    }

    fn named(&self, name: &[u8]) -> impl Iterator<Item = Module<'_>> {
        let folded = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
        let name = move || name.iter().map(folded);
        let index = partition(self.len(), |index| {
            self.at(index).is_some_and(|module| module.name_bytes().iter().copied().lt(name()))
        });
        let modules = (index..).map_while(|index| self.at(index));
        modules.take_while(move |module| module.name_bytes().iter().copied().eq(name()))
    }

    /// The modules that ask to be loaded for a modalias, in the order of `modules.alias`; those that
    /// are part of the kernel last.
    #[must_use]
    pub fn by_modalias(&self, modalias: &[u8]) -> Vec<Module<'_>> {
        let mut found = alias::matching(&self.store, modalias);
        found.sort_unstable();
        found.dedup();
        let modules = found.into_iter().filter_map(|index| self.at(usize::try_from(index).ok()?));
        let mut modules: Vec<_> = modules.collect();
        modules.sort_by_key(|module| module.place());
        modules
    }

    /// The modules that serve a device number, be it declared alone or as part of a range.
    #[must_use]
    pub fn by_number(&self, number: Devnum) -> Vec<Module<'_>> {
        self.by_modalias(number_alias(number).as_bytes())
    }

    /// Every declared name, sorted; a name that two modules declare comes twice.
    pub fn devnames(&self) -> impl ExactSizeIterator<Item = Devname<'_>> {
        let none = Devname { name: b"", module: "", builtin: false, number: None };
        (0..self.store.count(Section::Devnames))
            .map(move |index| self.devname_at(index).unwrap_or(none))
    }

    /// Who serves a name: of several, a built-in module first, then one that says the number.
    #[must_use]
    pub fn devname(&self, name: &[u8]) -> Option<Devname<'_>> {
        let index = partition(self.store.count(Section::Devnames), |index| {
            self.devname_at(index).is_some_and(|devname| devname.name < name)
        });
        self.devname_at(index).filter(|devname| devname.name == name)
    }

    fn at(&self, index: usize) -> Option<Module<'_>> {
        self.store.record(Section::Modules, index).map(|record| Module { db: self, record })
    }

    fn devname_at(&self, index: usize) -> Option<Devname<'_>> {
        let [place, length, module, kind, number]: [u32; DEVNAME] =
            self.store.record(Section::Devnames, index)?;
        let module = self.at(usize::try_from(module).ok()?)?;
        let number = (kind != 0).then_some(Devnum {
            block: kind == 2,
            major: number >> build::MINOR_BITS,
            minor: number & ((1 << build::MINOR_BITS) - 1),
        });
        let name = self.store.text(place, length);
        Some(Devname { name, module: module.name(), builtin: module.is_builtin(), number })
    }

    /// Whether it was made from just these files.
    fn has_files(&self, files: &[Found]) -> bool {
        let count = self.store.count(Section::Files);
        count == files.len()
            && files.iter().enumerate().all(|(index, found)| {
                self.file_at(index).is_some_and(|(path, record)| {
                    *path == *found.path && build::key_of(&record) == found.key
                })
            })
    }

    fn file_at(&self, index: usize) -> Option<(&[u8], [u32; FILE])> {
        let record: [u32; FILE] = self.store.record(Section::Files, index)?;
        Some((self.store.text(record[0], record[1]), record))
    }

    /// What is known of a file, if it is the same still.
    fn contents_of(&self, found: &Found) -> Option<Contents<'_>> {
        let index = partition(self.store.count(Section::Files), |index| {
            self.file_at(index).is_some_and(|(path, _)| path < &*found.path)
        });
        let (_, record) = self
            .file_at(index)
            .filter(|(path, record)| **path == *found.path && build::key_of(record) == found.key)?;
        let text = self.store.text(record[9], record[10]);
        match record[11] {
            build::STATE_INFO => Some(Contents::Info(text.into())),
            build::STATE_BAD => Some(Contents::Bad(text.into())),
            _ => None,
        }
    }
}

/// What the kernel asks for when a device of this number is opened that nobody serves.
#[must_use]
pub fn number_alias(number: Devnum) -> String {
    let kind = if number.block { "block" } else { "char" };
    format!("{kind}-major-{}-{}", number.major, number.minor)
}

/// The first index for which `before` is not true.
fn partition(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// One module of a [`ModuleDb`].
#[derive(Clone, Copy)]
pub struct Module<'db> {
    db: &'db ModuleDb,
    record: [u32; MODULE],
}

impl fmt::Debug for Module<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Module").field(&self.name()).finish()
    }
}

impl PartialEq for Module<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record && std::ptr::eq(self.db, other.db)
    }
}

impl<'db> Module<'db> {
    fn name_bytes(&self) -> &'db [u8] {
        self.db.store.text(self.record[0], self.record[1])
    }

    fn info(self) -> ModInfo<'db> {
        ModInfo::of(self.db.store.text(self.record[3], self.record[4]))
    }

    /// Loadable ones first, in depmod's order.
    fn place(&self) -> u32 {
        self.record[7]
    }

    /// With underscores, as in /proc/modules.
    #[must_use]
    pub fn name(self) -> &'db str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// Below [`ModuleDb::folder`]; `None` for a part of the kernel.
    #[must_use]
    pub fn file(self) -> Option<&'db Path> {
        let (path, _) = self.db.file_at(usize::try_from(self.record[2]).ok()?)?;
        Some(Path::new(std::ffi::OsStr::from_bytes(path)))
    }

    /// The whole path of its file.
    #[must_use]
    pub fn path(self) -> Option<PathBuf> {
        Some(self.db.folder.join(self.file()?))
    }

    /// It is part of the kernel.
    #[must_use]
    pub fn is_builtin(self) -> bool {
        self.record[2] == store::NONE
    }

    /// What it offers to be loaded for, as written.
    pub fn aliases(self) -> impl Iterator<Item = &'db [u8]> {
        self.info().aliases()
    }

    /// Names of the modules that it says it needs.
    pub fn depends(self) -> impl Iterator<Item = &'db [u8]> {
        self.info().depends()
    }

    /// All modules that it needs, directly or not, in the order in which they are to be loaded.
    pub fn load_order(self) -> impl Iterator<Item = Module<'db>> {
        let all: Vec<u32> = self.db.store.dependencies(self.record[5], self.record[6]).collect();
        // the list stands in depmod's order: who needs before who is needed
        all.into_iter().rev().filter_map(move |index| self.db.at(usize::try_from(index).ok()?))
    }

    /// Soft dependencies as written: `pre: a b post: c`.
    pub fn softdeps(self) -> impl Iterator<Item = &'db [u8]> {
        self.info().softdeps()
    }

    /// The names below /dev that it declares, and their numbers.
    pub fn devnames(self) -> impl Iterator<Item = (&'db [u8], Option<Devnum>)> {
        self.info().devnames().into_iter()
    }
}

#[cfg(test)]
mod tests;

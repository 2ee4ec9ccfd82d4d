//! Stage 3b: which module serves which name below /dev, without loading any.

pub mod modinfo;
pub mod scan;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::uevent::Devnum;

/// A name below /dev that a module declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devname {
    /// Without `/dev/`; never leads out of it.
    pub name: Box<[u8]>,
    pub module: Arc<str>,
    /// The module is part of the kernel.
    pub builtin: bool,
    /// `None` if the module says none, or not which of its names has it.
    pub number: Option<Devnum>,
}

/// One module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// With underscores, as in /proc/modules.
    pub name: Arc<str>,
    /// `None` for a module that is part of the kernel.
    pub file: Option<PathBuf>,
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

/// The modules of one kernel and the device names they declare.
#[derive(Clone, Debug, Default)]
pub struct ModuleDb {
    modules: Vec<Module>,
    devnames: Vec<Devname>,
    problems: Vec<ScanProblem>,
}

impl ModuleDb {
    /// Names that cannot be names below /dev are left out, as problems.
    fn new(
        mut modules: Vec<Module>,
        devnames: Vec<Devname>,
        mut problems: Vec<ScanProblem>,
    ) -> Self {
        let (mut devnames, bad): (Vec<_>, Vec<_>) =
            devnames.into_iter().partition(|devname| is_below_dev(&devname.name));
        problems.extend(bad.into_iter().map(|devname| {
            let file = format!("module {}", devname.module).into();
            let what = format!("a name below /dev wanted, not \"{}\"", devname.name.escape_ascii());
            ScanProblem { file, what }
        }));
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        // what is there already is better than what must be loaded
        devnames.sort_by(|a, b| {
            let rest = |d: &Devname| (!d.builtin, d.number.is_none());
            a.name.cmp(&b.name).then(rest(a).cmp(&rest(b))).then(a.module.cmp(&b.module))
        });
        Self { modules, devnames, problems }
    }

    /// Every declared name, sorted; a name that two modules declare comes twice.
    pub fn devnames(&self) -> impl ExactSizeIterator<Item = &Devname> {
        self.devnames.iter()
    }

    /// Who serves a name: of several, a built-in module first, then one that says the number.
    #[must_use]
    pub fn module_of(&self, devname: &[u8]) -> Option<&Devname> {
        let index = self.devnames.partition_point(|entry| *entry.name < *devname);
        self.devnames.get(index).filter(|entry| *entry.name == *devname)
    }

    /// All modules, sorted by name, those of the kernel itself that say something among them.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = &Module> {
        self.modules.iter()
    }

    /// How many modules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// What was left out, and why.
    #[must_use]
    pub fn problems(&self) -> &[ScanProblem] {
        &self.problems
    }
}

fn is_below_dev(name: &[u8]) -> bool {
    let part = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= 255;
    name.len() <= 512
        && !name.iter().any(u8::is_ascii_control)
        && name.split(|byte| *byte == b'/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devname(name: &str, module: &str, builtin: bool) -> Devname {
        let (name, module) = (name.as_bytes().into(), module.into());
        Devname { name, module, builtin, number: None }
    }

    #[test]
    fn of_two_modules_the_built_in_one_serves_a_name() {
        let list =
            vec![devname("loop", "a", false), devname("x", "a", false), devname("loop", "z", true)];
        let db = ModuleDb::new(Vec::new(), list, Vec::new());
        assert_eq!(db.module_of(b"loop").map(|d| &*d.module), Some("z"));
        assert_eq!(db.module_of(b"x").map(|d| &*d.module), Some("a"));
        assert_eq!(db.module_of(b"loo"), None);
    }

    #[test]
    fn a_name_that_leads_out_of_dev_is_left_out() {
        for bad in ["../etc/passwd", "/x", "a//b", "", "a/.", "a\nb"] {
            let db = ModuleDb::new(Vec::new(), vec![devname(bad, "evil", false)], Vec::new());
            assert_eq!((db.devnames().len(), db.problems().len()), (0, 1), "{bad}");
        }
    }
}

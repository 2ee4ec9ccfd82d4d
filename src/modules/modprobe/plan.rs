//! Stage 3b: a name in, what is to be done to load its modules out; nothing is done here.
//!
//! The order of look-ups, of dependencies and of soft dependencies is kmod's: modules.dep's order
//! backwards, soft dependencies around each module, and each module's own ones once.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::config::Config;
use super::lines::{normalized, softdep};
use crate::glob::fnmatch;
use crate::modules::{Module, ModuleDb};

/// Soft dependencies of soft dependencies; Debian's have at most 4.
const DEPTH_LIMIT: usize = 64;
/// More steps than this are for no module; Debian's largest plan has below 100.
const STEPS_LIMIT: usize = 1 << 16;

/// Which modules `blacklist` keeps out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blacklist {
    /// Those that are asked for by an alias, as for modprobe(8).
    #[default]
    Aliases,
    /// Those that are asked for by name too, as for `modprobe -b`.
    Names,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'r> {
    /// A module's name, an alias or a modalias.
    pub name: &'r [u8],
    /// Options for the modules that are asked for, after those of the configuration.
    pub options: &'r [u8],
    pub blacklist: Blacklist,
    /// Neither run the install command of a module that is asked for nor load its soft dependencies,
    /// as `modprobe --ignore-install`: install commands load their module so.
    pub ignore_install: bool,
}

/// What a [`Step`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Loads the file.
    Insert(PathBuf),
    /// Runs the shell command instead.
    Command(Vec<u8>),
    /// Nothing: it is part of the kernel.
    Builtin,
    /// Nothing can be done: an alias or a soft dependency names a module that there is not.
    Missing,
}

/// One module of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// With underscores.
    pub module: Vec<u8>,
    /// As configured, for the module or for the command.
    pub options: Vec<u8>,
    pub action: Action,
    /// If it fails, the plan fails; soft dependencies may fail.
    pub required: bool,
    /// The kernel will refuse it: `module_blacklist=` is on its command line.
    pub refused: bool,
}

/// A module that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub module: Vec<u8>,
    /// It was asked for by this alias, not by its name.
    pub alias: Option<Vec<u8>>,
    /// `blacklist` keeps it out: there are no steps.
    pub blacklisted: bool,
    /// In the order in which they are to be done; the module's own among them.
    pub steps: Vec<Step>,
}

/// What is to be done for a name: each target after the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub targets: Vec<Target>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No module has the name or offers it.
    NotFound,
    /// A `[` without `]`, or the other way round.
    Brackets,
    /// Soft dependencies that lead too far, starting at this module.
    TooDeep(Vec<u8>),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no module has this name or offers it as an alias"),
            Self::Brackets => f.write_str("a `]` for each `[` wanted"),
            Self::TooDeep(module) => {
                let module = module.escape_ascii();
                write!(
                    f,
                    "the soft dependencies of {module} lead too far; see softdep in modprobe.d"
                )
            }
        }
    }
}

impl std::error::Error for PlanError {}

/// Decides what is to be done to load what a name stands for.
///
/// # Errors
/// When no module is found, or configuration leads too far.
pub fn plan(db: &ModuleDb, config: &Config, request: &Request<'_>) -> Result<Plan, PlanError> {
    let found = Lookup { db, config }.find(request.name)?;
    if found.is_empty() {
        return Err(PlanError::NotFound);
    }
    let target = |asked: Asked| {
        let mut planner = Planner::new(db, config);
        let by_name = asked.alias.is_none() && request.blacklist == Blacklist::Aliases;
        let blacklisted = !by_name && config.is_blacklisted(&asked.module);
        if !blacklisted {
            planner.visit(&asked, Some(request.ignore_install), 0)?;
        }
        let steps = planner.steps(&asked, request.options);
        Ok(Target { module: asked.module, alias: asked.alias, blacklisted, steps })
    };
    Ok(Plan { targets: found.into_iter().map(target).collect::<Result<_, _>>()? })
}

/// A module as it is asked for; one that comes by an alias is another than the same by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) module: Vec<u8>,
    alias: Option<Vec<u8>>,
    /// It has no more than an install command, and that was found by its very name.
    command: Option<usize>,
}

impl Asked {
    fn module(name: &[u8]) -> Self {
        Self { module: name.to_vec(), alias: None, command: None }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) db: &'a ModuleDb,
    pub(super) config: &'a Config,
}

impl<'a> Lookup<'a> {
    /// The first of these that knows a name: the configuration's aliases, modules, the
    /// configuration's commands, aliases of modules, names and aliases of parts of the kernel.
    pub(super) fn find(self, name: &[u8]) -> Result<Vec<Asked>, PlanError> {
        let name = normalized(name).ok_or(PlanError::Brackets)?;
        let found: Vec<_> = self.config.aliases_of(&name).collect();
        if !found.is_empty() {
            let asked = |(pattern, module): (&[u8], &[u8])| Asked {
                alias: Some(pattern.to_vec()),
                ..Asked::module(module)
            };
            return Ok(found.into_iter().map(asked).collect());
        }
        if self.db.loadable(&name).is_some() {
            return Ok(vec![Asked::module(&name)]);
        }
        let named = |list: &[(Vec<u8>, Vec<u8>)]| list.iter().position(|(of, _)| *of == name);
        let command = named(&self.config.install);
        if command.is_some() || named(&self.config.remove).is_some() {
            // a name ends at a dot, lest `tun.ko` be a module
            let name = name.split(|byte| *byte == b'.').next().unwrap_or_default();
            return Ok(vec![Asked { command, ..Asked::module(name) }]);
        }
        let offering = self.db.by_modalias(&name);
        let asked = |module: &Module<'_>| Asked {
            alias: Some(name.clone()),
            ..Asked::module(module.name().as_bytes())
        };
        let (builtin, loadable): (Vec<_>, Vec<_>) =
            offering.iter().partition(|module| module.is_builtin());
        Ok(if !loadable.is_empty() {
            loadable.into_iter().map(asked).collect()
        } else if self.db.module(&name).is_some() {
            vec![Asked::module(&name)]
        } else {
            builtin.into_iter().map(asked).collect()
        })
    }

    /// The module of a name, rather with a file than as a part of the kernel.
    fn module(self, name: &[u8]) -> Option<Module<'a>> {
        self.db.loadable(name).or_else(|| self.db.module(name))
    }

    /// The first `softdep` for a module, the kernel's own list being one file among the others; names
    /// that nothing is found for are left out.
    pub(super) fn softdeps(self, module: &[u8]) -> (Vec<Asked>, Vec<Asked>) {
        let written = |first: bool| {
            let softdeps = self.config.softdeps.iter();
            let mut fitting = softdeps.filter(move |softdep| softdep.first == first);
            let found = fitting.find(|softdep| fnmatch(&softdep.module, module));
            found.map(|softdep| &*softdep.text)
        };
        let own = || self.module(module)?.softdeps().next();
        let text = written(true).or_else(own).or_else(|| written(false));
        let (pre, post) = softdep(text.unwrap_or_default());
        let found = |names: Vec<&[u8]>| {
            let found = names.into_iter().filter_map(|name| self.find(name).ok());
            found.flatten().collect()
        };
        (found(pre), found(post))
    }

    /// All modules that a module needs, in the order in which they are loaded.
    pub(super) fn needs(self, module: &[u8]) -> impl Iterator<Item = Asked> {
        let needs = self.module(module).into_iter().flat_map(Module::load_order);
        needs.map(|module| Asked::module(module.name().as_bytes()))
    }
}

struct Planner<'a> {
    lookup: Lookup<'a>,
    /// Modules in the order of their steps; one that several soft dependencies name comes again.
    order: Vec<Asked>,
    visited: HashSet<Asked>,
    required: HashSet<Asked>,
    /// Whether a module is loaded without its install command.
    plain: HashMap<Asked, bool>,
}

impl<'a> Planner<'a> {
    fn new(db: &'a ModuleDb, config: &'a Config) -> Self {
        let (order, visited) = (Vec::new(), HashSet::new());
        let lookup = Lookup { db, config };
        Self { lookup, order, visited, required: HashSet::new(), plain: HashMap::new() }
    }

    /// Adds a module with all that it needs; `target`: it is asked for, with or without its install
    /// command.
    fn visit(
        &mut self,
        asked: &Asked,
        target: Option<bool>,
        depth: usize,
    ) -> Result<(), PlanError> {
        if !self.visited.insert(asked.clone()) {
            return Ok(());
        }
        if depth > DEPTH_LIMIT || self.order.len() > STEPS_LIMIT {
            return Err(PlanError::TooDeep(asked.module.clone()));
        }
        let needs: Vec<_> = self.lookup.needs(&asked.module).collect();
        if target.is_some() {
            self.required.insert(asked.clone());
            self.required.extend(needs.iter().cloned());
        }
        for needed in &needs {
            self.surround(needed, depth)?;
        }
        if target == Some(true) {
            self.plain.insert(asked.clone(), true);
            self.order.push(asked.clone());
            return Ok(());
        }
        self.surround(asked, depth)
    }

    /// Adds a module between its soft dependencies.
    fn surround(&mut self, asked: &Asked, depth: usize) -> Result<(), PlanError> {
        let (pre, post) = self.lookup.softdeps(&asked.module);
        for module in &pre {
            self.visit(module, None, depth + 1)?;
        }
        // kmod runs no install command of a module that has soft dependencies
        self.plain.insert(asked.clone(), !pre.is_empty() || !post.is_empty());
        self.order.push(asked.clone());
        for module in &post {
            self.visit(module, None, depth + 1)?;
        }
        Ok(())
    }

    fn steps(self, target: &Asked, options: &[u8]) -> Vec<Step> {
        let step = |asked: &Asked| {
            let added = if asked == target { options } else { b"" };
            Step {
                options: self.options(asked, added),
                action: self.action(asked),
                required: self.required.contains(asked),
                refused: self.lookup.config.is_refused(&asked.module),
                module: asked.module.clone(),
            }
        };
        self.order.iter().map(step).collect()
    }

    fn action(&self, asked: &Asked) -> Action {
        let config = self.lookup.config;
        let exact = asked.command.and_then(|index| config.install.get(index));
        let command = exact.map(|(_, command)| &**command);
        let command = command.or_else(|| config.install_command(&asked.module));
        let plain = self.plain.get(asked).copied().unwrap_or(false);
        if let Some(command) = command.filter(|_| !plain) {
            return Action::Command(command.to_vec());
        }
        let Some(module) = self.lookup.module(&asked.module) else { return Action::Missing };
        module.path().map_or(Action::Builtin, Action::Insert)
    }

    /// What the configuration says for the module or the alias that it came by, then what is added.
    fn options(&self, asked: &Asked, added: &[u8]) -> Vec<u8> {
        let of = |name: &[u8]| name == asked.module || asked.alias.as_deref() == Some(name);
        let all = self.lookup.config.options.iter().filter(|(name, _)| of(name));
        let mut lists: Vec<&[u8]> = all.map(|(_, options)| &**options).collect();
        if !added.is_empty() {
            lists.push(added);
        }
        lists.join(&b' ')
    }
}

impl Plan {
    /// In the form of `modprobe --show-depends`.
    #[must_use]
    pub fn show_depends(&self) -> Vec<u8> {
        let mut shown = Vec::new();
        for step in self.targets.iter().flat_map(|target| &target.steps) {
            let (word, what, options): (&[u8], &[u8], &[u8]) = match &step.action {
                Action::Insert(path) => (b"insmod ", path.as_os_str().as_bytes(), &step.options),
                Action::Command(command) => (b"install ", command, &step.options),
                Action::Builtin => (b"builtin ", &step.module, b""),
                Action::Missing => continue,
            };
            shown.extend([word, what].concat());
            if !options.is_empty() {
                shown.push(b' ');
                shown.extend_from_slice(options);
            }
            shown.push(b'\n');
        }
        shown
    }
}

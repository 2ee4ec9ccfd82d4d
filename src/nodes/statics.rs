//! Stage 5: modules, tmpfiles.d, udev's `static_node` and policy in, the names of /dev that are there
//! before their devices out.
//!
//! They speak in the order in which a machine with udev hears them: kmod's list and tmpfiles.d make
//! and adjust the nodes before udev starts, udev's `static_node` comes next, and policy last.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::Permissions;
use super::devtmpfs::{KERNEL_DEFAULT, decided};
use super::tmpfiles::{self, Act, Line};
use crate::modules::{Module, ModuleDb};
use crate::policy::{Policy, Setting, Value, apply};
use crate::rules::decision::{Attribute, Decision, Place, Source};
use crate::rules::problem::{Problem, Severity};
use crate::rules::static_node::StaticNode;
use crate::uevent::Devnum;

/// Which device a name will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number {
    Known(Devnum),
    /// The module says it once it is loaded, which is asked for by this alias or name.
    Pending {
        block: bool,
        alias: Box<[u8]>,
    },
}

impl Number {
    #[must_use]
    pub fn known(&self) -> Option<Devnum> {
        match self {
            Self::Known(number) => Some(*number),
            Self::Pending { .. } => None,
        }
    }

    #[must_use]
    pub fn block(&self) -> bool {
        match self {
            Self::Known(number) => number.block,
            Self::Pending { block, .. } => *block,
        }
    }
}

/// A name below /dev that is there before its device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticName {
    pub number: Number,
    /// Who serves it, as far as modules or policy say.
    pub module: Option<Box<str>>,
    /// The module is part of the kernel.
    pub builtin: bool,
    pub decision: Decision,
}

impl StaticName {
    /// What is decided, and for the rest what kmod and the kernel give a node.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        decided(&self.decision, KERNEL_DEFAULT)
    }
}

/// All such names, and the tags that udev's rules give to static nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statics {
    pub names: BTreeMap<Box<[u8]>, StaticName>,
    /// By name; the name need not be among `names`: a live device has it then, or nobody.
    pub tags: BTreeMap<Box<[u8]>, Vec<Box<[u8]>>>,
}

/// Who has a say about the names.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub modules: &'a ModuleDb,
    pub tmpfiles: &'a [Line],
    pub rules: &'a [StaticNode],
    pub policy: &'a Policy,
}

impl Statics {
    /// Gathers the names, and what is wrong in the policy about them.
    #[must_use]
    pub fn gather(from: &Sources<'_>) -> (Self, Vec<Problem>) {
        let mut names = BTreeMap::new();
        let mut problems = Vec::new();
        declared(from.modules, &mut names);
        made(from, &mut names);
        named(from, &mut names, &mut problems);
        names.retain(|name, _| from.policy.for_name(name).autoload());
        for (name, found) in &mut names {
            adjust(from.tmpfiles, name, &mut found.decision);
            from.rules.iter().filter(|rule| rule.name == *name).for_each(|rule| {
                rule_speaks(rule, &mut found.decision);
            });
            apply::lay(&from.policy.for_name(name), &mut found.decision);
            // without its device the name has no links, and who claims one is not known yet
            found.decision.links.clear();
            found.decision.steps.retain(|step| step.attribute != Attribute::Link);
            found.decision.finish();
        }
        let mut tags: BTreeMap<_, Vec<Box<[u8]>>> = BTreeMap::new();
        for rule in from.rules.iter().filter(|rule| !rule.tags.is_empty()) {
            tags.entry(rule.name.clone()).or_default().extend(rule.tags.iter().cloned());
        }
        (Self { names, tags }, problems)
    }
}

/// What modules declare; of several, the first serves the name.
fn declared(modules: &ModuleDb, names: &mut BTreeMap<Box<[u8]>, StaticName>) {
    for declared in modules.devnames() {
        names.entry(declared.name.into()).or_insert_with(|| {
            let pending = || {
                let block = modules.module(declared.module.as_bytes()).is_some_and(makes_disks);
                // not by the module's name, to which `blacklist` of modprobe.d(5) does not apply
                let alias = [b"devname:", declared.name].concat().into();
                Number::Pending { block, alias }
            };
            StaticName {
                number: declared.number.map_or_else(pending, Number::Known),
                module: Some(declared.module.into()),
                builtin: declared.builtin,
                decision: Decision::default(),
            }
        });
    }
}

/// Whether the devices of a module are block devices, as far as can be told without loading it.
fn makes_disks(module: Module<'_>) -> bool {
    let folder = |path: &std::path::Path| path.starts_with("kernel/drivers/block");
    module.file().is_some_and(folder)
        || module.aliases().any(|alias| alias.starts_with(b"block-major-"))
}

/// What lines of tmpfiles.d make. Of several lines for one name the first holds, and where kmod's
/// stands among them its file's name says.
fn made(from: &Sources<'_>, names: &mut BTreeMap<Box<[u8]>, StaticName>) {
    let mut seen = std::collections::BTreeSet::new();
    for line in from.tmpfiles {
        let (Act::Make(number), Some(name)) = (line.act, line.name()) else { continue };
        if !seen.insert(name) {
            continue;
        }
        let by_kmod = names
            .get(name)
            .is_some_and(|found| !found.builtin && matches!(found.number, Number::Known(_)));
        if by_kmod && line.file_name.as_os_str() >= OsStr::new(tmpfiles::KMOD) {
            continue;
        }
        let served = names.get(name).and_then(|found| found.module.clone());
        let served = served.and_then(|name| from.modules.module(name.as_bytes()));
        let module = served.or_else(|| from.modules.by_number(number).into_iter().next());
        let mut decision = Decision::default();
        let source = || Source::Tmpfiles(line.place.clone());
        let mut set = |attribute, wanted: Option<tmpfiles::Wanted>, default: Option<u32>| {
            if let Some(value) = wanted.map(|wanted| wanted.value).or(default) {
                decision.set(attribute, value, source());
            }
        };
        set(Attribute::Owner, line.owner, None);
        set(Attribute::Group, line.group, None);
        set(Attribute::Mode, line.mode, Some(MADE_MODE));
        let found = StaticName {
            number: Number::Known(number),
            module: module.map(|module| module.name().into()),
            builtin: module.is_some_and(Module::is_builtin),
            decision,
        };
        names.insert(name.into(), found);
    }
}

/// What tmpfiles.d(5) gives a node whose line says no mode.
const MADE_MODE: u32 = 0o644;

/// What policy names: a module for a name that no modinfo declares.
fn named(
    from: &Sources<'_>,
    names: &mut BTreeMap<Box<[u8]>, StaticName>,
    problems: &mut Vec<Problem>,
) {
    for rule in from.policy.rules() {
        let Some((setting, module)) = rule.settings().find_map(|setting| {
            if let Value::Module(module) = &setting.value { Some((setting, module)) } else { None }
        }) else {
            continue;
        };
        let Some(literal) = rule.literal_names() else {
            let what = "`module` wants a rule whose `match.devname` is a name without wildcards";
            problems.push(problem(setting, what));
            continue;
        };
        let Some(found) = from.modules.module(module.as_bytes()) else {
            let release = from.modules.release();
            let what = format!("there is no module \"{module}\" for the kernel {release}");
            let known = from.modules.modules().map(Module::name);
            problems.push(problem(setting, what).suggest(module, known));
            continue;
        };
        for name in literal {
            if !super::links::is_safe(&name) || name.len() > NAME_MAX {
                let what = format!("a name below /dev wanted, not \"{}\"", name.escape_ascii());
                problems.push(problem(setting, what));
                continue;
            }
            if from.policy.for_name(&name).module() != Some(&**module) {
                // another rule has the last word
                continue;
            }
            let numbered = names.get(&name).filter(|known| known.number.known().is_some());
            if let Some(known) = numbered {
                let who = known.module.as_deref().unwrap_or("tmpfiles.d");
                let name = name.escape_ascii();
                let what = format!("`module` has no effect: {who} says the number of /dev/{name}");
                problems.push(problem(setting, what));
                continue;
            }
            // who names a module here means it
            let alias = module.as_bytes().into();
            let number = Number::Pending { block: makes_disks(found), alias };
            let (module, builtin) = (Some(module.clone()), found.is_builtin());
            let decision = Decision::default();
            names.insert(name, StaticName { number, module, builtin, decision });
        }
    }
}

/// As for names that modules declare.
const NAME_MAX: usize = 512;

fn problem(setting: &Setting, what: impl Into<String>) -> Problem {
    let whole = Problem::whole(&setting.file, Severity::Warning, what);
    let width = u32::try_from(setting.written.chars().count() + 2).unwrap_or(1);
    Problem { line: setting.line, column: setting.column, width, ..whole }
}

/// The lines of tmpfiles.d that adjust what is there.
fn adjust(lines: &[Line], name: &[u8], decision: &mut Decision) {
    let adjusts = |line: &&Line| matches!(line.act, Act::Adjust { .. }) && line.concerns(name);
    for line in lines.iter().filter(adjusts) {
        let is = decided(decision, KERNEL_DEFAULT);
        let mut set = |attribute, wanted: Option<tmpfiles::Wanted>| {
            // the node is there: what is meant for new ones only does not reach it
            if let Some(wanted) = wanted.filter(|wanted| !wanted.new_only) {
                let value =
                    if wanted.masked { masked(wanted.value, is.mode) } else { wanted.value };
                decision.set(attribute, value, Source::Tmpfiles(line.place.clone()));
            }
        };
        set(Attribute::Owner, line.owner);
        set(Attribute::Group, line.group);
        set(Attribute::Mode, line.mode);
    }
}

/// `~` of tmpfiles.d(5): each kind of access only if somebody has it already.
fn masked(mode: u32, is: u32) -> u32 {
    let kinds = [0o444, 0o222, 0o111].into_iter().filter(|kind| is & kind != 0);
    mode & kinds.fold(0, |all, kind| all | kind)
}

/// As udev applies a rule to a static node: what the rule does not say stays as it is.
fn rule_speaks(rule: &StaticNode, decision: &mut Decision) {
    for (attribute, value) in [
        (Attribute::Owner, rule.owner),
        (Attribute::Group, rule.group),
        (Attribute::Mode, rule.mode),
    ] {
        if let Some(value) = value {
            let place = Place { file: rule.file.clone(), line: rule.line, column: 0 };
            decision.set(attribute, value, Source::Rule(place));
        }
    }
}

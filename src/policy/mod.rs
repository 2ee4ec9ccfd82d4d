//! Stage 4b: facts of a device in, what the administrator's policy files set for it out.
//!
//! The highest priority wins for each attribute by itself; at a tie the later file and the later rule.
//! A rule is found through one of its literal values, so that ten thousand rules cost as much as ten.

pub mod apply;
mod condition;
mod dirs;
mod file;
pub mod grants;
mod index;
pub mod local;
mod overlay;
mod read;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rules::names::Names;
use crate::rules::problem::Problem;

pub use dirs::{PolicyFile, policy_files};

pub use overlay::{Attribute, Overlay, Setting, Value};

use condition::{Condition, Field};
use index::Index;

/// What rules can ask about a device; what is missing is empty.
///
/// For a name that a module declares but that is no device yet, only `devname` is known.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Name below /dev, without `/dev/`.
    pub devname: Option<&'a [u8]>,
    pub subsystem: &'a [u8],
    pub devtype: &'a [u8],
    pub sysname: &'a [u8],
    pub driver: &'a [u8],
    pub property: &'a dyn Fn(&[u8]) -> Option<&'a [u8]>,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devname = self.devname.unwrap_or_default().escape_ascii();
        write!(f, "{} {devname}", self.subsystem.escape_ascii())
    }
}

/// One rule as loaded.
#[derive(Clone, Debug)]
pub struct Rule {
    pub id: Arc<str>,
    pub file: Arc<Path>,
    /// Of the rule's id, from 1.
    pub line: u32,
    pub column: u32,
    pub priority: u16,
    conditions: Vec<Condition>,
    settings: Vec<Arc<Setting>>,
}

impl Rule {
    fn names(&self) -> impl Iterator<Item = &Condition> {
        let asked = self.conditions.iter().filter(|asked| asked.field == Field::Devname);
        asked.filter(|asked| !asked.any.is_empty())
    }

    fn asks_for_name(&self) -> bool {
        self.names().next().is_some()
    }

    /// The names below /dev that the rule is for, if it spells them out.
    #[must_use]
    pub fn literal_names(&self) -> Option<Vec<Box<[u8]>>> {
        let patterns = self.names().next()?.any.iter();
        let names: Option<Vec<_>> = patterns.map(|pattern| pattern.literals()).collect();
        Some(names?.concat())
    }

    /// What the rule sets.
    pub fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().map(|setting| &**setting)
    }
}

/// All rules, in the order of files and rules, and the index to them.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    index: Index,
}

impl Policy {
    /// Reads the policy files of `dirs`, the most important folder first; see
    /// `Config::policy_folders`.
    ///
    /// A file or rule that is wrong is left out and described; all others are loaded.
    #[must_use]
    pub fn load(dirs: &[PathBuf], names: &Names) -> (Self, Vec<Problem>) {
        let (files, mut problems) = policy_files(dirs);
        let mut rules = Vec::new();
        for file in files {
            let Some(text) = dirs::read(&file.path, &mut problems) else { continue };
            rules.extend(file::parse(&file.path, &text, names, &mut problems));
        }
        (Self::new(rules, &mut problems), problems)
    }

    /// The policy that a single file would be; nothing is read.
    #[must_use]
    pub fn parse(file: &Path, text: &str, names: &Names) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let rules = file::parse(file, text, names, &mut problems);
        (Self::new(rules, &mut problems), problems)
    }

    /// Leaves out every rule whose id an earlier one has.
    fn new(all: Vec<Rule>, problems: &mut Vec<Problem>) -> Self {
        let mut rules: Vec<Rule> = Vec::with_capacity(all.len());
        let mut places: HashMap<Arc<str>, (Arc<Path>, u32)> = HashMap::new();
        for rule in all {
            let place = (rule.file.clone(), rule.line);
            if let Some((file, line)) = places.get(&rule.id) {
                problems.push(file::duplicate(&rule, file, *line));
                continue;
            }
            places.insert(rule.id.clone(), place);
            rules.push(rule);
        }
        let index = Index::new(&rules);
        Self { rules, index }
    }

    /// What the rules that match a device set.
    #[must_use]
    pub fn matching(&self, facts: &Facts<'_>) -> Overlay {
        self.matching_counted(facts).0
    }

    /// As [`Policy::matching`], and how many rules had to be evaluated.
    fn matching_counted(&self, facts: &Facts<'_>) -> (Overlay, usize) {
        let candidates = self.index.candidates(facts);
        let mut settings = Vec::new();
        for rule in candidates.iter().filter_map(|number| self.rules.get(*number)) {
            if rule.conditions.iter().all(|condition| condition.holds(facts)) {
                settings.extend(rule.settings.iter().cloned());
            }
        }
        (Overlay::new(settings), candidates.len())
    }

    /// What is set for a name that no device has yet: by the rules that ask for its `devname`.
    ///
    /// Of what else they ask for nothing is known, and compares as empty.
    #[must_use]
    pub fn for_name(&self, devname: &[u8]) -> Overlay {
        let property = &|_: &[u8]| None;
        let facts = Facts {
            devname: Some(devname),
            subsystem: b"",
            devtype: b"",
            sysname: b"",
            driver: b"",
            property,
        };
        let candidates = self.index.candidates(&facts);
        let rules = candidates.iter().filter_map(|number| self.rules.get(*number));
        let rules = rules.filter(|rule| {
            rule.asks_for_name() && rule.conditions.iter().all(|condition| condition.holds(&facts))
        });
        Overlay::new(rules.flat_map(|rule| rule.settings.iter().cloned()).collect())
    }

    /// All rules, in the order of files and rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DISK: Facts<'static> = Facts {
        devname: Some(b"sda"),
        subsystem: b"block",
        devtype: b"disk",
        sysname: b"sda",
        driver: b"",
        property: &|key| (key == b"ID_BUS").then_some(&b"usb"[..]),
    };

    fn policy(rules: &str) -> Policy {
        let text = format!("schema = 1\n{rules}");
        let (policy, problems) = Policy::parse(Path::new("t.toml"), &text, &Names::default());
        assert_eq!(problems, []);
        policy
    }

    fn rule(id: &str, test: &str, set: &str) -> String {
        format!("[[rule]]\nid = \"{id}\"\nmatch = {{ {test} }}\nset = {{ {set} }}\n")
    }

    #[test]
    fn the_highest_priority_wins_for_each_attribute_by_itself() {
        let rules = rule("a", "devname = 'sd*'", "owner = '1', mode = '0600'")
            + "priority = 900\n"
            + &rule("b", "subsystem = 'block'", "owner = '2', group = '3'")
            + "priority = 600\n";
        let overlay = policy(&rules).matching(&DISK);
        let got = (overlay.owner(), overlay.group(), overlay.mode());
        assert_eq!(got, (Some(1), Some(3), Some(0o600)));
        let owners: Vec<_> = overlay.of(Attribute::Owner).map(|s| (&*s.id, s.line)).collect();
        assert_eq!(owners, [("b", 10), ("a", 5)], "all that set it, the winner last");
    }

    #[test]
    fn at_equal_priority_the_later_rule_wins() {
        let rules = rule("a", "devname = 'sda'", "mode = '0600'")
            + &rule("b", "subsystem = 'b*'", "mode = '0640'")
            + &rule("c", "property.ID_BUS = 'usb'", "symlink.add = ['x', 'y']")
            + &rule("d", "sysname = 'sda', devtype = 'partition'", "mode = '0777'");
        let overlay = policy(&rules).matching(&DISK);
        assert_eq!(overlay.mode(), Some(0o640));
        assert_eq!(overlay.links().collect::<Vec<_>>(), [b"x", b"y"]);
        assert_eq!(overlay.link_priority(), None);
    }

    #[test]
    fn missing_values_compare_as_empty() {
        let rules = rule("a", "property = { ID_SEAT = '', ID_BUS = '!ata' }", "mode = '0600'")
            + &rule("b", "property.ID_SEAT = '?*'", "mode = '0640'");
        assert_eq!(policy(&rules).matching(&DISK).mode(), Some(0o600));
    }

    #[test]
    fn a_name_without_device_is_for_rules_that_ask_for_it() {
        let rules = rule("all", "subsystem = '*'", "mode = '0666'")
            + &rule("not", "devname = '!x'", "mode = '0667'")
            + &rule("driver", "devname = 'net/*', driver = 'tun'", "mode = '0606'")
            + &rule("name", "devname = 'net/*', driver = '!x'", "group = '7', module = 'my-tun'");
        let names = policy(&rules);
        let overlay = names.for_name(b"net/tun");
        assert_eq!((overlay.mode(), overlay.group()), (None, Some(7)));
        assert_eq!((overlay.module(), overlay.autoload()), (Some("my_tun"), true));
        assert!(names.for_name(b"fuse").is_empty());
        assert_eq!(names.rules()[3].literal_names(), None);
        let off = rule("off", "devname = 'a|b'", "autoload = false") + "priority = 600\n";
        let off = policy(&(off + &rule("on", "devname = 'a'", "autoload = true")));
        assert!(!off.for_name(b"a").autoload());
        assert_eq!(off.rules()[0].literal_names().map(|names| names.len()), Some(2));
    }

    #[test]
    fn a_broken_file_takes_no_other_with_it() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [root.path().join("policy.d")];
        fs::create_dir_all(&dirs[0]).unwrap();
        let good =
            |id: &str| "schema = 1\n".to_owned() + &rule(id, "devname = 'sda'", "mode = '0600'");
        fs::write(dirs[0].join("10.toml"), good("a")).unwrap();
        fs::write(dirs[0].join("20.toml"), "schema = 1\n[[rule]\n").unwrap();
        fs::write(dirs[0].join("30.toml"), b"\xff").unwrap();
        fs::write(dirs[0].join("40.toml"), good("b")).unwrap();
        fs::write(dirs[0].join("50.toml"), good("a")).unwrap();
        let (policy, problems) = Policy::load(&dirs, &Names::default());
        let ids: Vec<_> = policy.rules().iter().map(|rule| &*rule.id).collect();
        assert_eq!(ids, ["a", "b"]);
        let names: Vec<_> = problems.iter().filter_map(|p| p.file.file_name()?.to_str()).collect();
        assert_eq!(names, ["20.toml", "30.toml", "50.toml"]);
        assert!(
            problems.iter().any(|p| p.what.contains("taken by") && p.what.ends_with("10.toml:3"))
        );
    }

    #[test]
    fn the_example_and_the_readme_hold() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(
            root.path().join("etc/group"),
            "dialout:x:20:\nplugdev:x:46:\nnetdev:x:101:\nlab:x:9:\n",
        )
        .unwrap();
        let names = Names::load(root.path());
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy");
        let (policy, problems) = Policy::load(&[top.join("examples")], &names);
        assert_eq!((problems, policy.rules().len()), (vec![], 4));
        let readme = fs::read_to_string(top.join("README.md")).unwrap();
        let block = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let (policy, problems) = Policy::parse(Path::new("README.md"), block, &names);
        assert_eq!((problems, policy.rules().len()), (vec![], 1));
        let wrong = block.replace("match.subsystem", "match.subsytem");
        let source =
            wrong.replace("schema = 1\non-missing-name = \"skip-attribute\"\n\n", "schema = 1\n\n");
        let file = Path::new("/etc/mapdev/policy.d/50-lab.toml");
        let shown = Policy::parse(file, &source, &names).1[0].render(source.as_bytes());
        assert!(readme.contains(&shown), "{shown}");
    }
}

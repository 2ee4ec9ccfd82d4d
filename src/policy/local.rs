//! Changes that callers wanted kept: `95-local.toml`, edited with its comments and order kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::grants::replace;
use crate::rules::decision::Attribute;

const FILE: &str = "95-local.toml";

/// By what a device is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// ID_SERIAL or ID_PATH.
    Property { name: &'static str, value: String },
    /// A name that a module declares.
    Devname(String),
}

impl Key {
    /// By a property, if its value names one device: in a rule it is a pattern, and a stick that
    /// calls itself `*`, or nothing, must not stand for every other one.
    #[must_use]
    pub fn property(name: &'static str, value: &str) -> Option<Self> {
        let plain = !value.is_empty() && !value.starts_with('!');
        let plain = plain && !value.contains(['*', '?', '[', '|']);
        plain.then(|| Self::Property { name, value: value.to_owned() })
    }

    /// The rule's id: what an id may not hold is written `_xx`, so that no two keys share one.
    fn id(&self) -> String {
        let (kind, text) = match self {
            Self::Property { name, value } => (name.to_lowercase(), value),
            Self::Devname(name) => ("devname".to_owned(), name),
        };
        let mut id = format!("local-{kind}-");
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => id.push(char::from(byte)),
                other => id.push_str(&format!("_{other:02x}")),
            }
        }
        id
    }

    fn conditions(&self) -> Table {
        let mut table = Table::new();
        table.set_dotted(true);
        match self {
            Self::Property { name, value: text } => {
                let pair = InlineTable::from_iter([(*name, Value::from(text.as_str()))]);
                table.insert("property", value(pair));
            }
            Self::Devname(name) => drop(table.insert("devname", value(name.as_str()))),
        }
        table
    }
}

/// The administrator's file of kept changes.
#[derive(Clone, Debug)]
pub struct Local {
    folders: [PathBuf; 2],
}

impl Local {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let folders = ["etc/mapdev/policy.d", "var/lib/mapdev/policy.d"];
        Self { folders: folders.map(|folder| root.join(folder)) }
    }

    /// Sets one attribute in the key's rule, making the rule if need be.
    ///
    /// # Errors
    /// When the file is damaged, or neither folder can be written.
    pub fn set(&self, key: &Key, attribute: Attribute, to: u32, by: &str) -> io::Result<()> {
        self.edit(|rules| {
            let at = position(rules, key);
            let at = at.unwrap_or_else(|| {
                let mut rule = Table::new();
                rule.insert("id", value(key.id()));
                rule.insert("priority", value(999));
                rule.insert("match", Item::Table(key.conditions()));
                rule.insert("set", value(InlineTable::new()));
                rules.push(rule);
                rules.len() - 1
            });
            let text =
                if attribute == Attribute::Mode { format!("{to:04o}") } else { to.to_string() };
            let Some(rule) = rules.get_mut(at) else { return false };
            rule.decor_mut().set_prefix(format!("\n# {}\n", by.replace(char::is_control, " ")));
            let Some(set) = rule.get_mut("set").and_then(Item::as_table_like_mut) else {
                return false;
            };
            set.insert(attribute.name(), value(text));
            true
        })
        .map(drop)
    }

    /// Removes the key's rule; `false` if there was none.
    ///
    /// # Errors
    /// When the file is damaged or cannot be written.
    pub fn reset(&self, key: &Key) -> io::Result<bool> {
        self.edit(|rules| {
            let at = position(rules, key);
            at.is_some_and(|at| {
                rules.remove(at);
                true
            })
        })
    }

    fn edit(&self, change: impl Fn(&mut ArrayOfTables) -> bool) -> io::Result<bool> {
        let [etc, var] = &self.folders;
        match edit_file(&etc.join(FILE), &change) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                edit_file(&var.join(FILE), &change)
            }
            done => done,
        }
    }
}

fn position(rules: &ArrayOfTables, key: &Key) -> Option<usize> {
    let id = key.id();
    rules.iter().position(|rule| rule.get("id").and_then(Item::as_str) == Some(&id))
}

fn edit_file(file: &Path, change: impl Fn(&mut ArrayOfTables) -> bool) -> io::Result<bool> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "schema = 1\n".to_owned(),
        Err(error) => return Err(error),
    };
    let damaged = |what: String| {
        let what = format!("{}: {what}; mend the file first", file.display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| damaged(error.message().to_owned()))?;
    let rules = document.entry("rule").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let rules = rules
        .as_array_of_tables_mut()
        .ok_or_else(|| damaged("`rule` is no list of tables".into()))?;
    let changed = change(rules);
    if changed {
        replace(file, document.to_string().as_bytes())?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::rules::names::Names;

    #[test]
    fn comments_stay_and_the_result_is_good_policy() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/mapdev/policy.d").join(FILE);
        let local = Local::new(root.path());
        let tun = Key::Devname("net/tun".into());
        local.set(&tun, Attribute::Mode, 0o660, "uid 0 (:1.3)").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("# mine\n{text}")).unwrap();
        local.set(&tun, Attribute::Group, 7, "uid 0 (:1.4): a reason\nof two lines").unwrap();
        let serial = Key::Property { name: "ID_SERIAL", value: "a\"b".into() };
        local.set(&serial, Attribute::Owner, 5, "uid 0").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# mine\n"), "{text}");
        let (policy, problems) = Policy::parse(&file, &text, &Names::default());
        assert!(problems.is_empty(), "{problems:?}\n{text}");
        assert_eq!(policy.rules().len(), 2, "{text}");
        assert!(local.reset(&tun).unwrap());
        assert!(!local.reset(&tun).unwrap());
        assert!(!fs::read_to_string(&file).unwrap().contains("net/tun"));
    }

    #[test]
    fn a_value_that_would_match_other_devices_is_no_key() {
        assert!(Key::property("ID_SERIAL", "WD_1-7:x.y").is_some());
        for wide in ["", "*", "!x", "a|b", "a?", "[a]"] {
            assert_eq!(Key::property("ID_SERIAL", wide), None, "{wide}");
        }
    }

    #[test]
    fn a_damaged_file_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/mapdev/policy.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(FILE), "rule = 7\n").unwrap();
        let local = Local::new(root.path());
        assert!(local.reset(&Key::Devname("x".into())).is_err());
        assert_eq!(fs::read_to_string(folder.join(FILE)).unwrap(), "rule = 7\n");
    }
}

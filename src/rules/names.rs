//! Stage 4: users and groups by name, read from passwd, group and sysusers.d, without NSS.
//!
//! A name service may need the network, and that needs devices first. What sysusers.d declares with a
//! number of its own counts before the account has been made.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders of sysusers.d(5) below the root, the most important first.
const SYSUSERS: [&str; 4] =
    ["etc/sysusers.d", "run/sysusers.d", "usr/local/lib/sysusers.d", "usr/lib/sysusers.d"];

/// No passwd or sysusers file is that large; what is larger is not read.
const FILE_LIMIT: u64 = 16 << 20;

/// What tells that a file is another than the one read: mtime in seconds and nanoseconds, size, inode.
type Stamp = (i64, i64, u64, u64);

/// Users and groups, as they were when loaded.
#[derive(Clone, Debug, Default)]
pub struct Names {
    users: Table,
    groups: Table,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    ids: HashMap<String, u32>,
    names: HashMap<u32, String>,
}

impl Table {
    /// As with NSS's files, the first line wins, for the name and for the number.
    fn add(&mut self, name: &str, id: u32) {
        if let Entry::Vacant(vacant) = self.ids.entry(name.to_owned()) {
            vacant.insert(id);
            self.names.entry(id).or_insert_with(|| name.to_owned());
        }
    }

    fn id(&self, name: &str) -> Option<u32> {
        // as in udev, a number with a zero in front might be meant in octal, and is none
        let plain = name == "0" || !name.starts_with('0');
        self.ids.get(name).copied().or_else(|| number(name).filter(|_| plain))
    }
}

impl Names {
    /// Reads the files below `root`; those that are missing or unreadable are as empty ones.
    #[must_use]
    pub fn load(root: &Path) -> Self {
        let mut names = Self::default();
        let passwd = names.read(root.join("etc/passwd"));
        let group = names.read(root.join("etc/group"));
        for (name, id) in passwd.lines().filter_map(account) {
            names.users.add(name, id);
        }
        for (name, id) in group.lines().filter_map(account) {
            names.groups.add(name, id);
        }
        for line in names.sysusers(root).lines() {
            names.declare(line);
        }
        names.users.add("root", 0);
        names.groups.add("root", 0);
        names
    }

    /// The user's number; a number stands for itself.
    #[must_use]
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.id(name)
    }

    /// The group's number; a number stands for itself.
    #[must_use]
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.id(name)
    }

    #[must_use]
    pub fn user_name(&self, uid: u32) -> Option<&str> {
        self.users.names.get(&uid).map(String::as_str)
    }

    #[must_use]
    pub fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.names.get(&gid).map(String::as_str)
    }

    /// All user names, in no order.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.ids.keys().map(String::as_str)
    }

    /// All group names, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.ids.keys().map(String::as_str)
    }

    /// Whether passwd, group or a sysusers.d folder is no longer what was read.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.stamps.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    fn read(&mut self, path: PathBuf) -> String {
        // stamped before it is read: what is written in between is noticed next time
        let seen = stamp(&path);
        let text = match seen {
            Some((.., size, _)) if size <= FILE_LIMIT => fs::read(&path).unwrap_or_default(),
            Some(_) | None => Vec::new(),
        };
        self.stamps.push((path, seen));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All sysusers.d files in the order of their names, a higher folder's in place of a lower one's.
    fn sysusers(&mut self, root: &Path) -> String {
        let mut files = std::collections::BTreeMap::new();
        for folder in SYSUSERS {
            let folder = root.join(folder);
            self.stamps.push((folder.clone(), stamp(&folder)));
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "conf") {
                    files.entry(entry.file_name()).or_insert_with(|| entry.path());
                }
            }
        }
        let mut text = String::new();
        for path in files.into_values() {
            // only regular files, the target of a link included: a mask is a link to /dev/null
            let fits = |meta: &fs::Metadata| meta.is_file() && meta.len() <= FILE_LIMIT;
            if fs::metadata(&path).is_ok_and(|meta| fits(&meta)) {
                text.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()));
                text.push('\n');
            }
        }
        text
    }

    /// Takes one line of sysusers.d(5): `u name id …` or `g name id …`.
    fn declare(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let (Some(kind), Some(name), Some(id)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        match kind.trim_end_matches(['!', '+', '-', '=', '~', '^', '$']) {
            "u" => {
                let (user, group) = id.split_once(':').map_or((id, None), |(u, g)| (u, Some(g)));
                let Some(uid) = number(user) else { return };
                self.users.add(name, uid);
                // without a group of its own choice, the user gets one of his name and number
                if group.is_none() {
                    self.groups.add(name, uid);
                }
            }
            "g" => {
                if let Some(gid) = number(id) {
                    self.groups.add(name, gid);
                }
            }
            _ => {}
        }
    }
}

/// Name and number of a line of passwd(5) or group(5): the first and the third field.
fn account(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let name =
        fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
    Some((name, number(fields.nth(1)?)?))
}

/// A user's or group's number in decimal; 65535 and 4294967295 mean "no one" to chown(2).
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| digits)?;
    (id != u32::from(u16::MAX) && id != u32::MAX).then_some(id)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["etc/sysusers.d", "usr/lib/sysusers.d"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:\nagain:x:1000:1::/:\nbad:x:\n",
        );
        write("etc/group", "root:x:0:\nlab:x:77:alice\nnone:x:65535:\n");
        write(
            "usr/lib/sysusers.d/a.conf",
            "u daemonx 900 \"A daemon\"\ng plug 901 -\ng lab 5\ng auto -\n",
        );
        write("usr/lib/sysusers.d/b.conf", "g hidden 902\n");
        write("etc/sysusers.d/b.conf", "u! other 903:lab\n");
        root
    }

    #[test]
    fn names_come_from_files_and_sysusers() {
        let names = Names::load(root().path());
        assert_eq!(names.uid("alice"), Some(1000));
        assert_eq!(names.user_name(1000), Some("alice"), "the first of two with one number");
        assert_eq!((names.gid("lab"), names.group_name(77)), (Some(77), Some("lab")));
        assert_eq!((names.uid("daemonx"), names.gid("daemonx")), (Some(900), Some(900)));
        assert_eq!((names.uid("other"), names.gid("other")), (Some(903), None));
        assert_eq!(
            (names.gid("plug"), names.gid("auto"), names.gid("hidden")),
            (Some(901), None, None)
        );
        assert_eq!((names.uid("bad"), names.gid("none")), (None, None));
    }

    #[test]
    fn numbers_stand_for_themselves_but_for_those_that_mean_no_one() {
        let names = Names::load(root().path());
        assert_eq!((names.uid("0"), names.gid("4242")), (Some(0), Some(4242)));
        for wrong in ["65535", "4294967295", "4294967296", "-1", "+1", "", " 1", "1 ", "007"] {
            assert_eq!((names.uid(wrong), names.gid(wrong)), (None, None), "{wrong:?}");
        }
    }

    #[test]
    fn root_is_known_even_without_files() {
        let empty = tempfile::tempdir().unwrap();
        let names = Names::load(empty.path());
        assert_eq!(
            (names.uid("root"), names.gid("root"), names.group_name(0)),
            (Some(0), Some(0), Some("root"))
        );
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let root = root();
        let names = Names::load(root.path());
        assert!(!names.changed());
        let group = root.path().join("etc/group");
        fs::write(root.path().join("etc/group+"), "root:x:0:\nlab:x:78:alice\nnone:x:65535:\n")
            .unwrap();
        fs::rename(root.path().join("etc/group+"), group).unwrap();
        assert!(names.changed());
        fs::write(root.path().join("etc/sysusers.d/c.conf"), "").unwrap();
        assert!(Names::load(root.path()).gid("lab") == Some(78));
    }
}

//! `mapdevctl map dump`: the names of the map, and what the daemon knows of them beside.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use zbus::fdo::ObjectManagerProxy;

use super::super::escape;
use super::super::failure::Failure;
use super::super::mode;
use super::super::output::Output;
use super::super::proxy::ModulesProxy;
use super::super::session::{ROOT, Session};
use super::super::table::Table;
use super::super::values::{Properties, utf8};
use crate::map::Entry;
use crate::map::layout::{
    E_BUILTIN, E_LIVE, E_MODULE, E_PENDING, S_IFBLK, S_IFDIR, S_IFLNK, S_IFMT,
};
use crate::rules::names::Names;

pub(super) async fn show(
    session: &Session,
    entries: &[(Vec<u8>, Entry)],
    numeric: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let mut known = Known::ask(session).await;
    if numeric {
        (known.users, known.groups) = Default::default();
    } else {
        known.add_accounts(&Names::load(Path::new("/")), entries);
    }
    if output.is_json() {
        let rows = entries.iter().map(|(path, entry)| as_json(path, entry, &known));
        return Ok(output.json(&rows.collect::<Vec<_>>())?);
    }
    let mut table = Table::new(&[
        "MODE", "OWNER", "GROUP", ">NUMBER", "ORIGIN", "NAME", "TARGET", "MODULE", "LAST BY",
    ]);
    entries.iter().for_each(|(path, entry)| table.push(row(path, entry, &known)));
    Ok(table.print(output)?)
}

fn row(path: &[u8], entry: &Entry, known: &Known) -> [String; 9] {
    let fields = &entry.fields;
    let numbered = !entry.is_dir() && !entry.is_link() && fields.flags & E_PENDING == 0;
    let number = if numbered { format!("{}:{}", entry.major(), entry.minor()) } else { "-".into() };
    let origin = origin(entry).join(",");
    [
        mode::symbolic(kind_letter(entry), entry.permissions()),
        known.users.get(&fields.uid).cloned().unwrap_or_else(|| fields.uid.to_string()),
        known.groups.get(&fields.gid).cloned().unwrap_or_else(|| fields.gid.to_string()),
        number,
        if origin.is_empty() { "-".to_owned() } else { origin },
        escape::bytes(path),
        escape::bytes(&entry.aux),
        known.modules.get(&*escape::bytes(path)).map(Module::shown).unwrap_or_default(),
        known.hands.get(&*escape::bytes(path)).map(Hand::shown).unwrap_or_default(),
    ]
}

fn kind_letter(entry: &Entry) -> char {
    match entry.fields.mode & S_IFMT {
        S_IFDIR => 'd',
        S_IFLNK => 'l',
        S_IFBLK => 'b',
        _ => 'c',
    }
}

fn origin(entry: &Entry) -> Vec<&'static str> {
    let names =
        [(E_BUILTIN, "builtin"), (E_MODULE, "module"), (E_LIVE, "live"), (E_PENDING, "pending")];
    let set = names.into_iter().filter(|(flag, _)| entry.fields.flags & flag != 0);
    set.map(|(_, name)| name).collect()
}

fn as_json(path: &[u8], entry: &Entry, known: &Known) -> serde_json::Value {
    let fields = &entry.fields;
    let module = known.modules.get(&*escape::bytes(path));
    let hand = known.hands.get(&*escape::bytes(path));
    let aux = |wanted: bool| wanted.then(|| utf8(&entry.aux));
    json!({
        "path": utf8(path),
        "type": match kind_letter(entry) {
            'd' => "directory",
            'l' => "link",
            'b' => "block",
            _ => "char",
        },
        "mode": entry.permissions(), "uid": fields.uid, "gid": fields.gid,
        "major": entry.major(), "minor": entry.minor(),
        "origin": origin(entry),
        "target": aux(entry.is_link()),
        "alias": aux(fields.flags & E_PENDING != 0),
        "module": module.map(|module| &module.name),
        "module_loaded": module.map(|module| module.loaded),
        "decided_by": hand.map(|hand| &hand.origin),
        "changed_by": hand.map(|hand| &hand.changed_by).filter(|by| !by.is_empty()),
    })
}

/// What the daemon knows and the map has not; empty where it cannot say.
#[derive(Debug, Default)]
struct Known {
    /// Names of users and groups: what the daemon calls a device's, and for the many names without a device
    /// what this machine's files say, read as the daemon reads them.
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    /// By name below /dev, as it is shown.
    modules: HashMap<String, Module>,
    hands: HashMap<String, Hand>,
}

#[derive(Debug)]
struct Module {
    name: String,
    loaded: bool,
}

impl Module {
    fn shown(&self) -> String {
        let state = if self.loaded { "loaded" } else { "not loaded" };
        format!("{} ({state})", escape::text(&self.name))
    }
}

/// Who had the last word about owner, group and mode.
#[derive(Debug)]
struct Hand {
    origin: String,
    changed_by: String,
}

impl Hand {
    fn shown(&self) -> String {
        match self.changed_by.is_empty() {
            true => self.origin.clone(),
            false => format!("{}: {}", self.origin, self.changed_by),
        }
    }
}

impl Known {
    async fn ask(session: &Session) -> Self {
        let mut known = Self::default();
        known.ask_devices(session).await;
        if let Ok(modules) = ModulesProxy::new(session.connection()).await {
            for (name, module, _, _, _, loaded) in modules.list().await.unwrap_or_default() {
                known.modules.insert(escape::text(&name), Module { name: module, loaded });
            }
            // an older daemon has no such method
            for (name, changed_by) in modules.changed().await.unwrap_or_default() {
                let hand = Hand { origin: "kernel".to_owned(), changed_by };
                known.hands.entry(escape::text(&name)).or_insert(hand);
            }
        }
        known
    }

    fn add_accounts(&mut self, files: &Names, entries: &[(Vec<u8>, Entry)]) {
        for (uid, gid) in entries.iter().map(|(_, entry)| (entry.fields.uid, entry.fields.gid)) {
            if let Some(name) = files.user_name(uid) {
                self.users.entry(uid).or_insert_with(|| name.to_owned());
            }
            if let Some(name) = files.group_name(gid) {
                self.groups.entry(gid).or_insert_with(|| name.to_owned());
            }
        }
    }

    async fn ask_devices(&mut self, session: &Session) {
        let builder = ObjectManagerProxy::builder(session.connection());
        let Ok(manager) = builder.destination("org.mapdev1").path(ROOT).build().await else {
            return;
        };
        for mut interfaces in manager.get_managed_objects().await.unwrap_or_default().into_values()
        {
            let Some(device) = interfaces.remove("org.mapdev1.Device") else { continue };
            let device = Properties::new(device);
            let named = |id, name| device.small(id).zip(Some(device.text(name)));
            self.users.extend(named("Owner", "OwnerName").filter(|(_, name)| !name.is_empty()));
            self.groups.extend(named("Group", "GroupName").filter(|(_, name)| !name.is_empty()));
            if let Some(name) = device.text("Node").strip_prefix("/dev/") {
                let (origin, changed_by) = (device.text("Origin"), device.text("ChangedBy"));
                self.hands.insert(name.to_owned(), Hand { origin, changed_by });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hand, Known, Module, Names, row};
    use crate::map::Entry;
    use crate::map::layout::{E_LIVE, E_MODULE, E_PENDING, S_IFBLK, S_IFLNK};

    fn entry(mode: u32, flags: u32, rdev: u32, aux: &[u8]) -> Entry {
        let mut entry = Entry { aux: aux.to_vec(), ..Entry::default() };
        (entry.fields.mode, entry.fields.flags, entry.fields.rdev) = (mode, flags, rdev);
        (entry.fields.uid, entry.fields.gid) = (0, 6);
        entry
    }

    #[test]
    fn a_row_reads_like_ls() {
        let mut names = Known::default();
        names.groups.insert(6, "disk".to_owned());
        let disk = entry(S_IFBLK | 0o660, E_LIVE, 8 << 20 | 1, b"");
        let expected = ["brw-rw----", "0", "disk", "8:1", "live", "sda1", "", "", ""];
        assert_eq!(row(b"sda1", &disk, &names), expected);
        let link = entry(S_IFLNK | 0o777, E_LIVE, 0, b"../x\x1b");
        let expected = ["lrwxrwxrwx", "0", "disk", "-", "live", "disk/a", "../x\\x1b", "", ""];
        assert_eq!(row(b"disk/a", &link, &names), expected);
    }

    #[test]
    fn an_owner_that_no_device_has_is_called_as_the_files_call_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "alice:x:1000:1000::/:/bin/sh\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "disk:x:6:\nnet:x:7:\n").unwrap();
        let mut tun = entry(S_IFBLK | 0o600, E_MODULE, 10 << 20 | 200, b"");
        tun.fields.uid = 1000;
        let entries = [(b"net/tun".to_vec(), tun)];
        let mut known = Known::default();
        known.add_accounts(&Names::load(root.path()), &entries);
        assert_eq!(row(&entries[0].0, &entries[0].1, &known)[1..3], ["alice", "disk"]);
        known.groups.insert(6, "disks".to_owned());
        known.add_accounts(&Names::load(root.path()), &entries);
        assert_eq!(known.groups[&6], "disks", "the daemon's word counts");
    }

    #[test]
    fn a_name_without_number_shows_the_module_that_brings_it() {
        let zram = entry(S_IFBLK | 0o660, E_MODULE | E_PENDING, 0, b"zram");
        let mut known = Known::default();
        known.modules.insert("zram0".into(), Module { name: "zram".into(), loaded: false });
        let by = "uid 1000 (process 7)".to_owned();
        known.hands.insert("zram0".into(), Hand { origin: "kernel".into(), changed_by: by });
        let shown = row(b"zram0", &zram, &known);
        let expected = ["brw-rw----", "0", "6", "-", "module,pending", "zram0", "zram"];
        assert_eq!(shown[..7], expected);
        assert_eq!(shown[7..], ["zram (not loaded)", "kernel: uid 1000 (process 7)"]);
    }
}

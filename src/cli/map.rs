//! `mapdevctl map dump|stats|verify`: reads the shared map itself, through the daemon's read-only
//! descriptor and without privilege.

use std::collections::HashMap;

use clap::Subcommand;
use serde_json::json;
use zbus::fdo::ObjectManagerProxy;

use super::escape;
use super::failure::Failure;
use super::mode;
use super::output::Output;
use super::session::{INSPECT, ROOT, Session};
use super::table::Table;
use super::values::{Properties, utf8};
use crate::map::layout::{
    E_BUILTIN, E_LIVE, E_MODULE, E_PENDING, S_IFBLK, S_IFDIR, S_IFLNK, S_IFMT,
};
use crate::map::{Entry, MapReader, Stats, Walk};

/// How often a map that was replaced while we looked is asked for anew.
const TRIES: u32 = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every name of the map, much as ls -l would
    ///
    /// The origin is `builtin` (a driver of the kernel), `module` (one that is not loaded),
    /// `live` (a device is there) and `pending` (the number comes when the module is loaded).
    Dump {
        /// Show owners and groups as numbers
        #[arg(long, short)]
        numeric: bool,
    },
    /// Show how full the map is
    Stats,
    /// Check the map; exit code 1 if anything is wrong with it
    Verify,
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    match &args.what {
        What::Dump { numeric } => {
            let entries = entries(session).await?;
            let names = if *numeric { Owners::default() } else { Owners::ask(session).await };
            if output.is_json() {
                let rows: Vec<_> =
                    entries.iter().map(|(path, entry)| as_json(path, entry)).collect();
                return Ok(output.json(&rows)?);
            }
            let mut table =
                Table::new(&["MODE", "OWNER", "GROUP", ">NUMBER", "ORIGIN", "NAME", "TARGET"]);
            entries.iter().for_each(|(path, entry)| table.push(row(path, entry, &names)));
            Ok(table.print(output)?)
        }
        What::Stats => show_stats(&current(session).await?.stats(), output),
        What::Verify => verify(session, output).await,
    }
}

async fn open(session: &Session) -> Result<MapReader, Failure> {
    let answer = session.manager().await?.get_map().await;
    let (fd, _generation) = answer.map_err(|error| Failure::of_call(error, INSPECT))?;
    MapReader::open(fd.into()).map_err(|error| {
        let why = escape::text(&error.to_string());
        Failure::failed(format!(
            "the daemon's map cannot be read ({why}); are mapdevctl and mapdevd of one version?"
        ))
    })
}

/// A map that was not replaced at the moment of looking.
async fn current(session: &Session) -> Result<MapReader, Failure> {
    for _ in 0..TRIES {
        let reader = open(session).await?;
        if !reader.is_replaced() {
            return Ok(reader);
        }
    }
    Err(too_busy())
}

fn too_busy() -> Failure {
    Failure::failed("the map changed at every look; wait with mapdevctl settle, then try again")
}

/// All names, sorted by path.
async fn entries(session: &Session) -> Result<Vec<(Vec<u8>, Entry)>, Failure> {
    for _ in 0..TRIES {
        if let Walk::Found(mut all) = current(session).await?.walk() {
            all.sort_by(|a, b| a.0.cmp(&b.0));
            return Ok(all);
        }
    }
    Err(too_busy())
}

async fn verify(session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut reader = current(session).await?;
    let mut problems = reader.verify();
    // what a replaced map looks like says nothing about the one in force
    for _ in 0..TRIES {
        if !reader.is_replaced() {
            break;
        }
        reader = current(session).await?;
        problems = reader.verify();
    }
    if output.is_json() {
        let generation = reader.generation();
        output.json(&json!({ "generation": generation, "problems": problems }))?;
    } else {
        problems.iter().try_for_each(|problem| output.line(&escape::text(problem)))?;
    }
    match problems.len() {
        0 if output.is_terminal() && !output.is_json() => Ok(output.line("the map is sound")?),
        0 => Ok(()),
        1 => Err(Failure::failed("the map has 1 problem")),
        several => Err(Failure::failed(format!("the map has {several} problems"))),
    }
}

fn show_stats(stats: &Stats, output: &mut Output<'_>) -> Result<(), Failure> {
    let figures: [(&str, u64); 11] = [
        ("generation", stats.generation),
        ("attribute_changes", stats.attribute_changes),
        ("entries", stats.entries.into()),
        ("capacity", stats.capacity.into()),
        ("directories", stats.directories.into()),
        ("links", stats.links.into()),
        ("pending", stats.pending.into()),
        ("buckets", stats.buckets.into()),
        ("tombstones", stats.tombstones.into()),
        ("strings_len", stats.strings_len),
        ("total_len", stats.total_len),
    ];
    if output.is_json() {
        let figures: HashMap<&str, u64> = figures.into();
        return Ok(output.json(&figures)?);
    }
    for (name, figure) in figures {
        let name = name.replace('_', " ");
        let line = if output.is_terminal() {
            format!("{name:>17}: {figure}")
        } else {
            format!("{name}\t{figure}")
        };
        output.line(&line)?;
    }
    Ok(())
}

fn row(path: &[u8], entry: &Entry, names: &Owners) -> [String; 7] {
    let fields = &entry.fields;
    let numbered = !entry.is_dir() && !entry.is_link() && fields.flags & E_PENDING == 0;
    let number = if numbered { format!("{}:{}", entry.major(), entry.minor()) } else { "-".into() };
    let origin = origin(entry).join(",");
    [
        mode::symbolic(kind_letter(entry), entry.permissions()),
        names.users.get(&fields.uid).cloned().unwrap_or_else(|| fields.uid.to_string()),
        names.groups.get(&fields.gid).cloned().unwrap_or_else(|| fields.gid.to_string()),
        number,
        if origin.is_empty() { "-".to_owned() } else { origin },
        escape::bytes(path),
        escape::bytes(&entry.aux),
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

fn as_json(path: &[u8], entry: &Entry) -> serde_json::Value {
    let fields = &entry.fields;
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
    })
}

/// Names of users and groups, as far as some device of the daemon has them.
#[derive(Debug, Default)]
struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    /// Empty when the daemon cannot say: numbers do as well.
    async fn ask(session: &Session) -> Self {
        let builder = ObjectManagerProxy::builder(session.connection());
        let manager = builder.destination("org.mapdev1").path(ROOT).build().await;
        let Ok(manager) = manager else { return Self::default() };
        let objects = manager.get_managed_objects().await.unwrap_or_default();
        let mut owners = Self::default();
        for mut interfaces in objects.into_values() {
            let Some(device) = interfaces.remove("org.mapdev1.Device") else { continue };
            let device = Properties::new(device);
            let known = |id, name| device.small(id).zip(Some(device.text(name)));
            owners.users.extend(known("Owner", "OwnerName").filter(|(_, name)| !name.is_empty()));
            owners.groups.extend(known("Group", "GroupName").filter(|(_, name)| !name.is_empty()));
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::{Owners, row};
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
        let mut names = Owners::default();
        names.groups.insert(6, "disk".to_owned());
        let disk = entry(S_IFBLK | 0o660, E_LIVE, 8 << 20 | 1, b"");
        let expected = ["brw-rw----", "0", "disk", "8:1", "live", "sda1", ""];
        assert_eq!(row(b"sda1", &disk, &names), expected);
        let link = entry(S_IFLNK | 0o777, E_LIVE, 0, b"../x\x1b");
        let expected = ["lrwxrwxrwx", "0", "disk", "-", "live", "disk/a", "../x\\x1b"];
        assert_eq!(row(b"disk/a", &link, &names), expected);
    }

    #[test]
    fn a_name_without_number_shows_the_module_that_brings_it() {
        let zram = entry(S_IFBLK | 0o660, E_MODULE | E_PENDING, 0, b"zram");
        let shown = row(b"zram0", &zram, &Owners::default());
        assert_eq!(shown, ["brw-rw----", "0", "6", "-", "module,pending", "zram0", "zram"]);
    }
}

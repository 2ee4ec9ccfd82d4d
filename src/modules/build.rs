//! Stage 3b: what each file says in, the database out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::alias::Patterns;
use super::modinfo::{self, ModInfo};
use super::store::{Builder, DEVNAME, FILE, MODULE, NONE};
use super::tree::{self, Key};
use super::{ModuleDb, ScanProblem, order, unpack};

/// What is known of a file.
#[derive(Clone, Debug)]
pub(super) enum Contents<'a> {
    /// `.modinfo`, as far as it is kept.
    Info(Cow<'a, [u8]>),
    /// Why it is no module.
    Bad(Cow<'a, [u8]>),
    /// Another file is taken for this module, or it is one of the lists.
    Unused,
}

/// A file and what is known of it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a [u8],
    pub(super) key: Key,
    pub(super) contents: Contents<'a>,
}

pub(super) const STATE_INFO: u32 = 0;
pub(super) const STATE_BAD: u32 = 1;
pub(super) const STATE_UNUSED: u32 = 2;

/// A module on its way into the database.
struct Part<'a> {
    name: Vec<u8>,
    /// Number of its file; `None` for a part of the kernel.
    file: Option<u32>,
    info: Cow<'a, [u8]>,
    /// Its place in depmod's order: by `modules.order`, then by path.
    place: (usize, u32),
}

/// Builds the database from the files of `folder`, sorted by path.
pub(super) fn database(
    folder: &Path,
    release: &str,
    sources: Vec<Source<'_>>,
    mut problems: Vec<ScanProblem>,
) -> ModuleDb {
    let mut store = Builder::default();
    let order = ranks(folder, &mut problems);
    let mut parts = builtins(folder, &mut problems);
    for (number, source) in sources.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(NONE);
        let name = source.path.rsplit(|byte| *byte == b'/').next().and_then(tree::stem);
        let (state, text): (u32, &[u8]) = match &source.contents {
            Contents::Info(info) => (STATE_INFO, info),
            Contents::Bad(what) => (STATE_BAD, what),
            Contents::Unused => (STATE_UNUSED, b""),
        };
        add_file(&mut store, &source, text, state);
        match (source.contents, name) {
            (Contents::Info(info), Some(name)) => {
                let rank = order.get(uncompressed(source.path)).copied().unwrap_or(usize::MAX);
                let name = underscored(name);
                parts.push(Part { name, file: Some(number), info, place: (rank, number) });
            }
            (Contents::Bad(what), _) => problems.push(ScanProblem {
                file: folder.join(std::ffi::OsStr::from_bytes(source.path)),
                what: String::from_utf8_lossy(&what).into_owned(),
            }),
            (Contents::Info(_) | Contents::Unused, _) => {}
        }
    }
    // what is there already is better than what must be loaded
    parts.sort_by(|a, b| a.name.cmp(&b.name).then(a.file.is_some().cmp(&b.file.is_some())));
    modules(&parts, &mut store, &mut problems);
    for problem in &problems {
        let file = store.text(problem.file.as_os_str().as_bytes());
        let what = store.text(problem.what.as_bytes());
        store.problems.push([file.0, file.1, what.0, what.1]);
    }
    ModuleDb::built(folder, release, store)
}

fn add_file(store: &mut Builder, source: &Source<'_>, text: &[u8], state: u32) {
    let (path, text) = (store.text(source.path), store.text(text));
    let Key { size, mtime: (seconds, nanoseconds), inode } = source.key;
    let [size_low, size_high] = halves(size);
    let [seconds_low, seconds_high] = halves(seconds);
    let [inode_low, inode_high] = halves(inode);
    store.files.push([
        path.0,
        path.1,
        size_low,
        size_high,
        seconds_low,
        seconds_high,
        nanoseconds,
        inode_low,
        inode_high,
        text.0,
        text.1,
        state,
    ]);
}

/// Reads what [`add_file`] wrote.
pub(super) fn key_of(record: &[u32; FILE]) -> Key {
    let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Key {
        size: whole(record[2], record[3]),
        mtime: (whole(record[4], record[5]), record[6]),
        inode: whole(record[7], record[8]),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart on purpose")]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Writes modules, names and aliases of the parts, sorted by name.
fn modules(parts: &[Part<'_>], store: &mut Builder, problems: &mut Vec<ScanProblem>) {
    let mut by_place: Vec<usize> = (0..parts.len()).filter(|i| parts[*i].file.is_some()).collect();
    by_place.sort_unstable_by_key(|index| parts[*index].place);
    let needed = all_needed(parts, &by_place);
    let mut places = vec![(NONE, (0, 0)); parts.len()];
    for (place, (index, needed)) in by_place.iter().zip(needed).enumerate() {
        let first = u32::try_from(store.dependencies.len()).unwrap_or(NONE);
        store.dependencies.extend(needed.iter().map(|other| number(by_place[*other])));
        places[*index] = (number(place), (first, number(needed.len())));
    }
    let mut patterns = Patterns::default();
    let mut devnames = Vec::new();
    for (index, (part, (place, needed))) in parts.iter().zip(places).enumerate() {
        let info = ModInfo::of(&part.info);
        let shown = || format!("module {}", part.name.escape_ascii()).into();
        for alias in info.aliases() {
            if !patterns.add(alias, number(index)) {
                let what = format!("an alias of {} bytes is longer than any modalias", alias.len());
                problems.push(ScanProblem { file: shown(), what });
            }
        }
        for (name, devnum) in info.devnames() {
            if is_below_dev(name) {
                let (kind, numbers) = devnum.map_or((0, (0, 0)), |devnum| {
                    (1 + u32::from(devnum.block), (devnum.major, devnum.minor))
                });
                devnames.push((name, part.file.is_some(), kind == 0, index, kind, numbers));
            } else {
                let name = name.escape_ascii();
                let what = format!("a name below /dev wanted, not \"{name}\"");
                problems.push(ScanProblem { file: shown(), what });
            }
        }
        let (name, text) = (store.text(&part.name), store.text(&part.info));
        let record: [u32; MODULE] =
            [name.0, name.1, part.file.unwrap_or(NONE), text.0, text.1, needed.0, needed.1, place];
        store.modules.push(record);
    }
    // of several modules with one name, a built-in one serves it, then one that says the number
    devnames.sort_unstable();
    for (name, _, _, module, kind, (major, minor)) in devnames {
        let name = store.text(name);
        let record: [u32; DEVNAME] =
            [name.0, name.1, number(module), kind, major << MINOR_BITS | minor];
        store.devnames.push(record);
    }
    store.alias_root = patterns.write(store);
}

/// MINORBITS of include/linux/kdev_t.h.
pub(super) const MINOR_BITS: u32 = 20;

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(NONE)
}

/// For each module in depmod's order, by its place there, all that it needs.
fn all_needed(parts: &[Part<'_>], by_place: &[usize]) -> Vec<Vec<usize>> {
    let names: HashMap<&[u8], usize> =
        by_place.iter().enumerate().map(|(place, index)| (&*parts[*index].name, place)).collect();
    let needs = by_place.iter().map(|index| {
        let mut needs = Vec::new();
        for name in ModInfo::of(&parts[*index].info).depends() {
            if let Some(place) = names.get(&*underscored(name)).filter(|p| !needs.contains(*p)) {
                needs.push(*place);
            }
        }
        needs
    });
    order::all_needed(&needs.collect::<Vec<_>>())
}

/// The place of each module in the build's list, by its path without packing.
fn ranks(folder: &Path, problems: &mut Vec<ScanProblem>) -> HashMap<Box<[u8]>, usize> {
    let list = read_list(folder, tree::ORDER, problems);
    let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.enumerate().map(|(rank, line)| (uncompressed(line).into(), rank)).collect()
}

/// A module's path as the build's lists have it.
fn uncompressed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    tree::stem(&path[end..]).map_or(path, |stem| &path[..end + stem.len()])
}

pub(super) fn underscored(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect()
}

/// The modules that are part of the kernel: from the list of their files, and what they say.
fn builtins(folder: &Path, problems: &mut Vec<ScanProblem>) -> Vec<Part<'static>> {
    let mut infos: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for line in read_list(folder, tree::BUILTIN, problems).split(|byte| *byte == b'\n') {
        if let Some(name) = line.rsplit(|byte| *byte == b'/').next().and_then(tree::stem) {
            infos.entry(underscored(name)).or_default();
        }
    }
    for (name, key, value) in modinfo::builtin(&read_list(folder, tree::BUILTIN_INFO, problems)) {
        let info = infos.entry(underscored(name)).or_default();
        if key == b"alias" && !value.is_empty() {
            info.extend_from_slice(b"alias=");
            info.extend_from_slice(value);
            info.push(0);
        }
    }
    let part = |(name, info): (Vec<u8>, Vec<u8>)| {
        // a name is shown as text
        std::str::from_utf8(&name).is_ok().then_some(Part {
            name,
            file: None,
            info: Cow::Owned(info),
            place: (usize::MAX, NONE),
        })
    };
    infos.into_iter().filter_map(part).collect()
}

/// Empty where the kernel's build left no such list.
fn read_list(folder: &Path, name: &[u8], problems: &mut Vec<ScanProblem>) -> Vec<u8> {
    let file = folder.join(std::ffi::OsStr::from_bytes(name));
    match unpack::read_list(&file) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(what) => {
            problems.push(ScanProblem { file, what });
            Vec::new()
        }
    }
}

fn is_below_dev(name: &[u8]) -> bool {
    let part = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= 255;
    name.len() <= 512
        && !name.iter().any(u8::is_ascii_control)
        && name.split(|byte| *byte == b'/').all(part)
}

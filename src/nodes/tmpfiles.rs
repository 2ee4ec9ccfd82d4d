//! Stage 5: the lines of tmpfiles.d(5) that make or adjust nodes below /dev, in their order.
//!
//! Only what concerns a node is read: `c` and `b` make one, `z`, `Z` and `m` adjust it. What is meant
//! for other paths is no concern of ours, and neither are mistakes in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rules::decision::Place;
use crate::rules::glob::fnmatch;
use crate::rules::names::Names;
use crate::rules::problem::{Problem, Severity};
use crate::uevent::Devnum;

/// Folders below the root, the most important first.
const FOLDERS: [&str; 4] =
    ["etc/tmpfiles.d", "run/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d"];

/// What kmod-static-nodes.service writes: the names of the modules, which are known here anyway.
pub const KMOD: &str = "static-nodes.conf";

/// Nobody writes a larger one by hand.
const FILE_LIMIT: u64 = 1 << 20;

/// Alternatives that `{a,b}` may come to.
const BRACES_MAX: usize = 64;

/// What a line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `c` and `b`.
    Make(Devnum),
    /// `z` and `m`; `Z` with all that is below.
    Adjust { below: bool },
}

/// Mode, owner or group of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub value: u32,
    /// `:`, only for what the line makes itself.
    pub new_only: bool,
    /// `~`, a mode that gives no kind of access which nobody had.
    pub masked: bool,
}

/// A line that concerns nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub act: Act,
    /// Below /dev; patterns for `Adjust`.
    paths: Vec<Box<[u8]>>,
    pub mode: Option<Wanted>,
    pub owner: Option<Wanted>,
    pub group: Option<Wanted>,
    pub place: Place,
    /// The file's name, by which the files are ordered.
    pub file_name: OsString,
}

impl Line {
    /// Whether the line is about this name.
    #[must_use]
    pub fn concerns(&self, name: &[u8]) -> bool {
        match self.act {
            Act::Make(_) => self.paths.iter().any(|path| **path == *name),
            Act::Adjust { below } => self.paths.iter().any(|path| matches(path, name, below)),
        }
    }

    /// The name that it makes.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        matches!(self.act, Act::Make(_)).then(|| self.paths.first().map(|path| &**path))?
    }
}

/// As glob(7): no wildcard stands for a slash.
fn matches(pattern: &[u8], name: &[u8], below: bool) -> bool {
    let patterns: Vec<&[u8]> = pattern.split(|byte| *byte == b'/').collect();
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    let whole = patterns.len() == parts.len() || (below && patterns.len() < parts.len());
    whole && patterns.iter().zip(&parts).all(|(pattern, part)| fnmatch(pattern, part))
}

/// Reads all files below `root`; one in a higher folder replaces its namesakes.
#[must_use]
pub fn load(root: &Path, names: &Names) -> (Vec<Line>, Vec<Problem>) {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                files.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
    }
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    for (file_name, path) in files {
        let made_by_kmod = file_name == KMOD && path.starts_with(root.join("run"));
        // a mask is a link to /dev/null
        let fits = |meta: &fs::Metadata| meta.is_file() && meta.len() <= FILE_LIMIT;
        if made_by_kmod || !fs::metadata(&path).is_ok_and(|meta| fits(&meta)) {
            continue;
        }
        match fs::read(&path) {
            Ok(text) => parse(&path, &file_name, &text, names, &mut lines, &mut problems),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                problems.push(Problem::whole(&path, Severity::Error, what));
            }
        }
    }
    (lines, problems)
}

/// Takes the lines of one file that concern nodes.
pub fn parse(
    file: &Path,
    file_name: &std::ffi::OsStr,
    text: &[u8],
    names: &Names,
    lines: &mut Vec<Line>,
    problems: &mut Vec<Problem>,
) {
    let shown: Arc<str> = file.to_string_lossy().into();
    for (number, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let Some(words) = words(text) else { continue };
        let place = Place { file: shown.clone(), line: number, column: 0 };
        match line(&words, names, place, file_name) {
            Ok(line) => lines.extend(line),
            Err(what) => {
                let whole = Problem::whole(file, Severity::Error, what);
                problems.push(Problem { line: number, ..whole });
            }
        }
    }
}

/// A line of the file; `None` if it is not about nodes below /dev.
fn line(
    words: &[Vec<u8>],
    names: &Names,
    place: Place,
    file_name: &std::ffi::OsStr,
) -> Result<Option<Line>, String> {
    let said = |word: &&[u8]| !matches!(*word, b"" | b"-");
    let word = |at: usize| words.get(at).map(Vec::as_slice).filter(said);
    let (Some(kind), Some(path)) = (word(0), word(1)) else { return Ok(None) };
    let Some(path) = path.strip_prefix(b"/dev/").and_then(plain) else { return Ok(None) };
    let act = match kind.first() {
        Some(block @ (b'c' | b'b')) => {
            let numbers = word(6).and_then(|text| numbers(text, *block == b'b'));
            Act::Make(numbers.ok_or("a device number such as 10:200 wanted")?)
        }
        Some(b'z' | b'm') => Act::Adjust { below: false },
        Some(b'Z') => Act::Adjust { below: true },
        Some(_) | None => return Ok(None),
    };
    let paths = if matches!(act, Act::Make(_)) { vec![path.into()] } else { braces(&path) };
    let id = |at: usize, kind: &str, id: &dyn Fn(&str) -> Option<u32>| {
        let Some(text) = word(at) else { return Ok(None) };
        let (new_only, text) = prefix(text, b':');
        let text = String::from_utf8_lossy(text);
        let unknown = || format!("unknown {kind} \"{}\": line is left out", text.escape_debug());
        let value = id(&text).ok_or_else(unknown)?;
        Ok::<_, String>(Some(Wanted { value, new_only, masked: false }))
    };
    Ok(Some(Line {
        act,
        paths,
        mode: word(2).map(mode).transpose()?,
        owner: id(3, "user", &|name| names.uid(name))?,
        group: id(4, "group", &|name| names.gid(name))?,
        place,
        file_name: file_name.to_owned(),
    }))
}

fn prefix(text: &[u8], mark: u8) -> (bool, &[u8]) {
    match text.split_first() {
        Some((first, rest)) if *first == mark => (true, rest),
        Some(_) | None => (false, text),
    }
}

fn mode(text: &[u8]) -> Result<Wanted, String> {
    let (mut wanted, mut rest) = (Wanted { value: 0, new_only: false, masked: false }, text);
    loop {
        match rest.split_first() {
            Some((b':', more)) => (wanted.new_only, rest) = (true, more),
            Some((b'~', more)) => (wanted.masked, rest) = (true, more),
            Some(_) | None => break,
        }
    }
    let octal = std::str::from_utf8(rest).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
    wanted.value = octal.filter(|mode| *mode <= 0o7777).ok_or("an octal mode wanted")?;
    Ok(wanted)
}

/// `10:200`, as in the argument of `c` and `b`.
fn numbers(text: &[u8], block: bool) -> Option<Devnum> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(Devnum { block, major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// A path without specifiers and without anything that leads elsewhere.
fn plain(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        // what the other specifiers stand for is in no node's name
        if byte == b'%' && bytes.next() != Some(b'%') {
            return None;
        }
        plain.push(byte);
    }
    let part = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    let fits = plain.split(|byte| *byte == b'/').all(part);
    (fits && !plain.iter().any(u8::is_ascii_control)).then_some(plain)
}

/// `a{b,c}` as `ab` and `ac`; as it is, where that comes to too many.
fn braces(path: &[u8]) -> Vec<Box<[u8]>> {
    let mut open = vec![path.to_vec()];
    let mut done: Vec<Box<[u8]>> = Vec::new();
    while let Some(path) = open.pop() {
        let group = path.iter().position(|byte| *byte == b'}').and_then(|close| {
            Some((path.get(..close)?.iter().rposition(|byte| *byte == b'{')?, close))
        });
        let Some((from, to)) = group else {
            done.push(path.into());
            continue;
        };
        for word in path[from + 1..to].split(|byte| *byte == b',') {
            open.push([&path[..from], word, &path[to + 1..]].concat());
        }
        if open.len() + done.len() > BRACES_MAX {
            return vec![path.into()];
        }
    }
    done
}

/// Words of a line: quotes hold them together, `\` takes its next byte or a number.
fn words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut at = 0;
    while let Some(byte) = text.get(at).copied() {
        at += 1;
        match (byte, quote) {
            (b'\\', _) => {
                let (meant, length) = escaped(text.get(at..)?)?;
                word.get_or_insert_default().push(meant);
                at += length;
            }
            (b'"' | b'\'', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(mark)) if mark == byte => quote = None,
            (b' ' | b'\t', None) => words.extend(word.take()),
            (_, _) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What stands behind a backslash, and its length.
fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    let digits = |from: usize, to: usize, radix: u32| {
        u8::from_str_radix(std::str::from_utf8(text.get(from..to)?).ok()?, radix).ok()
    };
    match text.first()? {
        b'x' => Some((digits(1, 3, 16)?, 3)),
        b'0'..=b'3' => Some((digits(0, 3, 8)?, 3)),
        b't' => Some((b'\t', 1)),
        other => Some((*other, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Line>, Vec<String>) {
        let (mut lines, mut problems) = (Vec::new(), Vec::new());
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/group"), "kvm:x:108:\n").unwrap();
        let names = Names::load(root.path());
        let file = Path::new("f.conf");
        parse(file, file.as_os_str(), text.as_bytes(), &names, &mut lines, &mut problems);
        (lines, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lines_about_nodes_are_read_and_others_are_not() {
        let (lines, problems) = read(
            "# comment\nc! /dev/net/tun 0600 - - - 10:200\nz /dev/kvm 0660 - kvm -\n\
             d /dev/x 0755 - - -\nL+ /dev/fd - - - - /proc/self/fd\nf /run/x - nobody\n\
             b \"/dev/a\\x20b\" - - - - 7:0\nZ /dev/%b 0600 - - -\nz /dev/../etc/x 0666 - - -\n",
        );
        assert_eq!(problems, [""; 0]);
        let tun = Devnum { block: false, major: 10, minor: 200 };
        assert_eq!((lines[0].act, lines[0].name()), (Act::Make(tun), Some(&b"net/tun"[..])));
        assert_eq!(lines[1].group.map(|group| group.value), Some(108));
        assert_eq!(lines[2].name(), Some(&b"a b"[..]));
        assert_eq!((lines.len(), lines[1].place.line), (3, 3));
    }

    #[test]
    fn a_mistake_in_a_line_about_a_node_is_named() {
        let (lines, problems) = read(
            "z /dev/kvm 0660 - kvmm -\nc /dev/x 0600 - - - ten\nz /dev/y 9 - - -\n\
             z /dev/z ~:0640 - :kvm -\n",
        );
        let wanted = [
            "f.conf:1: error: unknown group \"kvmm\": line is left out",
            "f.conf:2: error: a device number such as 10:200 wanted",
            "f.conf:3: error: an octal mode wanted",
        ];
        assert_eq!((problems.as_slice(), lines.len()), (&wanted.map(str::to_owned)[..], 1));
        assert!(lines[0].mode.is_some_and(|mode| mode.masked && mode.new_only));
    }

    #[test]
    fn no_wildcard_stands_for_a_slash() {
        let concerns = |line: &str, name: &str| read(line).0[0].concerns(name.as_bytes());
        assert!(concerns("z /dev/vhost-* 0660 - - -", "vhost-net"));
        assert!(!concerns("z /dev/* 0660 - - -", "net/tun"));
        assert!(concerns("Z /dev/sn* 0660 - - -", "snd/seq"));
        assert!(concerns("z /dev/snd/{seq,timer} 0660 - - -", "snd/timer"));
        assert!(!concerns("c /dev/* 0660 - - - 1:1", "x"));
    }

    #[test]
    fn a_higher_folder_replaces_and_kmods_own_list_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("usr/lib/tmpfiles.d/a.conf", "z /dev/a 0600 - - -\n");
        write("etc/tmpfiles.d/a.conf", "z /dev/a 0640 - - -\n");
        write("run/tmpfiles.d/static-nodes.conf", "c! /dev/b 0600 - - - 1:1\n");
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/tmpfiles.d/c.conf")).unwrap();
        write("usr/lib/tmpfiles.d/c.conf", "z /dev/c 0600 - - -\n");
        let (lines, problems) = load(root.path(), &Names::load(root.path()));
        assert_eq!((problems, lines.len()), (vec![], 1));
        assert_eq!(lines[0].mode.map(|mode| mode.value), Some(0o640));
    }
}

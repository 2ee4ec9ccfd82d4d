//! Stage 6b: `/proc/self/mountinfo` in, which mounts there are and which stands on which out.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount of this process's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u32,
    pub parent: u32,
    /// The file system's number: `0:5`.
    pub device: Vec<u8>,
    /// What of the file system is mounted: `/` is all of it.
    pub root: PathBuf,
    pub place: PathBuf,
    /// The file system's name.
    pub kind: Vec<u8>,
}

/// The mounts as they are now.
///
/// # Errors
/// Without `/proc`.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// The lines of a `mountinfo` file (`proc(5)`); what is no such line is left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(text: &[u8]) -> Option<Mount> {
    let mut words = text.split(|byte| *byte == b' ');
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    Some(Mount {
        id: number(words.next()?)?,
        parent: number(words.next()?)?,
        device: words.next()?.to_vec(),
        root: path(words.next()?),
        place: path(words.next()?),
        kind: words.skip_while(|word| *word != b"-").nth(1)?.to_vec(),
    })
}

/// Blanks and backslashes are written in octal: `\040`.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        let escaped = tail.get(..3).filter(|_| *first == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

/// The mount that is seen at a place: the one that no other covers.
#[must_use]
pub fn top<'a>(mounts: &'a [Mount], place: &Path) -> Option<&'a Mount> {
    let mut here = mounts.iter().filter(|mount| mount.place == place);
    let covered = |mount: &Mount| {
        mounts.iter().any(|other| other.parent == mount.id && other.place == mount.place)
    };
    here.find(|mount| !covered(mount))
}

/// The mount that shows at the place of `mount` when that one is taken off.
#[must_use]
pub fn beneath<'a>(mounts: &'a [Mount], mount: &Mount) -> Option<&'a Mount> {
    mounts.iter().find(|other| other.id == mount.parent && other.place == mount.place)
}

/// The mounts that stand on a mount, not on each other, and do not cover it.
pub fn on<'a>(mounts: &'a [Mount], mount: &'a Mount) -> impl Iterator<Item = &'a Mount> {
    mounts.iter().filter(|other| other.parent == mount.id && other.place != mount.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"21 1 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw\n\
        22 21 0:20 / /dev/pts rw shared:3 - devpts devpts rw\n\
        36 21 0:30 / /dev rw - mapdevfs none rw\n\
        37 36 0:20 / /dev/pts rw shared:3 - devpts devpts rw\n\
        38 36 0:5 /log /dev/a\\040log rw shared:3 master:4 - devtmpfs udev rw\n\
        39 37 0:31 / /dev/pts/x rw - tmpfs mapdevfs rw\n\
        what is this\n";

    #[test]
    fn mounts_are_found_behind_optional_fields_and_under_each_other() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 6);
        let seen = top(&mounts, Path::new("/dev")).unwrap();
        assert_eq!((seen.id, &*seen.kind), (36, &b"mapdevfs"[..]));
        assert_eq!(beneath(&mounts, seen).unwrap().id, 21);
        assert_eq!(beneath(&mounts, &mounts[0]), None);
        let places: Vec<_> = on(&mounts, seen).map(|mount| mount.place.clone()).collect();
        assert_eq!(places, [Path::new("/dev/pts"), Path::new("/dev/a log")]);
        assert_eq!(on(&mounts, &mounts[0]).count(), 1, "what covers it does not stand on it");
    }
}

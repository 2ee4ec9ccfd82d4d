//! Stage 3: the hardware database: what the distribution knows of hardware, by modalias.
//!
//! Opened at the first look-up, and again when another file has taken its place.

pub mod compile;
pub mod source;
mod texts;
pub mod trie;
pub mod update;
mod walk;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

pub use trie::{Damage, Trie};
pub use walk::PATTERN_MAX;

/// Where the compiled file may be below the root; the first that exists is taken. As udev looks for it.
const FILES: [&str; 6] = [
    "etc/systemd/hwdb/hwdb.bin",
    "etc/udev/hwdb.bin",
    "usr/lib/systemd/hwdb/hwdb.bin",
    "lib/systemd/hwdb/hwdb.bin",
    "usr/lib/udev/hwdb.bin",
    "lib/udev/hwdb.bin",
];

/// How long a file is taken for the newest without looking.
const TRUST: Duration = Duration::from_secs(3);

/// Debian's has 13 MB; whoever has more than this has something else.
const FILE_LIMIT: u64 = 1 << 30;

/// A property's key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The database below a root. For one thread; the memory of the file is shared by all that map it.
#[derive(Clone, Debug)]
pub struct Hwdb {
    root: PathBuf,
    opened: RefCell<Option<Arc<Opened>>>,
    looked: Cell<Option<Instant>>,
}

impl Default for Hwdb {
    fn default() -> Self {
        Self::below("/")
    }
}

/// Why there is no database to look into.
#[derive(Debug)]
pub enum OpenError {
    /// No file at any of its places.
    Missing,
    File(PathBuf, io::Error),
    Damaged(PathBuf, Damage),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no hwdb.bin; mapdevctl hwdb update makes one"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path, damage) => write!(f, "{}: {damage}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

impl Hwdb {
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), opened: RefCell::default(), looked: Cell::default() }
    }

    /// The properties of a modalias in the database's order; empty if it knows none, or if there is more
    /// to do than a real database causes.
    ///
    /// # Errors
    /// When there is no database, or no good one.
    pub fn look_up(&self, modalias: &[u8]) -> Result<Vec<Pair>, OpenError> {
        let opened = self.current()?;
        let Some(bytes) = opened.bytes() else { return Ok(Vec::new()) };
        let trie = Trie::new(bytes).map_err(|damage| self.damaged(&opened.path, damage))?;
        let found = trie.look_up(modalias).unwrap_or_default();
        Ok(found.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
    }

    /// Looks at the next look-up whether there is another file.
    pub fn refresh(&self) {
        self.looked.set(None);
    }

    fn damaged(&self, path: &Path, damage: Damage) -> OpenError {
        self.opened.replace(None);
        OpenError::Damaged(path.to_owned(), damage)
    }

    fn current(&self) -> Result<Arc<Opened>, OpenError> {
        let fresh = self.looked.get().is_some_and(|looked| looked.elapsed() < TRUST);
        if let Some(opened) = self.opened.borrow().as_ref().filter(|_| fresh) {
            return Ok(opened.clone());
        }
        let old = self.opened.take();
        let (path, meta) = self.newest()?;
        let opened = match old.filter(|old| old.is(&path, &meta)) {
            Some(old) => old,
            None => Arc::new(Opened::open(&path).map_err(|error| OpenError::File(path, error))?),
        };
        self.opened.replace(Some(opened.clone()));
        self.looked.set(Some(Instant::now()));
        Ok(opened)
    }

    fn newest(&self) -> Result<(PathBuf, Metadata), OpenError> {
        for path in FILES.map(|file| self.root.join(file)) {
            match fs::metadata(&path) {
                Ok(meta) => return Ok((path, meta)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(OpenError::File(path, error)),
            }
        }
        Err(OpenError::Missing)
    }
}

/// What tells a file from its successor.
type Identity = (u64, u64, u64, i64, i64);

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// A file and its content.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    identity: Identity,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Replaced by rename and written by nobody but root; so its pages need not be ours as well.
    Mapped(memmap2::Mmap, File),
    /// Whoever could write to it could cut it off while it is mapped, and so end us.
    Copied(Vec<u8>),
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        // opening a FIFO would wait
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("a regular file wanted"));
        }
        if meta.len() > FILE_LIMIT {
            return Err(io::Error::other(format!("at most {} MiB wanted", FILE_LIMIT >> 20)));
        }
        let safe = meta.uid() == 0 && meta.mode() & 0o022 == 0 && meta.len() > 0;
        let content = if safe {
            #[expect(unsafe_code, reason = "mapping a file that only root writes")]
            // SAFETY: who makes a new one renames it to its place, and nobody but root may write to
            // it. Should root cut it off even so, `bytes` gives it up.
            let map = unsafe { memmap2::Mmap::map(&file)? };
            Content::Mapped(map, file)
        } else {
            let mut bytes = Vec::new();
            file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
            Content::Copied(bytes)
        };
        Ok(Self { path: path.to_owned(), identity: identity(&meta), content })
    }

    fn is(&self, path: &Path, meta: &Metadata) -> bool {
        self.path == path && self.identity == identity(meta)
    }

    /// The content; `None` if the file has become shorter than it was.
    fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Mapped(map, file) => {
                let length = file.metadata().ok()?.len();
                (length >= map.len() as u64).then_some(map)
            }
            Content::Copied(bytes) => Some(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::compile::Compiler;
    use super::*;

    fn compiled(text: &str) -> Vec<u8> {
        let (properties, problems) = source::parse(Path::new("a.hwdb"), text.as_bytes());
        assert_eq!(problems, []);
        let mut compiler = Compiler::default();
        compiler.add(b"a.hwdb", &properties);
        compiler.finish()
    }

    fn found(trie: &Trie<'_>, modalias: &str) -> String {
        let found = trie.look_up(modalias.as_bytes()).unwrap();
        let shown = found
            .iter()
            .map(|(key, value)| format!("{}={}", key.escape_ascii(), value.escape_ascii()));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_later_line_wins_and_keeps_the_place_of_the_first() {
        let text = "ab*\n A=1\n B=1\n\na*\n A=2\n C=2\n\nabc\n C=3\n\na[bx]c\n D=4\n\n?bc\n D=5\n";
        let bytes = compiled(text);
        let trie = Trie::new(&bytes).unwrap();
        assert_eq!(found(&trie, "abc"), "D=5 A=2 C=3 B=1");
        assert_eq!(found(&trie, "axc"), "A=2 C=2 D=4");
        assert_eq!(found(&trie, "b"), "");
        assert_eq!(found(&trie, ""), "");
    }

    #[test]
    fn backslashes_are_literal_before_a_wildcard_and_quote_after_one() {
        let bytes = compiled("a\\*b\n A=1\n\nc*\\?\n B=1\n\nd[!x\n C=1\n");
        let trie = Trie::new(&bytes).unwrap();
        assert_eq!(found(&trie, "a\\xxb"), "A=1");
        assert_eq!(found(&trie, "a*b"), "");
        assert_eq!((found(&trie, "cx?"), found(&trie, "cxy")), ("B=1".into(), String::new()));
        assert_eq!(found(&trie, "d[!x"), "C=1");
    }

    #[test]
    fn a_new_file_is_looked_into_after_a_refresh_and_a_damaged_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let hwdb = Hwdb::below(root.path());
        assert!(matches!(hwdb.look_up(b"a"), Err(OpenError::Missing)));
        let path = root.path().join("etc/udev/hwdb.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let replace = |bytes: &[u8], mode| {
            let new = root.path().join("new");
            fs::write(&new, bytes).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        let value = |wanted: &str| {
            let found = hwdb.look_up(b"a").unwrap();
            assert_eq!(found, [(b"A".to_vec(), wanted.as_bytes().to_vec())]);
        };
        replace(&compiled("a\n A=1\n"), 0o444);
        value("1");
        replace(&compiled("a\n A=2\n"), 0o666);
        value("1");
        hwdb.refresh();
        value("2");
        replace(b"KSLPHHRH", 0o444);
        hwdb.refresh();
        assert!(matches!(hwdb.look_up(b"a"), Err(OpenError::Damaged(..))));
        let file = root.path().join("lib/udev/hwdb.bin");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, compiled("a\n A=3\n")).unwrap();
        fs::remove_file(&path).unwrap();
        hwdb.refresh();
        value("3");
    }

    #[test]
    fn a_mapped_file_that_is_cut_off_is_not_touched() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/udev/hwdb.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, compiled("a\n A=1\n")).unwrap();
        let hwdb = Hwdb::below(root.path());
        assert_eq!(hwdb.look_up(b"a").unwrap().len(), 1);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let mapped = rustix::process::geteuid().is_root();
        assert_eq!(hwdb.look_up(b"a").unwrap().len(), usize::from(!mapped));
    }
}

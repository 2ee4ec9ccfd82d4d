//! Lets allocations of a thread fail in the kernel, one after another, and looks at what became of it.
#![expect(clippy::print_stdout, reason = "how many failed belongs into the log of a run")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

const DEBUG: &str = "/sys/kernel/debug";

/// Far above what a system call allocates.
const MOST: u32 = 2000;

/// What is seen of a name: number, mode, owner, device, target, ACL.
type Seen = (u64, u32, u32, u32, u64, Option<PathBuf>, bool);

/// All names of a file system, and how many more userspace may make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    names: BTreeMap<PathBuf, Seen>,
    free: u64,
}

fn look(dir: &Path, names: &mut BTreeMap<PathBuf, Seen>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, stat) = (entry.path(), entry.metadata().unwrap());
        // of a directory that is mounted on it would be another
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), stat.ino(), "{path:?}");
        let acl = !stat.is_symlink() && super::acls::has_acl(&path);
        let seen = (
            stat.ino(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev(),
            fs::read_link(&path).ok(),
            acl,
        );
        assert!(names.insert(path.clone(), seen).is_none(), "{path:?} is listed twice");
        if stat.is_dir() {
            look(&path, names);
        }
    }
}

impl State {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

pub(crate) fn state(root: &Path) -> State {
    let mut names = BTreeMap::new();
    look(root, &mut names);
    State { names, free: rustix::fs::statvfs(root).unwrap().f_ffree }
}

/// Lets go of what is cached of names, so that the next look allocates.
pub(crate) fn cold() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

pub(crate) struct Failing {
    nth: File,
    failed: Cell<u32>,
}

impl Failing {
    pub(crate) fn new() -> Self {
        if !Path::new(DEBUG).join("failslab").exists() {
            mount("debugfs", DEBUG, "debugfs", MountFlags::empty(), None).unwrap();
        }
        // those that could wait for memory too, and of any size
        for (knob, value) in [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("fail_page_alloc/verbose", "0"),
        ] {
            fs::write(Path::new(DEBUG).join(knob), value)
                .expect("the kernel can let allocations fail");
        }
        let nth =
            File::options().read(true).write(true).open("/proc/thread-self/fail-nth").unwrap();
        Self { nth, failed: Cell::new(0) }
    }

    /// What a call gives while its nth allocation fails; false when it does not come to that.
    pub(crate) fn nth<T>(&self, n: u32, call: impl FnOnce() -> T) -> (T, bool) {
        let (number, mut left) = (n.to_string(), [0; 16]);
        self.nth.write_at(number.as_bytes(), 0).unwrap();
        let result = call();
        let len = self.nth.read_at(&mut left, 0).unwrap();
        self.nth.write_at(b"0", 0).unwrap();
        (result, left[..len] == *b"0\n")
    }

    /// Makes a call again and again, the first time with its first allocation failing, then with its second
    /// one, until all that it needs are there. It gives ENOMEM, and `same` holds; or what is `wanted`, and
    /// `undo` takes it back. Tells how many allocations were made to fail.
    pub(crate) fn every<T>(
        &self,
        what: &str,
        wanted: Result<(), Errno>,
        mut before: impl FnMut(),
        mut call: impl FnMut() -> Result<T, Errno>,
        mut undo: impl FnMut(Option<T>),
        same: impl Fn(&str),
    ) -> u32 {
        let mut refused = 0;
        for n in 1..MOST {
            before();
            let (result, failed) = self.nth(n, &mut call);
            match result {
                Err(Errno::NOMEM) if failed => refused += 1,
                Ok(value) if wanted == Ok(()) => undo(Some(value)),
                Err(error) if wanted == Err(error) => undo(None),
                Err(error) => panic!("{what}: {error} when allocation {n} failed: {failed}"),
                Ok(_) => panic!("{what}: done when allocation {n} failed: {failed}"),
            }
            same(&format!("{what}, allocation {n}"));
            if !failed {
                println!("# {what}: {} allocations failed, {refused} times ENOMEM", n - 1);
                self.failed.set(self.failed.get() + n - 1);
                return n - 1;
            }
        }
        panic!("{what}: no end of allocations");
    }
}

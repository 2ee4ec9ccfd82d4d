//! A published map and its mount, taken down at the end of each test.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapdev::map::layout::E_LIVE;
use mapdev::map::shim::{self, Events, Shim, Told};
use mapdev::map::{Kind, MapWriter, Node};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENXIO: i32 = 6;

pub(crate) struct World {
    pub map: MapWriter,
    pub root: PathBuf,
    /// While the map is published.
    pub events: Option<Events>,
    place: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(MapWriter::create(64).unwrap())
    }

    pub(crate) fn of(mut map: MapWriter) -> Self {
        let shim = device();
        let events = shim.events().unwrap();
        map.attach(Box::new(shim)).unwrap();
        let place = tempfile::tempdir().unwrap();
        shim::mount_at(place.path()).unwrap();
        Self { map, root: place.path().to_owned(), events: Some(events), place }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn put(&mut self, name: &str, node: &Node) {
        self.map.upsert(name.as_bytes(), node).unwrap();
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.events.as_ref().unwrap().take().unwrap()
    }

    pub(crate) fn list(&self, name: &str) -> BTreeSet<String> {
        list(&self.path(name))
    }

    pub(crate) fn mode(&self, name: &str) -> (u32, u32, u32) {
        let stat = fs::symlink_metadata(self.path(name)).unwrap();
        (stat.mode() & 0o7777, stat.uid(), stat.gid())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // a failed test may have left something open
        let lazy = UnmountFlags::DETACH;
        unmount(self.place.path(), lazy).unwrap();
        drop((self.map.detach_kernel(), self.events.take()));
        if !std::thread::panicking() {
            device().withdraw().unwrap();
        }
    }
}

/// A parameter of the module, set back at the end.
pub(crate) struct Parameter {
    path: PathBuf,
    before: String,
}

impl Parameter {
    pub(crate) fn set(name: &str, value: u32) -> Self {
        let path = Path::new("/sys/module/mapdevfs/parameters").join(name);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, value.to_string()).unwrap();
        Self { path, before }
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        fs::write(&self.path, self.before.trim()).unwrap();
    }
}

/// How long a stress lasts.
pub(crate) fn seconds() -> Duration {
    let seconds = std::env::var("SHIM_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// A time limit; a kernel that checks itself is many times slower.
pub(crate) fn patient(seconds: u64) -> Duration {
    let times = std::env::var("SHIM_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * times.unwrap_or(1))
}

pub(crate) fn device() -> Shim {
    Shim::open(Path::new(shim::DEVICE)).unwrap().expect("the module is loaded")
}

pub(crate) fn char_device(major: u32, minor: u32, mode: u32) -> Node {
    Node { kind: Kind::Char { major, minor }, mode, uid: 0, gid: 0, flags: E_LIVE }
}

pub(crate) fn link(target: &str) -> Node {
    let target = target.as_bytes().into();
    Node { kind: Kind::Link { target }, mode: 0o777, uid: 0, gid: 0, flags: 0 }
}

pub(crate) fn null() -> Node {
    char_device(1, 3, 0o666)
}

pub(crate) fn list(path: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.insert(name.clone()), "{name} is listed twice");
    }
    names
}

pub(crate) fn names(wanted: &[&str]) -> BTreeSet<String> {
    wanted.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn absent<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
}

pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap()
}

//! Stage 5: tells when a program that wrote to a node has closed it, for devices whose rules want to know
//! (`OPTIONS+="watch"`). One inotify object for all; `/run/udev/watch` says who is watched.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::device::DeviceId;
use crate::ready;

/// Who is watched. The kernel bounds their number (`fs.inotify.max_user_watches`), and there is one for a
/// device at most.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
    folder: PathBuf,
    ids: HashMap<i32, DeviceId>,
    numbers: HashMap<DeviceId, i32>,
}

impl Watch {
    /// `folder` is `/run/udev/watch`; what an earlier run left in it stays until [`Self::tidy`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let fd = ready::watched(fd, Interest::READABLE)?;
        let (ids, numbers) = (HashMap::new(), HashMap::new());
        Ok(Self { fd, folder: folder.to_owned(), ids, numbers })
    }

    /// The devices that were watched when the last run ended.
    #[must_use]
    pub fn left(folder: &Path) -> Vec<DeviceId> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| DeviceId::from_bytes(entry.file_name().as_bytes())).collect()
    }

    #[must_use]
    pub fn has(&self, id: &DeviceId) -> bool {
        self.numbers.contains_key(id)
    }

    /// Watches a device's node; nothing changes if it is watched already. No node is no error.
    ///
    /// # Errors
    /// When the kernel refuses, or the folder cannot be written to.
    pub fn begin(&mut self, id: &DeviceId, node: &Path) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::DONT_FOLLOW;
        let number = match inotify::add_watch(&self.fd, node, flags) {
            Ok(number) => number,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.end(id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.numbers.get(id) == Some(&number) {
            return Ok(());
        }
        self.end(id);
        if let Some(other) = self.ids.insert(number, id.clone()) {
            // the node was another device's, whose end nobody told
            self.numbers.remove(&other);
            drop(fs::remove_file(self.of_device(&other)));
        }
        self.numbers.insert(id.clone(), number);
        let (by_number, by_device) = (self.of_number(number), self.of_device(id));
        fs::create_dir_all(&self.folder)?;
        for link in [&by_number, &by_device] {
            drop(fs::remove_file(link));
        }
        symlink(OsStr::from_bytes(id.as_bytes()), by_number)?;
        symlink(number.to_string(), by_device)
    }

    /// Ends a device's watch, if there is one.
    pub fn end(&mut self, id: &DeviceId) {
        if let Some(number) = self.numbers.remove(id) {
            // the kernel ends it by itself when the node goes
            let _ = inotify::remove_watch(&self.fd, number);
            self.forget(number);
        }
    }

    fn forget(&mut self, number: i32) {
        let Some(id) = self.ids.remove(&number) else { return };
        self.numbers.remove(&id);
        drop(fs::remove_file(self.of_device(&id)));
        drop(fs::remove_file(self.of_number(number)));
    }

    /// Removes from the folder what an earlier run left.
    pub fn tidy(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let ours = number.is_some_and(|number| self.ids.contains_key(&number))
                || DeviceId::from_bytes(name.as_bytes()).is_some_and(|id| self.has(&id));
            if !ours {
                // one that stays is in nobody's way
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn of_number(&self, number: i32) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn of_device(&self, id: &DeviceId) -> PathBuf {
        self.folder.join(OsStr::from_bytes(id.as_bytes()))
    }

    /// Waits until something can be taken.
    ///
    /// # Errors
    /// When the inotify object fails for good.
    pub async fn ready(&self) -> io::Result<()> {
        self.fd.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// The devices whose nodes were closed since the last time, each once; empty if none was.
    pub fn take(&mut self) -> Vec<DeviceId> {
        let mut told = Told::default();
        // what was closed a moment ago counts too. It ends with "would block"; an error shows itself in the next wait
        let _: io::Result<()> = ready::read_now(&self.fd, |fd| told.read(fd, &self.ids));
        told.ended.into_iter().for_each(|number| self.forget(number));
        // whose were lost, nobody knows
        if told.lost { self.numbers.keys().cloned().collect() } else { told.closed }
    }
}

/// What the inotify object says.
#[derive(Debug, Default)]
struct Told {
    closed: Vec<DeviceId>,
    /// Watches that are no more.
    ended: Vec<i32>,
    lost: bool,
}

impl Told {
    /// Reads until there is nothing left, which is an error.
    fn read(&mut self, fd: &OwnedFd, ids: &HashMap<i32, DeviceId>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(Errno::INTR) => continue,
                event => event?,
            };
            let id = ids.get(&event.wd());
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.lost = true;
            } else if event.events().contains(ReadFlags::IGNORED) {
                self.ended.push(event.wd());
            } else if let Some(id) = id.filter(|id| !self.closed.contains(id)) {
                self.closed.push(id.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> DeviceId {
        DeviceId::from_bytes(format!("b8:{n}").as_bytes()).unwrap()
    }

    fn links(folder: &Path) -> Vec<String> {
        let links = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut links: Vec<_> = links
            .map(|link| {
                let target = fs::read_link(link.path()).unwrap();
                format!("{} {}", link.file_name().display(), target.display())
            })
            .collect();
        links.sort();
        links
    }

    #[tokio::test]
    async fn a_close_after_writing_is_told_once_and_only_while_it_is_watched() {
        let top = tempfile::tempdir().unwrap();
        let (folder, node) = (top.path().join("watch"), top.path().join("sda"));
        fs::write(&node, "").unwrap();
        let mut watch = Watch::open(&folder).unwrap();
        watch.begin(&id(1), &node).unwrap();
        watch.begin(&id(2), &top.path().join("none")).unwrap();
        assert_eq!(links(&folder), ["1 b8:1", "b8:1 1"]);
        assert_eq!(Watch::left(&folder), [id(1)]);
        drop(fs::File::open(&node).unwrap());
        assert_eq!(watch.take(), [], "nobody wrote");
        fs::write(&node, "a").unwrap();
        fs::write(&node, "b").unwrap();
        assert_eq!(watch.take(), [id(1)], "also before anybody was woken");
        assert_eq!(watch.take(), []);
        fs::write(&node, "b").unwrap();
        watch.ready().await.unwrap();
        assert_eq!(watch.take(), [id(1)]);
        watch.begin(&id(1), &node).unwrap();
        assert_eq!(links(&folder), ["1 b8:1", "b8:1 1"], "it is the same watch");
        watch.end(&id(1));
        fs::write(&node, "c").unwrap();
        assert_eq!((watch.take(), links(&folder)), (vec![], vec![]));
    }

    #[tokio::test]
    async fn a_node_that_goes_is_forgotten_and_another_takes_its_place() {
        let top = tempfile::tempdir().unwrap();
        let (folder, node) = (top.path().join("watch"), top.path().join("sda"));
        fs::create_dir(&folder).unwrap();
        symlink("b8:9", folder.join("7")).unwrap();
        symlink("7", folder.join("b8:9")).unwrap();
        let mut watch = Watch::open(&folder).unwrap();
        fs::write(&node, "").unwrap();
        watch.begin(&id(1), &node).unwrap();
        fs::remove_file(&node).unwrap();
        fs::write(&node, "").unwrap();
        watch.begin(&id(1), &node).unwrap();
        watch.tidy();
        assert_eq!(links(&folder), ["2 b8:1", "b8:1 2"]);
        fs::write(&node, "c").unwrap();
        watch.ready().await.unwrap();
        assert_eq!(watch.take(), [id(1)]);
        fs::remove_file(&node).unwrap();
        watch.ready().await.unwrap();
        assert_eq!((watch.take(), watch.has(&id(1)), links(&folder)), (vec![], false, vec![]));
    }
}

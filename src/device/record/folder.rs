//! The folder of records, `/run/udev/data`, and the index of tags beside it.
//!
//! libudev clients read these files at any moment: they are replaced, never edited.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Record;
use crate::device::DeviceId;

/// Begins the name of a record that is being written.
const HALF: &[u8] = b".#";

/// The sticky bit, and what every record's mode is beside.
const STICKY: u32 = 0o1000;
const MODE: u32 = 0o644;

/// The folder of records, `/run/udev/data`, and the index of tags beside it.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
    /// `tags/TAG/ID` for each sticky tag: empty files.
    tags: PathBuf,
}

impl Records {
    /// Makes the folder if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self::at(folder))
    }

    /// The folder as it is, to look things up in: it need not be there.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), tags: folder.with_file_name("tags") }
    }

    /// Removes what a run left that was killed while it wrote a record.
    pub fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let half = entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(HALF));
        // one that stays is in nobody's way
        half.for_each(|entry| drop(fs::remove_file(entry.path())));
    }

    fn path(&self, id: &DeviceId) -> PathBuf {
        self.folder.join(OsStr::from_bytes(id.as_bytes()))
    }

    /// The record of a device; `None` if it has none: it is not initialised.
    #[must_use]
    pub fn read(&self, id: &DeviceId) -> Option<Record> {
        let mut file = fs::File::open(self.path(id)).ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        let persist = file.metadata().ok()?.permissions().mode() & STICKY != 0;
        Some(Record { persist, ..Record::parse(&text) })
    }

    /// What was written last, if nobody has cleaned it up since (`udevadm info --cleanup-db`).
    #[must_use]
    pub fn still(&self, id: &DeviceId, last: &Record) -> Option<Record> {
        let there = (!is_numbered(id) && last.is_empty()) || self.path(id).exists();
        there.then(|| last.clone())
    }

    /// Replaces a device's record, atomically, and its entries in the index of tags. `old` is what is
    /// there: what is so already is not written again.
    ///
    /// # Errors
    /// When the new file cannot be written or moved into place; the old one is then untouched.
    pub fn write(&self, id: &DeviceId, record: &Record, old: Option<&Record>) -> io::Result<()> {
        self.tag(id, old.map_or(&[], |old| &old.sticky_tags), &record.sticky_tags)?;
        if !is_numbered(id) && record.is_empty() {
            // where there was nothing to say before, there is no file
            return if old.is_some_and(Record::is_empty) { Ok(()) } else { self.unlink(id) };
        }
        let has_node = id.devnum().is_some();
        let text = record.written(has_node);
        let same = |old: &Record| old.persist == record.persist && old.written(has_node) == text;
        if old.is_some_and(same) {
            return Ok(());
        }
        let path = self.path(id);
        // one temporary name per device: its events are handled one after the other
        let mut name = HALF.to_vec();
        name.extend_from_slice(id.as_bytes());
        let temporary = self.folder.join(OsStr::from_bytes(&name));
        let mode = if record.persist { MODE | STICKY } else { MODE };
        let write = || {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(MODE);
            let mut file = options.open(&temporary)?;
            // whatever our umask is
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(&text)?;
            fs::rename(&temporary, &path)
        };
        write().inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Makes good what is missing in the index of tags: who wrote the record may have left it out.
    ///
    /// # Errors
    /// When an entry cannot be made.
    pub fn enter_tags(&self, id: &DeviceId, record: &Record) -> io::Result<()> {
        self.tag(id, &[], &record.sticky_tags)
    }

    /// Forgets a device, its tags first; no record is no error.
    ///
    /// # Errors
    /// When a file is there and cannot be removed.
    pub fn remove(&self, id: &DeviceId) -> io::Result<()> {
        match self.read(id) {
            Some(record) => self.tag(id, &record.sticky_tags, &[]).and(self.unlink(id)),
            None => self.unlink(id),
        }
    }

    fn unlink(&self, id: &DeviceId) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path(id)))
    }

    /// Enters a device below its new tags, and takes it out of those that it no longer has.
    fn tag(&self, id: &DeviceId, old: &[Vec<u8>], new: &[Vec<u8>]) -> io::Result<()> {
        let id = OsStr::from_bytes(id.as_bytes());
        let others = |list: &[Vec<u8>], tag: &Vec<u8>| is_tag(tag) && !list.contains(tag);
        for tag in new.iter().filter(|tag| others(old, tag)) {
            let folder = self.tags.join(OsStr::from_bytes(tag));
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).mode(0o444);
            let entered = match options.open(folder.join(id)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&folder)?;
                    options.open(folder.join(id))
                }
                entered => entered,
            };
            entered?;
        }
        for tag in old.iter().filter(|tag| others(new, tag)) {
            // the folder stays, as under udev: the next device of this tag will want it
            absent_is_fine(fs::remove_file(self.tags.join(OsStr::from_bytes(tag)).join(id)))?;
        }
        Ok(())
    }

    /// The ids of all devices that have a record.
    #[must_use]
    pub fn ids(&self) -> Vec<DeviceId> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| DeviceId::from_bytes(entry.file_name().as_bytes()))
            .collect()
    }
}

/// Devices with a number or interface index have a record even if it says nothing.
fn is_numbered(id: &DeviceId) -> bool {
    id.as_bytes().first() != Some(&b'+')
}

/// Whether a tag is a file's name.
fn is_tag(tag: &[u8]) -> bool {
    !matches!(tag, b"" | b"." | b"..") && !tag.contains(&b'/') && !tag.contains(&0)
}

/// A file that is not there need not be removed.
pub(crate) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Record {
        Record {
            links: vec![b"disk/by-id/x".to_vec()],
            link_priority: -100,
            initialized_usec: Some(1_234_567),
            properties: vec![(b"ID_MODEL".to_vec(), b"a\xffb".to_vec())],
            sticky_tags: vec![b"systemd".to_vec(), b"seat".to_vec()],
            current_tags: vec![b"systemd".to_vec()],
            persist: false,
        }
    }

    /// A folder for the records, and another one beside it for the tags.
    fn folders() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let data = top.path().join("data");
        (top, data)
    }

    #[test]
    fn half_a_record_does_not_outlive_the_next_start() {
        let (_top, dir) = folders();
        let records = Records::open(&dir).unwrap();
        records.write(&DeviceId::from_bytes(b"b8:1").unwrap(), &disk(), None).unwrap();
        fs::write(dir.join(".#b8:2"), b"S:disk/by").unwrap();
        records.tidy();
        let names: Vec<_> = fs::read_dir(dir).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].file_name(), "b8:1");
    }

    #[test]
    fn a_node_with_nothing_to_say_has_an_empty_file_and_others_have_none() {
        let (_top, dir) = folders();
        let records = Records::open(&dir).unwrap();
        let record = Record { initialized_usec: Some(5), ..Record::default() };
        let node = DeviceId::from_bytes(b"c1:3").unwrap();
        let named = DeviceId::from_bytes(b"+usb:1-1").unwrap();
        records.write(&node, &record, None).unwrap();
        records.write(&named, &disk(), None).unwrap();
        assert_eq!(fs::read(dir.join("c1:3")).unwrap(), b"");
        assert!(records.read(&named).is_some());
        records.write(&named, &record, None).unwrap();
        assert!(records.read(&named).is_none());
        assert_eq!(records.ids(), [node]);
    }

    #[test]
    fn the_index_of_tags_follows_the_sticky_tags() {
        let (top, dir) = folders();
        let records = Records::open(&dir).unwrap();
        let id = DeviceId::from_bytes(b"b8:1").unwrap();
        let index = || {
            let tags = fs::read_dir(top.path().join("tags")).into_iter().flatten().flatten();
            let tags = tags.filter(|tag| tag.path().join("b8:1").exists());
            let mut tags: Vec<_> = tags.map(|tag| tag.file_name().into_string().unwrap()).collect();
            tags.sort();
            tags
        };
        records.write(&id, &disk(), None).unwrap();
        assert_eq!(index(), ["seat", "systemd"]);
        let mode = fs::metadata(top.path().join("tags/seat/b8:1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
        let sticky_tags = vec![b"seat".to_vec(), b"../x".to_vec()];
        let other = Record { sticky_tags, ..disk() };
        records.write(&id, &other, Some(&disk())).unwrap();
        assert_eq!(index(), ["seat"]);
        records.remove(&id).unwrap();
        assert!(index().is_empty() && !top.path().join("x").exists());
    }

    #[test]
    fn a_record_that_persists_has_the_sticky_bit_and_a_clean_up_is_noticed() {
        let (_top, dir) = folders();
        let records = Records::open(&dir).unwrap();
        let id = DeviceId::from_bytes(b"b8:1").unwrap();
        let kept = Record { persist: true, ..disk() };
        records.write(&id, &kept, None).unwrap();
        let mode = || fs::metadata(dir.join("b8:1")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o1644);
        assert_eq!(records.read(&id), Some(kept.clone()));
        records.write(&id, &disk(), Some(&kept)).unwrap();
        assert_eq!(mode(), 0o644);
        assert_eq!(records.still(&id, &disk()), Some(disk()));
        fs::remove_file(dir.join("b8:1")).unwrap();
        assert_eq!(records.still(&id, &disk()), None);
    }

    #[test]
    fn a_tag_that_is_missing_in_the_index_is_entered_again() {
        let (_top, data) = folders();
        let records = Records::open(&data).unwrap();
        let id = DeviceId::from_bytes(b"b8:1").unwrap();
        records.write(&id, &disk(), None).unwrap();
        let entry = data.with_file_name("tags").join("seat/b8:1");
        fs::remove_file(&entry).unwrap();
        records.write(&id, &disk(), Some(&disk())).unwrap();
        assert!(!entry.exists(), "what is remembered is not looked for");
        records.enter_tags(&id, &disk()).unwrap();
        assert!(entry.exists());
    }
}

//! What is remembered of a device between events, in udev's own format below `/run/udev/data`.
//!
//! libudev clients read these files at any moment: they are replaced, never edited.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::device::DeviceId;

/// One device's record. Lists keep their order; keys and values are bytes without newline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Links without `/dev/`; written for devices with a node only.
    pub links: Vec<Vec<u8>>,
    /// `OPTIONS+="link_priority="`.
    pub link_priority: i32,
    /// When the device was first handled, in microseconds of the monotonic clock.
    pub initialized_usec: Option<u64>,
    /// Properties that rules set; not the kernel's.
    pub properties: Vec<(Vec<u8>, Vec<u8>)>,
    /// Every tag that the device ever had.
    pub sticky_tags: Vec<Vec<u8>>,
    /// The tags of its last event.
    pub current_tags: Vec<Vec<u8>>,
}

impl Record {
    /// Whether the file would say nothing; it is then empty, or absent for devices without number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.link_priority == 0
            && self.properties.is_empty()
            && self.sticky_tags.is_empty()
            && self.current_tags.is_empty()
    }

    /// The file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.is_empty() {
            return text;
        }
        let mut line = |letter: u8, parts: &[&[u8]]| {
            text.extend_from_slice(&[letter, b':']);
            parts.iter().for_each(|part| text.extend_from_slice(part));
            text.push(b'\n');
        };
        self.links.iter().for_each(|link| line(b'S', &[link]));
        if self.link_priority != 0 {
            line(b'L', &[self.link_priority.to_string().as_bytes()]);
        }
        if let Some(usec) = self.initialized_usec {
            line(b'I', &[usec.to_string().as_bytes()]);
        }
        self.properties.iter().for_each(|(key, value)| line(b'E', &[key, b"=", value]));
        self.sticky_tags.iter().for_each(|tag| line(b'G', &[tag]));
        self.current_tags.iter().for_each(|tag| line(b'Q', &[tag]));
        line(b'V', &[b"1"]);
        text
    }

    /// Reads a file's content; what is unknown or damaged is passed over, as libudev does.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut record = Self::default();
        let mut versioned = false;
        for line in text.split(|byte| *byte == b'\n') {
            let [letter, b':', value @ ..] = line else { continue };
            let number = || std::str::from_utf8(value).ok();
            match letter {
                b'S' => record.links.push(value.to_vec()),
                b'L' => record.link_priority = number().and_then(|n| n.parse().ok()).unwrap_or(0),
                b'I' => record.initialized_usec = number().and_then(|n| n.parse().ok()),
                b'E' => record.take_property(value),
                b'G' => record.sticky_tags.push(value.to_vec()),
                b'Q' => record.current_tags.push(value.to_vec()),
                b'V' => versioned = true,
                _ => {}
            }
        }
        if !versioned {
            record.current_tags = record.sticky_tags.clone();
        }
        record
    }

    /// `KEY=VALUE` sets, `KEY=` removes.
    fn take_property(&mut self, pair: &[u8]) {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { return };
        let (key, value) = (&pair[..at], &pair[at + 1..]);
        self.properties.retain(|(known, _)| known != key);
        if !value.is_empty() {
            self.properties.push((key.to_vec(), value.to_vec()));
        }
    }
}

/// Begins the name of a record that is being written.
const HALF: &[u8] = b".#";

/// The folder of records, `/run/udev/data`.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Makes the folder if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder as it is, to look things up in: it need not be there.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
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
        fs::read(self.path(id)).ok().map(|text| Record::parse(&text))
    }

    /// Replaces a device's record, atomically. `old` is what is there: equal content is not
    /// written again.
    ///
    /// # Errors
    /// When the new file cannot be written or moved into place; the old one is then untouched.
    pub fn write(&self, id: &DeviceId, record: &Record, old: Option<&Record>) -> io::Result<()> {
        let numbered = id.as_bytes().first() != Some(&b'+');
        if !numbered && record.is_empty() {
            return self.remove(id);
        }
        let text = record.to_bytes();
        if old.is_some_and(|old| old.to_bytes() == text) {
            return Ok(());
        }
        let path = self.path(id);
        // one temporary name per device: its events are handled one after the other
        let mut name = HALF.to_vec();
        name.extend_from_slice(id.as_bytes());
        let temporary = self.folder.join(OsStr::from_bytes(&name));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        let written = options.open(&temporary).and_then(|mut file| file.write_all(&text));
        let moved = written.and_then(|()| fs::rename(&temporary, &path));
        if moved.is_err() {
            drop(fs::remove_file(&temporary));
        }
        moved
    }

    /// Forgets a device; no record is no error.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn remove(&self, id: &DeviceId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
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
        }
    }

    #[test]
    fn a_record_is_written_in_udevs_order_and_read_back() {
        let text = disk().to_bytes();
        let expected = b"S:disk/by-id/x\nL:-100\nI:1234567\nE:ID_MODEL=a\xffb\n\
            G:systemd\nG:seat\nQ:systemd\nV:1\n";
        assert_eq!(text.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(Record::parse(&text), disk());
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let record = Record::parse(b"W:3\nE:novalue\nE:K=v\nE:K=\nX\nG:t\n\n");
        assert!(record.properties.is_empty(), "an empty value removes the key");
        assert_eq!(record.current_tags, [b"t"], "without V line the sticky tags are current");
    }

    #[test]
    fn half_a_record_does_not_outlive_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.write(&DeviceId::from_bytes(b"b8:1").unwrap(), &disk(), None).unwrap();
        fs::write(dir.path().join(".#b8:2"), b"S:disk/by").unwrap();
        records.tidy();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].file_name(), "b8:1");
    }

    #[test]
    fn a_node_with_nothing_to_say_has_an_empty_file_and_others_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let record = Record { initialized_usec: Some(5), ..Record::default() };
        let node = DeviceId::from_bytes(b"c1:3").unwrap();
        let named = DeviceId::from_bytes(b"+usb:1-1").unwrap();
        records.write(&node, &record, None).unwrap();
        records.write(&named, &disk(), None).unwrap();
        assert_eq!(fs::read(dir.path().join("c1:3")).unwrap(), b"");
        assert!(records.read(&named).is_some());
        records.write(&named, &record, None).unwrap();
        assert!(records.read(&named).is_none());
        assert_eq!(records.ids(), [node]);
    }
}

//! What is remembered of a device between events, in udev's own format.

mod folder;

use std::borrow::Cow;

pub use folder::Records;
pub(crate) use folder::absent_is_fine;

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
    /// `OPTIONS+="db_persist"`: `udevadm info --cleanup-db` leaves it alone. The file's sticky bit.
    pub persist: bool,
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

    /// The file's content, for a device with a node.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.written(true)
    }

    /// Without a node, a priority is nothing to remember; it still counts as something to say, as in udev.
    fn written(&self, has_node: bool) -> Vec<u8> {
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
        if self.link_priority != 0 && has_node {
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

    /// What a reader of the file finds: a property without value is none.
    #[must_use]
    pub fn as_read(&self) -> Cow<'_, Self> {
        if self.properties.iter().all(|(_, value)| !value.is_empty()) {
            return Cow::Borrowed(self);
        }
        let mut read = self.clone();
        read.properties.retain(|(_, value)| !value.is_empty());
        Cow::Owned(read)
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
}

//! Stage 3d: what daemon and helper say to each other: packets in, a [`Question`] or a [`Reply`] out.
//!
//! A helper has read a disk that may be hostile: of what it says, nothing is believed beyond its form.
#![forbid(unsafe_code)]

/// A packet, and with it a question or a reply, is no longer.
pub const PACKET_MAX: usize = 64 * 1024;

/// Facts of a question; a partition of a device-mapper disk has some fifteen.
const FACTS_MAX: usize = 32;

/// Descriptors of a question: the device, its whole disk, a folder of sysfs.
pub const DESCRIPTORS_MAX: usize = 3;

/// Hints of a question; rules give one.
const HINTS_MAX: usize = 8;

/// Values of a reply; libblkid finds some twenty.
const VALUES_MAX: usize = 64;

/// Bytes of a value's name.
const KEY_MAX: usize = 64;

/// Bytes of a value; the longest label is one of 255 characters.
const VALUE_MAX: usize = 1024;

/// Partitions that are looked at for a root file system; a usual table has room for 128.
pub const PARTITIONS_MAX: usize = 256;

/// What is behind a path that libblkid looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Folder,
    Link(Vec<u8>),
    File(Vec<u8>),
    /// One of the question's descriptors, by its place among them.
    Descriptor(u8),
}

/// What is to be looked for; the first of its descriptors is the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Where to begin on the device, in bytes.
    pub offset: i64,
    pub noraid: bool,
    /// Whether the partitions of a table are wanted, too.
    pub partitions: bool,
    pub hints: Vec<Vec<u8>>,
    /// By absolute path; all else does not exist.
    pub facts: Vec<(Vec<u8>, Fact)>,
}

/// An entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub uuid: Vec<u8>,
    pub kind: Vec<u8>,
    pub flags: u64,
}

/// What libblkid found; nothing at all is a finding as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By libblkid's names.
    pub values: Vec<(Vec<u8>, Vec<u8>)>,
    pub partitions: Vec<Partition>,
}

/// Why libblkid gave no finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Hint,
    Device,
    /// The device cannot be read, or there is more than one thing on it.
    Contents,
}

/// A helper's packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is in its sandbox, and can be asked.
    Ready,
    Found(Found),
    Refused(Refusal),
}

/// A packet that has not the form that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Question {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = self.offset.to_le_bytes().to_vec();
        packet.extend([u8::from(self.noraid), u8::from(self.partitions)]);
        packet.push(u8::try_from(self.hints.len()).unwrap_or(u8::MAX));
        for hint in &self.hints {
            put(&mut packet, hint);
        }
        for (path, fact) in &self.facts {
            put(&mut packet, path);
            match fact {
                Fact::Folder => packet.push(0),
                Fact::Link(target) => {
                    packet.push(1);
                    put(&mut packet, target);
                }
                Fact::File(content) => {
                    packet.push(2);
                    put(&mut packet, content);
                }
                Fact::Descriptor(place) => packet.extend([3, *place]),
            }
        }
        packet
    }

    /// # Errors
    /// When the packet is not a question, or has more of something than a question may have.
    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest(packet);
        let offset = i64::from_le_bytes(rest.array()?);
        let [noraid, partitions, hints] = rest.array()?;
        if usize::from(hints) > HINTS_MAX {
            return Err(Malformed);
        }
        let hints = (0..hints).map(|_| rest.bytes(VALUE_MAX)).collect::<Result<_, _>>()?;
        let mut facts = Vec::new();
        while !rest.0.is_empty() {
            let path = rest.bytes(VALUE_MAX)?;
            let fact = match rest.byte()? {
                0 => Fact::Folder,
                1 => Fact::Link(rest.bytes(VALUE_MAX)?),
                2 => Fact::File(rest.bytes(VALUE_MAX)?),
                3 => Fact::Descriptor(rest.byte()?),
                _ => return Err(Malformed),
            };
            facts.push((path, fact));
            if facts.len() > FACTS_MAX {
                return Err(Malformed);
            }
        }
        Ok(Self { offset, noraid: noraid != 0, partitions: partitions != 0, hints, facts })
    }

    /// Whether its packet can be decoded.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let texts = self.facts.iter().map(|(path, fact)| match fact {
            Fact::Folder | Fact::Descriptor(_) => path.len(),
            Fact::Link(text) | Fact::File(text) => path.len().max(text.len()),
        });
        let longest = texts.chain(self.hints.iter().map(Vec::len)).max().unwrap_or(0);
        self.hints.len() <= HINTS_MAX && self.facts.len() <= FACTS_MAX && longest <= VALUE_MAX
    }
}

impl Reply {
    /// What is beyond the limits is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let found = match self {
            Self::Ready => return vec![0],
            Self::Refused(Refusal::Hint) => return vec![2],
            Self::Refused(Refusal::Device) => return vec![3],
            Self::Refused(Refusal::Contents) => return vec![4],
            Self::Found(found) => found,
        };
        let fits = |(key, value): &&(Vec<u8>, Vec<u8>)| is_key(key) && value.len() <= VALUE_MAX;
        let values: Vec<_> = found.values.iter().filter(fits).take(VALUES_MAX).collect();
        let mut packet = vec![1, u8::try_from(values.len()).unwrap_or(u8::MAX)];
        for (key, value) in values {
            put(&mut packet, key);
            put(&mut packet, value);
        }
        let fits = |p: &&Partition| p.uuid.len().max(p.kind.len()) <= KEY_MAX;
        for partition in found.partitions.iter().filter(fits).take(PARTITIONS_MAX) {
            put(&mut packet, &partition.uuid);
            put(&mut packet, &partition.kind);
            packet.extend(partition.flags.to_le_bytes());
        }
        packet
    }

    /// # Errors
    /// When the packet is not a reply, or has more of something than a reply may have.
    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest(packet);
        let reply = match rest.byte()? {
            0 => Self::Ready,
            1 => Self::Found(rest.found()?),
            2 => Self::Refused(Refusal::Hint),
            3 => Self::Refused(Refusal::Device),
            4 => Self::Refused(Refusal::Contents),
            _ => return Err(Malformed),
        };
        if rest.0.is_empty() { Ok(reply) } else { Err(Malformed) }
    }
}

fn put(packet: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    packet.extend(length.to_le_bytes());
    packet.extend(&bytes[..usize::from(length)]);
}

/// As libblkid names its values.
fn is_key(key: &[u8]) -> bool {
    let known = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    !key.is_empty() && key.len() <= KEY_MAX && key.iter().all(known)
}

/// What of a packet was not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// Bytes behind their length; they are C's strings on one side, and so hold no NUL.
    fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, Malformed> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        if length > limit || bytes.contains(&0) { Err(Malformed) } else { Ok(bytes.to_vec()) }
    }

    fn found(&mut self) -> Result<Found, Malformed> {
        let mut found = Found::default();
        let count = usize::from(self.byte()?);
        if count > VALUES_MAX {
            return Err(Malformed);
        }
        for _ in 0..count {
            let key = self.bytes(KEY_MAX)?;
            let value = self.bytes(VALUE_MAX)?;
            if !is_key(&key) {
                return Err(Malformed);
            }
            found.values.push((key, value));
        }
        while !self.0.is_empty() && found.partitions.len() < PARTITIONS_MAX {
            let (uuid, kind) = (self.bytes(KEY_MAX)?, self.bytes(KEY_MAX)?);
            let flags = u64::from_le_bytes(self.array()?);
            found.partitions.push(Partition { uuid, kind, flags });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Vec<u8>> {
        vec(1_u8.., 0..80)
    }

    fn fact() -> impl Strategy<Value = Fact> {
        prop_oneof![
            Just(Fact::Folder),
            text().prop_map(Fact::Link),
            text().prop_map(Fact::File),
            any::<u8>().prop_map(Fact::Descriptor),
        ]
    }

    fn questions() -> impl Strategy<Value = Question> {
        let rest = (vec(text(), 0..HINTS_MAX), vec((text(), fact()), 0..FACTS_MAX));
        (any::<i64>(), any::<bool>(), any::<bool>(), rest).prop_map(
            |(offset, noraid, partitions, (hints, facts))| Question {
                offset,
                noraid,
                partitions,
                hints,
                facts,
            },
        )
    }

    fn found() -> impl Strategy<Value = Reply> {
        let partition = (vec(1_u8.., 0..=KEY_MAX), vec(1_u8.., 0..=KEY_MAX), any::<u64>());
        let partition = partition.prop_map(|(uuid, kind, flags)| Partition { uuid, kind, flags });
        let key = proptest::string::bytes_regex("[A-Z0-9_]{1,64}").unwrap();
        let values = vec((key, vec(1_u8.., 0..=VALUE_MAX)), 0..20);
        (values, vec(partition, 0..20))
            .prop_map(|(values, partitions)| Reply::Found(Found { values, partitions }))
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(question in questions(), reply in found()) {
            prop_assert!(question.is_within_limits());
            prop_assert_eq!(Question::decode(&question.encode()), Ok(question));
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }

        /// Bytes that a helper might say: a reply with some changed, or none of one.
        #[test]
        fn a_reply_is_heard_as_it_was_said_or_not_at_all(
            reply in found(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            noise in vec(any::<u8>(), 0..200),
        ) {
            let mut packet = reply.encode();
            for (at, byte) in changes {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            let part = packet[..cut.index(packet.len())].to_vec();
            for said in [packet, part, noise] {
                if let Ok(reply) = Reply::decode(&said) {
                    prop_assert_eq!(reply.encode(), said);
                }
            }
        }
    }

    #[test]
    fn more_than_is_agreed_on_is_refused() {
        let value = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        let reply = |values| Reply::Found(Found { values, partitions: Vec::new() }).encode();
        let said = |packet: &[u8]| Reply::decode(packet).map(drop);
        assert_eq!(said(&reply(vec![value(b"TYPE", b"ext4")])), Ok(()));
        // written by hand: the encoder leaves these out
        let raw = |key: &[u8], value: &[u8]| {
            let mut packet = vec![1, 1];
            put(&mut packet, key);
            put(&mut packet, value);
            packet
        };
        assert_eq!(said(&raw(b"TYPE", b"ext4")), Ok(()));
        for key in [b"type".as_slice(), b"", b"A=B", &[b'A'; KEY_MAX + 1]] {
            assert_eq!(said(&raw(key, b"x")), Err(Malformed));
        }
        assert_eq!(said(&raw(b"TYPE", &[b'x'; VALUE_MAX + 1])), Err(Malformed));
        assert_eq!(said(&raw(b"TYPE", b"a\0b")), Err(Malformed));
        assert_eq!(said(&[1, 65]), Err(Malformed));
        assert_eq!(said(&[0, 0]), Err(Malformed));
        assert_eq!(said(&[]), Err(Malformed));
        let many = vec![value(b"A", b""); VALUES_MAX + 1];
        let Ok(Reply::Found(found)) = Reply::decode(&reply(many)) else { panic!("refused") };
        assert_eq!(found.values.len(), VALUES_MAX);
    }
}

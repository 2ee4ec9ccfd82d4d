//! Stage 5b: requests to rtnetlink and its answers: attributes in and out, one request at a time.

use std::io::{self, ErrorKind};

use netlink_sys::{Socket, SocketAddr};

/// `NETLINK_ROUTE`.
const ROUTE: isize = 0;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const ERROR: u16 = 2;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that say something else.
const TYPE_MASK: u16 = 0x3fff;
/// What the kernel says of one link at once; without virtual functions that is some 2 KiB.
const ANSWER_MAX: usize = 32 * 1024;
/// Answers that are not to our request and are thrown away before we give up.
const STRAY_LIMIT: usize = 16;

/// What is asked of a link: `RTM_…` of `linux/rtnetlink.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Set,
    AddNames,
    RemoveNames,
}

impl Verb {
    /// The message's type and its further flags.
    fn numbers(self) -> (u16, u16) {
        const EXCLUSIVE: u16 = 0x200;
        const CREATE: u16 = 0x400;
        const APPEND: u16 = 0x800;
        match self {
            Self::Get => (18, 0),
            Self::Set => (19, 0),
            Self::AddNames => (108, EXCLUSIVE | CREATE | APPEND),
            Self::RemoveNames => (109, 0),
        }
    }
}

/// A message about a link, on its way to the kernel.
#[derive(Clone, Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(verb: Verb, index: u32) -> Self {
        let (kind, flags) = verb.numbers();
        let mut bytes = vec![0; HEADER + LINK_HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        // what is asked for is answer enough
        let ack = if verb == Verb::Get { 0 } else { ACK };
        bytes[6..8].copy_from_slice(&(flags | REQUEST | ack).to_ne_bytes());
        bytes[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
        Self(bytes)
    }

    fn is_acknowledged(&self) -> bool {
        u16::from_ne_bytes([self.0[6], self.0[7]]) & ACK != 0
    }

    /// Adds an attribute; one that is too long for its length field is left out.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len() + 4) else { return };
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A text with its NUL.
    pub(super) fn text(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, &[value, b"\0"].concat());
    }

    /// Adds an attribute that holds those that `fill` adds.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        match u16::try_from(self.0.len() - start) {
            Ok(length) => self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.0.truncate(start),
        }
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == HEADER + LINK_HEADER
    }
}

/// A link as the kernel tells of it: `struct ifinfomsg` and attributes.
#[derive(Clone, Debug)]
pub(super) struct Reply(Vec<u8>);

impl Reply {
    /// `ARPHRD_…`.
    pub(super) fn hardware(&self) -> u16 {
        u16::from_ne_bytes([self.0[2], self.0[3]])
    }

    /// `IFF_…`.
    pub(super) fn flags(&self) -> u32 {
        u32::from_ne_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(&self.0[LINK_HEADER..])
    }

    pub(super) fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        self.attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }
}

/// The attributes that lie one behind the other; ends at one that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    })
}

/// A text up to its NUL.
pub(super) fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A socket that one after the other is asked on.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    sequence: u32,
    /// Where answers are received.
    answer: Vec<u8>,
}

impl Link {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // the kernel has answered by the time a request is sent
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0, answer: Vec::with_capacity(ANSWER_MAX) })
    }

    /// Sends a request; gives the link that comes back, if one does before it is acknowledged. An answer that
    /// there is no room for is `InvalidData`, and there is room for it the next time.
    pub(super) fn ask(&mut self, message: Message) -> io::Result<Option<Reply>> {
        self.sequence = self.sequence.wrapping_add(1);
        let acknowledged = message.is_acknowledged();
        let Message(mut bytes) = message;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        self.socket.send(&bytes, 0)?;
        let mut reply = None;
        for _ in 0..STRAY_LIMIT {
            self.answer.clear();
            let length = self.socket.recv(&mut self.answer, libc::MSG_TRUNC)?;
            if length > self.answer.len() {
                self.answer.reserve(length);
                return Err(ErrorKind::InvalidData.into());
            }
            let mut rest = self.answer.as_slice();
            while let Some((kind, sequence, body)) = split(&mut rest) {
                if sequence != self.sequence {
                    continue;
                }
                if kind != ERROR {
                    reply = Some(body.to_vec()).filter(|body| body.len() >= LINK_HEADER).map(Reply);
                    if !acknowledged {
                        return Ok(reply);
                    }
                    continue;
                }
                let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                return match code {
                    0 => Ok(reply),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// Takes a message off the front: its type, its sequence number, what is in it.
fn split<'a>(bytes: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = bytes.get(HEADER..length)?;
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([k0, k1]), u32::from_ne_bytes([s0, s1, s2, s3]), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut message = Message::new(Verb::Set, 7);
        assert!(message.is_empty());
        message.text(3, b"eth0");
        message.nested(52, |names| names.text(53, b"a"));
        let found: Vec<_> = attributes(&message.0[HEADER + LINK_HEADER..]).collect();
        assert_eq!(found[0], (3, b"eth0\0".as_slice()));
        assert_eq!(found[1].0, 52);
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), [(53, b"a\0".as_slice())]);
    }

    #[test]
    fn a_length_that_leads_out_ends_the_list() {
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0, "shorter than its own header");
        assert_eq!(split(&mut [255_u8; 20].as_slice()), None);
    }
}

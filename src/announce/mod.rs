//! Stage 8: tells libudev's clients, on the netlink group that they listen to.
//!
//! One datagram: a header of 40 bytes by which clients filter in the kernel, then the properties.

pub mod overhear;

use std::borrow::Cow;
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};

/// The multicast group of processed events.
pub const GROUP: u32 = 2;

/// Of the header; the offset of the properties.
const HEADER_LEN: usize = 40;
const MAGIC: u32 = 0xfeed_cafe;

/// What stands before the properties.
const INTRODUCTION: &[u8] = b"UDEV_DATABASE_VERSION=1\0";

/// What a message is made of.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub subsystem: &'a [u8],
    /// Empty if there is none.
    pub devtype: &'a [u8],
    pub sticky_tags: &'a [Vec<u8>],
    /// In order; ACTION, DEVPATH, SUBSYSTEM and SEQNUM must be among them.
    pub properties: &'a [Property<'a>],
}

/// Key and value.
pub type Property<'a> = (&'a [u8], Cow<'a, [u8]>);

impl Message<'_> {
    /// The datagram.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let lengths = self.properties.iter().map(|(key, value)| key.len() + value.len() + 2);
        let length = INTRODUCTION.len() + lengths.sum::<usize>();
        let hash = |text: &[u8]| if text.is_empty() { 0 } else { murmur2(text) };
        let bloom = bloom(self.sticky_tags);
        let words = [
            MAGIC.to_be_bytes(),
            40_u32.to_ne_bytes(),
            40_u32.to_ne_bytes(),
            u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes(),
            hash(self.subsystem).to_be_bytes(),
            hash(self.devtype).to_be_bytes(),
        ];
        let mut message = Vec::with_capacity(HEADER_LEN + length);
        message.extend_from_slice(b"libudev\0");
        words.iter().for_each(|word| message.extend_from_slice(word));
        message.extend_from_slice(&bloom.to_be_bytes());
        message.extend_from_slice(INTRODUCTION);
        for (key, value) in self.properties {
            message.extend_from_slice(key);
            message.push(b'=');
            message.extend_from_slice(value);
            message.push(0);
        }
        message
    }
}

/// MurmurHash2 of 32 bits with seed 0, by which libudev's socket filters compare.
fn murmur2(text: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let mut hash = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let (blocks, rest) = text.as_chunks::<4>();
    for block in blocks {
        let mut word = u32::from_ne_bytes(*block).wrapping_mul(FACTOR);
        word ^= word >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
    }
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

/// Four bits for each tag.
fn bloom(tags: &[Vec<u8>]) -> u64 {
    tags.iter().fold(0, |bits, tag| {
        let hash = murmur2(tag);
        [0, 6, 12, 18].iter().fold(bits, |bits, shift| bits | 1 << ((hash >> shift) & 63))
    })
}

/// The socket that speaks to group 2.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
}

impl Announcer {
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind_auto()?;
        Ok(Self { socket })
    }

    /// Sends one message to all who listen; that nobody does is no error.
    ///
    /// # Errors
    /// When the kernel refuses, say for want of CAP_NET_ADMIN.
    pub fn send(&self, message: &Message<'_>) -> io::Result<()> {
        match self.socket.send_to(&message.to_bytes(), &SocketAddr::new(0, GROUP), 0) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_libudevs() {
        assert_eq!(murmur2(b"block"), 0xf003_1db7);
        assert_eq!(murmur2(b"net"), 0xa74d_3cc8);
        assert_eq!(murmur2(b"input"), 0xc1a2_8470);
        assert_eq!(murmur2(b"disk"), 0x7bcb_c5ee);
        assert_eq!(murmur2(b"seat"), 0x435b_3e40);
        assert_eq!(bloom(&[b"systemd".to_vec()]), 0x0200_0400_1080_0000);
        assert_eq!(bloom(&[b"seat".to_vec()]), 0x0208_0000_0040_0001);
        let both = bloom(&[b"systemd".to_vec(), b"seat".to_vec()]);
        assert_eq!(both, 0x0208_0400_10c0_0001);
    }

    #[test]
    fn the_header_has_libudevs_layout() {
        let properties = [(b"ACTION".as_slice(), Cow::Borrowed(b"add".as_slice()))];
        let message = Message {
            subsystem: b"block",
            devtype: b"disk",
            sticky_tags: &[],
            properties: &properties,
        };
        let bytes = message.to_bytes();
        let body = b"UDEV_DATABASE_VERSION=1\0ACTION=add\0";
        assert_eq!(&bytes[..8], b"libudev\0");
        assert_eq!(bytes[8..12], [0xfe, 0xed, 0xca, 0xfe]);
        assert_eq!(bytes[20..24], u32::try_from(body.len()).unwrap().to_ne_bytes());
        assert_eq!(bytes[24..32], [0xf0, 0x03, 0x1d, 0xb7, 0x7b, 0xcb, 0xc5, 0xee]);
        assert_eq!(&bytes[40..], body);
    }
}

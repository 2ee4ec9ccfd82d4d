//! Stage 5b: ethtool's calls: words in, words out, as `linux/ethtool.h` lays them out.
#![expect(unsafe_code, reason = "ethtool is an ioctl on a socket")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCETHTOOL`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETH_SS_FEATURES`.
const FEATURE_STRINGS: u32 = 4;
/// `ETH_GSTRING_LEN`.
const STRING: usize = 32;
/// There are some 64 features, and some 4 words of link modes; more is not believed.
const COUNT_LIMIT: u32 = 1024;

/// Commands and the words of their structs, the command among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) get: u32,
    pub(super) set: u32,
    words: usize,
}

/// `struct ethtool_wolinfo`: supported, options, six bytes of a password.
pub(super) const WAKE: Layout = Layout { get: 0x5, set: 0x6, words: 5 };
/// `struct ethtool_coalesce`.
pub(super) const COALESCE: Layout = Layout { get: 0xe, set: 0xf, words: 23 };
/// `struct ethtool_ringparam`: four limits, four numbers.
pub(super) const RINGS: Layout = Layout { get: 0x10, set: 0x11, words: 9 };
/// `struct ethtool_pauseparam`.
pub(super) const PAUSE: Layout = Layout { get: 0x12, set: 0x13, words: 4 };
/// `struct ethtool_channels`: four limits, four numbers.
pub(super) const CHANNELS: Layout = Layout { get: 0x3c, set: 0x3d, words: 9 };

const GET_DRIVER: u32 = 0x3;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const GET_LINK: u32 = 0x4c;
const SET_LINK: u32 = 0x4d;
/// `struct ethtool_drvinfo`.
const DRIVER_WORDS: usize = 49;
/// `struct ethtool_link_settings` without its masks.
pub(super) const LINK_WORDS: usize = 12;

/// A feature of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: Vec<u8>,
    /// Whether it can be switched.
    pub(super) available: bool,
}

/// The socket on which ethtool's calls are made.
#[derive(Debug)]
pub(super) struct Ethtool(OwnedFd);

impl Ethtool {
    /// # Errors
    /// When there is no socket to be had.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?))
    }

    /// Makes a call; `words` begin with the command and are as long as its struct.
    fn call(&self, name: &[u8], words: &mut [u32]) -> io::Result<()> {
        // SAFETY: all zeros are a valid ifreq: it holds bytes, numbers and a pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the kernel reads and writes the struct of the command, which our callers make at
        // least that long; where the struct says how many items follow, it says how many there is room
        // for. `request` and `words` outlive the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The driver of an interface.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for one that has none, or what the kernel says.
    pub(super) fn driver(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let mut words = [0; DRIVER_WORDS];
        words[0] = GET_DRIVER;
        self.call(name, &mut words)?;
        let bytes: Vec<u8> = words[1..9].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(bytes.into_iter().take_while(|byte| *byte != 0).collect())
    }

    /// What stands in the struct that `layout` gets.
    pub(super) fn get(&self, name: &[u8], layout: Layout) -> io::Result<Vec<u32>> {
        let mut words = vec![0; layout.words];
        words[0] = layout.get;
        self.call(name, &mut words)?;
        Ok(words)
    }

    pub(super) fn set(&self, name: &[u8], layout: Layout, mut words: Vec<u32>) -> io::Result<()> {
        words.resize(layout.words, 0);
        words[0] = layout.set;
        self.call(name, &mut words)
    }

    /// `struct ethtool_link_settings` with its three masks of link modes.
    pub(super) fn link(&self, name: &[u8]) -> io::Result<Vec<u32>> {
        let mut words = vec![0; LINK_WORDS];
        words[0] = GET_LINK;
        self.call(name, &mut words)?;
        // asked with masks of no words, the kernel says how many it has, below zero
        let count = mask_words(&words).unsigned_abs();
        let mut words = vec![0; LINK_WORDS + 3 * usize::from(count)];
        words[0] = GET_LINK;
        set_mask_words(&mut words, count);
        self.call(name, &mut words)?;
        if mask_words(&words).unsigned_abs() != count || mask_words(&words) <= 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(words)
    }

    /// `words` as [`Ethtool::link`] gave them.
    pub(super) fn set_link(&self, name: &[u8], mut words: Vec<u32>) -> io::Result<()> {
        words[0] = SET_LINK;
        self.call(name, &mut words)
    }

    /// The features of an interface, in the order of their bits.
    pub(super) fn features(&self, name: &[u8]) -> io::Result<Vec<Feature>> {
        let mask = (1_u64 << FEATURE_STRINGS).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = mask;
        let halves = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
        let mut words = [GET_STRING_COUNT, 0, halves[0], halves[1], 0];
        self.call(name, &mut words)?;
        let count = words[4];
        if count == 0 || count > COUNT_LIMIT {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let entries = usize::try_from(count).map_err(io::Error::other)?;
        let mut strings = vec![0; 3 + entries * STRING / 4];
        strings[..3].copy_from_slice(&[GET_STRINGS, FEATURE_STRINGS, count]);
        self.call(name, &mut strings)?;
        let blocks = count.div_ceil(32);
        let mut states = vec![0; 2 + entries.div_ceil(32) * 4];
        states[..2].copy_from_slice(&[GET_FEATURES, blocks]);
        self.call(name, &mut states)?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let feature = |(at, name): (usize, &[u8])| {
            // available, requested, active, never changed
            let block = &states[2 + at / 32 * 4..];
            let bit = |word: u32| word & 1 << (at % 32) != 0;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            Feature { name, available: bit(block[0]) && !bit(block[3]) }
        };
        Ok(bytes.chunks_exact(STRING).enumerate().map(feature).collect())
    }

    /// Switches features: a bit that says so and its state, for each by position.
    pub(super) fn set_features(&self, name: &[u8], wanted: &[Option<bool>]) -> io::Result<()> {
        let blocks = wanted.len().div_ceil(32);
        let mut words = vec![SET_FEATURES, u32::try_from(blocks).map_err(io::Error::other)?];
        for block in wanted.chunks(32) {
            let bits = |is: fn(&Option<bool>) -> bool| {
                let set = block.iter().enumerate().filter(|(_, wanted)| is(wanted));
                set.fold(0_u32, |bits, (at, _)| bits | 1 << at)
            };
            words.extend([bits(Option::is_some), bits(|wanted| *wanted == Some(true))]);
        }
        self.call(name, &mut words)
    }
}

/// `link_mode_masks_nwords`, the 16th byte.
fn mask_words(words: &[u32]) -> i8 {
    i8::from_ne_bytes([words[3].to_ne_bytes()[3]])
}

fn set_mask_words(words: &mut [u32], count: u8) {
    let [a, b, c, _] = words[3].to_ne_bytes();
    words[3] = u32::from_ne_bytes([a, b, c, count]);
}

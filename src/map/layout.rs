//! Stage 6: the bytes of the map, as `kmod-shim/mapdev_abi.h` defines them.
//!
//! That header also says why the bytes lie as they do; `tests/map_abi.rs` compares the two.
#![forbid(unsafe_code)]

use std::fmt;

use crate::siphash::hash_name;

/// Tells the map from other files, and a foreign byte order.
pub const MAGIC: u64 = 0x6d61_7064_6576_0a01;
pub const VERSION: u32 = 1;
pub const HDR_LEN: u32 = 256;
pub const ENTRY_SIZE: u32 = 64;
pub const ATTR_SIZE: u32 = 32;
pub const CHAIN_SIZE: u32 = 32;
pub const ALIGN: u32 = 64;
/// How far from home a name may lie in the index.
pub const MAX_PROBE: u32 = 128;
/// The most that a reader goes along with.
pub const PROBE_CAP: u32 = 256;
pub const MAX_ENTRIES: u32 = 1 << 20;
pub const NAME_MAX: u32 = 255;
pub const AUX_MAX: u32 = 4095;
/// How often a reader looks again at what changed under it.
pub const RETRIES: u32 = 8;
pub const SLOT_EMPTY: u32 = 0;
pub const SLOT_TOMBSTONE: u32 = u32::MAX;
pub const ID_FREE: u64 = 0;
pub const ID_ROOT: u64 = 1;
pub const ROOT_ENTRY: u32 = 0;
pub const ROOT_CELL: u32 = 0;
/// The generation of a map that was replaced by another.
pub const GEN_REPLACED: u64 = u64::MAX;
/// The name of a driver in the kernel image.
pub const E_BUILTIN: u32 = 1;
/// The name of a module that is not loaded.
pub const E_MODULE: u32 = 2;
/// A device exists.
pub const E_LIVE: u32 = 4;
/// No number yet; aux is the alias to load.
pub const E_PENDING: u32 = 8;
pub const MINOR_BITS: u32 = 20;

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFBLK: u32 = 0o060_000;
pub const S_IFLNK: u32 = 0o120_000;
pub const PERMISSIONS: u32 = 0o7777;

/// Offsets in the header; what lies before [`header::GEN`] never changes.
pub mod header {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const HDR_LEN: usize = 12;
    pub const TOTAL_LEN: usize = 16;
    pub const N_ENTRIES: usize = 24;
    pub const ENTRY_SIZE: usize = 28;
    pub const ENTRIES_OFF: usize = 32;
    pub const N_BUCKETS: usize = 40;
    pub const MAX_PROBE: usize = 44;
    pub const INDEX_OFF: usize = 48;
    pub const ATTRS_OFF: usize = 56;
    pub const STRINGS_OFF: usize = 64;
    pub const STRINGS_LEN: usize = 72;
    pub const SEED: usize = 80;
    pub const CHAINS_OFF: usize = 88;
    pub const SEED2: usize = 96;
    pub const ATTR_SIZE: usize = 104;
    pub const CHAIN_SIZE: usize = 108;
    pub const ID_SPACE: usize = 112;
    pub const GEN: usize = 128;
    pub const LAST_ID: usize = 136;
    pub const CHG: usize = 192;
}

/// Offsets in an entry; `name_len` and `aux_len` are read and written as one word, `LENS`.
pub mod entry {
    pub const SEQ: usize = 0;
    pub const FLAGS: usize = 4;
    pub const ID: usize = 8;
    pub const PARENT: usize = 16;
    pub const NAME_OFF: usize = 24;
    pub const LENS: usize = 28;
    pub const NAME_LEN: usize = 28;
    pub const AUX_LEN: usize = 30;
    pub const AUX_OFF: usize = 32;
    pub const MODE: usize = 36;
    pub const UID: usize = 40;
    pub const GID: usize = 44;
    pub const RDEV: usize = 48;
    pub const CELL: usize = 52;
    pub const STAMP: usize = 56;
}

/// Offsets in an attribute cell.
pub mod attr {
    pub const SEQ: usize = 0;
    pub const MODE: usize = 4;
    pub const ID: usize = 8;
    pub const UID: usize = 16;
    pub const GID: usize = 20;
    pub const STAMP: usize = 24;
}

/// Offsets in a chain cell.
pub mod chain {
    pub const ID: usize = 0;
    pub const ENTRY: usize = 8;
    pub const NEXT: usize = 12;
    pub const HEAD: usize = 16;
}

/// Words of the header that never change.
pub const FIXED_WORDS: usize = header::GEN / 8;

/// Where the areas of one map lie: bytes 0-127 of its header, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub total_len: u64,
    pub n_entries: u32,
    pub n_buckets: u32,
    pub max_probe: u32,
    pub strings_len: u64,
    pub seed: [u64; 2],
    /// Not 0; an id means the same object in all maps of one space.
    pub id_space: u64,
    entries_off: u64,
    index_off: u64,
    attrs_off: u64,
    chains_off: u64,
    strings_off: u64,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFault(pub &'static str);

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a map of this version: {}", self.0)
    }
}

impl std::error::Error for HeaderFault {}

fn pair(low: u32, high: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn unpair(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

impl Geometry {
    /// Lays out a map; `None` when the limits do not allow it.
    #[must_use]
    pub fn plan(
        n_entries: u32,
        strings_len: u64,
        page: u64,
        seed: [u64; 2],
        id_space: u64,
    ) -> Option<Self> {
        let n_entries = n_entries.max(2);
        if n_entries > MAX_ENTRIES || !page.is_power_of_two() || id_space == 0 {
            return None;
        }
        let align = u64::from(ALIGN);
        let n_buckets = (n_entries * 2).next_power_of_two();
        let strings_len = strings_len.max(align).checked_next_multiple_of(align)?;
        let size = |each: u32| (u64::from(n_entries) * u64::from(each)).next_multiple_of(align);
        let entries_off = u64::from(HDR_LEN);
        let index_off = entries_off + size(ENTRY_SIZE);
        let attrs_off = index_off + (u64::from(n_buckets) * 4).next_multiple_of(align);
        let chains_off = attrs_off + size(ATTR_SIZE);
        let strings_off = chains_off + size(CHAIN_SIZE);
        let total_len = (strings_off + strings_len).checked_next_multiple_of(page)?;
        u32::try_from(strings_len).ok()?;
        let max_probe = MAX_PROBE.min(n_buckets);
        Some(Self {
            total_len,
            n_entries,
            n_buckets,
            max_probe,
            strings_len,
            seed,
            id_space,
            entries_off,
            index_off,
            attrs_off,
            chains_off,
            strings_off,
        })
    }

    #[must_use]
    pub fn encode(&self) -> [u64; FIXED_WORDS] {
        let mut words = [0; FIXED_WORDS];
        for (at, word) in [
            (header::MAGIC, MAGIC),
            (header::VERSION, pair(VERSION, HDR_LEN)),
            (header::TOTAL_LEN, self.total_len),
            (header::N_ENTRIES, pair(self.n_entries, ENTRY_SIZE)),
            (header::ENTRIES_OFF, self.entries_off),
            (header::N_BUCKETS, pair(self.n_buckets, self.max_probe)),
            (header::INDEX_OFF, self.index_off),
            (header::ATTRS_OFF, self.attrs_off),
            (header::STRINGS_OFF, self.strings_off),
            (header::STRINGS_LEN, self.strings_len),
            (header::SEED, self.seed[0]),
            (header::CHAINS_OFF, self.chains_off),
            (header::SEED2, self.seed[1]),
            (header::ATTR_SIZE, pair(ATTR_SIZE, CHAIN_SIZE)),
            (header::ID_SPACE, self.id_space),
        ] {
            words[at / 8] = word;
        }
        words
    }

    /// Reads a header that anybody may have written, for a file of `file_len` bytes.
    ///
    /// # Errors
    /// Says the first thing that is wrong.
    pub fn decode(words: &[u64; FIXED_WORDS], file_len: u64) -> Result<Self, HeaderFault> {
        let word = |at: usize| words[at / 8];
        let both = |at: usize| unpair(words[at / 8]);
        let check = |ok: bool, what| if ok { Ok(()) } else { Err(HeaderFault(what)) };
        check(word(header::MAGIC) == MAGIC, "magic")?;
        check(both(header::VERSION) == (VERSION, HDR_LEN), "version or header length")?;
        let (n_entries, entry_size) = both(header::N_ENTRIES);
        let (n_buckets, max_probe) = both(header::N_BUCKETS);
        check(entry_size == ENTRY_SIZE, "entry size")?;
        check(both(header::ATTR_SIZE) == (ATTR_SIZE, CHAIN_SIZE), "cell sizes")?;
        check((1..=MAX_ENTRIES).contains(&n_entries), "number of entries")?;
        check(
            n_buckets.is_power_of_two() && n_buckets / 2 >= n_entries && n_buckets <= 1 << 24,
            "number of buckets",
        )?;
        check(word(header::ID_SPACE) != 0, "id space")?;
        check((1..=PROBE_CAP).contains(&max_probe) && max_probe <= n_buckets, "probe limit")?;
        let geometry = Self {
            total_len: word(header::TOTAL_LEN),
            n_entries,
            n_buckets,
            max_probe,
            strings_len: word(header::STRINGS_LEN),
            seed: [word(header::SEED), word(header::SEED2)],
            id_space: word(header::ID_SPACE),
            entries_off: word(header::ENTRIES_OFF),
            index_off: word(header::INDEX_OFF),
            attrs_off: word(header::ATTRS_OFF),
            chains_off: word(header::CHAINS_OFF),
            strings_off: word(header::STRINGS_OFF),
        };
        check(geometry.total_len == file_len, "length")?;
        geometry.check_areas()?;
        Ok(geometry)
    }

    fn check_areas(&self) -> Result<(), HeaderFault> {
        let entries = u64::from(self.n_entries);
        let mut areas = [
            (0, u64::from(HDR_LEN)),
            (self.entries_off, entries * u64::from(ENTRY_SIZE)),
            (self.index_off, u64::from(self.n_buckets) * 4),
            (self.attrs_off, entries * u64::from(ATTR_SIZE)),
            (self.chains_off, entries * u64::from(CHAIN_SIZE)),
            (self.strings_off, self.strings_len),
        ];
        areas.sort_unstable();
        let mut end = 0;
        for (start, len) in areas {
            if start < end || start % u64::from(ALIGN) != 0 || len % 8 != 0 {
                return Err(HeaderFault("an area overlaps or is not aligned"));
            }
            let stop = start.checked_add(len).filter(|stop| *stop <= self.total_len);
            end = stop.ok_or(HeaderFault("an area is out of range"))?;
        }
        Ok(())
    }

    fn at(area: u64, number: u32, limit: u32, size: u32) -> Option<usize> {
        let within = number < limit;
        within.then(|| usize::try_from(area + u64::from(number) * u64::from(size)).ok()).flatten()
    }

    /// Byte offset of an entry; `None` when there is no such number.
    #[must_use]
    pub fn entry(&self, number: u32) -> Option<usize> {
        Self::at(self.entries_off, number, self.n_entries, ENTRY_SIZE)
    }

    /// Byte offset of an attribute cell.
    #[must_use]
    pub fn attr(&self, cell: u32) -> Option<usize> {
        Self::at(self.attrs_off, cell, self.n_entries, ATTR_SIZE)
    }

    /// Byte offset of a chain cell.
    #[must_use]
    pub fn chain(&self, cell: u32) -> Option<usize> {
        Self::at(self.chains_off, cell, self.n_entries, CHAIN_SIZE)
    }

    /// Byte offset of an index slot.
    #[must_use]
    pub fn slot(&self, bucket: u32) -> Option<usize> {
        Self::at(self.index_off, bucket, self.n_buckets, 4)
    }

    /// Byte offset of a string of `len` bytes, whose words lie in the area as a whole.
    #[must_use]
    pub fn string(&self, offset: u32, len: usize) -> Option<usize> {
        let len = u64::try_from(len).ok()?.checked_next_multiple_of(8)?;
        let fits =
            offset.is_multiple_of(8) && u64::from(offset).checked_add(len)? <= self.strings_len;
        fits.then(|| usize::try_from(self.strings_off + u64::from(offset)).ok()).flatten()
    }

    /// The slots where a name may lie, in the order of the search.
    pub fn probe(&self, parent: u64, name: &[u8]) -> impl Iterator<Item = u32> + use<> {
        let mask = self.n_buckets - 1;
        let (home, _) = halves(hash_name(self.seed, parent, name));
        (0..self.max_probe).map(move |step| home.wrapping_add(step) & mask)
    }
}

fn halves(hash: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn a_planned_header_reads_back() {
        for entries in [1, 2, 3, 100, 4096, 100_000, MAX_ENTRIES] {
            let plan = Geometry::plan(entries, u64::from(entries) * 40, 4096, KEY, 7).unwrap();
            assert_eq!(Geometry::decode(&plan.encode(), plan.total_len), Ok(plan.clone()));
            assert_eq!(plan.total_len % 4096, 0);
            assert!(plan.string(0, usize::try_from(plan.strings_len).unwrap()).is_some());
            assert!(plan.string(8, usize::try_from(plan.strings_len).unwrap()).is_none());
            assert!(plan.entry(plan.n_entries).is_none());
        }
        assert!(Geometry::plan(MAX_ENTRIES + 1, 0, 4096, KEY, 7).is_none());
    }

    #[test]
    fn a_header_with_any_bit_of_its_layout_wrong_is_refused_or_safe() {
        let plan = Geometry::plan(64, 4096, 4096, KEY, 7).unwrap();
        for bit in 0..FIXED_WORDS * 64 {
            let mut words = plan.encode();
            words[bit / 64] ^= 1 << (bit % 64);
            let Ok(other) = Geometry::decode(&words, plan.total_len) else { continue };
            let last = |at: Option<usize>, len: u64| {
                u64::try_from(at.unwrap()).unwrap() + len <= plan.total_len
            };
            assert!(last(other.entry(other.n_entries - 1), 64), "bit {bit}");
            assert!(last(other.attr(other.n_entries - 1), 32), "bit {bit}");
            assert!(last(other.chain(other.n_entries - 1), 32), "bit {bit}");
            assert!(last(other.slot(other.n_buckets - 1), 4), "bit {bit}");
        }
        assert!(Geometry::decode(&plan.encode(), plan.total_len - 4096).is_err());
    }
}

//! SipHash-2-4: the keyed hash of the map's index, as the kernel's `siphash()` computes it, and of what
//! udev derives from a name and the machine.
#![forbid(unsafe_code)]

/// The hash of bytes. `key` is the key's sixteen bytes as two little-endian words.
#[must_use]
pub fn hash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = Sip::new(key);
    state.bytes(bytes, 0)
}

/// Keys the index: SipHash-2-4 of the parent's id (little endian) and the name.
///
/// Names come from whoever builds a USB stick; without a secret key they could all share a slot.
#[must_use]
pub fn hash_name(key: [u64; 2], parent: u64, name: &[u8]) -> u64 {
    let mut state = Sip::new(key);
    state.word(parent);
    state.bytes(name, 8)
}

struct Sip([u64; 4]);

impl Sip {
    fn new([k0, k1]: [u64; 2]) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*b);
        *a = a.wrapping_add(*d);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    /// The last bytes, after `before` others that were taken in as words.
    fn bytes(&mut self, bytes: &[u8], before: u64) -> u64 {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(little(chunk));
        }
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX).wrapping_add(before);
        self.word(len << 56 | little(chunks.remainder()));
        self.finish()
    }

    fn finish(&mut self) -> u64 {
        self.0[2] ^= 0xff;
        (0..4).for_each(|_| self.round());
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

/// At most eight bytes, the first being the lowest.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_hash_is_siphash_2_4() {
        let parent = 0x0706_0504_0302_0100;
        let tail: Vec<u8> = (8..15).collect();
        assert_eq!(hash_name(KEY, parent, &tail), 0xa129_ca61_49be_45e5, "vector of the paper");
        for len in 0..40_u8 {
            let name: Vec<u8> = (0..len).map(|n| n.wrapping_mul(7)).collect();
            #[expect(deprecated, reason = "an independent SipHash-2-4 with a key")]
            let mut other = std::hash::SipHasher::new_with_keys(KEY[0], KEY[1]);
            std::hash::Hasher::write(&mut other, &5_u64.to_le_bytes());
            std::hash::Hasher::write(&mut other, &name);
            let finished = std::hash::Hasher::finish(&other);
            assert_eq!(hash_name(KEY, 5, &name), finished, "length {len}");
            let whole = [5_u64.to_le_bytes().as_slice(), &name].concat();
            assert_eq!(hash(KEY, &whole), finished, "length {len}");
        }
    }
}

//! Stage 6: the keyed hash of the map's index, as the kernel's `siphash()` computes it.
#![forbid(unsafe_code)]

/// Keys the index: SipHash-2-4 of the parent's id (little endian) and the name.
///
/// Names come from whoever builds a USB stick; without a secret key they could all share a slot.
#[must_use]
pub fn hash(key: [u64; 2], parent: u64, name: &[u8]) -> u64 {
    let mut state = Sip::new(key);
    state.word(parent);
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        state.word(chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    let rest = chunks.remainder().iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let len = u64::try_from(name.len()).unwrap_or(u64::MAX).wrapping_add(8);
    state.word(len << 56 | rest);
    state.finish()
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

    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        (0..4).for_each(|_| self.round());
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_hash_is_siphash_2_4() {
        let parent = 0x0706_0504_0302_0100;
        let tail: Vec<u8> = (8..15).collect();
        assert_eq!(hash(KEY, parent, &tail), 0xa129_ca61_49be_45e5, "vector of the paper");
        for len in 0..40_u8 {
            let name: Vec<u8> = (0..len).map(|n| n.wrapping_mul(7)).collect();
            #[expect(deprecated, reason = "an independent SipHash-2-4 with a key")]
            let mut other = std::hash::SipHasher::new_with_keys(KEY[0], KEY[1]);
            std::hash::Hasher::write(&mut other, &5_u64.to_le_bytes());
            std::hash::Hasher::write(&mut other, &name);
            assert_eq!(hash(KEY, 5, &name), std::hash::Hasher::finish(&other), "length {len}");
        }
    }
}

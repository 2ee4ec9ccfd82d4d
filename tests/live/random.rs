//! Numbers that look random and come again with the same seed (SplitMix64).

use std::time::SystemTime;

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The seed is MAPDEV_TEST_SEED, else the clock's; a test that fails shows it.
    pub(crate) fn new() -> Self {
        let given = std::env::var("MAPDEV_TEST_SEED").ok();
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = given.map_or_else(clock, |text| text.parse().unwrap());
        println!("MAPDEV_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0, below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}

//! Chance that can be repeated: numbers from a seed (SplitMix64), so that a failed test names the
//! seed that makes it fail again.

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub struct TestRng {
    state: u64,
}

impl TestRng {
    /// The same seed throws the same numbers.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number in `0..limit`; `limit` is above zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit as u64).expect("below a usize")
    }

    /// Whether one throw in `sides` wins.
    pub fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

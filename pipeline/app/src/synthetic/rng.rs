//! SplitMix64, a random number generator whose sequence depends only on the seed.
//!
//! Synthetic traffic must be the same bytes for the same seed on every machine and in every
//! release, so the generator is part of the code and a test holds its first numbers. It is not for
//! secrets.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

/// A deterministic sequence of numbers.
#[derive(Clone, Debug)]
pub struct TrafficRng(u64);

impl TrafficRng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..below`, by multiplication instead of a remainder; `below` is not 0.
    pub fn below(&mut self, below: u32) -> u32 {
        let top = self.next_u64() >> 32;
        ((top * u64::from(below)) >> 32) as u32
    }

    /// A number in `0..below` that prefers small ones, as a few users of a network get most of the
    /// attention: the first tenth is drawn about every second time.
    pub fn skewed_below(&mut self, below: u32) -> u32 {
        let one = f64::from(self.below(1 << 24)) / f64::from(1 << 24);
        (one * one * one * f64::from(below)) as u32
    }

    /// One of these; there is at least one.
    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u32) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_published_generator() {
        let mut rng = TrafficRng::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
        ];
        assert_eq!(expected, std::array::from_fn(|_| rng.next_u64()));
    }

    #[test]
    fn every_number_below_the_bound_occurs_and_none_above() {
        let mut rng = TrafficRng::new(7);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
        assert!((0..1_000).all(|_| rng.skewed_below(10) < 10));
    }
}

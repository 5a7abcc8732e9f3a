//! Latencies as they were measured: every one kept, percentiles read off the sorted list.
//!
//! A benchmark here takes at most a few million of them, so four bytes each are cheaper than a
//! histogram's rounding is confusing.

use std::time::Duration;

/// Latencies of one phase, in microseconds.
#[derive(Debug, Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    /// Adds one; anything above 71 minutes counts as 71 minutes.
    pub fn record(&mut self, latency: Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many were recorded.
    pub fn count(&self) -> usize {
        self.micros.len()
    }

    /// The smallest latency that `percent` of all are not above; zero if there are none.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        self.micros.sort_unstable();
        let rank = (percent / 100.0 * self.micros.len() as f64).ceil() as usize;
        let micros = self.micros.get(rank.max(1) - 1).or(self.micros.last()).copied();
        Duration::from_micros(micros.unwrap_or(0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99.0), Duration::ZERO);
        for micros in (1..=100).rev() {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.percentile(50.0), Duration::from_micros(50));
        assert_eq!(latencies.percentile(99.0), Duration::from_micros(99));
        assert_eq!(latencies.percentile(100.0), Duration::from_micros(100));
    }
}

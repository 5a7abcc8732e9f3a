//! Counts the bytes of a body or response that move per interval of time.

use std::time::{Duration, Instant};

use crate::clock;

/// Bytes that have moved since a point in time.
#[derive(Debug)]
pub(super) struct RateInterval {
    begun: Instant,
    bytes: usize,
    length: Duration,
}

impl RateInterval {
    pub(super) fn begin(length: Duration) -> Self {
        Self { begun: clock::now(), bytes: 0, length }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Whether it is over; `Some(false)` if fewer bytes moved in it than this rate asks for. Then
    /// the next one begins.
    pub(super) fn end(&mut self, least_bytes_per_s: u64) -> Option<bool> {
        if self.begun.elapsed() < self.length {
            return None;
        }
        let is_fast_enough = self.bytes >= least_bytes(self.length, least_bytes_per_s);
        *self = Self::begin(self.length);
        Some(is_fast_enough)
    }
}

/// The bytes that a rate asks for in this time.
pub(super) fn least_bytes(time: Duration, bytes_per_s: u64) -> usize {
    let bytes = time.as_millis() * u128::from(bytes_per_s) / 1_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

//! The limits on what a client sends: a message rate with a burst, and a number of bad frames.
//!
//! A client above the rate gets errors first and is closed if it goes on for
//! [`RATE_LIMITED_CLOSE_MS`]. Times are values; nothing here reads a clock.

use crate::fanout::config::{
    BAD_FRAMES_MAX, BAD_FRAMES_WINDOW_MS, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S,
    RATE_LIMITED_CLOSE_MS,
};
use crate::record::MonotonicMillis;

/// Milliseconds without a refused message after which a run of refusals is over.
const RATE_LIMITED_FORGET_MS: i64 = 1_000;

/// How much of its limits a client has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimiter {
    /// Thousandths of messages that it may send at once.
    allowance: u32,
    at: MonotonicMillis,
    /// When the current run of refusals began, and its newest refusal.
    limited_from: MonotonicMillis,
    limited_at: MonotonicMillis,
    bad: u8,
    bad_from: MonotonicMillis,
}

/// Whether a message is within the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateDecision {
    Allowed,
    Limited,
    /// Limited, and for longer than [`RATE_LIMITED_CLOSE_MS`].
    LimitedTooLong,
}

impl ClientLimiter {
    pub(super) fn new(now: MonotonicMillis) -> Self {
        Self {
            allowance: CLIENT_MESSAGES_BURST * 1_000,
            at: now,
            limited_from: MonotonicMillis::NEVER,
            limited_at: MonotonicMillis::NEVER,
            bad: 0,
            bad_from: MonotonicMillis::NEVER,
        }
    }

    /// Counts a message.
    pub(super) fn message(&mut self, now: MonotonicMillis) -> RateDecision {
        let gained = now.since(self.at).max(0).saturating_mul(i64::from(CLIENT_MESSAGES_PER_S));
        let missing = CLIENT_MESSAGES_BURST * 1_000 - self.allowance;
        self.allowance += u32::try_from(gained).unwrap_or(u32::MAX).min(missing);
        self.at = now;
        if self.allowance >= 1_000 {
            self.allowance -= 1_000;
            return RateDecision::Allowed;
        }
        if now.since(self.limited_at) > RATE_LIMITED_FORGET_MS {
            self.limited_from = now;
        }
        self.limited_at = now;
        match now.since(self.limited_from) >= RATE_LIMITED_CLOSE_MS {
            true => RateDecision::LimitedTooLong,
            false => RateDecision::Limited,
        }
    }

    /// Counts a bad frame; `true` if that makes [`BAD_FRAMES_MAX`] within the window.
    pub(super) fn bad_frame(&mut self, now: MonotonicMillis) -> bool {
        if now.since(self.bad_from) > BAD_FRAMES_WINDOW_MS {
            self.bad_from = now;
            self.bad = 0;
        }
        self.bad = self.bad.saturating_add(1);
        self.bad >= BAD_FRAMES_MAX
    }
}

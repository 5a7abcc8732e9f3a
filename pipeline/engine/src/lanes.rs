//! Which record a task takes next: deficit round-robin over its lanes.
//!
//! The one idea: shares are of *work* (a record costs one unit and one more per KiB), each round
//! gives every waiting lane its weight, and the critical lane may interrupt the others for as long
//! as its share of the round lasts. So critical events overtake a backlog of any length, and the
//! lowest lane still gets its reserved part of every round.
//!
//! ```text
//! round: | critical 8 | high 4 | facts 4 | normal 2 | low 1 |   × QUANTUM_UNITS
//!              ▲ probed every PROBE_RECORDS, overtakes while it has units left
//! ```
//!
//! Order holds within a lane, never between lanes. This room holds what was taken from the log and
//! not yet stepped; it never talks to the log itself: a refill is a call of its caller.

use crate::record::{Millis, Record};
use crate::topology::Lane;

/// Units of work per weight and round: large enough that an empty lane is asked rarely, small
/// enough that a full round lasts some ten milliseconds.
pub const QUANTUM_UNITS: i64 = 64;

/// Records of other lanes after which the critical lane is looked at again.
pub const PROBE_RECORDS: u32 = 64;

/// Milliseconds a lane's head has waited before that lane gets the critical lane's weight for a
/// round, the longest wait first.
pub const PROMOTE_AFTER_MS: i64 = 5_000;

/// Bytes of a record that cost one more unit of work.
const UNIT_BYTES: usize = 1_024;

/// The round's order.
const ROUND: [Lane; 5] = [Lane::Critical, Lane::High, Lane::Facts, Lane::Normal, Lane::Low];

/// A lane's share of a round. The lowest is the reserved minimum.
fn weight(lane: Lane) -> i64 {
    match lane {
        Lane::Critical => 8,
        Lane::High | Lane::Facts => 4,
        Lane::Normal => 2,
        Lane::Low => 1,
    }
}

/// Records of one lane, taken and not yet stepped; the next one stands last, so that it leaves
/// without a copy.
#[derive(Debug, Default)]
struct LaneQueue {
    reversed: Vec<Record>,
}

impl LaneQueue {
    fn is_empty(&self) -> bool {
        self.reversed.is_empty()
    }

    fn head(&self) -> Option<&Record> {
        self.reversed.last()
    }
}

/// Where the scheduler gets more records from.
pub trait Refill {
    /// How it fails.
    type Error;

    /// Puts what is ready in `lane` into `into`, without waiting.
    fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), Self::Error>;
}

/// The lanes of one task.
#[derive(Debug, Default)]
pub struct Lanes {
    queues: [LaneQueue; 5],
    /// Units each lane may still spend; below zero after a record that cost more.
    units: [i64; 5],
    /// Where in [`ROUND`] the round stands.
    at: usize,
    /// Records of other lanes since the critical one was looked at.
    since_probe: u32,
    /// The lane that has waited longest, for this round.
    promoted: Option<Lane>,
}

impl Lanes {
    /// The next record by lane scheduling; `None` when no lane has one. `now` only measures waits.
    pub fn next<R: Refill>(
        &mut self,
        now: Millis,
        from: &mut R,
    ) -> Result<Option<(Lane, Record)>, R::Error> {
        if self.since_probe >= PROBE_RECORDS {
            self.since_probe = 0;
            self.fill(Lane::Critical, from)?;
        }
        if self.units[Lane::Critical.index()] > 0
            && let Some(found) = self.serve(Lane::Critical)
        {
            return Ok(Some(found));
        }
        // Two rounds: a lane in debt may need one to get out of it; a lane deeper in debt is
        // forgiven below, when no other lane has anything.
        for visited in 0..=2 * ROUND.len() {
            if visited > ROUND.len() && self.queues.iter().all(LaneQueue::is_empty) {
                return Ok(None);
            }
            let lane = ROUND[self.at];
            self.fill(lane, from)?;
            if self.units[lane.index()] > 0
                && let Some(found) = self.serve(lane)
            {
                return Ok(Some(found));
            }
            self.advance(now);
        }
        Ok(ROUND.into_iter().find_map(|lane| self.serve(lane)))
    }

    /// Whether a record of this lane is waiting, also in the log.
    pub fn has_waiting<R: Refill>(&mut self, lane: Lane, from: &mut R) -> Result<bool, R::Error> {
        self.fill(lane, from)?;
        Ok(!self.is_empty(lane))
    }

    /// Whether no record of this lane is at hand.
    pub fn is_empty(&self, lane: Lane) -> bool {
        self.queues[lane.index()].is_empty()
    }

    /// When the next record of a lane was appended, if one is at hand.
    pub fn oldest(&self, lane: Lane) -> Option<Millis> {
        self.queues[lane.index()].head().map(|head| head.timestamp)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.queues.iter().flat_map(|queue| &queue.reversed).map(Record::size).sum()
    }

    /// Forgets what was taken; it will be taken again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn fill<R: Refill>(&mut self, lane: Lane, from: &mut R) -> Result<(), R::Error> {
        let queue = &mut self.queues[lane.index()];
        if queue.is_empty() {
            from.refill(lane, &mut queue.reversed)?;
            queue.reversed.reverse();
        }
        Ok(())
    }

    fn serve(&mut self, lane: Lane) -> Option<(Lane, Record)> {
        let record = self.queues[lane.index()].reversed.pop()?;
        let cost = 1 + record.body.as_bytes().len() / UNIT_BYTES;
        self.units[lane.index()] -= i64::try_from(cost).unwrap_or(i64::MAX / 4);
        if lane != Lane::Critical {
            self.since_probe += 1;
        }
        Some((lane, record))
    }

    /// Ends this lane's part of the round and gives the next lane its units.
    fn advance(&mut self, now: Millis) {
        let left = ROUND[self.at];
        // The critical lane keeps what is left for interrupts until the round ends.
        if left != Lane::Critical {
            let units = &mut self.units[left.index()];
            *units = (*units).min(0);
        }
        self.at = (self.at + 1) % ROUND.len();
        if self.at == 0 {
            self.promoted = self.longest_wait(now);
        }
        let lane = ROUND[self.at];
        let share = if self.promoted == Some(lane) { weight(Lane::Critical) } else { weight(lane) };
        let units = &mut self.units[lane.index()];
        *units = (*units).min(0) + share * QUANTUM_UNITS;
    }

    fn longest_wait(&self, now: Millis) -> Option<Lane> {
        ROUND[1..]
            .iter()
            .filter_map(|lane| Some((*lane, self.queues[lane.index()].head()?.timestamp)))
            .min_by_key(|(_, since)| *since)
            .filter(|(_, since)| now.0.saturating_sub(since.0) > PROMOTE_AFTER_MS)
            .map(|(lane, _)| lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Offset};
    use std::convert::Infallible;

    /// Lanes with so many records left, and the append time of all of them.
    struct Backlog([u64; 5], i64);

    impl Refill for Backlog {
        type Error = Infallible;

        fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), Infallible> {
            let left = &mut self.0[lane.index()];
            for _ in 0..(*left).min(100) {
                into.push(Record {
                    offset: Offset(*left),
                    timestamp: Millis(self.1),
                    body: Body::new(None, Some(b"x"), &[]),
                });
                *left -= 1;
            }
            Ok(())
        }
    }

    fn take(lanes: &mut Lanes, from: &mut Backlog, count: usize) -> Vec<Lane> {
        (0..count)
            .map_while(|_| lanes.next(Millis(0), from).expect("infallible"))
            .map(|(lane, _)| lane)
            .collect()
    }

    fn share(taken: &[Lane], lane: Lane) -> usize {
        taken.iter().filter(|l| **l == lane).count()
    }

    #[test]
    fn shares_follow_the_weights_when_every_lane_waits() {
        let mut from = Backlog([1_000_000; 5], 0);
        let taken = take(&mut Lanes::default(), &mut from, 19 * 64 * 20);
        let low = share(&taken, Lane::Low);
        assert_eq!(share(&taken, Lane::Normal), 2 * low);
        assert_eq!(share(&taken, Lane::High), 4 * low);
        assert!(share(&taken, Lane::Critical).abs_diff(8 * low) <= 8 * 64);
        assert!(low > 0);
    }

    #[test]
    fn a_critical_record_overtakes_a_backlog_within_one_probe() {
        let mut from = Backlog([0, 0, 0, 1_000_000, 0], 0);
        let mut lanes = Lanes::default();
        take(&mut lanes, &mut from, 1_000);
        from.0[Lane::Critical.index()] = 1;
        let taken = take(&mut lanes, &mut from, PROBE_RECORDS as usize + 1);
        assert_eq!(share(&taken, Lane::Critical), 1);
    }

    #[test]
    fn a_flood_of_critical_records_starves_nobody() {
        let mut from = Backlog([1_000_000, 0, 0, 1_000_000, 0], 0);
        let taken = take(&mut Lanes::default(), &mut from, 5_000);
        assert!(share(&taken, Lane::Low) >= 5_000 / 10);
    }

    #[test]
    fn the_longest_wait_gets_the_critical_weight() {
        let mut from = Backlog([0, 1_000_000, 0, 0, 0], 0);
        let mut lanes = Lanes::default();
        lanes.queues[Lane::Low.index()].reversed = (0..10_000)
            .map(|n| Record {
                offset: Offset(n),
                timestamp: Millis(-PROMOTE_AFTER_MS - 1),
                body: Body::new(None, None, &[]),
            })
            .collect();
        let taken = take(&mut lanes, &mut from, 6_000);
        assert!(share(&taken, Lane::Low) > share(&taken, Lane::High));
    }

    #[test]
    fn a_record_that_costs_more_than_a_round_is_still_taken() {
        struct Once(Option<Record>);
        impl Refill for Once {
            type Error = Infallible;
            fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), Infallible> {
                if lane == Lane::Low {
                    into.extend(self.0.clone());
                }
                Ok(())
            }
        }
        let body = Body::new(None, Some(&vec![0; 1 << 20]), &[]);
        let mut from = Once(Some(Record { offset: Offset(0), timestamp: Millis(0), body }));
        let mut lanes = Lanes::default();
        for _ in 0..10 {
            assert!(lanes.next(Millis(0), &mut from).expect("infallible").is_some());
        }
    }

    #[test]
    fn nothing_waiting_gives_nothing() {
        assert_eq!(take(&mut Lanes::default(), &mut Backlog([0; 5], 0), 1), []);
    }
}

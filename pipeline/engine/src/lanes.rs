//! Lane scheduling of one task: deficit round-robin decides which record is processed next.
//!
//! Shares are of *work*: a record costs one unit plus one per KiB, a pack of facts one per entry
//! plus one per KiB. Each round gives every waiting
//! lane units by its weight, and the critical lane may interrupt the others while it has units
//! left. So critical events overtake a backlog of any length, and the lowest lane still gets its
//! reserved share of every round.
//!
//! ```text
//! round: | critical 8 | urgent facts 8 | high 4 | facts 16 | normal 2 | low 1 |  × QUANTUM_UNITS
//!              ▲              ▲ probed every PROBE_RECORDS, overtake while they have units left
//! ```
//!
//! Facts have the largest share, since they follow from records that were processed: with every
//! lane waiting, a task keeps up with 2.3 facts per event. If it still does not, its loop takes
//! little else, and in the end nothing else but critical records ([`Intake`]), until it does.
//!
//! Facts that follow from critical events are served like those, right after them. They have a
//! share of their own, so that neither of the two can starve the other. If they pile up, critical
//! records wait too, since each may bring several more.
//!
//! Order holds within a lane, never between lanes. This file holds records that were fetched and
//! not yet processed; it never reads the log itself, its caller does through [`Refill`].

use crate::fact_pack::entries_in;
use crate::record::{Millis, Record};
use crate::topology::Lane;

/// Units of work per weight and round: large enough that empty lanes are polled rarely, small
/// enough that a full round lasts some ten milliseconds.
pub const QUANTUM_UNITS: i64 = 64;

/// Units of work that a lane gets in a round while facts come first: a task keeps up with forty
/// facts per event then, and no lane waits for ever.
const LITTLE_UNITS: i64 = 8;

/// Records of other lanes after which the urgent lanes are polled again.
pub const PROBE_RECORDS: u32 = 64;

/// Milliseconds after which a waiting lane gets the critical lane's weight for a round. If several
/// waited that long, the one that waited longest gets it.
pub const PROMOTE_AFTER_MS: i64 = 5_000;

/// Bytes of a record per additional unit of work.
const UNIT_BYTES: usize = 1_024;

/// The round's order.
const ROUND: [Lane; Lane::COUNT] =
    [Lane::Critical, Lane::FactsUrgent, Lane::High, Lane::Facts, Lane::Normal, Lane::Low];

/// A lane's share of a round. The lowest is the reserved minimum.
fn weight(lane: Lane) -> i64 {
    match lane {
        Lane::Critical | Lane::FactsUrgent => 8,
        Lane::Facts => 16,
        Lane::High => 4,
        Lane::Normal => 2,
        Lane::Low => 1,
    }
}

/// Which lanes records are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// All of them.
    #[default]
    All,
    /// Critical records and facts, and little else, since facts have piled up.
    FactsFirst,
    /// Critical records and facts only, since facts pile up all the same.
    FactsOnly,
    /// Facts only: those of critical records have piled up, and these would bring more.
    FactsAlone,
}

impl Intake {
    fn takes(self, lane: Lane) -> bool {
        match self {
            Self::All | Self::FactsFirst => true,
            Self::FactsOnly => is_first(lane),
            Self::FactsAlone => is_first(lane) && lane != Lane::Critical,
        }
    }

    /// Units of work that a lane of this weight gets in a round.
    fn units(self, lane: Lane, weight: i64) -> i64 {
        match self {
            Self::FactsFirst if !is_first(lane) => LITTLE_UNITS,
            _ => weight * QUANTUM_UNITS,
        }
    }
}

/// Whether a lane is served although facts have piled up.
fn is_first(lane: Lane) -> bool {
    matches!(lane, Lane::Critical | Lane::FactsUrgent | Lane::Facts)
}

/// Fetched records of one lane, the next one last, so that it is popped without moving the others.
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

/// The scheduler's source of records.
pub trait Refill {
    /// Why a fetch failed.
    type Error;

    /// Appends the records that are ready in `lane` to `into`, without waiting.
    fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), Self::Error>;
}

/// The lanes of one task.
#[derive(Debug, Default)]
pub struct Lanes {
    queues: [LaneQueue; Lane::COUNT],
    /// Units each lane may still spend; negative after a record that cost more.
    units: [i64; Lane::COUNT],
    /// The round's current index in [`ROUND`].
    at: usize,
    /// Records of other lanes since the urgent lanes were polled.
    since_probe: u32,
    /// The lane that has the critical weight in this round.
    promoted: Option<Lane>,
    /// Which lanes records are taken from.
    intake: Intake,
}

impl Lanes {
    /// Decides which lanes records are taken from, from now on.
    pub fn take_from(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// The next record to process; `None` when no lane that records are taken from has one. `now`
    /// only measures waits.
    pub fn next<R: Refill>(
        &mut self,
        now: Millis,
        from: &mut R,
    ) -> Result<Option<(Lane, Record)>, R::Error> {
        if self.since_probe >= PROBE_RECORDS {
            self.since_probe = 0;
            for lane in Lane::URGENT {
                self.fill(lane, from)?;
            }
        }
        for lane in Lane::URGENT {
            if self.units[lane.index()] > 0
                && self.intake.takes(lane)
                && let Some(found) = self.serve(lane)
            {
                return Ok(Some(found));
            }
        }
        // Two rounds, since a lane in debt may need one to get out of it. If no other lane has a
        // record, a lane that is deeper in debt is served below.
        for visited in 0..=2 * ROUND.len() {
            let waits = |lane: &Lane| self.intake.takes(*lane) && !self.is_empty(*lane);
            if visited > ROUND.len() && !Lane::ALL.iter().any(waits) {
                return Ok(None);
            }
            let lane = ROUND[self.at];
            if !self.intake.takes(lane) {
                self.advance(now);
                continue;
            }
            self.fill(lane, from)?;
            if self.units[lane.index()] > 0
                && let Some(found) = self.serve(lane)
            {
                return Ok(Some(found));
            }
            self.advance(now);
        }
        let intake = self.intake;
        let taken = ROUND.into_iter().filter(|lane| intake.takes(*lane));
        Ok(taken.into_iter().find_map(|lane| self.serve(lane)))
    }

    /// Whether a record of this lane is waiting, here or in the log, and may be taken.
    pub fn has_waiting<R: Refill>(&mut self, lane: Lane, from: &mut R) -> Result<bool, R::Error> {
        if !self.intake.takes(lane) {
            return Ok(false);
        }
        self.fill(lane, from)?;
        Ok(!self.is_empty(lane))
    }

    /// Whether no record of this lane was fetched.
    pub fn is_empty(&self, lane: Lane) -> bool {
        self.queues[lane.index()].is_empty()
    }

    /// The append time of the lane's next fetched record.
    pub fn oldest(&self, lane: Lane) -> Option<Millis> {
        self.queues[lane.index()].head().map(|head| head.timestamp)
    }

    /// Bytes of all fetched records.
    pub fn bytes(&self) -> usize {
        self.queues.iter().flat_map(|queue| &queue.reversed).map(Record::size).sum()
    }

    /// Drops all fetched records; the caller fetches them again.
    pub fn clear(&mut self) {
        *self = Self { intake: self.intake, ..Self::default() };
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
        let records = if lane.has_facts() { entries_in(&record.body) } else { 1 };
        let cost = records + record.body.as_bytes().len() / UNIT_BYTES;
        self.units[lane.index()] -= i64::try_from(cost).unwrap_or(i64::MAX / 4);
        // Urgent facts too: a critical record must not wait behind a flood of them.
        if lane != Lane::Critical {
            self.since_probe += u32::try_from(records).unwrap_or(PROBE_RECORDS);
        }
        Some((lane, record))
    }

    /// Moves the round on to the next lane and gives it its units.
    fn advance(&mut self, now: Millis) {
        let left = ROUND[self.at];
        // The urgent lanes keep their remaining units for interrupts until the round ends.
        if !Lane::URGENT.contains(&left) {
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
        *units = (*units).min(0) + self.intake.units(lane, share);
    }

    fn longest_wait(&self, now: Millis) -> Option<Lane> {
        ROUND[Lane::URGENT.len()..]
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

    /// The number of records left in each lane, and the append time of all of them.
    struct Backlog([u64; Lane::COUNT], i64);

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

    /// A backlog that does not end in these lanes.
    fn backlog_of(lanes: &[Lane]) -> Backlog {
        Backlog(Lane::ALL.map(|lane| if lanes.contains(&lane) { 1_000_000 } else { 0 }), 0)
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
    fn shares_follow_the_weights_when_every_lane_has_a_backlog() {
        let mut from = Backlog([1_000_000; Lane::COUNT], 0);
        let taken = take(&mut Lanes::default(), &mut from, 39 * 64 * 20);
        let low = share(&taken, Lane::Low);
        assert_eq!(share(&taken, Lane::Normal), 2 * low);
        assert_eq!(share(&taken, Lane::High), 4 * low);
        assert_eq!(share(&taken, Lane::Facts), 16 * low);
        for urgent in Lane::URGENT {
            assert!(share(&taken, urgent).abs_diff(8 * low) <= 8 * 64);
        }
        assert!(low > 0);
    }

    #[test]
    fn a_critical_record_overtakes_a_backlog_within_one_probe() {
        let mut from = backlog_of(&[Lane::Low]);
        let mut lanes = Lanes::default();
        take(&mut lanes, &mut from, 1_000);
        from.0[Lane::Critical.index()] = 1;
        let taken = take(&mut lanes, &mut from, PROBE_RECORDS as usize + 1);
        assert_eq!(share(&taken, Lane::Critical), 1);
    }

    #[test]
    fn a_pack_of_facts_costs_as_many_units_as_it_has_entries() {
        struct Packs;

        impl Refill for Packs {
            type Error = Infallible;

            fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), Infallible> {
                let value = if lane == Lane::Facts { &[1, 255][..] } else { b"x" };
                if matches!(lane, Lane::Facts | Lane::Low) {
                    let body = Body::new(None, Some(value), &[]);
                    into.push(Record { offset: Offset(0), timestamp: Millis(0), body });
                }
                Ok(())
            }
        }

        let mut lanes = Lanes::default();
        let taken: Vec<Lane> = (0..10_000)
            .map_while(|_| lanes.next(Millis(0), &mut Packs).expect("infallible"))
            .map(|(lane, _)| lane)
            .collect();
        // Packs of 256 entries, and 16 times the share of the lowest lane.
        let (facts, low) = (256 * share(&taken, Lane::Facts), share(&taken, Lane::Low));
        assert!(facts.abs_diff(16 * low) <= 16 * low / 10, "{facts} {low}");
    }

    #[test]
    fn a_critical_event_s_facts_do_not_queue_behind_ordinary_ones() {
        let mut from = backlog_of(&[Lane::Facts, Lane::High]);
        let mut lanes = Lanes::default();
        take(&mut lanes, &mut from, 1_000);
        from.0[Lane::FactsUrgent.index()] = 1;
        let taken = take(&mut lanes, &mut from, PROBE_RECORDS as usize + 1);
        assert_eq!(share(&taken, Lane::FactsUrgent), 1);
    }

    #[test]
    fn neither_urgent_lane_starves_the_other_and_critical_events_are_first() {
        let mut from = backlog_of(&Lane::URGENT);
        let taken = take(&mut Lanes::default(), &mut from, 16 * 64 * 5);
        let [critical, facts] = Lane::URGENT.map(|lane| share(&taken, lane));
        assert!(critical.abs_diff(facts) <= 8 * 64, "{critical} {facts}");
        from = backlog_of(&[Lane::Low]);
        let mut lanes = Lanes::default();
        take(&mut lanes, &mut from, 1_000);
        Lane::URGENT.iter().for_each(|lane| from.0[lane.index()] = 10);
        let mut taken = take(&mut lanes, &mut from, 200);
        taken.retain(|lane| *lane != Lane::Low);
        assert_eq!(taken, [[Lane::Critical; 10], [Lane::FactsUrgent; 10]].concat());
    }

    #[test]
    fn a_critical_record_does_not_wait_behind_a_flood_of_urgent_facts() {
        let mut from = backlog_of(&[Lane::FactsUrgent]);
        let mut lanes = Lanes::default();
        // The critical lane has units from the second round on.
        take(&mut lanes, &mut from, 1_000);
        from.0[Lane::Critical.index()] = 1;
        let taken = take(&mut lanes, &mut from, PROBE_RECORDS as usize + 1);
        assert_eq!(share(&taken, Lane::Critical), 1);
    }

    #[test]
    fn a_flood_of_critical_records_does_not_starve_other_lanes() {
        let mut from = backlog_of(&[Lane::Critical, Lane::Low]);
        let taken = take(&mut Lanes::default(), &mut from, 5_000);
        assert!(share(&taken, Lane::Low) >= 5_000 / 10);
    }

    #[test]
    fn while_facts_come_first_every_lane_gets_a_little() {
        let mut from = Backlog([1_000_000; Lane::COUNT], 0);
        let mut lanes = Lanes::default();
        lanes.take_from(Intake::FactsFirst);
        take(&mut lanes, &mut from, 5_000);
        let taken = take(&mut lanes, &mut from, 40_000);
        let facts = share(&taken, Lane::Facts);
        for lane in [Lane::High, Lane::Normal, Lane::Low] {
            let got = share(&taken, lane);
            assert!(got > 0 && facts > 100 * got, "{lane:?}: {got} of {facts} facts");
        }
    }

    #[test]
    fn while_facts_have_piled_up_only_they_and_critical_records_are_taken() {
        let mut from = Backlog(Lane::ALL.map(|_| 1_000), 0);
        let mut lanes = Lanes::default();
        take(&mut lanes, &mut from, 500);
        lanes.take_from(Intake::FactsOnly);
        let taken = take(&mut lanes, &mut from, 10_000);
        let only = [Lane::Critical, Lane::FactsUrgent, Lane::Facts];
        assert!(taken.len() > 2_000 && taken.iter().all(|lane| only.contains(lane)));
        assert!(only.iter().all(|lane| lanes.is_empty(*lane)));
        lanes.take_from(Intake::All);
        let rest = take(&mut lanes, &mut from, 10_000);
        assert_eq!(taken.len() + rest.len(), 5_500, "nothing was lost");
    }

    #[test]
    fn while_urgent_facts_have_piled_up_critical_records_wait() {
        let mut from = Backlog(Lane::ALL.map(|_| 1_000), 0);
        let mut lanes = Lanes::default();
        let before = take(&mut lanes, &mut from, 500);
        lanes.take_from(Intake::FactsAlone);
        let critical = Lane::Critical;
        assert!(!lanes.has_waiting(critical, &mut from).expect("infallible"));
        let taken = take(&mut lanes, &mut from, 10_000);
        let only = [Lane::FactsUrgent, Lane::Facts];
        assert!(taken.iter().all(|lane| only.contains(lane)));
        assert!(only.iter().all(|lane| share(&taken, *lane) + share(&before, *lane) == 1_000));
        lanes.take_from(Intake::FactsOnly);
        assert!(lanes.has_waiting(critical, &mut from).expect("infallible"));
        let rest = take(&mut lanes, &mut from, 10_000);
        assert_eq!(share(&before, critical) + share(&rest, critical), 1_000, "nothing was lost");
    }

    #[test]
    fn the_longest_wait_gets_the_critical_weight() {
        let mut from = backlog_of(&[Lane::High]);
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
    fn a_record_that_costs_more_than_a_round_is_still_served() {
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
    fn empty_lanes_give_no_record() {
        assert_eq!(take(&mut Lanes::default(), &mut Backlog([0; Lane::COUNT], 0), 1), []);
    }
}

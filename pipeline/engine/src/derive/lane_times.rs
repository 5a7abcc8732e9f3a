//! The time of a task: for each lane, the append time that the task has consumed it up to.
//!
//! An append time is that of a record in the input. Facts, emitted events and timers have the time
//! of their cause. After an outage the fast lanes are consumed before the slow ones, so a task has
//! no single time:
//!
//! ```text
//! lease time    the critical lane's; only leases use it
//! settled time  the slowest lane's: no record with an earlier time is left in any lane
//! latest time   the fastest lane's; it limits searches and expires nothing
//! ```
//!
//! State is removed by the settled time, so it is there until the last lane has passed it. An empty
//! lane holds nothing back: a tick says which lanes were consumed to their ends, and moves them to
//! its own time. So all of it follows from the `order` record.
//!
//! A lane is not consumed to its end while the log holds an open transaction there (`ticks.rs`). A
//! record that ADMIT or another task has not written to the log yet can be older than the settled
//! time. It is late.

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::record::Millis;
use crate::topology::Lane;

/// Lanes as a set of bits by [`Lane::number`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSet(pub u8);

impl LaneSet {
    /// Every lane.
    pub const ALL: Self = Self((1 << Lane::ALL.len()) - 1);

    /// Adds a lane.
    pub fn insert(&mut self, lane: Lane) {
        self.0 |= 1 << lane.number();
    }

    /// Removes a lane.
    pub fn remove(&mut self, lane: Lane) {
        self.0 &= !(1 << lane.number());
    }

    /// Whether it has a lane.
    pub fn contains(self, lane: Lane) -> bool {
        self.0 & (1 << lane.number()) != 0
    }
}

/// The append time that each lane was consumed up to, by [`Lane::index`]; zero: nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneTimes(pub [Millis; Lane::COUNT]);

impl LaneTimes {
    /// Consumes a record of this append time.
    pub fn consume(&mut self, lane: Lane, time: Millis) {
        let consumed = &mut self.0[lane.index()];
        *consumed = (*consumed).max(time);
    }

    /// Moves the lanes that were consumed to their ends at this time.
    pub fn tick(&mut self, at: Millis, ended: LaneSet) {
        Lane::ALL.into_iter().filter(|lane| ended.contains(*lane)).for_each(|lane| {
            self.consume(lane, at);
        });
    }

    /// The settled time.
    pub fn settled(&self) -> Millis {
        self.0.into_iter().min().unwrap_or_default()
    }

    /// The lease time.
    pub fn lease(&self) -> Millis {
        self.0[Lane::Critical.index()]
    }

    /// The latest time.
    pub fn latest(&self) -> Millis {
        self.0.into_iter().max().unwrap_or_default()
    }

    /// Appends the times, zigzag LEB128 each.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|time| put_signed(out, time.0));
    }

    /// Decodes what [`LaneTimes::put`] wrote.
    pub(super) fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        let mut times = [Millis::default(); Lane::COUNT];
        for time in &mut times {
            *time = Millis(from.signed()?);
        }
        Some(Self(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_lane_settles_time_and_a_lane_at_its_end_holds_nothing_back() {
        let mut times = LaneTimes::default();
        times.consume(Lane::High, Millis(90));
        assert_eq!(times.settled(), Millis(0), "nothing is known of the others");
        let mut ended = LaneSet::ALL;
        ended.remove(Lane::Normal);
        times.tick(Millis(80), ended);
        assert_eq!(times.settled(), Millis(0));
        times.consume(Lane::Normal, Millis(40));
        assert_eq!(times.settled(), Millis(40));
        assert_eq!((times.lease(), times.latest()), (Millis(80), Millis(90)));
        times.tick(Millis(30), LaneSet::ALL);
        assert_eq!(times.settled(), Millis(40), "a clock that was set back changes nothing");
    }
}

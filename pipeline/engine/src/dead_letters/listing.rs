//! Lists dead letters, in the order in which their records were appended.
//!
//! ```text
//! topic ─▶ listing: some 60 bytes per dead letter, copies once, with resolutions ─▶ fetch: bodies
//! ```
//!
//! Only the listing is kept in memory for all of them. The dead letters themselves are read again,
//! a limited number at a time, when they are shown or requeued.

use std::collections::{BTreeMap, BTreeSet};

use crate::dead_letters::dead_letter::DeadLetter;
use crate::dead_letters::error::{DeadLettersError, LIST_MAX};
use crate::dead_letters::filter::Filter;
use crate::dead_letters::requeue::destination;
use crate::dead_letters::resolution::{Resolution, ResolutionRecord};
use crate::dead_letters::scan::Scan;
use crate::port::{Bounds, Log};
use crate::record::{Millis, Offset, Partition};
use crate::topology::Topology;

/// Records skipped by reading them, instead of starting another read behind them.
const GAP_MAX: u64 = 1_000;

/// A dead letter in a listing. Ordered by the time of its record, then by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListEntry {
    /// The append time of the record.
    pub time: Millis,
    /// The record's position: number of the topic, partition, offset and index in its pack.
    source_position: (u32, u64, u64, u32),
    /// The position of the dead letter.
    pub at: (Partition, Offset),
    /// Size of the dead letter in bytes.
    pub bytes: u32,
    /// Its reason's number in [`Listing::reasons`].
    pub reason: u32,
    /// Whether its record has a topic to be requeued to.
    pub requeueable: bool,
}

/// Dead letters in the order of their records, with their resolutions.
#[derive(Debug, Default)]
pub struct Listing {
    /// The dead letters.
    pub entries: Vec<ListEntry>,
    /// The resolutions of those that are not open, by position.
    pub resolved: BTreeMap<(Partition, Offset), Resolution>,
    /// Their reasons, each once.
    pub reasons: Vec<String>,
}

impl Listing {
    /// Keeps the open dead letters only.
    pub fn open(mut self) -> Self {
        self.entries.retain(|entry| !self.resolved.contains_key(&entry.at));
        self
    }

    /// The number of dead letters per reason.
    pub fn by_reason(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            *counts.entry(self.reasons[entry.reason as usize].clone()).or_default() += 1;
        }
        counts
    }
}

/// Lists the dead letters that match a filter.
pub fn list(
    log: &dyn Log,
    topology: &Topology,
    filter: &Filter,
) -> Result<Listing, DeadLettersError> {
    let mut scan = Scan::new(log, topology)?;
    let mut list = Listing::default();
    let mut names = ListingNames::default();
    for partition in filter.partitions(topology) {
        let mut part = PartitionRecords::default();
        let range = scan.bounds(partition)?;
        scan.read(partition, range, &mut |record| {
            if ResolutionRecord::is_resolution(&record) {
                part.resolutions
                    .extend(ResolutionRecord::decode(&record).map(|m| (m.identity, m.resolution)));
                return Ok(());
            }
            let letter = DeadLetter::of(partition, record);
            if filter.matches(&letter, topology) && part.letters.len() <= LIST_MAX {
                let entry = names.entry_of(topology, &letter);
                part.letters.entry(letter.identity()).or_insert(entry);
            }
            Ok(())
        })?;
        for (identity, entry) in part.letters {
            list.resolved.extend(part.resolutions.get(&identity).map(|how| (entry.at, *how)));
            list.entries.push(entry);
        }
        if list.entries.len() > LIST_MAX {
            return Err(DeadLettersError::TooMany);
        }
    }
    list.entries.sort_unstable();
    list.reasons = names.reasons.into_list();
    Ok(list)
}

/// The records of one partition. A resolution record may be followed by a copy of its dead letter.
#[derive(Default)]
struct PartitionRecords {
    letters: BTreeMap<[u8; 16], ListEntry>,
    resolutions: BTreeMap<[u8; 16], Resolution>,
}

/// The topics and reasons of a listing, numbered.
#[derive(Default)]
struct ListingNames {
    topics: Interner,
    reasons: Interner,
}

impl ListingNames {
    fn entry_of(&mut self, topology: &Topology, letter: &DeadLetter) -> ListEntry {
        let source_position = letter.source_position().map_or((u32::MAX, 0, 0, 0), |source| {
            let entry = source.entry.unwrap_or_default();
            (self.topics.number(&source.topic), source.partition, source.offset, entry)
        });
        ListEntry {
            time: letter.time(),
            source_position,
            at: letter.at,
            bytes: u32::try_from(letter.size()).unwrap_or(u32::MAX),
            reason: self.reasons.number(&letter.reason()),
            requeueable: destination(topology, letter).is_some(),
        }
    }
}

/// Repeated texts, each kept once and numbered.
#[derive(Default)]
struct Interner(BTreeMap<String, u32>);

impl Interner {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.0.get(name) {
            return *number;
        }
        let next = self.0.len() as u32;
        self.0.insert(name.to_owned(), next);
        next
    }

    fn into_list(self) -> Vec<String> {
        let mut list: Vec<(u32, String)> =
            self.0.into_iter().map(|(n, number)| (number, n)).collect();
        list.sort_unstable();
        list.into_iter().map(|(_, name)| name).collect()
    }
}

/// Reads dead letters in the order of `entries`; those that retention removed are left out.
pub fn fetch(
    log: &dyn Log,
    topology: &Topology,
    entries: &[ListEntry],
) -> Result<Vec<DeadLetter>, DeadLettersError> {
    let mut scan = Scan::new(log, topology)?;
    fetch_by(&mut scan, entries)
}

pub(super) fn fetch_by(
    scan: &mut Scan<'_>,
    entries: &[ListEntry],
) -> Result<Vec<DeadLetter>, DeadLettersError> {
    let wanted: BTreeSet<(Partition, Offset)> = entries.iter().map(|entry| entry.at).collect();
    let mut found = BTreeMap::new();
    for (partition, range) in ranges(&wanted) {
        scan.read(partition, range, &mut |record| {
            let at = (partition, record.offset);
            if wanted.contains(&at) {
                found.insert(at, DeadLetter::of(partition, record));
            }
            Ok(())
        })?;
    }
    Ok(entries.iter().filter_map(|entry| found.remove(&entry.at)).collect())
}

/// The ranges to read for these offsets; a long gap starts another range.
fn ranges(wanted: &BTreeSet<(Partition, Offset)>) -> Vec<(Partition, Bounds)> {
    let mut ranges: Vec<(Partition, Bounds)> = Vec::new();
    for (partition, offset) in wanted {
        match ranges.last_mut() {
            Some((last, range)) if last == partition && offset.0 - range.end.0 <= GAP_MAX => {
                range.end = offset.next();
            }
            _ => ranges.push((*partition, Bounds { start: *offset, end: offset.next() })),
        }
    }
    ranges
}

/// The resolution records of a dead letter, oldest first.
pub fn resolutions_of(
    log: &dyn Log,
    topology: &Topology,
    letter: &DeadLetter,
) -> Result<Vec<ResolutionRecord>, DeadLettersError> {
    let mut scan = Scan::new(log, topology)?;
    let mut resolutions = Vec::new();
    let identity = letter.identity();
    let range = scan.bounds(letter.at.0)?;
    scan.read(letter.at.0, range, &mut |record| {
        resolutions.extend(
            ResolutionRecord::decode(&record).filter(|resolution| resolution.identity == identity),
        );
        Ok(())
    })?;
    Ok(resolutions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_close_together_are_read_in_one_range() {
        let wanted = [(0, 5), (0, 6), (0, 900), (0, 5_000), (1, 5_001)];
        let wanted = wanted.map(|(p, o)| (Partition(p), Offset(o))).into();
        let got: Vec<_> = ranges(&wanted)
            .into_iter()
            .map(|(p, bounds)| (p.0, bounds.start.0, bounds.end.0))
            .collect();
        assert_eq!(got, [(0, 5, 901), (0, 5_000, 5_001), (1, 5_001, 5_002)]);
    }
}

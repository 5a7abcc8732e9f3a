//! What there is: every letter that is meant, in the order in which their records came.
//!
//! ```text
//! topic ─▶ index: some 60 bytes a letter, copies counted once, marks laid over ─▶ fetch: letters
//! ```
//!
//! The one idea: only the index is held of all of them; the letters themselves are read again, a
//! bounded number at a time, when they are shown or go back.

use std::collections::{BTreeMap, BTreeSet};

use crate::letters::back::destination;
use crate::letters::filter::Filter;
use crate::letters::letter::Letter;
use crate::letters::mark::{Mark, Resolution};
use crate::letters::resolve::LettersError;
use crate::letters::scan::Scan;
use crate::port::{Bounds, Log};
use crate::record::{Millis, Offset, Partition};
use crate::topology::Topology;

/// Letters in one index: some 60 MB of memory.
pub(super) const INDEX_MAX: usize = 1_000_000;

/// Records passed over while fetching, rather than starting to read anew behind them.
const GAP_MAX: u64 = 1_000;

/// A letter in an index. Its order is that in which records came: by time, then by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When the record came.
    pub time: Millis,
    /// Its topic's number in the index, partition and offset.
    origin: (u32, u64, u64),
    /// Where the letter stands.
    pub at: (Partition, Offset),
    /// Bytes of the letter.
    pub bytes: u32,
    /// Its reason's number in [`Index::reasons`].
    pub reason: u32,
    /// Whether its record has somewhere to go back to.
    pub able: bool,
}

/// Letters in the order in which their records came, and what became of them.
#[derive(Debug, Default)]
pub struct Index {
    /// The letters.
    pub entries: Vec<Entry>,
    /// What became of those that are not open, by where they stand.
    pub resolved: BTreeMap<(Partition, Offset), Resolution>,
    /// Their reasons, each once.
    pub reasons: Vec<String>,
}

impl Index {
    /// Keeps the open ones.
    pub fn open(mut self) -> Self {
        self.entries.retain(|entry| !self.resolved.contains_key(&entry.at));
        self
    }

    /// How many there are of each reason.
    pub fn by_reason(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            *counts.entry(self.reasons[entry.reason as usize].clone()).or_default() += 1;
        }
        counts
    }
}

/// Reads the topic to its end.
pub fn index(log: &dyn Log, topology: &Topology, filter: &Filter) -> Result<Index, LettersError> {
    let mut scan = Scan::new(log, topology)?;
    let mut index = Index::default();
    let (mut topics, mut reasons) = (Names::default(), Names::default());
    for partition in filter.partitions(topology) {
        let mut part = Part::default();
        let stretch = scan.bounds(partition)?;
        scan.read(partition, stretch, &mut |record| {
            if Mark::is_one(&record) {
                part.marks.extend(Mark::decode(&record).map(|m| (m.letter, m.resolution)));
                return Ok(());
            }
            let letter = Letter::of(partition, record);
            if filter.takes(&letter, topology) && part.letters.len() <= INDEX_MAX {
                let entry = entry_of(topology, &letter, (&mut topics, &mut reasons));
                part.letters.entry(letter.identity()).or_insert(entry);
            }
            Ok(())
        })?;
        for (identity, entry) in part.letters {
            index.resolved.extend(part.marks.get(&identity).map(|how| (entry.at, *how)));
            index.entries.push(entry);
        }
        if index.entries.len() > INDEX_MAX {
            return Err(LettersError::TooMany);
        }
    }
    index.entries.sort_unstable();
    index.reasons = reasons.into_list();
    Ok(index)
}

/// Both of one partition: a mark stands behind its letter, but perhaps before a copy of it.
#[derive(Default)]
struct Part {
    letters: BTreeMap<[u8; 16], Entry>,
    marks: BTreeMap<[u8; 16], Resolution>,
}

fn entry_of(
    topology: &Topology,
    letter: &Letter,
    (topics, reasons): (&mut Names, &mut Names),
) -> Entry {
    let origin = letter.origin().map_or((u32::MAX, 0, 0), |origin| {
        (topics.number(&origin.topic), origin.partition, origin.offset)
    });
    let bytes = u32::try_from(letter.size()).unwrap_or(u32::MAX);
    let reason = reasons.number(&letter.reason());
    let able = destination(topology, letter).is_some();
    Entry { time: letter.time(), origin, at: letter.at, bytes, reason, able }
}

/// Texts that come again and again, each kept once under a number.
#[derive(Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
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

/// Reads letters, in the order of `entries`; those that left the log meanwhile are missing.
pub fn fetch(
    log: &dyn Log,
    topology: &Topology,
    entries: &[Entry],
) -> Result<Vec<Letter>, LettersError> {
    let mut scan = Scan::new(log, topology)?;
    fetch_by(&mut scan, entries)
}

pub(super) fn fetch_by(
    scan: &mut Scan<'_>,
    entries: &[Entry],
) -> Result<Vec<Letter>, LettersError> {
    let wanted: BTreeSet<(Partition, Offset)> = entries.iter().map(|entry| entry.at).collect();
    let mut found = BTreeMap::new();
    for (partition, stretch) in stretches(&wanted) {
        scan.read(partition, stretch, &mut |record| {
            let at = (partition, record.offset);
            if wanted.contains(&at) {
                found.insert(at, Letter::of(partition, record));
            }
            Ok(())
        })?;
    }
    Ok(entries.iter().filter_map(|entry| found.remove(&entry.at)).collect())
}

/// What has to be read to have all of these, with no long way between two of them.
fn stretches(wanted: &BTreeSet<(Partition, Offset)>) -> Vec<(Partition, Bounds)> {
    let mut stretches: Vec<(Partition, Bounds)> = Vec::new();
    for (partition, offset) in wanted {
        match stretches.last_mut() {
            Some((last, stretch)) if last == partition && offset.0 - stretch.end.0 <= GAP_MAX => {
                stretch.end = offset.next();
            }
            _ => stretches.push((*partition, Bounds { start: *offset, end: offset.next() })),
        }
    }
    stretches
}

/// Every mark beside a letter, oldest first.
pub fn marks_of(
    log: &dyn Log,
    topology: &Topology,
    letter: &Letter,
) -> Result<Vec<Mark>, LettersError> {
    let mut scan = Scan::new(log, topology)?;
    let mut marks = Vec::new();
    let identity = letter.identity();
    let stretch = scan.bounds(letter.at.0)?;
    scan.read(letter.at.0, stretch, &mut |record| {
        marks.extend(Mark::decode(&record).filter(|mark| mark.letter == identity));
        Ok(())
    })?;
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_close_together_is_read_in_one_go() {
        let wanted = [(0, 5), (0, 6), (0, 900), (0, 5_000), (1, 5_001)];
        let wanted = wanted.map(|(p, o)| (Partition(p), Offset(o))).into();
        let got: Vec<_> = stretches(&wanted)
            .into_iter()
            .map(|(p, bounds)| (p.0, bounds.start.0, bounds.end.0))
            .collect();
        assert_eq!(got, [(0, 5, 901), (0, 5_000, 5_001), (1, 5_001, 5_002)]);
    }
}

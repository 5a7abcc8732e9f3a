//! Measures how long there was no output: at all, and in the worst partition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message as _;

use super::fixture::OutputReader;

/// The longest times without output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stalls {
    /// In all partitions together.
    pub(super) all: Duration,
    /// In the worst partition.
    pub(super) worst: Duration,
}

/// Measures for this long the times without output, in the partitions that had some before.
pub(super) fn watch(outputs: &mut OutputReader, over: Duration) -> Stalls {
    let begun = Instant::now();
    let mut last = BTreeMap::new();
    for message in &outputs.all {
        last.insert((message.topic().to_owned(), message.partition()), begun);
    }
    let (mut stalls, mut any) = (Stalls::default(), begun);
    while begun.elapsed() < over {
        if !outputs.read(outputs.all.len() + 1, Duration::from_millis(50)) {
            continue;
        }
        let now = Instant::now();
        let message = outputs.all.last().expect("one was read");
        let at = (message.topic().to_owned(), message.partition());
        let before = last.insert(at, now).unwrap_or(begun);
        stalls.worst = stalls.worst.max(now - before);
        stalls.all = stalls.all.max(now - any);
        any = now;
    }
    let still = last.values().map(Instant::elapsed).max().unwrap_or(over);
    Stalls { all: stalls.all.max(any.elapsed()), worst: stalls.worst.max(still) }
}

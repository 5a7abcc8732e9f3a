//! Requeues and drops dead letters, each exactly once.
//!
//! ```text
//! take over the id ─▶ list dead letters ─▶ begin, append, drain, commit ─┐
//!    ▲  (aborts another's transaction)        ▲         once a batch     │
//!    └── outcome unknown: list again          └──────────────────────────┘
//! ```
//!
//! The requeued record and its resolution record are one transaction. The lister holds the
//! transactional id under which any other process would have to write, so the listing stays true
//! until the commit, or the commit fails. Records are requeued in the order in which they were
//! appended.

use std::collections::BTreeMap;

use crate::dead_letters::dead_letter::DeadLetter;
use crate::dead_letters::error::DeadLettersError;
use crate::dead_letters::filter::Filter;
use crate::dead_letters::listing::{ListEntry, Listing, fetch_by, list, resolutions_of};
use crate::dead_letters::requeue::{destination, requeued_record};
use crate::dead_letters::resolution::{Resolution, resolution_record};
use crate::dead_letters::scan::Scan;
use crate::port::{Log, LogError, Transactor};
use crate::record::Outgoing;
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::repeat;

/// Dead letters of one transaction, which stays open until they are acknowledged.
const TRANSACTION_DEAD_LETTERS: usize = 1_000;

/// Dead letters read at a time: on Kafka each read costs a round trip per partition.
const FETCH_DEAD_LETTERS: usize = 8_000;

/// Bytes of dead letters read at a time, which also limits a transaction.
const FETCH_BYTES: usize = 8 << 20;

/// The most restarts after a transaction that was aborted or whose outcome is unknown.
const RESTARTS_MAX: u32 = 20;

/// A request to requeue or drop dead letters.
#[derive(Clone, Debug)]
pub struct ResolveRequest {
    /// Which dead letters.
    pub filter: Filter,
    /// Whether to requeue or to drop.
    pub resolution: Resolution,
    /// The administrator's comment.
    pub because: Option<String>,
    /// The most dead letters to resolve; the oldest first.
    pub limit: Option<usize>,
}

/// What was resolved, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveSummary {
    /// Resolved dead letters, by reason.
    pub done: BTreeMap<String, u64>,
    /// Dead letters that match and are beyond the limit.
    pub left: u64,
    /// Dead letters that match but can't be requeued; they stay open.
    pub unable: u64,
    /// Ids in the filter without an open dead letter.
    pub absent: Vec<String>,
}

impl ResolveSummary {
    /// How many were resolved.
    pub fn count(&self) -> u64 {
        self.done.values().sum()
    }
}

/// Returns what [`resolve`] would do now; writes nothing.
pub fn plan(
    log: &dyn Log,
    topology: &Topology,
    request: &ResolveRequest,
) -> Result<ResolveSummary, DeadLettersError> {
    let mut resolver =
        Resolver { log, topology, request, resolved: ResolveSummary::default(), done: 0 };
    resolver.resolved.done = resolver.matching()?.by_reason();
    Ok(resolver.resolved)
}

/// Requeues or drops. Fences any other process that does so now.
pub fn resolve(
    log: &dyn Log,
    topology: &Topology,
    request: &ResolveRequest,
) -> Result<ResolveSummary, DeadLettersError> {
    let mut resolver =
        Resolver { log, topology, request, resolved: ResolveSummary::default(), done: 0 };
    for _ in 0..RESTARTS_MAX {
        match resolver.attempt() {
            Ok(()) => return Ok(resolver.resolved),
            Err(ResolveError::Restart) => {}
            Err(ResolveError::Failed(DeadLettersError::Log {
                source: LogError::Fenced(_),
                ..
            })) => {
                return Err(DeadLettersError::TakenOver { done: resolver.done });
            }
            Err(ResolveError::Failed(DeadLettersError::Log { source, .. })) => {
                return Err(DeadLettersError::Log { done: resolver.done, source });
            }
            Err(ResolveError::Failed(error)) => return Err(error),
        }
    }
    let source = LogError::Retry("no transaction was completed".into());
    Err(DeadLettersError::Log { done: resolver.done, source })
}

/// Why an attempt ended early.
enum ResolveError {
    /// List again and continue.
    Restart,
    Failed(DeadLettersError),
}

impl<E: Into<DeadLettersError>> From<E> for ResolveError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Resolver<'a> {
    log: &'a dyn Log,
    topology: &'a Topology,
    request: &'a ResolveRequest,
    resolved: ResolveSummary,
    done: u64,
}

impl Resolver<'_> {
    /// The open dead letters that match, up to the limit.
    fn matching(&mut self) -> Result<Listing, DeadLettersError> {
        let mut list = list(self.log, self.topology, &self.request.filter)?.open();
        let entries = &mut list.entries;
        if self.done == 0 {
            self.resolved.absent = self.absent(entries)?;
        }
        let all = entries.len();
        if self.request.resolution == Resolution::Requeued {
            entries.retain(|entry| entry.requeueable);
        }
        let able = entries.len();
        let left = self.request.limit.map(|limit| limit.saturating_sub(self.done as usize));
        entries.truncate(left.unwrap_or(usize::MAX));
        self.resolved.unable = (all - able) as u64;
        self.resolved.left = (able - entries.len()) as u64;
        Ok(list)
    }

    fn absent(&self, entries: &[ListEntry]) -> Result<Vec<String>, DeadLettersError> {
        let ids = &self.request.filter.ids;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut absent = ids.clone();
        let mut scan = Scan::new(self.log, self.topology)?;
        for batch in batches(entries) {
            for letter in fetch_by(&mut scan, batch)? {
                absent.remove(&*letter.id());
            }
        }
        Ok(absent.into_iter().collect())
    }

    fn attempt(&mut self) -> Result<(), ResolveError> {
        let id = self.topology.dead_letters_transactional_id();
        let mut transactor = repeat(|| self.log.transactor(&id))?;
        let entries = self.matching()?.entries;
        let mut scan = Scan::new(self.log, self.topology)?;
        for batch in batches(&entries) {
            let letters = fetch_by(&mut scan, batch)?;
            for some in letters.chunks(TRANSACTION_DEAD_LETTERS) {
                self.transact(&mut *transactor, some)?;
            }
        }
        Ok(())
    }

    fn transact(
        &mut self,
        transactor: &mut dyn Transactor,
        letters: &[DeadLetter],
    ) -> Result<(), ResolveError> {
        let records: Vec<Outgoing> =
            letters.iter().filter_map(|letter| self.records_for(letter)).flatten().collect();
        match write(transactor, &records) {
            Ok(()) => self.note(letters),
            Err(LogError::Unknown(_)) => {
                // Taking the id over commits or aborts the transaction.
                drop(repeat(|| {
                    self.log.transactor(&self.topology.dead_letters_transactional_id())
                })?);
                if self.is_resolved(&letters[0])? {
                    self.note(letters);
                }
                return Err(ResolveError::Restart);
            }
            Err(LogError::Abort(_)) => {
                // Other errors don't matter, since the next attempt takes over the id. If another
                // process has it, give up: two would take it from each other for ever.
                return match transactor.abort() {
                    Err(LogError::Fenced(who)) => Err(LogError::Fenced(who).into()),
                    _ => Err(ResolveError::Restart),
                };
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn is_resolved(&self, letter: &DeadLetter) -> Result<bool, DeadLettersError> {
        Ok(!resolutions_of(self.log, self.topology, letter)?.is_empty())
    }

    /// The records that resolve a dead letter; `None` if it can't be requeued.
    fn records_for(&self, letter: &DeadLetter) -> Option<Vec<Outgoing>> {
        let topic = self.topology.dead_letters();
        let because = self.request.because.as_deref();
        match self.request.resolution {
            Resolution::Dropped => Some(vec![resolution_record(topic, letter, None, because)]),
            Resolution::Requeued => {
                let to = destination(self.topology, letter)?;
                Some(vec![
                    requeued_record(letter, &to),
                    resolution_record(topic, letter, Some(&to), because),
                ])
            }
        }
    }

    fn note(&mut self, letters: &[DeadLetter]) {
        let mut by_reason = BTreeMap::<String, u64>::new();
        for letter in letters {
            *by_reason.entry(letter.reason().into_owned()).or_default() += 1;
        }
        for (reason, count) in by_reason {
            match self.request.resolution {
                Resolution::Requeued => telemetry::dead_letters_requeued(&reason, count),
                Resolution::Dropped => telemetry::dead_letters_dropped(&reason, count),
            }
            *self.resolved.done.entry(reason).or_default() += count;
            self.done += count;
        }
    }
}

fn write(transactor: &mut dyn Transactor, records: &[Outgoing]) -> Result<(), LogError> {
    repeat(|| transactor.begin())?;
    repeat(|| transactor.append(records))?;
    repeat(|| transactor.drain())?;
    repeat(|| transactor.commit())?;
    Ok(())
}

/// Splits entries into the batches that are read at a time.
fn batches(entries: &[ListEntry]) -> impl Iterator<Item = &[ListEntry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&ListEntry| {
            let before = bytes;
            bytes += entry.bytes as usize;
            before < FETCH_BYTES
        };
        let count = rest.iter().take(FETCH_DEAD_LETTERS).take_while(fits).count();
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

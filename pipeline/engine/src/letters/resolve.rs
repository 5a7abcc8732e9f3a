//! Requeue and drop: each letter once, whatever happens in between.
//!
//! ```text
//! take over the id ─▶ read all letters and marks ─▶ begin, records back + marks, drain, commit ─┐
//!    ▲      (ends what another left open)                 ▲                  once a batch      │
//!    └── outcome unknown: ask the marks                   └────────────────────────────────────┘
//! ```
//!
//! The one idea: the record that goes back and the mark that says so are one transaction, and who
//! reads the marks holds the id under which every other would have to write. So what was read stays
//! true until the commit, or the commit fails.
//! Records go back in the order in which they came.

use std::collections::BTreeMap;

use crate::letters::back::{destination, record_of};
use crate::letters::filter::Filter;
use crate::letters::index::{Entry, INDEX_MAX, Index, fetch_by, index, marks_of};
use crate::letters::letter::Letter;
use crate::letters::mark::{Resolution, mark};
use crate::letters::scan::Scan;
use crate::port::{Log, LogError, Transactor};
use crate::record::Outgoing;
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::repeat;

/// Letters of one transaction, which is open for as long as they take to arrive.
const TRANSACTION_LETTERS: usize = 1_000;

/// Letters read at a time: on Kafka each time costs a round trip for every partition.
const FETCH_LETTERS: usize = 8_000;

/// Bytes of letters read at a time, and so of a transaction.
const FETCH_BYTES: usize = 8 << 20;

/// Times it is started again after a transaction that was aborted or whose outcome is unknown.
const RESTARTS_MAX: u32 = 20;

/// Why letters could not be read or resolved.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// More than an index holds.
    #[error("more than {INDEX_MAX} letters match; narrow them down by reason, source or time")]
    TooMany,
    /// Somebody else requeues or drops.
    #[error(
        "another requeue or drop took over after {done} letters of this one; what was done stays \
         done, run it again for the rest"
    )]
    TakenOver {
        /// Letters resolved before.
        done: u64,
    },
    /// The log failed.
    #[error("the log failed after {done} letters; what was done stays done, run it again")]
    Log {
        /// Letters resolved before.
        done: u64,
        /// How.
        #[source]
        source: LogError,
    },
}

impl From<LogError> for LettersError {
    fn from(source: LogError) -> Self {
        Self::Log { done: 0, source }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Order {
    /// With which letters.
    pub filter: Filter,
    /// What.
    pub resolution: Resolution,
    /// What the operator says about it.
    pub because: Option<String>,
    /// At most so many, those that came first.
    pub limit: Option<usize>,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Letters, by reason.
    pub done: BTreeMap<String, u64>,
    /// Letters that match and are beyond the limit.
    pub left: u64,
    /// Letters that match and have nowhere to go back to; they stay.
    pub unable: u64,
    /// Letters asked for by name of which none is open.
    pub absent: Vec<String>,
}

impl Resolved {
    /// How many.
    pub fn count(&self) -> u64 {
        self.done.values().sum()
    }
}

/// What [`resolve`] would do now; nothing is written.
pub fn plan(log: &dyn Log, topology: &Topology, order: &Order) -> Result<Resolved, LettersError> {
    let mut work = Work { log, topology, order, resolved: Resolved::default(), done: 0 };
    work.resolved.done = work.meant()?.by_reason();
    Ok(work.resolved)
}

/// Does it. Fences whoever is at it now.
pub fn resolve(
    log: &dyn Log,
    topology: &Topology,
    order: &Order,
) -> Result<Resolved, LettersError> {
    let mut work = Work { log, topology, order, resolved: Resolved::default(), done: 0 };
    for _ in 0..RESTARTS_MAX {
        match work.attempt() {
            Ok(()) => return Ok(work.resolved),
            Err(Stopped::Again) => {}
            Err(Stopped::For(LettersError::Log { source: LogError::Fenced(_), .. })) => {
                return Err(LettersError::TakenOver { done: work.done });
            }
            Err(Stopped::For(LettersError::Log { source, .. })) => {
                return Err(LettersError::Log { done: work.done, source });
            }
            Err(Stopped::For(error)) => return Err(error),
        }
    }
    let source = LogError::Retry("no transaction came to an end".into());
    Err(LettersError::Log { done: work.done, source })
}

/// Why an attempt ended before all was done.
enum Stopped {
    /// Start again from reading.
    Again,
    For(LettersError),
}

impl<E: Into<LettersError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::For(error.into())
    }
}

struct Work<'a> {
    log: &'a dyn Log,
    topology: &'a Topology,
    order: &'a Order,
    resolved: Resolved,
    done: u64,
}

impl Work<'_> {
    /// The open letters that are meant, those that came first.
    fn meant(&mut self) -> Result<Index, LettersError> {
        let mut index = index(self.log, self.topology, &self.order.filter)?.open();
        let entries = &mut index.entries;
        if self.done == 0 {
            self.resolved.absent = self.absent(entries)?;
        }
        let all = entries.len();
        if self.order.resolution == Resolution::Requeued {
            entries.retain(|entry| entry.able);
        }
        let able = entries.len();
        let left = self.order.limit.map(|limit| limit.saturating_sub(self.done as usize));
        entries.truncate(left.unwrap_or(usize::MAX));
        self.resolved.unable = (all - able) as u64;
        self.resolved.left = (able - entries.len()) as u64;
        Ok(index)
    }

    fn absent(&self, entries: &[Entry]) -> Result<Vec<String>, LettersError> {
        let ids = &self.order.filter.ids;
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

    fn attempt(&mut self) -> Result<(), Stopped> {
        let id = self.topology.letters_id();
        let mut transactor = repeat(|| self.log.transactor(&id))?;
        let entries = self.meant()?.entries;
        let mut scan = Scan::new(self.log, self.topology)?;
        for batch in batches(&entries) {
            let letters = fetch_by(&mut scan, batch)?;
            for some in letters.chunks(TRANSACTION_LETTERS) {
                self.transact(&mut *transactor, some)?;
            }
        }
        Ok(())
    }

    fn transact(
        &mut self,
        transactor: &mut dyn Transactor,
        letters: &[Letter],
    ) -> Result<(), Stopped> {
        let records: Vec<Outgoing> =
            letters.iter().filter_map(|letter| self.made_of(letter)).flatten().collect();
        match write(transactor, &records) {
            Ok(()) => self.note(letters),
            Err(LogError::Unknown(_)) => {
                // Taking the id over ends the transaction one way or the other.
                drop(repeat(|| self.log.transactor(&self.topology.letters_id()))?);
                if self.is_resolved(&letters[0])? {
                    self.note(letters);
                }
                return Err(Stopped::Again);
            }
            Err(LogError::Abort(_)) => {
                // Whatever else comes of it: the next attempt takes the id over, which ends it too.
                // But not from somebody who has it now: two would take it from each other for ever.
                return match transactor.abort() {
                    Err(LogError::Fenced(who)) => Err(LogError::Fenced(who).into()),
                    _ => Err(Stopped::Again),
                };
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn is_resolved(&self, letter: &Letter) -> Result<bool, LettersError> {
        Ok(!marks_of(self.log, self.topology, letter)?.is_empty())
    }

    /// What a letter becomes; nothing if it has nowhere to go, and then it is not meant.
    fn made_of(&self, letter: &Letter) -> Option<Vec<Outgoing>> {
        let topic = self.topology.dead_letters();
        let because = self.order.because.as_deref();
        match self.order.resolution {
            Resolution::Dropped => Some(vec![mark(topic, letter, None, because)]),
            Resolution::Requeued => {
                let to = destination(self.topology, letter)?;
                Some(vec![record_of(letter, &to), mark(topic, letter, Some(&to), because)])
            }
        }
    }

    fn note(&mut self, letters: &[Letter]) {
        let mut by_reason = BTreeMap::<String, u64>::new();
        for letter in letters {
            *by_reason.entry(letter.reason().into_owned()).or_default() += 1;
        }
        for (reason, count) in by_reason {
            telemetry::letters_resolved(self.order.resolution, (&reason, count));
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

/// Entries cut into what is read at a time.
fn batches(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let before = bytes;
            bytes += entry.bytes as usize;
            before < FETCH_BYTES
        };
        let count = rest.iter().take(FETCH_LETTERS).take_while(fits).count();
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

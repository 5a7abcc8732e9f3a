//! The sweeper: reads what lies behind the rings from the log, once for all feeds that need it.
//!
//! A shard asks on behalf of a feed. The feed's start is resolved with an answer of the lookup
//! worker, so no blocking question to the log is asked here. Then it joins a sweep: one read of a
//! partition from the earliest waiting offsets to the ring's floor, at most one per partition and
//! depth class. Each step sends every feed of the sweep the entries that it wants, in one segment
//! shared by all. A feed that does not write them in time is left behind; it holds nothing of the
//! sweep and asks again from where it got to. A sweep over a partition that the log does not answer
//! for waits, and the others go on.
//!
//! When the hub resets a ring, a new sweeper replaces this one: its reader may read other topics.
//!
//! Nothing is sent twice: a feed is sent a record only if its offsets have not passed it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::feed_cursor::{FeedCursor, ReplyOutbox, ScanKey};
use super::scan::{CatchUpScan, ScanContext, ScanStep};
use super::starts::{PendingStarts, ResolvedStart};
use crate::fanout::hub::Hub;
use crate::fanout::messages::{FeedKey, FeedRequest, FeedUpdate, SweepRequest};
use crate::fanout::offsets::PartitionOffsets;
use crate::fanout::unanswered::UnansweredCall;
use crate::port::{Isolation, Log, LogError, Reader};
use crate::record::MonotonicMillis;
use crate::telemetry;
use crate::turn::EngineError;

/// Depths in records that separate the classes: a feed that is little behind does not wait for a
/// sweep over everything.
const DEPTH_CLASSES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// The longest wait while a position beyond the log's end is asked for again, or while one sweep
/// waits for a member and another may wait for the log.
const TIMED_WAIT: Duration = Duration::from_millis(50);

/// Serves feeds that are behind. One per process; the app's thread repeats
/// [`Sweeper::turn`].
pub struct Sweeper {
    hub: Arc<Hub>,
    reader: Box<dyn Reader>,
    epoch: u32,
    /// [`Hub::resets`] when it was opened.
    resets: u64,
    starts: PendingStarts,
    sweeps: Sweeps,
    replies: ReplyOutbox,
}

/// The sweeps under way and the feeds they serve.
#[derive(Default)]
struct Sweeps {
    /// Of all feeds that are served or wait for a sweep.
    cursors: HashMap<FeedKey, FeedCursor>,
    scans: Vec<CatchUpScan>,
    waiting: HashMap<ScanKey, BTreeSet<FeedKey>>,
}

impl Sweeper {
    /// A sweeper over the hub's topics.
    pub fn open(log: &dyn Log, hub: &Arc<Hub>) -> Result<Self, EngineError> {
        // Before the epoch: if both change meanwhile, this sweeper ends in its first turn.
        let resets = hub.resets();
        let reader = log
            .reader(Isolation::Committed)
            .map_err(|e| EngineError::of_log("starting the sweeper", e))?;
        hub.set_sweeper(reader.waker());
        Ok(Self {
            hub: Arc::clone(hub),
            reader,
            epoch: hub.epoch(),
            resets,
            starts: PendingStarts::new(hub.config().beyond_end_wait_ms),
            sweeps: Sweeps::default(),
            replies: ReplyOutbox::default(),
        })
    }

    /// Answers the requests of shards and moves every sweep on by one bounded step. Waits at most
    /// `at_most` if there was nothing to do; returns whether there was. `now` never goes backwards.
    pub fn turn(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<bool, EngineError> {
        if self.resets != self.hub.resets() {
            return Err(EngineError::Retry {
                doing: "reading the log for subscriptions that are behind",
                source: "the output topics were created again or lost records".into(),
            });
        }
        let at_most = if self.starts.is_timed() { at_most.min(TIMED_WAIT) } else { at_most };
        let done = self.try_turn(now);
        self.replies.send(&self.hub);
        let is_stalled = self.sweeps.scans.iter().any(CatchUpScan::is_stalled);
        let waited = match done {
            Ok(true) => return Ok(true),
            // The records that a stalled sweep does not take would end the other wait at once.
            Ok(false) if is_stalled => self.reader.wait_for_waker(at_most.min(TIMED_WAIT)),
            Ok(false) | Err(LogError::Retry(_)) => self.reader.wait(at_most),
            Err(error) => Err(error),
        };
        waited.map_err(|e| {
            EngineError::of_log("reading the log for subscriptions that are behind", e)
        })?;
        Ok(false)
    }

    /// Sweeps under way.
    pub fn scans(&self) -> usize {
        self.sweeps.scans.len()
    }

    /// How many keys of feeds it keeps, in all places together.
    #[cfg(test)]
    pub(in crate::fanout) fn kept_keys(&self) -> usize {
        let Sweeps { cursors, scans, waiting } = &self.sweeps;
        cursors.len()
            + scans.iter().map(CatchUpScan::kept_keys).sum::<usize>()
            + waiting.values().map(|keys| 1 + keys.len()).sum::<usize>()
            + self.starts.len()
    }

    fn try_turn(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        let requests = self.hub.take_requests();
        let mut busy = !requests.is_empty();
        for request in requests {
            self.handle(request, now);
        }
        busy |= self.serve_resolved(now);
        self.sweeps.start();
        busy |= self.step_scans(now)?;
        Ok(busy)
    }

    fn handle(&mut self, request: SweepRequest, now: MonotonicMillis) {
        match request {
            SweepRequest::Serve(request) => self.starts.add(request, now),
            SweepRequest::Consumed(key) => {
                if let Some(cursor) = self.sweeps.cursors.get_mut(&key) {
                    cursor.outstanding = cursor.outstanding.saturating_sub(1);
                }
            }
            SweepRequest::Forget(key) => {
                self.sweeps.forget(key);
                self.starts.remove(key);
            }
        }
    }

    /// Serves the feeds whose start is known now; returns whether there were any.
    fn serve_resolved(&mut self, now: MonotonicMillis) -> bool {
        let resolved = self.starts.turn(&self.hub.lookups, now);
        let any = !resolved.is_empty();
        for ResolvedStart { request, offsets, lost } in resolved {
            let key = request.key;
            // A client that is cut off before it reads the gap must get it again, so it starts
            // where it asked to.
            let start = lost.map_or(offsets, |lost| lost.from);
            self.replies.put(key, FeedUpdate::Started(start));
            if let Some(lost) = lost {
                self.replies.put(key, FeedUpdate::Gap(lost));
            }
            let floor = self.hub.floor(request.partition);
            if offsets.reaches(&floor) {
                self.replies.put(key, FeedUpdate::Reached(offsets));
            } else {
                self.sweeps.serve(request, offsets, &floor);
            }
        }
        any
    }

    fn step_scans(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        let mut busy = false;
        let mut at = 0;
        let Sweeps { scans, cursors, .. } = &mut self.sweeps;
        while at < scans.len() {
            let mut context = ScanContext {
                hub: &self.hub,
                reader: &mut *self.reader,
                cursors: &mut *cursors,
                replies: &mut self.replies,
                now,
                epoch: self.epoch,
            };
            match scans[at].step(&mut context)? {
                ScanStep::Advanced => busy = true,
                ScanStep::Idle => {}
                ScanStep::Finished => {
                    let mut scan = scans.swap_remove(at);
                    scan.release(&mut *self.reader);
                    busy = true;
                    continue;
                }
            }
            at += 1;
        }
        let problems = scans.iter().filter_map(CatchUpScan::problem).collect();
        self.hub.unanswered.set(UnansweredCall::Sweep, problems);
        Ok(busy)
    }
}

impl Sweeps {
    /// Lets a feed join a sweep that is not past its offsets, or wait for the next one of its
    /// class.
    fn serve(&mut self, request: FeedRequest, offsets: PartitionOffsets, floor: &PartitionOffsets) {
        let FeedRequest { key, partition, filter, .. } = request;
        let depth_class = class_of(offsets.depth(floor));
        let near = |scan: &&mut CatchUpScan| {
            scan.serves(partition, &offsets) && class_of(scan.at().depth(floor)) <= depth_class
        };
        let mut cursor = FeedCursor {
            scan: ScanKey { partition, depth_class },
            offsets,
            filter,
            outstanding: 0,
            waited_ms: 0,
            stalled_at: None,
            picks: Vec::new(),
        };
        match self.scans.iter_mut().find(near) {
            Some(scan) => {
                cursor.scan = scan.key();
                scan.join(key, &cursor);
            }
            None => {
                self.waiting.entry(cursor.scan).or_default().insert(key);
            }
        }
        self.cursors.insert(key, cursor);
    }

    /// Removes a feed from wherever it is.
    fn forget(&mut self, key: FeedKey) {
        let Some(cursor) = self.cursors.remove(&key) else { return };
        if let Some(waiting) = self.waiting.get_mut(&cursor.scan) {
            waiting.remove(&key);
            if waiting.is_empty() {
                self.waiting.remove(&cursor.scan);
            }
        }
        for scan in self.scans.iter_mut().filter(|scan| scan.key() == cursor.scan) {
            scan.leave(key, &cursor);
        }
    }

    /// Starts a sweep for all feeds that wait for the same one, from the earliest of their offsets.
    fn start(&mut self) {
        let Self { cursors, scans, waiting } = self;
        waiting.retain(|scan_key, keys| {
            if scans.iter().any(|scan| scan.key() == *scan_key) {
                return true;
            }
            let starts = keys.iter().filter_map(|key| cursors.get(key)).map(|c| c.offsets);
            let Some(from) = starts.reduce(|mut a, b| {
                a.meet(&b);
                a
            }) else {
                return false;
            };
            let mut scan = CatchUpScan::new(*scan_key, from);
            for key in std::mem::take(keys) {
                scan.join(key, &cursors[&key]);
            }
            scans.push(scan);
            telemetry::sweeps_started();
            false
        });
    }
}

fn class_of(depth: u64) -> usize {
    DEPTH_CLASSES.iter().take_while(|limit| depth > **limit).count()
}

//! The sweeper: reads what lies behind the rings from the log, once for all feeds that need it.
//!
//! A shard asks on behalf of a feed. The sweeper resolves the feed's start against the log's stable
//! bounds, then lets it join a sweep: one read of a partition from the earliest waiting offsets to
//! the ring's floor, at most one per partition and depth class. Each step sends every feed of the
//! sweep the entries that it wants, in one segment shared by all. A feed that does not write them
//! in time is left behind; it holds nothing of the sweep and asks again from where it got to.
//!
//! Nothing is sent twice: a feed is sent a record only if its offsets have not passed it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::feed_cursor::{FeedCursor, ReplyOutbox};
use super::scan::{CatchUpScan, ScanContext, ScanKey, ScanStep};
use crate::fanout::hub::Hub;
use crate::fanout::messages::{
    FeedKey, FeedRequest, FeedStart, FeedUpdate, LostSpan, SweepRequest,
};
use crate::fanout::offsets::{PartitionOffsets, SERVED_TOPICS};
use crate::fanout::protocol::native::{ErrorCode, RequestError};
use crate::port::{Bounds, Isolation, Log, LogError, Reader};
use crate::record::{MonotonicMillis, Partition};
use crate::telemetry;
use crate::turn::EngineError;

/// Depths in records that separate the classes: a feed that is little behind does not wait for a
/// sweep over everything.
const DEPTH_CLASSES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// A request whose start is not resolved yet.
struct PendingStart {
    request: FeedRequest,
    /// Until when its position may be beyond the log's end, once it was found there.
    until: Option<MonotonicMillis>,
}

/// Where a feed can start.
enum StartDecision {
    /// Here; and the offsets asked for, if those were before the log's start.
    Serve { offsets: PartitionOffsets, lost: Option<PartitionOffsets> },
    /// Its offsets are beyond the end, which may still move.
    BeyondEnd,
}

/// Serves feeds that are behind. One per process; the app's thread repeats
/// [`Sweeper::turn`].
pub struct Sweeper {
    hub: Arc<Hub>,
    log: Arc<dyn Log>,
    reader: Box<dyn Reader>,
    pending: VecDeque<PendingStart>,
    sweeps: Sweeps,
    replies: ReplyOutbox,
}

/// The sweeps under way and the feeds they serve.
#[derive(Default)]
struct Sweeps {
    /// Of all feeds that are served or wait for a sweep.
    cursors: HashMap<FeedKey, FeedCursor>,
    scans: Vec<CatchUpScan>,
    waiting: HashMap<ScanKey, Vec<FeedKey>>,
}

impl Sweeper {
    /// A sweeper over the hub's topics.
    pub fn open(log: Arc<dyn Log>, hub: &Arc<Hub>) -> Result<Self, EngineError> {
        let reader = log
            .reader(Isolation::Committed)
            .map_err(|e| EngineError::of_log("starting the sweeper", e))?;
        hub.set_sweeper(reader.waker());
        Ok(Self {
            hub: Arc::clone(hub),
            log,
            reader,
            pending: VecDeque::new(),
            sweeps: Sweeps::default(),
            replies: ReplyOutbox::default(),
        })
    }

    /// Answers the requests of shards and moves every sweep on by one bounded step. Waits at most
    /// `at_most` if there was nothing to do; returns whether there was.
    pub fn turn(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<bool, EngineError> {
        let done = self.try_turn(now);
        self.replies.send(&self.hub);
        let waited = match done {
            Ok(true) => return Ok(true),
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

    fn try_turn(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        let requests = self.hub.take_requests();
        let mut busy = !requests.is_empty();
        for request in requests {
            self.handle(request);
        }
        busy |= self.resolve_pending(now)?;
        self.sweeps.start();
        busy |= self.step_scans(now)?;
        Ok(busy)
    }

    fn handle(&mut self, request: SweepRequest) {
        match request {
            SweepRequest::Serve(request) => {
                self.pending.push_back(PendingStart { request, until: None });
            }
            SweepRequest::Consumed(key) => {
                if let Some(cursor) = self.sweeps.cursors.get_mut(&key) {
                    cursor.outstanding = cursor.outstanding.saturating_sub(1);
                }
            }
            SweepRequest::Forget(key) => {
                self.sweeps.cursors.remove(&key);
                self.pending.retain(|pending| pending.request.key != key);
            }
        }
    }

    /// Resolves the start of every request; bounds are asked once per turn, however many wait.
    fn resolve_pending(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        let mut bounds = BoundsCache { log: &*self.log, hub: &self.hub, known: HashMap::new() };
        let mut early = Vec::new();
        let mut busy = false;
        let resolved = loop {
            let Some(mut pending) = self.pending.pop_front() else { break Ok(()) };
            let FeedRequest { key, partition, start, .. } = pending.request;
            match bounds.check_start(partition, start) {
                Ok(StartDecision::Serve { offsets, lost }) => {
                    busy = true;
                    // A client that is cut off before it reads the gap must get it again, so it
                    // starts where it asked to.
                    self.replies.put(key, FeedUpdate::Started(lost.unwrap_or(offsets)));
                    if let Some(from) = lost {
                        self.replies.put(key, FeedUpdate::Gap(LostSpan { from, to: offsets }));
                    }
                    let floor = self.hub.floor(partition);
                    if offsets.reaches(&floor) {
                        self.replies.put(key, FeedUpdate::Reached(offsets));
                    } else {
                        self.sweeps.serve(pending.request, offsets, &floor);
                    }
                }
                Ok(StartDecision::BeyondEnd) => {
                    let wait = i64::from(self.hub.config().beyond_end_wait_ms);
                    let until = *pending.until.get_or_insert(now.plus(wait));
                    if now < until {
                        early.push(pending);
                    } else {
                        self.replies.put(key, FeedUpdate::Refused(beyond_end()));
                    }
                }
                Err(error) => {
                    self.pending.push_front(pending);
                    break Err(error);
                }
            }
        };
        self.pending.extend(early);
        resolved.map(|()| busy)
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
            };
            match scans[at].step(&mut context)? {
                ScanStep::Advanced => busy = true,
                ScanStep::Idle => {}
                ScanStep::Finished => {
                    let scan = scans.swap_remove(at);
                    scan.release(&mut *self.reader);
                    busy = true;
                    continue;
                }
            }
            at += 1;
        }
        Ok(busy)
    }
}

impl Sweeps {
    /// Lets a feed join a sweep that is not past its offsets, or wait for the next one of its
    /// class.
    fn serve(&mut self, request: FeedRequest, offsets: PartitionOffsets, floor: &PartitionOffsets) {
        let FeedRequest { key, partition, filter, .. } = request;
        let cursor = FeedCursor { offsets, filter, outstanding: 0, picks: Vec::new() };
        let depth_class = class_of(offsets.depth(floor));
        let near = |scan: &&mut CatchUpScan| {
            scan.serves(partition, &offsets) && class_of(scan.at().depth(floor)) <= depth_class
        };
        match self.scans.iter_mut().find(near) {
            Some(scan) => scan.join(key, &cursor),
            None => {
                self.waiting.entry(ScanKey { partition, depth_class }).or_default().push(key);
            }
        }
        self.cursors.insert(key, cursor);
    }

    /// Starts a sweep for all feeds that wait for the same one, from the earliest of their offsets.
    fn start(&mut self) {
        let Self { cursors, scans, waiting } = self;
        waiting.retain(|scan_key, keys| {
            if scans.iter().any(|scan| scan.key() == *scan_key) {
                return true;
            }
            keys.retain(|key| cursors.contains_key(key));
            let starts = keys.iter().filter_map(|key| cursors.get(key)).map(|c| c.offsets);
            let Some(from) = starts.reduce(|mut a, b| {
                a.meet(&b);
                a
            }) else {
                return false;
            };
            let mut scan = CatchUpScan::new(*scan_key, from);
            for key in keys.drain(..) {
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

fn beyond_end() -> RequestError {
    let text = "the position is beyond the end of the log: send one from this deployment, \
                `latest` or `earliest`";
    RequestError::new(ErrorCode::InvalidPosition, text)
}

/// The log's stable bounds, asked at most once each.
struct BoundsCache<'a> {
    log: &'a dyn Log,
    hub: &'a Hub,
    known: HashMap<(usize, Partition), Bounds>,
}

impl BoundsCache<'_> {
    fn of(&mut self, topic: usize, partition: Partition) -> Result<Bounds, LogError> {
        if let Some(bounds) = self.known.get(&(topic, partition)) {
            return Ok(*bounds);
        }
        let bounds =
            self.log.bounds(&self.hub.topic_partition(topic, partition), Isolation::Committed)?;
        self.known.insert((topic, partition), bounds);
        Ok(bounds)
    }

    fn check_start(
        &mut self,
        partition: Partition,
        start: FeedStart,
    ) -> Result<StartDecision, LogError> {
        let mut offsets = match start {
            FeedStart::At(offsets) => offsets,
            FeedStart::Earliest | FeedStart::Time(_) => PartitionOffsets::default(),
        };
        let asked = offsets;
        let mut lost = false;
        for topic in 0..SERVED_TOPICS {
            let bounds = self.of(topic, partition)?;
            let next = &mut offsets.0[topic];
            match start {
                FeedStart::At(_) if *next > bounds.end.0 => return Ok(StartDecision::BeyondEnd),
                FeedStart::At(_) => lost |= *next < bounds.start.0,
                FeedStart::Earliest => {}
                FeedStart::Time(time) => {
                    let found =
                        self.log.offset_at(&self.hub.topic_partition(topic, partition), time)?;
                    *next = found.unwrap_or(bounds.end).0;
                }
            }
            *next = (*next).max(bounds.start.0);
        }
        Ok(StartDecision::Serve { offsets, lost: lost.then_some(asked) })
    }
}

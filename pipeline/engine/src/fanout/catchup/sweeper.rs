//! Shared sweeps: what lies behind the rings is read from the log once for everyone who waits.
//!
//! A shard asks on behalf of a feed (a connection's subscriptions in one partition that share a
//! place). The sweeper judges where the feed stands against the log's stable bounds, then lets it
//! join a pass: a walk over one partition from the earliest waiting place to the ring's floor, at
//! most one per depth class and partition. Each step hands every member what is its own, one
//! shared segment for all of them. A member that does not consume in time is left behind and asks
//! again from where it got to; it holds nothing of the sweep meanwhile.
//!
//! Nothing is promised twice: a member takes a record only if its place has not passed it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::scan::{CatchUpScan, ScanContext, ScanStep};
use crate::fanout::hub::Hub;
use crate::fanout::identity::Identity;
use crate::fanout::offsets::{PartitionOffsets, SERVED_TOPICS};
use crate::fanout::protocol::native::{ErrorCode, RequestError};
use crate::fanout::segment::{Segment, SegmentEntry};
use crate::fanout::shard::ConnId;
use crate::port::{Bounds, Isolation, Log, LogError, Reader};
use crate::record::Millis;
use crate::telemetry;
use crate::turn::EngineError;

/// Depths in records that separate the classes: whoever is little behind does not wait for a walk
/// over everything.
const DEPTH_CLASSES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// One question of a feed, across all shards. A feed that asks again is another key, so that what
/// was said to the first question can't be taken for an answer to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::fanout) struct FeedKey {
    pub(in crate::fanout) shard: u32,
    pub(in crate::fanout) conn: ConnId,
    pub(in crate::fanout) feed: u32,
    pub(in crate::fanout) attempt: u32,
}

/// Where a feed wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum FeedStart {
    Earliest,
    Time(Millis),
    At(PartitionOffsets),
}

/// Which accounts' records a feed wants: its identity says it, whatever the channel.
pub(in crate::fanout) struct FeedFilter {
    /// Channel hashes and names.
    pub(in crate::fanout) channels: Vec<(u64, Box<str>)>,
    pub(in crate::fanout) identity: Arc<Identity>,
}

impl FeedFilter {
    pub(super) fn matches(&self, hash: u64, entry: &SegmentEntry) -> bool {
        self.channels.iter().any(|(h, name)| *h == hash && **name == *entry.channel())
            && self.identity.accounts.allows(entry.account())
    }
}

/// What shards say to the sweeper.
pub(in crate::fanout) enum SweepRequest {
    /// Serve this feed until the ring has what it needs.
    Serve { key: FeedKey, partition: u32, start: FeedStart, filter: Arc<FeedFilter> },
    /// A share of records was written out.
    Consumed(FeedKey),
    /// The feed is gone or wants no more.
    Forget(FeedKey),
}

/// What the sweeper says to a shard.
pub(in crate::fanout) struct SweepReply {
    pub(in crate::fanout) key: FeedKey,
    pub(in crate::fanout) update: FeedUpdate,
}

/// One step of a feed's way.
pub(in crate::fanout) enum FeedUpdate {
    /// It starts here.
    Started(PartitionOffsets),
    /// It can't start.
    Refused(RequestError),
    /// The log no longer has what stood between these places.
    Gap { from: PartitionOffsets, to: PartitionOffsets },
    /// Entries of the segment that are the feed's.
    Share { segment: Arc<Segment>, picks: Vec<u32> },
    /// From this place on the ring has everything.
    Reached(PartitionOffsets),
    /// The sweep went on without it.
    LeftBehind,
}

/// A feed being served.
pub(super) struct FeedCursor {
    pub(super) offsets: PartitionOffsets,
    pub(super) filter: Arc<FeedFilter>,
    /// Shares not yet written out.
    pub(super) outstanding: u32,
    /// What of the current step is this feed's.
    pub(super) picks: Vec<u32>,
}

/// A feed that asked and was not judged yet.
struct PendingStart {
    key: FeedKey,
    partition: u32,
    start: FeedStart,
    filter: Arc<FeedFilter>,
    /// How long it may wait for the log to hear of its position.
    until: Option<Millis>,
}

/// Where a feed may start.
enum StartDecision {
    /// Here; and the place asked for, if that was before the log's start.
    Serve { offsets: PartitionOffsets, lost: Option<PartitionOffsets> },
    /// Its place is beyond the end, which may yet move.
    BeyondEnd,
}

/// Answers on their way, by shard.
#[derive(Default)]
pub(super) struct ReplyOutbox(HashMap<u32, Vec<SweepReply>>);

impl ReplyOutbox {
    pub(super) fn put(&mut self, key: FeedKey, update: FeedUpdate) {
        self.0.entry(key.shard).or_default().push(SweepReply { key, update });
    }

    fn send(&mut self, hub: &Hub) {
        for (shard, replies) in &mut self.0 {
            if !replies.is_empty() {
                hub.reply(*shard, replies);
            }
        }
    }
}

/// Serves connections that are behind. One per process; the app's thread repeats
/// [`Sweeper::turn`].
pub struct Sweeper {
    hub: Arc<Hub>,
    log: Arc<dyn Log>,
    reader: Box<dyn Reader>,
    requests: VecDeque<PendingStart>,
    cursors: HashMap<FeedKey, FeedCursor>,
    scans: Vec<CatchUpScan>,
    /// Feeds waiting for the next pass of their class, by (partition, class).
    waiting: HashMap<(u32, usize), Vec<FeedKey>>,
    replies: ReplyOutbox,
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
            requests: VecDeque::new(),
            cursors: HashMap::new(),
            scans: Vec::new(),
            waiting: HashMap::new(),
            replies: ReplyOutbox::default(),
        })
    }

    /// Answers what shards have asked for and moves every sweep on by one bounded step; waits at
    /// most `at_most` if there was nothing to do. Returns whether there was.
    pub fn turn(&mut self, now: Millis, at_most: Duration) -> Result<bool, EngineError> {
        let done = self.try_turn(now);
        self.replies.send(&self.hub);
        let waited = match done {
            Ok(true) => return Ok(true),
            Ok(false) | Err(LogError::Retry(_)) => self.reader.wait(at_most),
            Err(error) => Err(error),
        };
        waited.map_err(|e| EngineError::of_log("reading the log for clients behind", e))?;
        Ok(false)
    }

    /// Sweeps under way.
    pub fn scans(&self) -> usize {
        self.scans.len()
    }

    fn try_turn(&mut self, now: Millis) -> Result<bool, LogError> {
        let requests = self.hub.take_requests();
        let mut busy = !requests.is_empty();
        for request in requests {
            self.handle(request);
        }
        busy |= self.resolve_pending(now)?;
        self.start_scans();
        busy |= self.step_scans(now)?;
        Ok(busy)
    }

    fn handle(&mut self, request: SweepRequest) {
        match request {
            SweepRequest::Serve { key, partition, start, filter } => {
                self.requests.push_back(PendingStart {
                    key,
                    partition,
                    start,
                    filter,
                    until: None,
                });
            }
            SweepRequest::Consumed(key) => {
                if let Some(cursor) = self.cursors.get_mut(&key) {
                    cursor.outstanding = cursor.outstanding.saturating_sub(1);
                }
            }
            SweepRequest::Forget(key) => {
                self.cursors.remove(&key);
                self.requests.retain(|request| request.key != key);
            }
        }
    }

    /// Judges every request; bounds are asked once per turn, however many wait.
    fn resolve_pending(&mut self, now: Millis) -> Result<bool, LogError> {
        let mut bounds = BoundsCache { log: &*self.log, hub: &self.hub, known: HashMap::new() };
        let mut early = Vec::new();
        let mut busy = false;
        let resolved = loop {
            let Some(mut request) = self.requests.pop_front() else { break Ok(()) };
            match bounds.check_start(request.partition, request.start) {
                Ok(StartDecision::Serve { offsets, lost }) => {
                    busy = true;
                    // A client cut off before it hears of a gap must hear of it again, so it starts
                    // where it asked to.
                    self.replies.put(request.key, FeedUpdate::Started(lost.unwrap_or(offsets)));
                    if let Some(from) = lost {
                        self.replies.put(request.key, FeedUpdate::Gap { from, to: offsets });
                    }
                    serve(
                        &mut self.cursors,
                        &mut self.scans,
                        &mut self.waiting,
                        AcceptedFeed {
                            floor: self.hub.floor(request.partition),
                            offsets,
                            replies: &mut self.replies,
                            request,
                        },
                    );
                }
                Ok(StartDecision::BeyondEnd) => {
                    let wait = i64::from(self.hub.config().beyond_end_wait_ms);
                    let until = *request.until.get_or_insert(Millis(now.0 + wait));
                    if now < until {
                        early.push(request);
                    } else {
                        self.replies.put(request.key, FeedUpdate::Refused(beyond_end()));
                    }
                }
                Err(error) => {
                    self.requests.push_front(request);
                    break Err(error);
                }
            }
        };
        self.requests.extend(early);
        resolved.map(|()| busy)
    }

    /// One pass for all who wait for the same class, from the earliest of their places.
    fn start_scans(&mut self) {
        let Self { cursors, scans, waiting, .. } = self;
        waiting.retain(|(partition, class), keys| {
            if scans.iter().any(|scan| scan.is_for(*partition, *class)) {
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
            let mut scan = CatchUpScan::new(*partition, *class, from);
            for key in keys.drain(..) {
                scan.join(key, &cursors[&key]);
            }
            scans.push(scan);
            telemetry::sweeps_started();
            false
        });
    }

    fn step_scans(&mut self, now: Millis) -> Result<bool, LogError> {
        let mut busy = false;
        let mut at = 0;
        while at < self.scans.len() {
            let mut context = ScanContext {
                hub: &self.hub,
                reader: &mut *self.reader,
                cursors: &mut self.cursors,
                replies: &mut self.replies,
                now,
            };
            match self.scans[at].step(&mut context)? {
                ScanStep::Advanced => busy = true,
                ScanStep::Idle => {}
                ScanStep::Finished => {
                    let scan = self.scans.swap_remove(at);
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

/// A feed found fit to be served, and what that needs.
struct AcceptedFeed<'a> {
    floor: PartitionOffsets,
    offsets: PartitionOffsets,
    replies: &'a mut ReplyOutbox,
    request: PendingStart,
}

/// Hands a feed to the ring if that has all it needs, else to a pass that has not gone past its
/// place, else lets it wait for the next pass of its class.
fn serve(
    cursors: &mut HashMap<FeedKey, FeedCursor>,
    scans: &mut [CatchUpScan],
    waiting: &mut HashMap<(u32, usize), Vec<FeedKey>>,
    accepted: AcceptedFeed<'_>,
) {
    let AcceptedFeed { floor, offsets, replies, request } = accepted;
    let PendingStart { key, partition, filter, .. } = request;
    if offsets.reaches(&floor) {
        replies.put(key, FeedUpdate::Reached(offsets));
        return;
    }
    let cursor = FeedCursor { offsets, filter, outstanding: 0, picks: Vec::new() };
    let class = class_of(offsets.depth(&floor));
    let near = |scan: &&mut CatchUpScan| {
        scan.serves(partition, &offsets) && class_of(scan.at().depth(&floor)) <= class
    };
    match scans.iter_mut().find(near) {
        Some(scan) => scan.join(key, &cursor),
        None => waiting.entry((partition, class)).or_default().push(key),
    }
    cursors.insert(key, cursor);
}

fn class_of(depth: u64) -> usize {
    DEPTH_CLASSES.iter().take_while(|limit| depth > **limit).count()
}

fn beyond_end() -> RequestError {
    let text = "the position is beyond the end of the log: send one this service gave, or \
                `latest` or `earliest`";
    RequestError::new(ErrorCode::InvalidPosition, text)
}

/// The log's stable bounds, asked at most once each.
struct BoundsCache<'a> {
    log: &'a dyn Log,
    hub: &'a Hub,
    known: HashMap<(usize, u32), Bounds>,
}

impl BoundsCache<'_> {
    fn of(&mut self, topic: usize, partition: u32) -> Result<Bounds, LogError> {
        if let Some(bounds) = self.known.get(&(topic, partition)) {
            return Ok(*bounds);
        }
        let bounds =
            self.log.bounds(&self.hub.topic_partition(topic, partition), Isolation::Committed)?;
        self.known.insert((topic, partition), bounds);
        Ok(bounds)
    }

    fn check_start(&mut self, partition: u32, start: FeedStart) -> Result<StartDecision, LogError> {
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

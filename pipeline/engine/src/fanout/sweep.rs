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

use super::hub::Hub;
use super::identity::Identity;
use super::pass::{Pass, Step, Sweeping};
use super::place::{Place, SERVED};
use super::protocol::{ErrorCode, Refusal};
use super::segment::{Entry, Segment};
use super::shard::ConnId;
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
pub(super) struct FeedKey {
    pub(super) shard: u32,
    pub(super) conn: ConnId,
    pub(super) feed: u32,
    pub(super) attempt: u32,
}

/// Where a feed wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Time(Millis),
    At(Place),
}

/// Which accounts' records a feed wants: its identity says it, whatever the channel.
pub(super) struct Wanted {
    /// Channel hashes and names.
    pub(super) channels: Vec<(u64, Box<str>)>,
    pub(super) identity: Arc<Identity>,
}

impl Wanted {
    pub(super) fn takes(&self, hash: u64, entry: &Entry) -> bool {
        self.channels.iter().any(|(h, name)| *h == hash && **name == *entry.channel())
            && self.identity.accounts.admits(entry.account())
    }
}

/// What shards say to the sweeper.
pub(super) enum Ask {
    /// Serve this feed until the ring has what it needs.
    Start { key: FeedKey, partition: u32, start: Start, wanted: Arc<Wanted> },
    /// A share of records was written out.
    Consumed(FeedKey),
    /// The feed is gone or wants no more.
    Forget(FeedKey),
}

/// What the sweeper says to a shard.
pub(super) struct Answer {
    pub(super) key: FeedKey,
    pub(super) item: Item,
}

/// One step of a feed's way.
pub(super) enum Item {
    /// It starts here.
    Started(Place),
    /// It can't start.
    Refused(Refusal),
    /// The log no longer has what stood between these places.
    Gap { from: Place, to: Place },
    /// Entries of the segment that are the feed's.
    Share { segment: Arc<Segment>, picks: Vec<u32> },
    /// From this place on the ring has everything.
    Reached(Place),
    /// The sweep went on without it.
    Left,
}

/// A feed being served.
pub(super) struct Cursor {
    pub(super) place: Place,
    pub(super) wanted: Arc<Wanted>,
    /// Shares not yet written out.
    pub(super) outstanding: u32,
    /// What of the current step is this feed's.
    pub(super) picks: Vec<u32>,
}

/// A feed that asked and was not judged yet.
struct Request {
    key: FeedKey,
    partition: u32,
    start: Start,
    wanted: Arc<Wanted>,
    /// How long it may wait for the log to hear of its position.
    until: Option<Millis>,
}

/// Where a feed may start.
enum Verdict {
    /// Here; and the place asked for, if that was before the log's start.
    Serve { place: Place, lost: Option<Place> },
    /// Its place is beyond the end, which may yet move.
    Early,
}

/// Answers on their way, by shard.
#[derive(Default)]
pub(super) struct Answers(HashMap<u32, Vec<Answer>>);

impl Answers {
    pub(super) fn put(&mut self, key: FeedKey, item: Item) {
        self.0.entry(key.shard).or_default().push(Answer { key, item });
    }

    fn send(&mut self, hub: &Hub) {
        for (shard, answers) in &mut self.0 {
            if !answers.is_empty() {
                hub.answer(*shard, answers);
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
    requests: VecDeque<Request>,
    cursors: HashMap<FeedKey, Cursor>,
    passes: Vec<Pass>,
    /// Feeds waiting for the next pass of their class, by (partition, class).
    waiting: HashMap<(u32, usize), Vec<FeedKey>>,
    answers: Answers,
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
            passes: Vec::new(),
            waiting: HashMap::new(),
            answers: Answers::default(),
        })
    }

    /// Answers what shards have asked for and moves every sweep on by one bounded step; waits at
    /// most `at_most` if there was nothing to do. Returns whether there was.
    pub fn turn(&mut self, now: Millis, at_most: Duration) -> Result<bool, EngineError> {
        let done = self.try_turn(now);
        self.answers.send(&self.hub);
        let waited = match done {
            Ok(true) => return Ok(true),
            Ok(false) | Err(LogError::Retry(_)) => self.reader.wait(at_most),
            Err(error) => Err(error),
        };
        waited.map_err(|e| EngineError::of_log("reading the log for clients behind", e))?;
        Ok(false)
    }

    /// Sweeps under way.
    pub fn passes(&self) -> usize {
        self.passes.len()
    }

    fn try_turn(&mut self, now: Millis) -> Result<bool, LogError> {
        let asks = self.hub.take_asks();
        let mut busy = !asks.is_empty();
        for ask in asks {
            self.hear(ask);
        }
        busy |= self.judge_all(now)?;
        self.start_passes();
        busy |= self.step_passes(now)?;
        Ok(busy)
    }

    fn hear(&mut self, ask: Ask) {
        match ask {
            Ask::Start { key, partition, start, wanted } => {
                self.requests.push_back(Request { key, partition, start, wanted, until: None });
            }
            Ask::Consumed(key) => {
                if let Some(cursor) = self.cursors.get_mut(&key) {
                    cursor.outstanding = cursor.outstanding.saturating_sub(1);
                }
            }
            Ask::Forget(key) => {
                self.cursors.remove(&key);
                self.requests.retain(|request| request.key != key);
            }
        }
    }

    /// Judges every request; bounds are asked once per turn, however many wait.
    fn judge_all(&mut self, now: Millis) -> Result<bool, LogError> {
        let mut bounds = BoundsOnce { log: &*self.log, hub: &self.hub, known: HashMap::new() };
        let mut early = Vec::new();
        let mut busy = false;
        let judged = loop {
            let Some(mut request) = self.requests.pop_front() else { break Ok(()) };
            match bounds.judge(request.partition, request.start) {
                Ok(Verdict::Serve { place, lost }) => {
                    busy = true;
                    // A client cut off before it hears of a gap must hear of it again, so it starts
                    // where it asked to.
                    self.answers.put(request.key, Item::Started(lost.unwrap_or(place)));
                    if let Some(from) = lost {
                        self.answers.put(request.key, Item::Gap { from, to: place });
                    }
                    serve(
                        &mut self.cursors,
                        &mut self.passes,
                        &mut self.waiting,
                        Served {
                            floor: self.hub.floor(request.partition),
                            place,
                            answers: &mut self.answers,
                            request,
                        },
                    );
                }
                Ok(Verdict::Early) => {
                    let wait = i64::from(self.hub.config().beyond_end_wait_ms);
                    let until = *request.until.get_or_insert(Millis(now.0 + wait));
                    if now < until {
                        early.push(request);
                    } else {
                        self.answers.put(request.key, Item::Refused(beyond_end()));
                    }
                }
                Err(error) => {
                    self.requests.push_front(request);
                    break Err(error);
                }
            }
        };
        self.requests.extend(early);
        judged.map(|()| busy)
    }

    /// One pass for all who wait for the same class, from the earliest of their places.
    fn start_passes(&mut self) {
        let Self { cursors, passes, waiting, .. } = self;
        waiting.retain(|(partition, class), keys| {
            if passes.iter().any(|pass| pass.is(*partition, *class)) {
                return true;
            }
            keys.retain(|key| cursors.contains_key(key));
            let places = keys.iter().filter_map(|key| cursors.get(key)).map(|c| c.place);
            let Some(from) = places.reduce(|mut a, b| {
                a.meet(&b);
                a
            }) else {
                return false;
            };
            let mut pass = Pass::new(*partition, *class, from);
            for key in keys.drain(..) {
                pass.join(key, &cursors[&key]);
            }
            passes.push(pass);
            telemetry::sweeps_started();
            false
        });
    }

    fn step_passes(&mut self, now: Millis) -> Result<bool, LogError> {
        let mut busy = false;
        let mut at = 0;
        while at < self.passes.len() {
            let mut sweeping = Sweeping {
                hub: &self.hub,
                reader: &mut *self.reader,
                cursors: &mut self.cursors,
                answers: &mut self.answers,
                now,
            };
            match self.passes[at].step(&mut sweeping)? {
                Step::Moved => busy = true,
                Step::Idle => {}
                Step::Finished => {
                    let pass = self.passes.swap_remove(at);
                    pass.release(&mut *self.reader);
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
struct Served<'a> {
    floor: Place,
    place: Place,
    answers: &'a mut Answers,
    request: Request,
}

/// Hands a feed to the ring if that has all it needs, else to a pass that has not gone past its
/// place, else lets it wait for the next pass of its class.
fn serve(
    cursors: &mut HashMap<FeedKey, Cursor>,
    passes: &mut [Pass],
    waiting: &mut HashMap<(u32, usize), Vec<FeedKey>>,
    served: Served<'_>,
) {
    let Served { floor, place, answers, request } = served;
    let Request { key, partition, wanted, .. } = request;
    if place.reaches(&floor) {
        answers.put(key, Item::Reached(place));
        return;
    }
    let cursor = Cursor { place, wanted, outstanding: 0, picks: Vec::new() };
    let class = class_of(place.depth(&floor));
    let near = |pass: &&mut Pass| {
        pass.serves(partition, &place) && class_of(pass.at().depth(&floor)) <= class
    };
    match passes.iter_mut().find(near) {
        Some(pass) => pass.join(key, &cursor),
        None => waiting.entry((partition, class)).or_default().push(key),
    }
    cursors.insert(key, cursor);
}

fn class_of(depth: u64) -> usize {
    DEPTH_CLASSES.iter().take_while(|limit| depth > **limit).count()
}

fn beyond_end() -> Refusal {
    let text = "the position is beyond the end of the log: send one this service gave, or \
                `latest` or `earliest`";
    Refusal::new(ErrorCode::InvalidPosition, text)
}

/// The log's stable bounds, asked at most once each.
struct BoundsOnce<'a> {
    log: &'a dyn Log,
    hub: &'a Hub,
    known: HashMap<(usize, u32), Bounds>,
}

impl BoundsOnce<'_> {
    fn of(&mut self, topic: usize, partition: u32) -> Result<Bounds, LogError> {
        if let Some(bounds) = self.known.get(&(topic, partition)) {
            return Ok(*bounds);
        }
        let bounds = self.log.bounds(&self.hub.at(topic, partition), Isolation::Committed)?;
        self.known.insert((topic, partition), bounds);
        Ok(bounds)
    }

    fn judge(&mut self, partition: u32, start: Start) -> Result<Verdict, LogError> {
        let mut place = match start {
            Start::At(place) => place,
            Start::Earliest | Start::Time(_) => Place::default(),
        };
        let asked = place;
        let mut lost = false;
        for topic in 0..SERVED {
            let bounds = self.of(topic, partition)?;
            let next = &mut place.0[topic];
            match start {
                Start::At(_) if *next > bounds.end.0 => return Ok(Verdict::Early),
                Start::At(_) => lost |= *next < bounds.start.0,
                Start::Earliest => {}
                Start::Time(time) => {
                    let found = self.log.offset_at(&self.hub.at(topic, partition), time)?;
                    *next = found.unwrap_or(bounds.end).0;
                }
            }
            *next = (*next).max(bounds.start.0);
        }
        Ok(Verdict::Serve { place, lost: lost.then_some(asked) })
    }
}

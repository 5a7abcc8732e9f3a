//! Gateways over one log in memory, and the clients of a test.
//!
//! There is no thread: a test moves readers, sweepers, shards, clients and the time step by step.
//! A watch checks what a client receives on one channel across its connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::position::Position;

use super::super::catchup::lookup_worker::LookupWorker;
use super::super::catchup::sweeper::Sweeper;
use super::super::config::FanoutConfig;
use super::super::hub::Hub;
use super::super::identity::{Accounts, Identity, Roles};
use super::super::offsets::{PartitionOffsets, STATE_TOPIC};
use super::super::out_buffer::OutBuffer;
use super::super::protocol::native::{SnapshotWish, StartAt};
use super::super::reader::HubReader;
use super::super::shard::{Close, ConnId, ConnectionMemory, Filled, Framing, OpenRequest, Shard};
use super::client::{ServerFrame, cut_of, read_frames};
use super::log::{MemoryLog, NoWake};
use crate::record::{Body, Millis, MonotonicMillis, Partition, TopicPartition};
use crate::topology::Topology;
use crate::turn::EngineError;

/// One gateway: hub, reader, sweeper, lookup worker, a shard.
pub(super) struct FanoutGateway {
    pub(super) hub: Arc<Hub>,
    pub(super) reader: HubReader,
    pub(super) sweeper: Sweeper,
    pub(super) lookups: LookupWorker,
    pub(super) shard: Shard,
    /// The furthest offsets of the hub, by partition.
    read_to: Vec<PartitionOffsets>,
}

impl FanoutGateway {
    /// A turn of the reader, which is created again if it says so. Returns how much it read.
    pub(super) fn read(&mut self, log: &MemoryLog) -> usize {
        let read = match self.reader.turn(Duration::ZERO) {
            Ok(read) => read,
            Err(EngineError::Retry { .. }) => {
                self.reader = HubReader::open(log, &self.hub).unwrap();
                1
            }
            Err(error) => panic!("{error}"),
        };
        self.note_heads();
        read
    }

    /// A turn of the lookup worker and one of the sweeper, which is created again if it says so.
    pub(super) fn sweep(&mut self, log: &MemoryLog, now: MonotonicMillis) -> bool {
        self.lookups.turn(now, Duration::ZERO).unwrap();
        match self.sweeper.turn(now, Duration::ZERO) {
            Ok(busy) => busy,
            Err(EngineError::Retry { .. }) => {
                self.sweeper = Sweeper::open(log, &self.hub).unwrap();
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn note_heads(&mut self) {
        for (partition, furthest) in self.read_to.iter_mut().enumerate() {
            if let Some(head) = self.hub.head(Partition(partition as u32)) {
                furthest.join(&head);
            }
        }
    }
}

/// An event in the log.
#[derive(Clone, Debug)]
pub(super) struct AppendedEvent {
    pub(super) channel: String,
    pub(super) topic: usize,
    pub(super) partition: Partition,
    pub(super) offset: u64,
    /// How often the topics had been created again.
    pub(super) generation: usize,
}

/// What an event is made of.
struct AppendedEventSpec<'a> {
    account: &'static str,
    channel: &'a str,
    topic: usize,
    data: String,
}

/// The log and its gateways.
pub(super) struct FanoutFixture {
    pub(super) topology: Topology,
    pub(super) log: Arc<MemoryLog>,
    pub(super) gateways: Vec<FanoutGateway>,
    /// By event id: `e0`, `e1`, …
    pub(super) appended: Vec<AppendedEvent>,
    /// The wall clock, of appends.
    pub(super) now: Millis,
    /// The monotonic clock, of everything else.
    pub(super) monotonic: MonotonicMillis,
    pub(super) memory: ConnectionMemory,
    /// The epoch of each generation of the topics.
    pub(super) epochs: Vec<u32>,
}

pub(super) fn identity(accounts: Accounts) -> Arc<Identity> {
    Arc::new(Identity { user: "u1".into(), accounts, roles: Roles::ALL })
}

impl FanoutFixture {
    pub(super) fn new(gateways: usize, config: &FanoutConfig) -> Self {
        let topology = Topology::new("t.", 2);
        let log = Arc::new(MemoryLog::new(&topology, 7));
        let mut fixture = Self {
            topology,
            log,
            gateways: Vec::new(),
            appended: Vec::new(),
            now: Millis(1_000),
            monotonic: MonotonicMillis(0),
            memory: ConnectionMemory::Available,
            epochs: Vec::new(),
        };
        fixture.note_epoch();
        for _ in 0..gateways {
            let gateway = fixture.gateway(config);
            fixture.gateways.push(gateway);
        }
        fixture
    }

    /// A gateway that has read to the log's end.
    pub(super) fn gateway(&self, config: &FanoutConfig) -> FanoutGateway {
        let hub = Hub::open(&*self.log, &self.topology, config.clone()).unwrap();
        let mut reader = HubReader::open(&*self.log, &hub).unwrap();
        while reader.turn(Duration::ZERO).unwrap() > 0 {}
        let log: Arc<MemoryLog> = Arc::clone(&self.log);
        let sweeper = Sweeper::open(&*log, &hub).unwrap();
        let lookups = LookupWorker::open(log, &hub).unwrap();
        let mut shard = Shard::new(&hub, Arc::new(NoWake));
        shard.tick(self.monotonic, self.memory);
        let read_to = vec![PartitionOffsets::default(); hub.partitions() as usize];
        let mut gateway = FanoutGateway { hub, reader, sweeper, lookups, shard, read_to };
        gateway.note_heads();
        gateway
    }

    fn note_epoch(&mut self) {
        let hub = Hub::open(&*self.log, &self.topology, FanoutConfig::default()).unwrap();
        self.epochs.push(hub.epoch());
    }

    /// Deletes the topics, creates them again, and lets every gateway's worker notice.
    pub(super) fn create_topics_again(&mut self) {
        self.log.create_again(7 + self.epochs.len() as u128);
        self.note_epoch();
        for gateway in &mut self.gateways {
            gateway.read_to.fill(PartitionOffsets::default());
        }
        for _ in 0..3 {
            self.pass_time(10_000);
            for gateway in &mut self.gateways {
                gateway.lookups.turn(self.monotonic, Duration::ZERO).unwrap();
            }
        }
        for gateway in &mut self.gateways {
            gateway.read(&self.log);
        }
    }

    /// The generation of the topics that a position is of.
    pub(super) fn generation_of(&self, token: &str) -> usize {
        let epoch = Position::decode(token).expect("tokens of the server decode").epoch;
        self.epochs.iter().position(|known| *known == epoch).expect("an epoch of this log")
    }

    /// How far a gateway's hub has ever been in a partition.
    pub(super) fn read_to(&self, gateway: usize, partition: Partition) -> [u64; 3] {
        self.gateways[gateway].read_to[partition.0 as usize].0
    }

    pub(super) fn topic_partition(&self, topic: usize, partition: Partition) -> TopicPartition {
        let topology = &self.topology;
        let topics = [topology.out_urgent(), topology.out_stream(), topology.out_state()];
        TopicPartition::new(topics[topic], partition)
    }

    /// Appends a value of an entry of a channel's state, or its tombstone. Returns the offset.
    pub(super) fn append_state(&self, entry: [&str; 3], event: Option<&Event>) -> u64 {
        let value = event.map(Event::encode);
        let body = Body::new(Some(entry.join("\0").as_bytes()), value.as_deref(), &[]);
        let partition = self.topology.partition_of(entry[0].as_bytes());
        self.log.append(&self.topic_partition(STATE_TOPIC, partition), self.now, body)
    }

    pub(super) fn append(&mut self, channel: &str, topic: usize) -> usize {
        self.append_for("a1", channel, topic)
    }

    pub(super) fn append_for(
        &mut self,
        account: &'static str,
        channel: &str,
        topic: usize,
    ) -> usize {
        let number = self.appended.len();
        let data = format!("{{\"n\":{number},\n\"text\":\"a \\\"quoted\\\" line\"}}");
        self.append_event(AppendedEventSpec { account, channel, topic, data })
    }

    /// Appends an event with this text as it is.
    pub(super) fn append_text(&mut self, channel: &str, text: &str) -> usize {
        let data = format!("{{\"text\":\"{text}\"}}");
        self.append_event(AppendedEventSpec { account: "a1", channel, topic: 1, data })
    }

    /// An event with this many bytes of data.
    pub(super) fn append_large(&mut self, channel: &str, bytes: usize) -> usize {
        let data = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
        self.append_event(AppendedEventSpec { account: "a1", channel, topic: 1, data })
    }

    fn append_event(&mut self, spec: AppendedEventSpec<'_>) -> usize {
        let AppendedEventSpec { account, channel, topic, data } = spec;
        let number = self.appended.len();
        let event = Event {
            event_id: format!("e{number}"),
            event_type: "post.created".to_owned(),
            account_id: account.to_owned(),
            timestamp_ms: self.now.0,
            correlation_id: format!("e{number}"),
            priority: Priority::Normal,
            key: "k".to_owned(),
            source: None,
            alias: None,
            data,
        };
        let partition = self.topology.partition_of(channel.as_bytes());
        let body = Body::new(Some(channel.as_bytes()), Some(&event.encode()), &[]);
        let offset = self.log.append(&self.topic_partition(topic, partition), self.now, body);
        let channel = channel.to_owned();
        let generation = self.epochs.len() - 1;
        self.appended.push(AppendedEvent { channel, topic, partition, offset, generation });
        number
    }

    pub(super) fn read(&mut self, gateway: usize) {
        self.gateways[gateway].read(&self.log);
    }

    pub(super) fn sweep(&mut self, gateway: usize) -> bool {
        self.gateways[gateway].sweep(&self.log, self.monotonic)
    }

    /// Time passes, and the workers tick once a second, as they do.
    pub(super) fn pass_time(&mut self, ms: i64) {
        for part in (0..ms).step_by(1_000) {
            self.stand_still((ms - part).min(1_000));
        }
    }

    /// Time passes without a tick until its end.
    pub(super) fn stand_still(&mut self, ms: i64) {
        self.now.0 += ms;
        self.monotonic = self.monotonic.plus(ms);
        for gateway in &mut self.gateways {
            gateway.shard.tick(self.monotonic, self.memory);
        }
    }

    /// Readers, sweepers and shards run until nothing changes. Between calls, clients must be
    /// filled.
    pub(super) fn settle(&mut self) {
        for gateway in &mut self.gateways {
            while gateway.read(&self.log) > 0 {}
            gateway.shard.pull();
            for _ in 0..3 {
                gateway.sweep(&self.log, self.monotonic);
                gateway.shard.pull();
            }
        }
    }
}

/// A client's connection.
pub(super) struct ClientConnection {
    pub(super) gateway: usize,
    pub(super) conn: ConnId,
    pub(super) framing: Framing,
    pub(super) bytes: Vec<u8>,
    requests: u64,
}

impl ClientConnection {
    pub(super) fn open(
        fixture: &mut FanoutFixture,
        gateway: usize,
        identity: &Arc<Identity>,
    ) -> Self {
        let open = OpenRequest {
            framing: Framing::WebSocket,
            identity: Arc::clone(identity),
            channels: Vec::new(),
            start: StartAt::Latest,
            snapshot: SnapshotWish::Skip,
        };
        let conn = fixture.gateways[gateway].shard.open(open).unwrap();
        Self { gateway, conn, framing: Framing::WebSocket, bytes: Vec::new(), requests: 0 }
    }

    pub(super) fn stream(
        fixture: &mut FanoutFixture,
        gateway: usize,
        channels: &[String],
        start: StartAt,
    ) -> Self {
        Self::stream_with(fixture, gateway, (channels, start, SnapshotWish::Skip))
    }

    pub(super) fn stream_with(
        fixture: &mut FanoutFixture,
        gateway: usize,
        (channels, start, snapshot): (&[String], StartAt, SnapshotWish),
    ) -> Self {
        let open = OpenRequest {
            framing: Framing::Sse,
            identity: identity(Accounts::All),
            channels: channels.to_vec(),
            start,
            snapshot,
        };
        let conn = fixture.gateways[gateway].shard.open(open).unwrap();
        Self { gateway, conn, framing: Framing::Sse, bytes: Vec::new(), requests: 0 }
    }

    pub(super) fn send(&self, fixture: &mut FanoutFixture, request: &Value) {
        fixture.gateways[self.gateway].shard.input(self.conn, &request.to_string());
    }

    /// Subscribes, and returns the request's id.
    pub(super) fn subscribe(
        &mut self,
        fixture: &mut FanoutFixture,
        channel: &str,
        from: &str,
    ) -> u64 {
        self.requests += 1;
        let id = self.requests;
        self.send(fixture, &json!({"op": "subscribe", "id": id, "channel": channel, "from": from}));
        id
    }

    /// One fill of at most about `budget` bytes.
    pub(super) fn fill(&mut self, fixture: &mut FanoutFixture, budget: usize) -> Filled {
        let mut out = OutBuffer::default();
        let filled = fixture.gateways[self.gateway].shard.fill(self.conn, &mut out, budget);
        out.pieces().into_iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        filled
    }

    pub(super) fn take_frames(&mut self) -> Vec<ServerFrame> {
        read_frames(self.framing, &mut self.bytes)
    }

    /// Fills and reads until there is nothing more.
    pub(super) fn read(&mut self, fixture: &mut FanoutFixture) -> Vec<ServerFrame> {
        while self.fill(fixture, 1 << 20) == Filled::More {}
        self.take_frames()
    }

    /// Settles and reads until this connection has all it is due.
    pub(super) fn read_all(&mut self, fixture: &mut FanoutFixture) -> Vec<ServerFrame> {
        let mut frames = Vec::new();
        let mut idle = 0;
        while idle < 4 {
            fixture.settle();
            let more = self.read(fixture);
            idle = if more.is_empty() { idle + 1 } else { 0 };
            frames.extend(more);
        }
        frames
    }

    pub(super) fn closes(&self, fixture: &mut FanoutFixture) -> Vec<Close> {
        let mut closes = Vec::new();
        fixture.gateways[self.gateway].shard.take_closes(&mut closes);
        closes
    }
}

/// The numbers of the events among the frames, in order.
pub(super) fn numbers(frames: &[ServerFrame]) -> Vec<usize> {
    let number = |frame: &ServerFrame| match frame {
        ServerFrame::Object { json, .. } => {
            json["event_id"].as_str()?.strip_prefix('e')?.parse().ok()
        }
        _ => None,
    };
    frames.iter().filter_map(number).collect()
}

/// The objects of one `op`.
pub(super) fn objects<'a>(frames: &'a [ServerFrame], of: &str) -> Vec<&'a Value> {
    let object = |frame: &'a ServerFrame| match frame {
        ServerFrame::Object { op, json, .. } if op == of => Some(json),
        _ => None,
    };
    frames.iter().filter_map(object).collect()
}

/// One channel as a client follows it across connections: where it started, which events it has
/// seen, and which gaps were announced.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) channel: String,
    pub(super) partition: Partition,
    pub(super) from: Option<[u64; 3]>,
    /// The request that the current connection has to answer, or 0 if it has.
    pub(super) request: u64,
    /// The generation of the topics that `from` is of.
    generation: usize,
    /// Events before these offsets are older than a subscribe with `latest`.
    not_before: [u64; 3],
    seen: BTreeSet<(usize, u64)>,
    last: [Option<u64>; 2],
    lost: Vec<[std::ops::Range<u64>; 2]>,
}

impl Watch {
    pub(super) fn new(fixture: &FanoutFixture, channel: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            partition: fixture.topology.partition_of(channel.as_bytes()),
            from: None,
            request: 0,
            generation: 0,
            not_before: [0; 3],
            seen: BTreeSet::new(),
            last: [None; 2],
            lost: Vec::new(),
        }
    }

    /// Notes that the channel is subscribed to with `latest` at a gateway.
    pub(super) fn starts_latest(&mut self, fixture: &FanoutFixture, gateway: usize) {
        self.not_before = fixture.read_to(gateway, self.partition);
    }

    /// Notes the start that the server has answered with, unless it is known already.
    pub(super) fn start_at(&mut self, fixture: &FanoutFixture, position: &str) {
        if self.from.is_none() {
            self.from = cut_of(position, self.partition);
            self.generation = fixture.generation_of(position);
        }
    }

    /// Notes a gap after which nothing of the former records comes.
    pub(super) fn restart(&mut self, fixture: &FanoutFixture, to: &str) {
        let new = Self::new(fixture, &self.channel);
        *self = Self { request: self.request, ..new };
        self.start_at(fixture, to);
    }

    /// Notes an event. It must be new, of this channel and in order within its topic.
    pub(super) fn event(&mut self, fixture: &FanoutFixture, number: usize) {
        let appended = &fixture.appended[number];
        assert_eq!(appended.channel, self.channel, "an event of another channel");
        let from = self.from.expect("no event before the start is known");
        assert_eq!(appended.generation, self.generation, "e{number} is of other topics");
        assert!(appended.offset >= from[appended.topic], "e{number} is from before the start");
        let older = appended.offset < self.not_before[appended.topic];
        assert!(!older, "e{number} is older than the subscribe");
        let first = self.seen.insert((appended.topic, appended.offset));
        assert!(first, "e{number} came twice on {}", self.channel);
        let last = &mut self.last[appended.topic];
        assert!(last.is_none_or(|last| last < appended.offset), "e{number} is out of order");
        *last = Some(appended.offset);
    }

    /// Notes a gap. Its records must be gone from the log.
    pub(super) fn gap(&mut self, fixture: &FanoutFixture, from: &str, to: &str) {
        let from = cut_of(from, self.partition).expect("the gap is of this partition");
        let to = cut_of(to, self.partition).expect("the gap is of this partition");
        assert_ne!(from, to, "an empty gap");
        for topic in 0..2 {
            let start = fixture.log.start(&fixture.topic_partition(topic, self.partition));
            let real = from[topic] == to[topic] || to[topic] <= start;
            assert!(real, "a gap to {} though the log starts at {start}", to[topic]);
        }
        self.lost.push([from[0]..to[0], from[1]..to[1]]);
    }

    /// Asserts that every event from the start on was seen or announced as lost.
    pub(super) fn check_complete(&self, fixture: &FanoutFixture) {
        let Some(from) = self.from else { return };
        for (number, appended) in fixture.appended.iter().enumerate() {
            let wanted = appended.channel == self.channel && appended.generation == self.generation;
            if !wanted || appended.offset < from[appended.topic] {
                continue;
            }
            let seen = self.seen.contains(&(appended.topic, appended.offset));
            let lost = self.lost.iter().any(|lost| lost[appended.topic].contains(&appended.offset));
            assert!(seen || lost, "e{number} on {} never came: {appended:?}", self.channel);
        }
    }
}

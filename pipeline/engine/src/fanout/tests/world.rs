//! Gateways over one log, and the clients of a test.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use super::super::config::FanoutConfig;
use super::super::hub::Hub;
use super::super::identity::{Accounts, Identity, Roles};
use super::super::protocol::StartAt;
use super::super::reader::HubReader;
use super::super::shard::{Close, ConnId, Filled, Open, Shard, Wire};
use super::super::sweep::Sweeper;
use super::client::{Heard, cut_of, read_frames};
use super::log::{FakeLog, NoWake};
use crate::record::{Body, Millis, Partition, TopicPartition};
use crate::topology::Topology;

/// One gateway: hub, reader, sweeper, a shard.
pub(super) struct Gateway {
    pub(super) hub: Arc<Hub>,
    pub(super) reader: HubReader,
    pub(super) sweeper: Sweeper,
    pub(super) shard: Shard,
}

/// An event in the log.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) channel: String,
    pub(super) topic: usize,
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// The log and its gateways.
pub(super) struct World {
    pub(super) topology: Topology,
    pub(super) log: Arc<FakeLog>,
    pub(super) gateways: Vec<Gateway>,
    /// By event id: `e0`, `e1`, …
    pub(super) written: Vec<Written>,
    pub(super) now: Millis,
}

pub(super) fn identity(accounts: Accounts) -> Arc<Identity> {
    Arc::new(Identity { user: "u1".into(), accounts, roles: Roles::ALL })
}

impl World {
    pub(super) fn new(gateways: usize, config: &FanoutConfig) -> Self {
        let topology = Topology::new("t.", 2);
        let log = Arc::new(FakeLog::new(&topology, 7));
        let mut world =
            Self { topology, log, gateways: Vec::new(), written: Vec::new(), now: Millis(1_000) };
        for _ in 0..gateways {
            let gateway = world.gateway(config);
            world.gateways.push(gateway);
        }
        world
    }

    /// A gateway that has read to the log's end.
    pub(super) fn gateway(&self, config: &FanoutConfig) -> Gateway {
        let hub = Hub::open(&*self.log, &self.topology, config.clone()).unwrap();
        let mut reader = HubReader::open(&*self.log, &hub).unwrap();
        while reader.turn(Duration::ZERO).unwrap() > 0 {}
        let log: Arc<FakeLog> = Arc::clone(&self.log);
        let sweeper = Sweeper::open(log, &hub).unwrap();
        let mut shard = hub.shard(Arc::new(NoWake));
        shard.tick(self.now);
        Gateway { hub, reader, sweeper, shard }
    }

    pub(super) fn at(&self, topic: usize, partition: u32) -> TopicPartition {
        let topics = [self.topology.out_urgent(), self.topology.out_stream()];
        TopicPartition::new(topics[topic], Partition(partition))
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
        let number = self.written.len();
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
            data: format!("{{\"n\":{number},\n\"text\":\"a \\\"quoted\\\" line\"}}"),
        };
        let partition = self.topology.partition_of(channel.as_bytes()).0;
        let body = Body::new(Some(channel.as_bytes()), Some(&event.encode()), &[]);
        let offset = self.log.append(&self.at(topic, partition), self.now, body);
        let channel = channel.to_owned();
        self.written.push(Written { channel, topic, partition, offset });
        number
    }

    pub(super) fn read(&mut self, gateway: usize) {
        self.gateways[gateway].reader.turn(Duration::ZERO).unwrap();
    }

    pub(super) fn sweep(&mut self, gateway: usize) -> bool {
        self.gateways[gateway].sweeper.turn(self.now, Duration::ZERO).unwrap()
    }

    pub(super) fn pass_time(&mut self, ms: i64) {
        self.now.0 += ms;
        for gateway in &mut self.gateways {
            gateway.shard.tick(self.now);
        }
    }

    /// Everything reads all there is, until nothing moves. Clients must be drained between.
    pub(super) fn settle(&mut self) {
        for gateway in &mut self.gateways {
            while gateway.reader.turn(Duration::ZERO).unwrap() > 0 {}
            gateway.shard.pull();
            for _ in 0..3 {
                gateway.sweeper.turn(self.now, Duration::ZERO).unwrap();
                gateway.shard.pull();
            }
        }
    }
}

/// A client's connection.
pub(super) struct Line {
    pub(super) gateway: usize,
    pub(super) conn: ConnId,
    pub(super) wire: Wire,
    pub(super) bytes: Vec<u8>,
    requests: u64,
}

impl Line {
    pub(super) fn open(world: &mut World, gateway: usize, identity: &Arc<Identity>) -> Self {
        let open = Open {
            wire: Wire::WebSocket,
            identity: Arc::clone(identity),
            channels: Vec::new(),
            start: StartAt::Latest,
        };
        let conn = world.gateways[gateway].shard.open(open).unwrap();
        Self { gateway, conn, wire: Wire::WebSocket, bytes: Vec::new(), requests: 0 }
    }

    pub(super) fn stream(
        world: &mut World,
        gateway: usize,
        channels: &[String],
        start: StartAt,
    ) -> Self {
        let identity = identity(Accounts::All);
        let open = Open { wire: Wire::Sse, identity, channels: channels.to_vec(), start };
        let conn = world.gateways[gateway].shard.open(open).unwrap();
        Self { gateway, conn, wire: Wire::Sse, bytes: Vec::new(), requests: 0 }
    }

    pub(super) fn send(&self, world: &mut World, request: &Value) {
        world.gateways[self.gateway].shard.input(self.conn, &request.to_string());
    }

    /// Subscribes, and returns the request's id.
    pub(super) fn subscribe(&mut self, world: &mut World, channel: &str, from: &str) -> u64 {
        self.requests += 1;
        let id = self.requests;
        self.send(world, &json!({"op": "subscribe", "id": id, "channel": channel, "from": from}));
        id
    }

    /// One fill of at most about `budget` bytes.
    pub(super) fn fill(&mut self, world: &mut World, budget: usize) -> Filled {
        world.gateways[self.gateway].shard.fill(self.conn, &mut self.bytes, budget)
    }

    pub(super) fn heard(&mut self) -> Vec<Heard> {
        read_frames(self.wire, &mut self.bytes)
    }

    /// Fills and reads until there is nothing more.
    pub(super) fn hear(&mut self, world: &mut World) -> Vec<Heard> {
        while self.fill(world, 1 << 20) == Filled::More {}
        self.heard()
    }

    /// Lets everything move until this connection has all it is due.
    pub(super) fn hear_all(&mut self, world: &mut World) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut idle = 0;
        while idle < 4 {
            world.settle();
            let more = self.hear(world);
            idle = if more.is_empty() { idle + 1 } else { 0 };
            heard.extend(more);
        }
        heard
    }

    pub(super) fn closes(&self, world: &mut World) -> Vec<Close> {
        let mut closes = Vec::new();
        world.gateways[self.gateway].shard.take_closes(&mut closes);
        closes
    }
}

/// The numbers of the events among what was heard, in order.
pub(super) fn numbers(heard: &[Heard]) -> Vec<usize> {
    let number = |heard: &Heard| match heard {
        Heard::Object { json, .. } => json["event_id"].as_str()?.strip_prefix('e')?.parse().ok(),
        _ => None,
    };
    heard.iter().filter_map(number).collect()
}

/// The objects of one `op`.
pub(super) fn objects<'a>(heard: &'a [Heard], of: &str) -> Vec<&'a Value> {
    let object = |heard: &'a Heard| match heard {
        Heard::Object { op, json, .. } if op == of => Some(json),
        _ => None,
    };
    heard.iter().filter_map(object).collect()
}

/// One channel as a client follows it across connections: where it began, what it has seen, what it
/// was told is lost.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) channel: String,
    pub(super) partition: u32,
    pub(super) from: Option<[u64; 3]>,
    /// The request the present connection has to answer, or 0 if it has.
    pub(super) request: u64,
    seen: BTreeSet<(usize, u64)>,
    last: [Option<u64>; 2],
    lost: Vec<[std::ops::Range<u64>; 2]>,
}

impl Watch {
    pub(super) fn new(world: &World, channel: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            partition: world.topology.partition_of(channel.as_bytes()).0,
            from: None,
            request: 0,
            seen: BTreeSet::new(),
            last: [None; 2],
            lost: Vec::new(),
        }
    }

    /// Takes an event; it must be new, the channel's own and in order within its topic.
    pub(super) fn event(&mut self, world: &World, number: usize) {
        let written = &world.written[number];
        assert_eq!(written.channel, self.channel, "an event of another channel");
        let from = self.from.expect("no event before the start is known");
        assert!(written.offset >= from[written.topic], "e{number} is from before the start");
        let first = self.seen.insert((written.topic, written.offset));
        assert!(first, "e{number} came twice on {}", self.channel);
        let last = &mut self.last[written.topic];
        assert!(last.is_none_or(|last| last < written.offset), "e{number} is out of order");
        *last = Some(written.offset);
    }

    /// Takes a gap; what it spans must be gone from the log.
    pub(super) fn gap(&mut self, world: &World, from: &str, to: &str) {
        let from = cut_of(from, self.partition).expect("the gap is of this partition");
        let to = cut_of(to, self.partition).expect("the gap is of this partition");
        assert_ne!(from, to, "an empty gap");
        for topic in 0..2 {
            let start = world.log.start(&world.at(topic, self.partition));
            let real = from[topic] == to[topic] || to[topic] <= start;
            assert!(real, "a gap to {} though the log starts at {start}", to[topic]);
        }
        self.lost.push([from[0]..to[0], from[1]..to[1]]);
    }

    /// Everything from the start on was seen, but for what was announced as lost.
    pub(super) fn check_complete(&self, world: &World) {
        let Some(from) = self.from else { return };
        for (number, written) in world.written.iter().enumerate() {
            if written.channel != self.channel || written.offset < from[written.topic] {
                continue;
            }
            let seen = self.seen.contains(&(written.topic, written.offset));
            let lost = self.lost.iter().any(|lost| lost[written.topic].contains(&written.offset));
            assert!(seen || lost, "e{number} on {} never came: {written:?}", self.channel);
        }
    }
}

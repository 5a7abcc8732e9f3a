//! Random histories: appends, evictions, lost connections, resumes and retention in any order.
//!
//! Each subscriber must see each event of its channels once, in offset order per topic.

use proptest::prelude::*;
use serde_json::Value;

use super::super::catchup::sweeper::Sweeper;
use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::offsets::TOPICS;
use super::super::protocol::native::StartAt;
use super::super::reader::HubReader;
use super::super::shard::Framing;
use super::client::{ServerFrame, cut_of};
use super::fixture::{ClientConnection, FanoutFixture, FanoutGateway, Watch, identity};
use crate::record::Partition;

const CHANNELS: [&str; 4] = ["posts:a", "posts:b", "posts:c", "posts:d"];
const CLIENTS: usize = 3;

/// One step of a history.
#[derive(Clone, Debug)]
enum HistoryStep {
    Append {
        channel: usize,
        topic: usize,
        times: usize,
    },
    /// Of the channel's state, which no client here subscribes to.
    ChangeState {
        channel: usize,
        times: usize,
    },
    Hole {
        topic: usize,
        partition: Partition,
    },
    Read {
        gateway: usize,
    },
    Pull {
        gateway: usize,
    },
    Sweep {
        gateway: usize,
    },
    Fill {
        client: usize,
        budget: usize,
    },
    /// WebSocket clients only.
    Subscribe {
        client: usize,
        channel: usize,
        from: usize,
    },
    Unsubscribe {
        client: usize,
        channel: usize,
    },
    /// Loses all but `kept` bytes of what is in flight and connects to a gateway again.
    Cut {
        client: usize,
        kept: usize,
        gateway: usize,
    },
    Time {
        ms: i64,
    },
    Retain {
        topic: usize,
        partition: Partition,
        keep: u64,
    },
    /// A failed reader or sweeper is created again; its shard lives on.
    Restart {
        gateway: usize,
        sweeper: usize,
    },
    /// The topics are deleted and created again, and the gateways notice.
    CreateTopicsAgain,
}

/// What the log does besides appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogChange {
    Nothing,
    Retention,
    CreatedAgain,
}

fn steps(change: LogChange) -> impl Strategy<Value = Vec<HistoryStep>> {
    let client = 0..CLIENTS;
    let channel = 0..CHANNELS.len();
    let partition = (0..2u32).prop_map(Partition);
    let step = prop_oneof![
        8 => (channel.clone(), 0..2usize, 1..6usize)
            .prop_map(|(channel, topic, times)| HistoryStep::Append { channel, topic, times }),
        2 => (channel.clone(), 1..6usize)
            .prop_map(|(channel, times)| HistoryStep::ChangeState { channel, times }),
        1 => (0..TOPICS, partition.clone())
            .prop_map(|(topic, partition)| HistoryStep::Hole { topic, partition }),
        6 => (0..2usize).prop_map(|gateway| HistoryStep::Read { gateway }),
        5 => (0..2usize).prop_map(|gateway| HistoryStep::Pull { gateway }),
        5 => (0..2usize).prop_map(|gateway| HistoryStep::Sweep { gateway }),
        8 => (client.clone(), prop_oneof![Just(1usize), 100..2000usize])
            .prop_map(|(client, budget)| HistoryStep::Fill { client, budget }),
        4 => (client.clone(), channel.clone(), 0..3usize)
            .prop_map(|(client, channel, from)| HistoryStep::Subscribe { client, channel, from }),
        1 => (client.clone(), channel)
            .prop_map(|(client, channel)| HistoryStep::Unsubscribe { client, channel }),
        2 => (client, 0..3000usize, 0..2usize)
            .prop_map(|(client, kept, gateway)| HistoryStep::Cut { client, kept, gateway }),
        1 => (0..2usize, 0..2usize)
            .prop_map(|(gateway, sweeper)| HistoryStep::Restart { gateway, sweeper }),
        1 => (1..20_000i64).prop_map(|ms| HistoryStep::Time { ms }),
        2 => (0..TOPICS, partition, 0..20u64)
            .prop_map(move |(topic, partition, keep)| match change {
                LogChange::Retention => HistoryStep::Retain { topic, partition, keep },
                LogChange::CreatedAgain => HistoryStep::CreateTopicsAgain,
                LogChange::Nothing => HistoryStep::Hole { topic, partition },
            }),
    ];
    proptest::collection::vec(step, 1..160)
}

fn configs() -> impl Strategy<Value = FanoutConfig> {
    (2_000..20_000usize, 2..12usize, 1..6usize, 0..6u64).prop_map(|(ring, refs, step, warm)| {
        FanoutConfig {
            ring_max_bytes: ring,
            pending_max_refs: refs,
            sweep_step_records: step,
            take_max_records: step + 1,
            warmup_records: warm,
            slow_window_ms: i32::MAX as u32,
            ..FanoutConfig::default()
        }
    })
}

/// A client across its connections.
struct ResumingClient {
    connection: ClientConnection,
    watches: Vec<Watch>,
    /// Per watch the position to resume from; on SSE all have the same.
    positions: Vec<Option<String>>,
    ended: Vec<Watch>,
}

impl ResumingClient {
    fn new(fixture: &mut FanoutFixture, number: usize) -> Self {
        if number == 0 {
            let connection = stream(fixture, 0, None);
            let mut watches: Vec<Watch> =
                CHANNELS.iter().map(|channel| Watch::new(fixture, channel)).collect();
            watches.iter_mut().for_each(|watch| watch.starts_latest(fixture, 0));
            let positions = vec![None; CHANNELS.len()];
            return Self { connection, watches, positions, ended: Vec::new() };
        }
        let connection = ClientConnection::open(fixture, 0, &identity(Accounts::All));
        Self { connection, watches: Vec::new(), positions: Vec::new(), ended: Vec::new() }
    }

    fn subscribe(&mut self, fixture: &mut FanoutFixture, channel: &str, from: &str) {
        if self.connection.framing == Framing::Sse || self.find(channel).is_some() {
            return;
        }
        let mut watch = Watch::new(fixture, channel);
        if from == "latest" {
            watch.starts_latest(fixture, self.connection.gateway);
        }
        watch.request = self.connection.subscribe(fixture, channel, from);
        self.watches.push(watch);
        self.positions.push(None);
    }

    fn unsubscribe(&mut self, fixture: &mut FanoutFixture, channel: &str) {
        let Some(at) = self.find(channel) else { return };
        // What is still on its way belongs to the old subscription.
        self.process_frames(fixture);
        if self.connection.framing == Framing::Sse || self.watches[at].from.is_none() {
            return;
        }
        let request = serde_json::json!({"op": "unsubscribe", "channel": channel});
        self.connection.send(fixture, &request);
        self.ended.push(self.watches.swap_remove(at));
        self.positions.swap_remove(at);
    }

    fn find(&self, channel: &str) -> Option<usize> {
        self.watches.iter().position(|watch| watch.channel == channel)
    }

    fn process_frames(&mut self, fixture: &FanoutFixture) {
        for frame in self.connection.take_frames() {
            match frame {
                ServerFrame::Ping => {}
                ServerFrame::Id(id) => self.set_position(fixture, &id),
                ServerFrame::Object { op, id, json } => {
                    self.process_object(fixture, &op, &json);
                    if let Some(id) = id {
                        self.set_position(fixture, &id);
                    }
                }
            }
        }
    }

    fn process_object(&mut self, fixture: &FanoutFixture, op: &str, json: &Value) {
        let at = json["channel"].as_str().and_then(|channel| self.find(channel));
        match op {
            "welcome" => {}
            "position" => {
                self.set_position(fixture, json["position"].as_str().expect("a position"));
            }
            "ok" => {
                let (Some(at), Some(position)) = (at, json["position"].as_str()) else { return };
                let watch = &mut self.watches[at];
                if json["id"] != watch.request {
                    return;
                }
                watch.request = 0;
                watch.start_at(fixture, position);
                self.positions[at] = Some(position.to_owned());
            }
            "gap" => {
                // It may cross the request to leave the channel.
                let Some(at) = at else { return };
                let watch = &mut self.watches[at];
                if watch.request != 0 {
                    // It is of the subscription before: an answer comes before a gap.
                    return;
                }
                let (from, to) = (json["from"].as_str(), json["to"].as_str());
                let (from, to) = (from.expect("from"), to.expect("to"));
                match json["reason"].as_str() {
                    Some("epoch") => watch.restart(fixture, to),
                    reason => {
                        assert_eq!(reason, Some("retention"));
                        watch.gap(fixture, from, to);
                    }
                }
                if self.connection.framing == Framing::WebSocket {
                    self.positions[at] = json["to"].as_str().map(str::to_owned);
                }
            }
            "event" | "post.created" => {
                let id = json["event_id"].as_str().expect("an id");
                let number = id[1..].parse().expect("e and a number");
                let at = at.expect("an event of a watched channel");
                self.watches[at].event(fixture, number);
                if let Some(position) = json["position"].as_str() {
                    self.positions[at] = Some(position.to_owned());
                }
            }
            other => panic!("{other}: {json}"),
        }
    }

    /// All channels are at this position.
    fn set_position(&mut self, fixture: &FanoutFixture, position: &str) {
        for (watch, held) in self.watches.iter_mut().zip(&mut self.positions) {
            // A keepalive may cross a request still on its way, about which it says nothing.
            if watch.request == 0 {
                cut_of(position, watch.partition).expect("its partition is touched");
                watch.start_at(fixture, position);
                *held = Some(position.to_owned());
            }
        }
    }

    fn cut(&mut self, fixture: &mut FanoutFixture, kept: usize, gateway: usize) {
        self.connection.bytes.truncate(kept);
        self.process_frames(fixture);
        let (from, conn) = (self.connection.gateway, self.connection.conn);
        fixture.gateways[from].shard.close(conn);
        if self.connection.framing == Framing::Sse {
            let position = self.positions[0].as_deref();
            if position.is_none() {
                self.watches.iter_mut().for_each(|watch| watch.starts_latest(fixture, gateway));
            }
            self.connection = stream(fixture, gateway, position);
            return;
        }
        self.connection = ClientConnection::open(fixture, gateway, &identity(Accounts::All));
        for (watch, position) in self.watches.iter_mut().zip(&self.positions) {
            let from = position.as_deref().unwrap_or("latest");
            if position.is_none() {
                watch.starts_latest(fixture, gateway);
            }
            watch.request = self.connection.subscribe(fixture, &watch.channel, from);
        }
    }
}

fn stream(fixture: &mut FanoutFixture, gateway: usize, position: Option<&str>) -> ClientConnection {
    let channels: Vec<String> = CHANNELS.iter().map(|c| (*c).to_owned()).collect();
    let start = position.map_or(StartAt::Latest, |p| StartAt::Token(p.into()));
    ClientConnection::stream(fixture, gateway, &channels, start)
}

fn apply_step(fixture: &mut FanoutFixture, clients: &mut [ResumingClient], step: &HistoryStep) {
    match *step {
        HistoryStep::Append { channel, topic, times } => {
            for _ in 0..times {
                fixture.append(CHANNELS[channel], topic);
            }
        }
        HistoryStep::ChangeState { channel, times } => {
            for _ in 0..times {
                fixture.append_state([CHANNELS[channel], "a1", "k"], None);
            }
        }
        HistoryStep::Hole { topic, partition } => {
            fixture.log.skip(&fixture.topic_partition(topic, partition))
        }
        HistoryStep::Read { gateway } => fixture.read(gateway),
        HistoryStep::Pull { gateway } => fixture.gateways[gateway].shard.pull(),
        HistoryStep::Sweep { gateway } => drop(fixture.sweep(gateway)),
        HistoryStep::Fill { client, budget } => {
            clients[client].connection.fill(fixture, budget);
        }
        HistoryStep::Subscribe { client, channel, from } => {
            let from = ["latest", "earliest", "1970-01-01T00:00:05Z"][from];
            clients[client].subscribe(fixture, CHANNELS[channel], from);
        }
        HistoryStep::Unsubscribe { client, channel } => {
            clients[client].unsubscribe(fixture, CHANNELS[channel]);
        }
        HistoryStep::Cut { client, kept, gateway } => clients[client].cut(fixture, kept, gateway),
        HistoryStep::Time { ms } => {
            for client in clients {
                let connection = &client.connection;
                fixture.gateways[connection.gateway].shard.mark_alive(connection.conn);
            }
            fixture.pass_time(ms);
        }
        HistoryStep::Restart { gateway, sweeper } => {
            let FanoutGateway { hub, reader, sweeper: sweeps, .. } = &mut fixture.gateways[gateway];
            match sweeper {
                0 => *reader = HubReader::open(&*fixture.log, hub).unwrap(),
                _ => *sweeps = Sweeper::open(&*fixture.log, hub).unwrap(),
            }
        }
        HistoryStep::CreateTopicsAgain => {
            for client in clients {
                let connection = &client.connection;
                fixture.gateways[connection.gateway].shard.mark_alive(connection.conn);
            }
            fixture.create_topics_again();
        }
        HistoryStep::Retain { topic, partition, keep } => {
            let at = fixture.topic_partition(topic, partition);
            let end =
                crate::port::Log::bounds(&*fixture.log, &at, crate::port::Isolation::Committed);
            fixture.log.retain_from(&at, end.unwrap().end.0.saturating_sub(keep));
        }
    }
}

fn check(config: &FanoutConfig, steps: &[HistoryStep]) {
    let mut fixture = FanoutFixture::new(2, config);
    let mut clients: Vec<ResumingClient> =
        (0..CLIENTS).map(|n| ResumingClient::new(&mut fixture, n)).collect();
    for step in steps {
        apply_step(&mut fixture, &mut clients, step);
    }
    let mut idle = 0;
    for _ in 0..10_000 {
        fixture.settle();
        let mut moved = false;
        for client in &mut clients {
            client.connection.fill(&mut fixture, 1 << 20);
            moved |= !client.connection.bytes.is_empty();
            client.process_frames(&fixture);
        }
        let behind = fixture.gateways.iter().any(|gateway| gateway.shard.stats().behind > 0);
        idle = if moved || behind { 0 } else { idle + 1 };
        if idle == 3 {
            break;
        }
    }
    for client in &clients {
        for watch in &client.watches {
            assert!(watch.from.is_some(), "{} was never answered", watch.channel);
            watch.check_complete(&fixture);
        }
        assert!(client.connection.closes(&mut fixture).is_empty(), "no connection is closed");
    }
    for gateway in &fixture.gateways {
        assert_eq!(gateway.shard.stats().behind, 0, "every subscription follows in the end");
        assert_eq!(gateway.sweeper.scans(), 0, "no sweep is left");
    }
}

proptest! {
    #[test]
    fn every_subscriber_sees_every_event_once_and_in_order(
        config in configs(),
        steps in steps(LogChange::Nothing),
    ) {
        check(&config, &steps);
    }

    #[test]
    fn what_retention_removed_is_announced_and_the_rest_is_seen_once(
        config in configs(),
        steps in steps(LogChange::Retention),
    ) {
        check(&config, &steps);
    }

    #[test]
    fn topics_that_are_created_again_are_announced_and_their_events_are_seen_once(
        config in configs(),
        steps in steps(LogChange::CreatedAgain),
    ) {
        check(&config, &steps);
    }
}

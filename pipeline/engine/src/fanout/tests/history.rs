//! Random histories: whatever is appended, evicted, cut and resumed in whatever order, each
//! subscriber sees each event of its channels once, in offset order per topic.

use proptest::prelude::*;
use serde_json::Value;

use std::sync::Arc;

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::protocol::StartAt;
use super::super::reader::HubReader;
use super::super::shard::Wire;
use super::super::sweep::Sweeper;
use super::client::{Heard, cut_of};
use super::log::FakeLog;
use super::world::{Gateway, Line, Watch, World, identity};

const CHANNELS: [&str; 4] = ["posts:a", "posts:b", "posts:c", "posts:d"];
const CLIENTS: usize = 3;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Append {
        channel: usize,
        topic: usize,
        times: usize,
    },
    Hole {
        topic: usize,
        partition: u32,
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
    /// Loses all but `kept` of what is in flight and connects to a gateway again.
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
        partition: u32,
        keep: u64,
    },
    /// A failed loop is made anew; its shard lives on.
    Remake {
        gateway: usize,
        sweeper: usize,
    },
}

fn steps(retention: bool) -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let channel = 0..CHANNELS.len();
    let step = prop_oneof![
        8 => (channel.clone(), 0..2usize, 1..6usize)
            .prop_map(|(channel, topic, times)| Step::Append { channel, topic, times }),
        1 => (0..2usize, 0..2u32).prop_map(|(topic, partition)| Step::Hole { topic, partition }),
        6 => (0..2usize).prop_map(|gateway| Step::Read { gateway }),
        5 => (0..2usize).prop_map(|gateway| Step::Pull { gateway }),
        5 => (0..2usize).prop_map(|gateway| Step::Sweep { gateway }),
        8 => (client.clone(), prop_oneof![Just(1usize), 100..2000usize])
            .prop_map(|(client, budget)| Step::Fill { client, budget }),
        4 => (client.clone(), channel.clone(), 0..3usize)
            .prop_map(|(client, channel, from)| Step::Subscribe { client, channel, from }),
        1 => (client.clone(), channel)
            .prop_map(|(client, channel)| Step::Unsubscribe { client, channel }),
        2 => (client, 0..3000usize, 0..2usize)
            .prop_map(|(client, kept, gateway)| Step::Cut { client, kept, gateway }),
        1 => (0..2usize, 0..2usize)
            .prop_map(|(gateway, sweeper)| Step::Remake { gateway, sweeper }),
        1 => (1..20_000i64).prop_map(|ms| Step::Time { ms }),
        2 => (0..2usize, 0..2u32, 0..20u64)
            .prop_map(move |(topic, partition, keep)| match retention {
                true => Step::Retain { topic, partition, keep },
                false => Step::Hole { topic, partition },
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
struct Client {
    line: Line,
    watches: Vec<Watch>,
    /// Per watch the position to resume from; on SSE all have the same.
    positions: Vec<Option<String>>,
    ended: Vec<Watch>,
}

impl Client {
    fn new(world: &mut World, number: usize) -> Self {
        if number == 0 {
            let line = stream(world, 0, None);
            let watches = CHANNELS.iter().map(|channel| Watch::new(world, channel)).collect();
            let positions = vec![None; CHANNELS.len()];
            return Self { line, watches, positions, ended: Vec::new() };
        }
        let line = Line::open(world, 0, &identity(Accounts::All));
        Self { line, watches: Vec::new(), positions: Vec::new(), ended: Vec::new() }
    }

    fn subscribe(&mut self, world: &mut World, channel: &str, from: &str) {
        if self.line.wire == Wire::Sse || self.find(channel).is_some() {
            return;
        }
        let mut watch = Watch::new(world, channel);
        watch.request = self.line.subscribe(world, channel, from);
        self.watches.push(watch);
        self.positions.push(None);
    }

    fn unsubscribe(&mut self, world: &mut World, channel: &str) {
        let Some(at) = self.find(channel) else { return };
        // What is still on its way belongs to the old subscription.
        self.hear(world);
        if self.line.wire == Wire::Sse || self.watches[at].from.is_none() {
            return;
        }
        let request = serde_json::json!({"op": "unsubscribe", "channel": channel});
        self.line.send(world, &request);
        self.ended.push(self.watches.swap_remove(at));
        self.positions.swap_remove(at);
    }

    fn find(&self, channel: &str) -> Option<usize> {
        self.watches.iter().position(|watch| watch.channel == channel)
    }

    fn hear(&mut self, world: &World) {
        for heard in self.line.heard() {
            match heard {
                Heard::Ping => {}
                Heard::Id(id) => self.stands_at(&id),
                Heard::Object { op, id, json } => {
                    self.hear_object(world, &op, &json);
                    if let Some(id) = id {
                        self.stands_at(&id);
                    }
                }
            }
        }
    }

    fn hear_object(&mut self, world: &World, op: &str, json: &Value) {
        let at = json["channel"].as_str().and_then(|channel| self.find(channel));
        match op {
            "welcome" => {}
            "position" => self.stands_at(json["position"].as_str().expect("a position")),
            "ok" => {
                let (Some(at), Some(position)) = (at, json["position"].as_str()) else { return };
                let watch = &mut self.watches[at];
                if json["id"] != watch.request {
                    return;
                }
                watch.request = 0;
                watch.from = watch.from.or_else(|| cut_of(position, watch.partition));
                self.positions[at] = Some(position.to_owned());
            }
            "gap" => {
                let at = at.expect("a gap of a watched channel");
                let watch = &mut self.watches[at];
                assert_eq!(json["reason"], "retention");
                watch.gap(
                    world,
                    json["from"].as_str().expect("from"),
                    json["to"].as_str().expect("to"),
                );
                if self.line.wire == Wire::WebSocket {
                    self.positions[at] = json["to"].as_str().map(str::to_owned);
                }
            }
            "event" | "post.created" => {
                let id = json["event_id"].as_str().expect("an id");
                let number = id[1..].parse().expect("e and a number");
                let at = at.expect("an event of a watched channel");
                self.watches[at].event(world, number);
                if let Some(position) = json["position"].as_str() {
                    self.positions[at] = Some(position.to_owned());
                }
            }
            other => panic!("{other}: {json}"),
        }
    }

    /// All channels stand at this position.
    fn stands_at(&mut self, position: &str) {
        for (watch, held) in self.watches.iter_mut().zip(&mut self.positions) {
            // A keepalive may cross a request still on its way, about which it says nothing.
            if watch.request == 0 {
                let cut = cut_of(position, watch.partition).expect("its partition is touched");
                watch.from.get_or_insert(cut);
                *held = Some(position.to_owned());
            }
        }
    }

    fn cut(&mut self, world: &mut World, kept: usize, gateway: usize) {
        self.line.bytes.truncate(kept);
        self.hear(world);
        let (from, conn) = (self.line.gateway, self.line.conn);
        world.gateways[from].shard.close(conn);
        if self.line.wire == Wire::Sse {
            self.line = stream(world, gateway, self.positions[0].as_deref());
            return;
        }
        self.line = Line::open(world, gateway, &identity(Accounts::All));
        for (watch, position) in self.watches.iter_mut().zip(&self.positions) {
            let from = position.as_deref().unwrap_or("latest");
            watch.request = self.line.subscribe(world, &watch.channel, from);
        }
    }
}

fn stream(world: &mut World, gateway: usize, position: Option<&str>) -> Line {
    let channels: Vec<String> = CHANNELS.iter().map(|c| (*c).to_owned()).collect();
    let start = position.map_or(StartAt::Latest, |p| StartAt::Token(p.into()));
    Line::stream(world, gateway, &channels, start)
}

fn take(world: &mut World, clients: &mut [Client], step: &Step) {
    match *step {
        Step::Append { channel, topic, times } => {
            for _ in 0..times {
                world.append(CHANNELS[channel], topic);
            }
        }
        Step::Hole { topic, partition } => world.log.skip(&world.at(topic, partition)),
        Step::Read { gateway } => world.read(gateway),
        Step::Pull { gateway } => world.gateways[gateway].shard.pull(),
        Step::Sweep { gateway } => drop(world.sweep(gateway)),
        Step::Fill { client, budget } => {
            clients[client].line.fill(world, budget);
        }
        Step::Subscribe { client, channel, from } => {
            let from = ["latest", "earliest", "1970-01-01T00:00:05Z"][from];
            clients[client].subscribe(world, CHANNELS[channel], from);
        }
        Step::Unsubscribe { client, channel } => {
            clients[client].unsubscribe(world, CHANNELS[channel]);
        }
        Step::Cut { client, kept, gateway } => clients[client].cut(world, kept, gateway),
        Step::Time { ms } => {
            for client in clients {
                let line = &client.line;
                world.gateways[line.gateway].shard.heard(line.conn);
            }
            world.pass_time(ms);
        }
        Step::Remake { gateway, sweeper } => {
            let Gateway { hub, reader, sweeper: sweeps, .. } = &mut world.gateways[gateway];
            match sweeper {
                0 => *reader = HubReader::open(&*world.log, hub).unwrap(),
                _ => {
                    let log: Arc<FakeLog> = Arc::clone(&world.log);
                    *sweeps = Sweeper::open(log, hub).unwrap();
                }
            }
        }
        Step::Retain { topic, partition, keep } => {
            let at = world.at(topic, partition);
            let end = crate::port::Log::bounds(&*world.log, &at, crate::port::Isolation::Committed);
            world.log.retain_from(&at, end.unwrap().end.0.saturating_sub(keep));
        }
    }
}

fn check(config: &FanoutConfig, steps: &[Step]) {
    let mut world = World::new(2, config);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(&mut world, n)).collect();
    for step in steps {
        take(&mut world, &mut clients, step);
    }
    let mut idle = 0;
    for _ in 0..10_000 {
        world.settle();
        let mut moved = false;
        for client in &mut clients {
            client.line.fill(&mut world, 1 << 20);
            moved |= !client.line.bytes.is_empty();
            client.hear(&world);
        }
        let behind = world.gateways.iter().any(|gateway| gateway.shard.stats().behind > 0);
        idle = if moved || behind { 0 } else { idle + 1 };
        if idle == 3 {
            break;
        }
    }
    for client in &clients {
        for watch in &client.watches {
            assert!(watch.from.is_some(), "{} was never answered", watch.channel);
            watch.check_complete(&world);
        }
        assert!(client.line.closes(&mut world).is_empty(), "nobody is closed");
    }
    for gateway in &world.gateways {
        assert_eq!(gateway.shard.stats().behind, 0, "everybody follows in the end");
        assert_eq!(gateway.sweeper.passes(), 0, "no sweep is left");
    }
}

proptest! {
    #[test]
    fn every_subscriber_sees_every_event_once_and_in_order(
        config in configs(),
        steps in steps(false),
    ) {
        check(&config, &steps);
    }

    #[test]
    fn what_retention_removed_is_announced_and_the_rest_is_seen_once(
        config in configs(),
        steps in steps(true),
    ) {
        check(&config, &steps);
    }
}

//! Random histories of state: changes, slow clients, lost connections and rebuilt folds.
//!
//! A client keeps the state of two channels as `docs/protocol.md` says. Per key it must never see a
//! value that is older than one it has seen, and at rest it must have the log's state. Of the
//! channel that has events too it must see each event once, in both topics of events.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use super::super::config::FanoutConfig;
use super::super::fold::worker::StateFold;
use super::super::identity::Accounts;
use super::super::protocol::native::{SnapshotWish, StartAt};
use super::super::shard::{Filled, Framing};
use super::client::ServerFrame;
use super::fixture::{ClientConnection, FanoutFixture, identity};
use super::stores::MemoryStores;
use crate::record::Body;

/// State alone.
const EDGES: &str = "follows:ann";

/// Events and state: an event sets the value of its campaign.
const CAMPAIGNS: &str = "campaigns:a1";

const CLIENTS: usize = 3;
const GATEWAYS: usize = 2;

/// One step of a history.
#[derive(Clone, Debug)]
enum StateStep {
    Set {
        key: usize,
    },
    Remove {
        key: usize,
    },
    /// An event, in one of two topics, and the change of state that it is.
    Campaign {
        key: usize,
        topic: usize,
    },
    /// A change of the same channel's state that is no event.
    EndCampaign {
        key: usize,
    },
    Read {
        gateway: usize,
    },
    Fold {
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
    /// Loses all but `kept` bytes of what is in flight and connects again.
    Cut {
        client: usize,
        kept: usize,
        gateway: usize,
    },
    /// The fold fails and is opened again.
    Refold {
        gateway: usize,
    },
    Time {
        ms: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<StateStep>> {
    let (client, gateway, key) = (0..CLIENTS, 0..GATEWAYS, 0..4usize);
    let step = prop_oneof![
        6 => key.clone().prop_map(|key| StateStep::Set { key }),
        2 => key.clone().prop_map(|key| StateStep::Remove { key }),
        6 => (key.clone(), 0..2usize)
            .prop_map(|(key, topic)| StateStep::Campaign { key, topic }),
        2 => key.prop_map(|key| StateStep::EndCampaign { key }),
        6 => gateway.clone().prop_map(|gateway| StateStep::Read { gateway }),
        6 => gateway.clone().prop_map(|gateway| StateStep::Fold { gateway }),
        6 => gateway.clone().prop_map(|gateway| StateStep::Pull { gateway }),
        3 => gateway.clone().prop_map(|gateway| StateStep::Sweep { gateway }),
        8 => (client.clone(), prop_oneof![Just(1usize), 100..3000usize])
            .prop_map(|(client, budget)| StateStep::Fill { client, budget }),
        2 => (client, 0..3000usize, gateway.clone())
            .prop_map(|(client, kept, gateway)| StateStep::Cut { client, kept, gateway }),
        1 => gateway.prop_map(|gateway| StateStep::Refold { gateway }),
        1 => (1..1_500i64).prop_map(|ms| StateStep::Time { ms }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a client knows of one channel.
#[derive(Default)]
struct KnownState {
    values: BTreeMap<String, u64>,
    /// Pages of a snapshot that is not whole yet.
    pages: Option<BTreeMap<String, u64>>,
    /// The newest value seen per key, also of keys that are gone and over all connections.
    newest: BTreeMap<String, u64>,
}

impl KnownState {
    fn see(&mut self, key: &str, n: u64) {
        let newest = self.newest.entry(key.to_owned()).or_default();
        assert!(n >= *newest, "{key}: {n} after {newest}");
        *newest = n;
    }

    fn page(&mut self, frame: &Value) {
        let is_first = frame["first"].as_bool().unwrap();
        let before = self.pages.take().filter(|_| !is_first);
        assert_eq!(before.is_none(), is_first, "{frame}");
        let mut pages = before.unwrap_or_default();
        for entry in frame["state"].as_array().unwrap() {
            let (key, n) = (entry["key"].as_str().unwrap(), entry["value"]["n"].as_u64().unwrap());
            self.see(key, n);
            assert!(pages.insert(key.to_owned(), n).is_none(), "{key} twice in a snapshot");
        }
        match frame["last"].as_bool().unwrap() {
            true => self.values = pages,
            false => self.pages = Some(pages),
        }
    }

    fn change(&mut self, frame: &Value) {
        assert!(self.pages.is_none(), "a change within a snapshot: {frame}");
        let key = frame["key"].as_str().unwrap();
        if frame["op"] == "deleted" {
            self.values.remove(key);
            return;
        }
        let n = frame["data"]["n"].as_u64().unwrap();
        self.see(key, n);
        self.values.insert(key.to_owned(), n);
    }
}

/// A client with its connection and what it knows.
struct StateClient {
    connection: ClientConnection,
    edges: KnownState,
    campaigns: KnownState,
    /// Events of the channel that has events, in order.
    events: Vec<u64>,
    position: Option<String>,
}

impl StateClient {
    fn connect(
        fixture: &mut FanoutFixture,
        gateway: usize,
        (framing, position): (Framing, Option<&str>),
    ) -> ClientConnection {
        let start = position.unwrap_or("latest");
        if framing == Framing::Sse {
            let channels = [EDGES.to_owned(), CAMPAIGNS.to_owned()];
            let start = StartAt::parse(start).unwrap();
            let with = (&channels[..], start, SnapshotWish::Send);
            return ClientConnection::stream_with(fixture, gateway, with);
        }
        let connection = ClientConnection::open(fixture, gateway, &identity(Accounts::All));
        for (channel, from) in [(EDGES, "latest"), (CAMPAIGNS, start)] {
            let op = json!({"op": "subscribe", "channel": channel, "from": from, "snapshot": true});
            connection.send(fixture, &op);
        }
        connection
    }

    fn take(&mut self, frames: Vec<ServerFrame>) {
        for frame in frames {
            let (op, id, json) = match frame {
                ServerFrame::Object { op, id, json } => (op, id, json),
                ServerFrame::Id(id) => {
                    self.position = Some(id);
                    continue;
                }
                ServerFrame::Ping => continue,
            };
            let known = match json["channel"].as_str() {
                Some(EDGES) => &mut self.edges,
                Some(CAMPAIGNS) => &mut self.campaigns,
                _ => continue,
            };
            match op.as_str() {
                "snapshot" => known.page(&json),
                "ok" if json["channel"] == CAMPAIGNS => {
                    self.position = self.position.take().or(text(&json["position"]));
                }
                "ok" => {}
                "gap" => panic!("{json}"),
                _ => {
                    let position = id.or(text(&json["position"]));
                    assert_eq!(position.is_none(), json["key"].is_string(), "{json}");
                    if position.is_none() {
                        known.change(&json);
                        continue;
                    }
                    self.events.push(json["data"]["n"].as_u64().unwrap());
                    self.position = position;
                }
            }
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The world of a history.
struct StateWorld {
    fixture: FanoutFixture,
    stores: Vec<MemoryStores>,
    folds: Vec<Option<StateFold>>,
    clients: Vec<StateClient>,
    edges: BTreeMap<String, u64>,
    campaigns: BTreeMap<String, u64>,
    /// Events of the channel that has events, with their topics.
    events: Vec<(usize, u64)>,
    last: u64,
}

impl StateWorld {
    fn new(ring_max_bytes: usize) -> Self {
        let config =
            FanoutConfig { ring_max_bytes, pending_max_refs: 8, ..FanoutConfig::default() };
        let mut fixture = FanoutFixture::new(GATEWAYS, &config);
        let stores: Vec<_> = (0..GATEWAYS).map(|_| MemoryStores::default()).collect();
        let folds = (0..GATEWAYS).map(|at| Some(open_fold(&fixture, at, &stores[at]))).collect();
        let clients = (0..CLIENTS).map(|n| {
            let framing = if n == 0 { Framing::Sse } else { Framing::WebSocket };
            StateClient {
                connection: StateClient::connect(&mut fixture, n % GATEWAYS, (framing, None)),
                edges: KnownState::default(),
                campaigns: KnownState::default(),
                events: Vec::new(),
                position: None,
            }
        });
        let clients = clients.collect();
        Self {
            fixture,
            stores,
            folds,
            clients,
            edges: BTreeMap::new(),
            campaigns: BTreeMap::new(),
            events: Vec::new(),
            last: 0,
        }
    }

    fn fold(&mut self, gateway: usize) -> &mut StateFold {
        self.folds[gateway].as_mut().expect("it is opened again at once")
    }

    fn event(&mut self, event_type: &str, data: Value) -> Event {
        self.last += 1;
        let mut data = data;
        data["n"] = self.last.into();
        Event {
            event_id: format!("e{}", self.last),
            event_type: event_type.to_owned(),
            account_id: "a1".to_owned(),
            timestamp_ms: self.fixture.now.0,
            correlation_id: "c".to_owned(),
            priority: Priority::Normal,
            key: "k".to_owned(),
            source: None,
            alias: None,
            data: data.to_string(),
        }
    }

    fn step(&mut self, step: &StateStep) {
        match *step {
            StateStep::Set { key } => {
                let target = format!("u{key}");
                let data = json!({"user_id": "ann", "target_id": target});
                let event = self.event("user.followed", data);
                self.fixture.append_state([EDGES, "a1", &target], Some(&event));
                self.edges.insert(target, self.last);
            }
            StateStep::Remove { key } => {
                let target = format!("u{key}");
                self.fixture.append_state([EDGES, "a1", &target], None);
                self.edges.remove(&target);
            }
            StateStep::Campaign { key, topic } => self.append_campaign(key, topic),
            StateStep::EndCampaign { key } => {
                let campaign = format!("c{key}");
                self.fixture.append_state([CAMPAIGNS, "a1", &campaign], None);
                self.campaigns.remove(&campaign);
            }
            StateStep::Read { gateway } => self.fixture.read(gateway),
            StateStep::Fold { gateway } => {
                let now = self.fixture.monotonic;
                self.fold(gateway).turn(now, Duration::ZERO).unwrap();
            }
            StateStep::Pull { gateway } => self.fixture.gateways[gateway].shard.pull(),
            StateStep::Sweep { gateway } => drop(self.fixture.sweep(gateway)),
            StateStep::Fill { client, budget } => {
                let client = &mut self.clients[client];
                client.connection.fill(&mut self.fixture, budget);
                let frames = client.connection.take_frames();
                client.take(frames);
            }
            StateStep::Cut { client, kept, gateway } => self.cut(client, kept, gateway),
            StateStep::Refold { gateway } => {
                // The store is locked until it is dropped.
                self.folds[gateway] = None;
                let fold = open_fold(&self.fixture, gateway, &self.stores[gateway]);
                self.folds[gateway] = Some(fold);
            }
            StateStep::Time { ms } => self.fixture.pass_time(ms),
        }
        self.reconnect_closed();
    }

    /// One transaction: an event, and the same as the value of its campaign.
    fn append_campaign(&mut self, key: usize, topic: usize) {
        let campaign = format!("c{key}");
        let event = self.event("campaign.paused", json!({"campaign_id": campaign}));
        self.fixture.append_state([CAMPAIGNS, "a1", &campaign], Some(&event));
        let partition = self.fixture.topology.partition_of(CAMPAIGNS.as_bytes());
        let body = Body::new(Some(CAMPAIGNS.as_bytes()), Some(&event.encode()), &[]);
        let at = self.fixture.topic_partition(topic, partition);
        self.fixture.log.append(&at, self.fixture.now, body);
        self.campaigns.insert(campaign, self.last);
        self.events.push((topic, self.last));
    }

    fn cut(&mut self, client: usize, kept: usize, gateway: usize) {
        let client = &mut self.clients[client];
        client.connection.fill(&mut self.fixture, 4_096);
        client.connection.bytes.truncate(kept);
        let frames = client.connection.take_frames();
        client.take(frames);
        let (old, conn) = (client.connection.gateway, client.connection.conn);
        self.fixture.gateways[old].shard.close(conn);
        for known in [&mut client.edges, &mut client.campaigns] {
            known.pages = None;
        }
        let how = (client.connection.framing, client.position.as_deref());
        client.connection = StateClient::connect(&mut self.fixture, gateway, how);
    }

    /// A client whose connection the server ends, for example since the fold is behind, returns.
    fn reconnect_closed(&mut self) {
        for at in 0..CLIENTS {
            let gateway = self.clients[at].connection.gateway;
            if !self.clients[at].connection.closes(&mut self.fixture).is_empty() {
                // Closes of a gateway name all its connections: each client looks at its own.
                for client in 0..CLIENTS {
                    if self.clients[client].connection.gateway == gateway {
                        self.cut(client, usize::MAX, gateway);
                    }
                }
            }
        }
    }

    /// Everything runs until every client has all it is due.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.fixture.pass_time(300);
            for gateway in 0..GATEWAYS {
                let now = self.fixture.monotonic;
                while self.fold(gateway).turn(now, Duration::ZERO).unwrap() {}
            }
            self.fixture.settle();
            self.fill_ready();
            self.reconnect_closed();
        }
    }

    /// Fills the connections that the shards name, as a worker does.
    fn fill_ready(&mut self) {
        for gateway in 0..GATEWAYS {
            let mut ready = Vec::new();
            self.fixture.gateways[gateway].shard.take_ready(&mut ready);
            for client in &mut self.clients {
                let of = &client.connection;
                if of.gateway == gateway && ready.contains(&of.conn) {
                    while client.connection.fill(&mut self.fixture, 1 << 20) == Filled::More {}
                    let frames = client.connection.take_frames();
                    client.take(frames);
                }
            }
        }
    }

    fn check(&self) {
        for client in &self.clients {
            assert_eq!(client.edges.values, self.edges);
            assert_eq!(client.campaigns.values, self.campaigns);
            self.check_events(client);
        }
    }
}

impl StateWorld {
    /// A client has seen each event since its start once, in the order of each topic.
    fn check_events(&self, client: &StateClient) {
        for topic in 0..2 {
            let all = self.events.iter().filter(|(of, _)| *of == topic).map(|(_, n)| *n);
            let all: Vec<u64> = all.collect();
            let seen = client.events.iter().copied().filter(|n| all.contains(n));
            let seen: Vec<u64> = seen.collect();
            let from = all.len() - seen.len();
            assert_eq!(seen, all[from..], "each event of topic {topic} once, in order");
        }
    }
}

fn open_fold(fixture: &FanoutFixture, gateway: usize, stores: &MemoryStores) -> StateFold {
    let (log, hub) = (fixture.log.clone(), &fixture.gateways[gateway].hub);
    StateFold::open(log, stores, hub, fixture.now).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_client_never_goes_back_and_at_rest_has_the_state_of_the_log(
        steps in steps(),
        ring in prop_oneof![Just(2_000usize), Just(64 << 20)],
    ) {
        let mut world = StateWorld::new(ring);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}

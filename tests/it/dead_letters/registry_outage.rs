//! The schema registry goes away: records that need it wait, none becomes a dead letter.
//!
//! Only their partitions wait, nothing overtakes them there, and they go on by themselves.

use std::sync::Arc;
use std::time::Duration;

use tidewire_connectors::registry::{Config, Credentials, QueryPolicy, SchemaRegistry};
use tidewire_engine::admit::{
    Admit, AdmitConfig, AdmitInput, PoisonBreaker, PoisonLimit, WaitingPartitions,
};
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::port::Log;
use tidewire_engine::record::{Body, Outgoing, Partition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::Verdict;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_tests::fake_registry::{FakeRegistry, RegistryBehaviour};
use tidewire_tests::server::Server;

use super::fixture::{append, event, fresh, open, read, wait_until};

/// A schema of another team.
const SCHEMA: &str = r#"{"type":"record","name":"com.acme.Post","fields":[
    {"name":"event_id","type":"string"},{"name":"post_id","type":"string"},
    {"name":"author_id","type":"string"},{"name":"text","type":"string"}]}"#;

/// More than the poison limit allows, if they were invalid.
const FRAMED: usize = 300;

const HEADERS: [(&str, &[u8]); 2] = [("event_type", b"post.created"), ("account_id", b"acc")];

/// An event written with this schema of the registry.
fn framed(id: u32, n: usize) -> Vec<u8> {
    let mut value = [&[0][..], &id.to_be_bytes()].concat();
    for field in [&format!("e-{n}"), "p", "ann", "t"] {
        value.push((field.len() * 2) as u8);
        value.extend_from_slice(field.as_bytes());
    }
    value
}

fn record(topology: &Topology, partition: u32, value: &[u8]) -> Outgoing {
    let is_framed = value.first() == Some(&0);
    let headers = if is_framed { &HEADERS[..] } else { &[] };
    Outgoing {
        topic: topology.input().clone(),
        partition: Partition(partition),
        body: Body::new(Some(b"k"), Some(value), headers),
    }
}

/// The same event without framing, with the schema's GUID in a header.
fn named_by_guid(topology: &Topology, partition: u32, id: u32, n: usize) -> Outgoing {
    let guid = [&[1][..], &FakeRegistry::guid(id).to_be_bytes()].concat();
    let headers = [&HEADERS[..], &[("__value_schema_id", &guid)]].concat();
    let value = &framed(id, n)[5..];
    let body = Body::new(Some(b"k"), Some(value), &headers);
    Outgoing { topic: topology.input().clone(), partition: Partition(partition), body }
}

/// An admitted record: its key and its offset in the input.
type AdmittedRecord = (Vec<u8>, u64);

/// What was admitted of a partition. Records of one key are in the order of their lane.
fn admitted(log: &dyn Log, topology: &Topology, partition: u32) -> Vec<AdmittedRecord> {
    let lane = read(log, topology, topology.lane(Lane::Normal));
    let of_partition = lane.iter().filter_map(|(_, record)| {
        let verdict = record.body.header(VERDICT).expect("a verdict");
        let source = Verdict::decode(verdict).expect("of this build").source;
        let of_partition = (source.input, source.partition) == (0, Partition(partition));
        of_partition.then(|| (record.body.key().expect("a key").to_vec(), source.offset.0))
    });
    of_partition.collect()
}

/// The offsets that were admitted of a partition, sorted.
fn offsets(log: &dyn Log, topology: &Topology, partition: u32) -> Vec<u64> {
    let mut all: Vec<u64> =
        admitted(log, topology, partition).into_iter().map(|(_, offset)| offset).collect();
    all.sort_unstable();
    all
}

fn admit(log: &Arc<dyn Log>, topology: &Topology, registry: SchemaRegistry) -> Admit {
    let breaker = PoisonBreaker::new(PoisonLimit { share: 0.0, min_records: 1 });
    let config = AdmitConfig {
        topology: topology.clone(),
        source: AdmitInput::Main,
        catalogue: Catalogue::builtin(),
        instance: "one".to_owned(),
        settings_hash: 1,
        registry: Some(Arc::new(registry)),
        breaker,
        waiting: WaitingPartitions::default(),
    };
    Admit::new(config, log).expect("joined")
}

/// Turns a loop so often, even if nothing is read.
fn turn_for(admit: &mut Admit, turns: usize) {
    for _ in 0..turns {
        admit.turn(Duration::from_millis(5)).expect("no faults");
    }
}

#[test]
fn a_partition_waits_at_its_first_record_without_a_schema_and_others_go_on() {
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    let registry = FakeRegistry::start();
    registry.find_by_guid();
    let ids = [registry.put("a", SCHEMA), registry.put("b", &SCHEMA.replace("Post", "Note"))];
    let policy = QueryPolicy {
        limit: Duration::from_secs(1),
        unavailable_pause: Duration::from_millis(200),
        ..QueryPolicy::default()
    };
    let client = SchemaRegistry::new(&Config {
        urls: vec![registry.url()],
        credentials: Credentials::None,
        authorities: None,
        policy,
    });
    registry.set_behaviour(RegistryBehaviour::Fixed(503, String::new()));
    let needs = |partition, n, id: u32| record(&topology, partition, &framed(id, n));
    let plain = |partition, n| record(&topology, partition, &event(n));
    append(&*log, &[plain(0, 0), needs(0, 1, ids[0]), plain(0, 2), needs(0, 3, ids[1])]);
    append(&*log, &[needs(1, 4, ids[1]), plain(2, 5), plain(2, 6)]);
    append(&*log, &[plain(3, 11), named_by_guid(&topology, 3, ids[0], 12), plain(3, 13)]);
    let mut admit = admit(&log, &topology, client);
    turn_for(&mut admit, 100);
    append(&*log, &[plain(1, 7), plain(2, 8)]);
    turn_for(&mut admit, 100);
    let state = || [0, 1, 2, 3].map(|partition| offsets(&*log, &topology, partition));
    assert_eq!(state(), [vec![0], vec![], vec![0, 1, 2], vec![0]]);
    let backlogs = admit.backlogs();
    let waits = |p| {
        let listed = backlogs.iter().find(|(at, _)| at.partition.0 == p).expect("it is listed");
        listed.1.expect("it is known")
    };
    assert_eq!([0, 1, 3].map(|p| waits(p).next.0), [1, 0, 1]);
    assert!(waits(0).records >= 3 && waits(0).oldest.is_some(), "{:?}", waits(0));

    registry.set_behaviour(RegistryBehaviour::Normal);
    wait_until("all are admitted", || {
        turn_for(&mut admit, 1);
        state() == [vec![0, 1, 2, 3], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2]]
    });
    assert_eq!(read(&*log, &topology, topology.dead_letters()).len(), 0);
    let lane = read(&*log, &topology, topology.lane(Lane::Normal));
    assert_eq!(lane.len(), 12, "each is admitted once");

    // An answer about a schema is no outage: the record is a dead letter, which stops this loop.
    append(&*log, &[needs(0, 9, 7_000)]);
    turn_for(&mut admit, 10);
    append(&*log, &[plain(2, 10)]);
    turn_for(&mut admit, 10);
    assert_eq!(offsets(&*log, &topology, 2), [0, 1, 2], "the poison limit counts it");
}

#[test]
fn an_outage_shows_everywhere_and_ends_without_a_resume_or_a_dead_letter() {
    let topology = Topology::default();
    let registry = FakeRegistry::start();
    let id = registry.put("com.acme.Post", SCHEMA);
    let url = registry.url();
    let mut server = Server::start_as("dev", &[], &[("TIDEWIRE_REGISTRY_URL", &url)]);
    server.stop();
    let log = open(&server.data_dir());
    let needs = (0..FRAMED).map(|n| record(&topology, 0, &framed(id, n)));
    let first: Vec<Outgoing> = [record(&topology, 0, &event(0))].into_iter().chain(needs).collect();
    append(&*log, &first);
    append(&*log, &[record(&topology, 0, &event(1)), record(&topology, 1, &event(2))]);
    drop(log);
    registry.set_behaviour(RegistryBehaviour::Down);
    server.restart();
    let mut http = server.http();
    wait_until("it waits", || http.get("/readyz").expect("an answer").status == 503);
    let why = http.get("/readyz").expect("an answer").text();
    for part in ["tw.in/0 waits at offset 1", "schema 1", &url, "goes on by itself"] {
        assert!(why.contains(part), "{part:?}: {why}");
    }

    let avro = http.post("/v1/events", "application/avro", &framed(id, 999)).expect("an answer");
    assert_eq!(avro.status, 503, "{}", avro.text());
    assert_eq!(avro.head.header("retry-after"), Some("5"));
    assert!(avro.text().contains("the schema registry does not answer"), "{}", avro.text());
    let json = http.post("/v1/events", "application/json", &event(3)).expect("an answer");
    assert_eq!(json.status, 202, "{}", json.text());
    let read_so_far = "tidewire_admit_records_total{source=\"in\"}";
    // Offset 0 of the partition, the other partition, and the one just posted.
    let key = serde_json::from_slice::<serde_json::Value>(&event(3)).expect("JSON");
    let key = key["key"].as_str().expect("a key").to_owned();
    let expected = if topology.partition_of(key.as_bytes()).0 == 0 { 2.0 } else { 3.0 };
    wait_until("others go on", || server.metric(read_so_far) == Some(expected));
    std::thread::sleep(Duration::from_secs(3));
    let metrics = http.get("/metrics").expect("an answer").text();
    let waiting = "tidewire_admit_waiting_partitions{source=\"in\",reason=\"registry\"} 1";
    assert!(metrics.contains(waiting), "{metrics}");
    for part in [&format!("{read_so_far} {expected}"), "tidewire_registry_away 1"] {
        assert!(metrics.contains(part), "{part}: {metrics}");
    }
    assert!(!metrics.contains("tidewire_admit_rejected_total{"), "{metrics}");
    assert!(metrics.contains("tidewire_admit_stopped{source=\"in\"} 0"), "{metrics}");

    registry.set_behaviour(RegistryBehaviour::Normal);
    wait_until("it goes on", || http.get("/readyz").expect("an answer").status == 200);
    let all = (FRAMED + 4) as f64;
    wait_until("all are admitted", || server.metric(read_so_far) == Some(all));
    let printed = server.printed();
    for part in ["tw.in/0 waits at offset 1 for", "tw.in/0 goes on at offset 1"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    server.stop();
    let log = open(&server.data_dir());
    assert_eq!(read(&*log, &topology, topology.dead_letters()).len(), 0);
    assert!(offsets(&*log, &topology, 0).starts_with(&[0]));
    let of_needing: Vec<u64> = admitted(&*log, &topology, 0)
        .into_iter()
        .filter_map(|(key, offset)| (key == b"ann").then_some(offset))
        .collect();
    assert!(of_needing.iter().copied().eq(1..=FRAMED as u64), "{of_needing:?}");
}

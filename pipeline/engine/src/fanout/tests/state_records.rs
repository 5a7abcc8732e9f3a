//! Tests of the records of the state topic: their entries in the rings and their frames.
//!
//! What a subscriber of a stream is given, and where it is, must not depend on them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::position::{PartitionPosition, Position};

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::offsets::{PartitionOffsets, STATE_TOPIC};
use super::super::out_buffer::OutBuffer;
use super::super::protocol::native::StartAt;
use super::super::reader::HubReader;
use super::super::segment::Segment;
use super::super::shard::Framing;
use super::client::{ServerFrame, read_frames};
use super::fixture::{ClientConnection, FanoutFixture, identity, numbers, objects};
use crate::record::Body;

const CAMPAIGNS: &str = "campaigns:a1";

fn fixture() -> FanoutFixture {
    FanoutFixture::new(1, &FanoutConfig::default())
}

fn event(event_type: &str, data: &Value) -> Event {
    Event {
        event_id: format!("id of {event_type}"),
        event_type: event_type.to_owned(),
        account_id: "a1".to_owned(),
        timestamp_ms: 0,
        correlation_id: "c".to_owned(),
        priority: Priority::Normal,
        key: "k".to_owned(),
        source: None,
        alias: None,
        data: data.to_string(),
    }
}

fn launched() -> Event {
    event("campaign.launched", &json!({"campaign_id": "c1", "campaign_name": "n"}))
}

/// The segments in the ring of a channel's partition.
fn segments(fixture: &FanoutFixture, channel: &str) -> Vec<Arc<Segment>> {
    let hub = &fixture.gateways[0].hub;
    let partition = hub.partition_of(channel);
    let update = hub.updates_since(|_| 0);
    let ring = update.rings.into_iter().find(|(of, _)| *of == partition);
    ring.map(|(_, ring)| ring.segments).unwrap_or_default()
}

fn head(fixture: &FanoutFixture, channel: &str) -> PartitionOffsets {
    let hub = &fixture.gateways[0].hub;
    hub.head(hub.partition_of(channel)).expect("a reader has started")
}

#[test]
fn a_record_of_state_is_an_entry_with_its_channel_account_and_key() {
    let check = |parts: [&str; 3], event: Option<&Event>| {
        let mut fixture = fixture();
        let offset = fixture.append_state(parts, event);
        fixture.read(0);
        let segments = segments(&fixture, parts[0]);
        let [one] = &segments[0].entries[..] else { panic!("one entry: {segments:?}") };
        assert_eq!((one.offset, one.is_state()), (offset, true));
        assert_eq!([one.channel(), one.account(), one.state_key().unwrap()], parts);
    };
    let conversation = event("conversation.created", &json!({"conversation_id": "v1"}));
    check(["inbox:a1", "a1", "v1"], Some(&conversation));
    check(["inbox:a1", "a1", "v1"], None);
    check(["trends:eu", "a1", ""], None);
    check(["trends:eu", "a1", "b/\0/é"], None);
    check([CAMPAIGNS, "a1", "c1"], Some(&event("of.a.newer.build", &json!({}))));
}

#[test]
fn a_record_of_state_with_another_shape_is_skipped() {
    let mut fixture = fixture();
    let partition = fixture.topology.partition_of(CAMPAIGNS.as_bytes());
    let at = fixture.topic_partition(STATE_TOPIC, partition);
    let keys: [Option<&[u8]>; 5] = [
        None,
        Some(b"campaigns:a1"),
        Some(b"campaigns:a1\0a1"),
        Some(b"campaigns:a1\0\0c1"),
        Some(b"campaigns:a1\0a1\0\xff"),
    ];
    for key in keys {
        fixture.log.append(&at, fixture.now, Body::new(key, None, &[]));
    }
    let body = Body::new(Some(b"campaigns:a1\0a1\0c1"), Some(b"no event"), &[]);
    fixture.log.append(&at, fixture.now, body);
    fixture.append_state([CAMPAIGNS, "a1", "c1"], None);
    fixture.read(0);
    let offsets: Vec<u64> = segments(&fixture, CAMPAIGNS)
        .iter()
        .flat_map(|segment| segment.entries.iter().map(|entry| entry.offset))
        .collect();
    assert_eq!(offsets, [6]);
    assert_eq!(head(&fixture, CAMPAIGNS).0, [0, 0, 7]);
}

#[test]
fn a_gateway_starts_at_the_end_of_the_state_and_the_next_reader_where_the_last_one_was() {
    let mut fixture = FanoutFixture::new(0, &FanoutConfig::default());
    for _ in 0..3 {
        fixture.append_state([CAMPAIGNS, "a1", "c1"], Some(&launched()));
        fixture.append(CAMPAIGNS, 1);
    }
    let gateway = fixture.gateway(&FanoutConfig::default());
    fixture.gateways.push(gateway);
    assert_eq!(head(&fixture, CAMPAIGNS).0, [0, 3, 3]);
    let entries = |fixture: &FanoutFixture| -> Vec<(u8, u64)> {
        let segments = segments(fixture, CAMPAIGNS);
        let entries = segments.iter().flat_map(|segment| segment.entries.iter());
        entries.map(|entry| (entry.topic, entry.offset)).collect()
    };
    assert_eq!(entries(&fixture), [(1, 0), (1, 1), (1, 2)], "the warm-up has no state");
    fixture.append_state([CAMPAIGNS, "a1", "c1"], None);
    fixture.read(0);
    fixture.append_state([CAMPAIGNS, "a1", "c1"], None);
    let gateway = &mut fixture.gateways[0];
    gateway.reader = HubReader::open(&*fixture.log, &gateway.hub).unwrap();
    fixture.read(0);
    assert_eq!(entries(&fixture)[3..], [(2, 3), (2, 4)]);
}

/// A log with events of a channel and as many changes of its state.
fn append_both(fixture: &mut FanoutFixture, times: usize) {
    for n in 0..times {
        fixture.append(CAMPAIGNS, n % 2);
        let value = launched();
        fixture.append_state([CAMPAIGNS, "a1", "c1"], (n % 3 > 0).then_some(&value));
        let other = event("conversation.created", &json!({}));
        fixture.append_state([CAMPAIGNS, "a1", "c2"], Some(&other));
    }
}

#[test]
fn a_subscriber_of_a_stream_is_given_no_change_of_state() {
    // In memory, from a small ring, and from the log.
    for ring_max_bytes in [1 << 20, 20_000, 1] {
        let config =
            FanoutConfig { ring_max_bytes, pending_max_refs: 8, ..FanoutConfig::default() };
        let mut fixture = FanoutFixture::new(1, &config);
        for accounts in [Accounts::All, Accounts::Only(vec!["a1".into()])] {
            let first = fixture.appended.len();
            let mut socket = ClientConnection::open(&mut fixture, 0, &identity(accounts));
            socket.subscribe(&mut fixture, CAMPAIGNS, "latest");
            let channels = [CAMPAIGNS.to_owned()];
            let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
            for connection in [&mut socket, &mut stream] {
                connection.read_all(&mut fixture);
            }
            append_both(&mut fixture, 40);
            let mut early = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
            early.subscribe(&mut fixture, CAMPAIGNS, "earliest");
            for (connection, first) in [(&mut socket, first), (&mut stream, first), (&mut early, 0)]
            {
                let frames = connection.read_all(&mut fixture);
                let mut seen = numbers(&frames);
                seen.sort_unstable();
                assert_eq!(seen, (first..fixture.appended.len()).collect::<Vec<_>>());
                let events = frames.iter().filter(|frame| match frame {
                    ServerFrame::Object { json, .. } => json.get("account_id").is_some(),
                    _ => false,
                });
                assert_eq!(events.count(), seen.len(), "{frames:?}");
            }
        }
    }
}

#[test]
fn a_position_does_not_name_the_state_and_one_that_does_is_read_as_if_it_did_not() {
    let mut fixture = fixture();
    append_both(&mut fixture, 10);
    fixture.settle();
    assert_eq!(head(&fixture, CAMPAIGNS).0, [5, 5, 20]);
    let mut socket = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    socket.subscribe(&mut fixture, CAMPAIGNS, "latest");
    let frames = socket.read_all(&mut fixture);
    let ok = objects(&frames, "ok")[0]["position"].as_str().unwrap();
    let position = Position::decode(ok).unwrap();
    let partition = fixture.topology.partition_of(CAMPAIGNS.as_bytes());
    let at = |next| vec![PartitionPosition { partition: partition.0, next }];
    assert_eq!(position.partitions, at([5, 5, 0]));
    for state in [0, 7, 1 << 40] {
        let former = Position { epoch: position.epoch, partitions: at([5, 3, state]) }.encode();
        let mut socket = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
        socket.subscribe(&mut fixture, CAMPAIGNS, &former);
        let frames = socket.read_all(&mut fixture);
        assert_eq!(numbers(&frames), [7, 9], "{frames:?}");
        let ok = Position { epoch: position.epoch, partitions: at([5, 3, 0]) }.encode();
        assert_eq!(objects(&frames, "ok")[0]["position"], ok);
        assert_eq!(objects(&frames, "event")[1]["position"], position.encode());
        assert_eq!(fixture.gateways[0].shard.stats().behind, 0);
    }
}

#[test]
fn a_stream_is_sent_no_position_because_the_state_has_moved() {
    let mut fixture = fixture();
    let channels = [CAMPAIGNS.to_owned(), "posts:b".to_owned()];
    fixture.append_state([CAMPAIGNS, "a1", "c1"], None);
    fixture.settle();
    let mut first = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
    let [ServerFrame::Id(position)] = &first.read_all(&mut fixture)[..] else { panic!("an id") };
    let start = StartAt::Token(position.as_str().into());
    let mut resumed = ClientConnection::stream(&mut fixture, 0, &channels, start);
    resumed.read_all(&mut fixture);
    for _ in 0..40 {
        fixture.append_state([CAMPAIGNS, "a1", "c1"], Some(&launched()));
        fixture.settle();
        fixture.pass_time(15_000);
        for stream in [&mut first, &mut resumed] {
            assert_eq!(stream.read(&mut fixture), [], "ten minutes without an event");
        }
    }
}

#[test]
fn state_that_is_deleted_before_it_is_read_costs_a_stream_nothing() {
    let mut fixture = fixture();
    let mut socket = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    socket.subscribe(&mut fixture, CAMPAIGNS, "latest");
    append_both(&mut fixture, 10);
    let partition = fixture.topology.partition_of(CAMPAIGNS.as_bytes());
    let state = fixture.topic_partition(STATE_TOPIC, partition);
    fixture.log.retain_from(&state, 15);
    let frames = socket.read_all(&mut fixture);
    assert_eq!(objects(&frames, "gap"), [&Value::Null; 0]);
    assert_eq!(numbers(&frames), [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]);
    assert_eq!(head(&fixture, CAMPAIGNS).0, [5, 5, 20]);
    // A log that ends before what was read has lost records of every topic.
    fixture.log.truncate(&state, 18);
    let frames = socket.read_all(&mut fixture);
    let [gap] = objects(&frames, "gap")[..] else { panic!("{frames:?}") };
    assert_eq!(gap["reason"], "epoch");
    assert_eq!(head(&fixture, CAMPAIGNS).0, [5, 5, 18]);
}

/// The frame of an entry in both framings; it has no position.
#[track_caller]
fn check_frame(fixture: &FanoutFixture, index: usize, name: &str, expected: &Value) {
    let segments = segments(fixture, expected["channel"].as_str().unwrap());
    for framing in [Framing::WebSocket, Framing::Sse] {
        let mut out = OutBuffer::default();
        segments[0].frame(index, framing).put(&mut out);
        let frames = read_frames(framing, &mut out.pieces().concat());
        let mut json = expected.clone();
        let op = match (framing, name) {
            (_, "deleted") => "deleted",
            (Framing::WebSocket, _) => "event",
            (Framing::Sse, name) => name,
        };
        if framing == Framing::WebSocket || name == "deleted" {
            json["op"] = op.into();
        }
        assert_eq!(frames, [ServerFrame::Object { op: op.to_owned(), id: None, json }]);
    }
}

#[test]
fn a_change_of_state_has_the_key_in_its_frame_and_a_tombstone_says_that_it_is_deleted() {
    let mut fixture = fixture();
    let conversation = event("conversation.created", &json!({"conversation_id": "v\n1"}));
    fixture.append_state(["inbox:a1", "a1", "v\"1"], Some(&conversation));
    fixture.append_state(["inbox:a1", "a1", "v\"1"], None);
    fixture.read(0);
    check_frame(
        &fixture,
        0,
        "conversation.created",
        &json!({
            "channel": "inbox:a1",
            "key": "v\"1",
            "type": "conversation.created",
            "event_id": "id of conversation.created",
            "account_id": "a1",
            "timestamp": "1970-01-01T00:00:00.000Z",
            "priority": 1,
            "correlation_id": "c",
            "data": {"conversation_id": "v\n1"},
        }),
    );
    let deleted = json!({"channel": "inbox:a1", "key": "v\"1", "account_id": "a1"});
    check_frame(&fixture, 1, "deleted", &deleted);
}

#[test]
fn a_turn_that_reads_nothing_of_one_partition_adds_no_segment_to_it() {
    let mut fixture = fixture();
    fixture.append_state([CAMPAIGNS, "a1", "c1"], None);
    assert_eq!(fixture.gateways[0].reader.turn(Duration::ZERO).unwrap(), 1);
    assert_eq!(fixture.gateways[0].reader.turn(Duration::ZERO).unwrap(), 0);
    assert_eq!(segments(&fixture, CAMPAIGNS).len(), 1);
}

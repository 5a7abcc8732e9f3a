//! Every parser of this repository as a function of bytes, with sample inputs.
//!
//! Two runners share the list: seeded loops in the test command, on any compiler, and the targets
//! for cargo-fuzz in `tests/fuzz`. A target panics where an invariant does not hold; the first of
//! them is that the parser itself never panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tidewire_connectors::socket::stream::frame_decoder::{ClientInput, FrameDecoder};
use tidewire_engine::dead_letters::{DeadLetter, ResolutionRecord, destination};
use tidewire_engine::derive::audit::layout::AuditPart;
use tidewire_engine::derive::lane_times::{LaneSet, LaneTimes};
use tidewire_engine::derive::order::{Accepted, LaneSpan, OrderRecord, Tick};
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::derive::source_changes::SourceChanges;
use tidewire_engine::derive::source_offsets::TakenOffsets;
use tidewire_engine::fact_pack::{self, FactPackBuilder, PackEntry, PackedFact};
use tidewire_engine::fanout::protocol::native::StartAt;
use tidewire_engine::record::{Body, Millis, Offset, Partition, Record};
use tidewire_engine::topics_layout::LayoutNumber;
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_engine::verdict::{Decision, TopicId, Verdict, VerdictSource};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::channel::Channel;
use tidewire_schemas::codec::{
    DecodeContext, HeaderLookup, Registry, RegistryFault, WriterSchema, admit,
};
use tidewire_schemas::envelope::{Admitted, EVENT_MAX_BYTES, RecordOrigin, Writers};
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::position::{PartitionPosition, Position};
use tidewire_schemas::time::parse_rfc3339;

use crate::test_rng::TestRng;

/// A parser with its samples.
pub struct Target {
    /// Its name, which is also that of its file in `tests/fuzz`.
    pub name: &'static str,
    /// Valid inputs, or nearly valid ones.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Parses the input and panics where an invariant does not hold.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "json_envelope", samples: envelopes, run: json_envelope },
    Target { name: "cloudevents", samples: cloudevents, run: cloudevent },
    Target { name: "avro_record", samples: avro_records, run: avro_record },
    Target { name: "avro_schema", samples: avro_schemas, run: avro_schema },
    Target { name: "event", samples: events, run: event },
    Target { name: "position", samples: positions, run: position },
    Target { name: "names", samples: names, run: name },
    Target { name: "client_frames", samples: client_frames, run: client_frame },
    Target { name: "stored", samples: stored, run: stored_forms },
    Target { name: "audit", samples: audits, run: audit },
    Target { name: "catalogue", samples: catalogues, run: catalogue },
];

/// The target of this name.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

impl Target {
    /// Runs on the samples and on this many mutations of them; a failure prints the input.
    pub fn mutate_and_run(&self, seed: u64, rounds: usize) {
        let (samples, mut rng) = ((self.samples)(), TestRng::new(seed));
        for sample in &samples {
            self.run_named(sample);
        }
        for _ in 0..rounds {
            let mut input = samples[rng.index(samples.len())].clone();
            for _ in 0..=rng.index(4) {
                mutate(&mut input, &samples[rng.index(samples.len())], &mut rng);
            }
            self.run_named(&input);
        }
    }

    fn run_named(&self, input: &[u8]) {
        if catch_unwind(AssertUnwindSafe(|| (self.run)(input))).is_err() {
            let escaped = input.escape_ascii();
            panic!("{}: failed on this input: b\"{escaped}\"", self.name);
        }
    }
}

/// Changes an input a little, or copies a part of another one into it.
fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut TestRng) {
    const BYTES: &[u8] = b"\0\x01\x7f\x80\xff{}[]\",:\\-0e9.n";
    const LENGTH_MAX: usize = 4_096;
    let at = rng.index(input.len() + 1);
    let len = rng.index(16).min(input.len() - at);
    match rng.index(7) {
        0 if at < input.len() => input[at] ^= 1 << rng.index(8),
        1 if at < input.len() => input[at] = BYTES[rng.index(BYTES.len())],
        2 => drop(input.drain(at..at + len)),
        3 => input.insert(at, BYTES[rng.index(BYTES.len())]),
        4 => input.truncate(at),
        5 => {
            let part = input[at..at + len].repeat(1 + rng.index(64));
            input.splice(at..at, part);
        }
        _ => {
            let from = rng.index(other.len() + 1);
            let part = other[from..(from + rng.index(64)).min(other.len())].to_vec();
            input.splice(at..at + len, part);
        }
    }
    input.truncate(LENGTH_MAX);
}

const ORIGIN: RecordOrigin<'_> = RecordOrigin {
    topic: "tw.in",
    partition: 1,
    offset: 2,
    append_time_ms: 1_767_607_201_000,
    writers: Writers::Producers,
};

struct NoHeaders;

/// Schemas by the id that a sample names.
#[derive(Debug)]
struct Schemas;

impl Registry for Schemas {
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        let text = SCHEMAS[id as usize % SCHEMAS.len()];
        WriterSchema::avro(text, &[])
            .map(Arc::new)
            .map_err(|fault| RegistryFault::Unusable(fault.to_string()))
    }

    fn schema_by_guid(&self, guid: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        self.schema(guid as u32)
    }
}

impl HeaderLookup for NoHeaders {
    fn each_header<'a>(&'a self, _: &mut dyn FnMut(&'a str, &'a [u8])) {}
}

/// Headers before the value: their count, then `name\0value\0` each.
struct Leading<'a>(Vec<(&'a [u8], &'a [u8])>);

impl HeaderLookup for Leading<'_> {
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        for (name, value) in &self.0 {
            if let Ok(name) = std::str::from_utf8(name) {
                visit(name, value);
            }
        }
    }
}

fn read_event(value: &[u8], headers: &dyn HeaderLookup) {
    let context = DecodeContext {
        catalogue: Catalogue::builtin(),
        registry: Some(&Schemas),
        origin: &ORIGIN,
    };
    if let Ok(admitted) = admit(&context, Some(value), headers) {
        check_consistent(&admitted);
    }
}

/// What holds for every event that is admitted.
fn check_consistent(admitted: &Admitted) {
    let event = &admitted.event;
    let encoded = event.encode();
    assert_eq!(EventView::decode(&encoded).expect("our own encoding").to_event(), *event);
    let data: Value = serde_json::from_str(&event.data).expect("data is JSON");
    assert!(data.is_object() && !event.data.contains('\n'), "{}", event.data);
    assert!(!event.event_id.is_empty() && event.event_id.len() <= 160);
    let again = [(); 2].map(|()| EventView::decode(&encoded).expect("the same"));
    let deliveries = again.map(|view| Catalogue::builtin().deliveries(&view));
    assert_eq!(format!("{:?}", deliveries[0]), format!("{:?}", deliveries[1]));
}

fn json_envelope(input: &[u8]) {
    read_event(input, &NoHeaders);
    let admitted = tidewire_schemas::envelope::admit(Catalogue::builtin(), Some(input), &ORIGIN);
    if admitted.is_ok() {
        let json = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        serde_json::from_slice::<Value>(json).expect("an admitted event is JSON");
    }
}

fn envelopes() -> Vec<Vec<u8>> {
    [
        r#"{"event_id":"e1","event_type":"post.created","account_id":7,"priority":2,"key":"k",
            "timestamp":"2026-01-05T10:00:00.1Z","correlation_id":null,"source":"s","extra":[1],
            "data":{"postId":"p","author":{"id":"u"},"content":"\ud83c\udf0a","n":-1.5e3}}"#,
        r#"{"event_type":"LIKE","account_id":"a","data":{"tweet_id":1,"actor_id":"u"}}"#,
        r#"{"event_type":"custom.x","account_id":"a","data":{}}"#,
        r#"{"event_type":"trend_update","account_id":"a","data":{"trend":{"name":"x"}}}"#,
        r#"[{"event_type":"custom.x"}]"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn cloudevent(input: &[u8]) {
    let structured = Leading(vec![(b"content-type", b"application/cloudevents+json")]);
    read_event(input, &structured);
    let mut parts = input.splitn(9, |byte| *byte == 0);
    let mut headers = Vec::new();
    for name in ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_priority"] {
        headers.extend(parts.next().map(|value| (name.as_bytes(), value)));
    }
    headers.push((b"ce_accountid", b"a"));
    read_event(parts.next().unwrap_or_default(), &Leading(headers));
}

fn cloudevents() -> Vec<Vec<u8>> {
    [
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"post.created","accountid":"a",
            "time":"2026-01-05T10:00:00Z","subject":"k","priority":"1","datacontenttype":"a/json",
            "data":{"post_id":"p","author_id":"u","text":"t"}}"#,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"custom.x","accountid":"a",
            "data_base64":"e30="}"#,
        "1.0\x001\x00/s\x00custom.x\x002026-01-05T10:00:00Z\x002\x00{\"n\":1}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

const SCHEMAS: &[&str] = &[
    r#"{"type":"record","name":"tidewire.Custom","fields":[
        {"name":"event_type","type":"string"},{"name":"account_id","type":["null","string"]},
        {"name":"n","type":"long"},{"name":"f","type":"double"},{"name":"b","type":"boolean"},
        {"name":"tags","type":{"type":"map","values":{"type":"array","items":"int"}}},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}}]}"#,
    r#"{"type":"record","name":"Tree","fields":[{"name":"v","type":"bytes"},
        {"name":"more","type":["null",{"type":"array","items":"Tree"}]}]}"#,
    r#"{"type":"record","name":"D","fields":[
        {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}},
        {"name":"u","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}},
        {"name":"t","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#,
    r#"{"type":"record","name":"N","fields":[{"name":"a","type":{"type":"array","items":"null"}},
        {"name":"data","type":"string"}]}"#,
];

fn avro_record(input: &[u8]) {
    read_event(input, &NoHeaders);
    let headers = Leading(vec![(b"event_type", b"custom.x"), (b"account_id", b"a")]);
    read_event(input, &headers);
    let (id, record) = input.split_at(input.len().min(5));
    read_event(record, &Leading(vec![(b"__value_schema_id", id), (b"event_type", b"custom.x")]));
}

fn avro_records() -> Vec<Vec<u8>> {
    let mut samples = events();
    let custom =
        b"\x10custom.x\x02\x02a\x0e\0\0\0\0\0\0\xe0\x3f\x01\x02\x02k\x04\x02\x04\0\0\x02".to_vec();
    let tree = b"\x04ab\x02\x02\x02c\0\0".to_vec();
    let decimal = [&b"\x04\x01\x02"[..], &[7; 16], b"\x80\x80\x01"].concat();
    let nulls = b"\x06\0\x04{}".to_vec();
    for (id, record) in [custom, tree, decimal, nulls].into_iter().enumerate() {
        samples.push([&[0, 0, 0, 0, id as u8][..], &record].concat());
    }
    samples
}

fn avro_schema(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(schema) = WriterSchema::avro(text, &[]) else { return };
    for record in
        [&[][..], &[0; 64], &[2; 64], &[0xff; 64], b"\x02\x04\x06\x08ab\0\x01\x80\x80\x01"]
    {
        if let Ok(json) = schema.to_json(record) {
            assert!(json.len() < 3 * EVENT_MAX_BYTES);
            serde_json::from_str::<Value>(&json).expect("JSON");
        }
    }
}

fn avro_schemas() -> Vec<Vec<u8>> {
    SCHEMAS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn event(input: &[u8]) {
    if let Ok(view) = EventView::decode(input) {
        let event = view.to_event();
        assert_eq!(EventView::decode(&event.encode()).expect("our own").to_event(), event);
    }
}

fn events() -> Vec<Vec<u8>> {
    let event = Event {
        event_id: "e".to_owned(),
        event_type: "custom.x".to_owned(),
        account_id: "a".to_owned(),
        timestamp_ms: 1_767_607_201_000,
        correlation_id: "c".to_owned(),
        priority: tidewire_schemas::Priority::High,
        key: "k".to_owned(),
        source: Some("s".to_owned()),
        alias: None,
        data: r#"{"n":1,"text":"ü"}"#.to_owned(),
    };
    vec![event.encode()]
}

fn position(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(position) = Position::decode(text) {
        assert_eq!(Position::decode(&position.encode()).expect("our own"), position);
    }
    let _ = StartAt::parse(text);
}

fn positions() -> Vec<Vec<u8>> {
    let partitions = vec![
        PartitionPosition { partition: 0, next: [1, 2, 3] },
        PartitionPosition { partition: 7, next: [u64::MAX, 0, 1 << 40] },
    ];
    let token = Position { epoch: 3, partitions }.encode();
    vec![token.into_bytes(), b"2026-01-05T10:00:00Z".to_vec(), b"latest".to_vec()]
}

/// However the bytes are split, the decoder reads the same, keeps no more than has arrived, and
/// keeps nothing between messages.
fn client_frame(input: &[u8]) {
    let decode = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut inputs, mut arrived) = (FrameDecoder::default(), Vec::new(), 0);
        for mut rest in pieces {
            arrived += rest.len();
            while let Some(input) = decoder.decode(&mut rest) {
                let goes_on = matches!(
                    input,
                    ClientInput::Text(_) | ClientInput::Ping(_) | ClientInput::Pong
                );
                inputs.push(input);
                if !goes_on {
                    return inputs;
                }
            }
            assert!(decoder.buffered_bytes() <= 2 * arrived + 16, "only what has arrived is kept");
        }
        inputs
    };
    let whole = decode(&mut std::iter::once(input));
    assert_eq!(decode(&mut input.chunks(1)), whole);
    assert_eq!(decode(&mut input.chunks(7)), whole);
}

fn client_frames() -> Vec<Vec<u8>> {
    vec![
        b"\x81\x85\x01\x02\x03\x04ign`n".to_vec(),
        b"\x01\x80\0\0\0\0\x89\x81\0\0\0\0?\x80\x82\0\0\0\0hi".to_vec(),
        b"\x81\xfe\0\x7e\0\0\0\0xxxxxxxx".to_vec(),
        b"\x88\x85\0\0\0\0\x03\xe8bye".to_vec(),
    ]
}

fn name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(channel) = Channel::parse(Catalogue::builtin(), text) {
        assert_eq!(
            Channel::parse(Catalogue::builtin(), &channel.name()).expect("our own"),
            channel
        );
    }
    if let Some(time) = parse_rfc3339(text) {
        assert!((-62_200_000_000_000..=253_500_000_000_000).contains(&time), "{time}");
    }
}

fn names() -> Vec<Vec<u8>> {
    ["posts:alice", "typing:user/%C3%BC", "campaigns", "2026-01-05T10:00:00.123456+02:00"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}

fn stored_forms(input: &[u8]) {
    if let Ok(order) = OrderRecord::decode(input) {
        assert_eq!(OrderRecord::decode(&order.encode()).expect("our own"), order);
    }
    if let Ok(layout) = LayoutNumber::decode(input) {
        assert_eq!(layout.encode(), input);
    }
    if let Some(progress) = TaskProgress::decode(input) {
        assert_eq!(TaskProgress::decode(&progress.encode()), Some(progress));
    }
    if let Ok(verdict) = Verdict::decode(input) {
        assert_eq!(Verdict::decode(&verdict.encode()), Ok(verdict));
    }
    if let Some(row) = TakenOffsets::decode(input) {
        assert_eq!(TakenOffsets::decode(&row.encode()), Some(row));
    }
    if let Some(changes) = SourceChanges::decode(input) {
        assert_eq!(SourceChanges::decode(&changes.encode()), Some(changes));
    }
    if let Ok(entries) = fact_pack::decode(&Bytes::copy_from_slice(input)) {
        check_fact_pack(entries);
    }
    if let Ok(body) = Body::from_stored(Bytes::copy_from_slice(input)) {
        let headers: Vec<(&str, &[u8])> = body.headers().collect();
        let again = Body::new(body.key(), body.value(), &headers);
        assert_eq!((again.key(), again.value()), (body.key(), body.value()));
        assert_eq!(again.headers().collect::<Vec<_>>(), headers);
        check_dead_letter(body);
    }
}

/// Facts and copies packed again give the same entries.
fn check_fact_pack(entries: Vec<PackEntry>) {
    let (mut facts, mut builder, mut again) = (Vec::new(), FactPackBuilder::default(), Vec::new());
    for entry in entries {
        assert_eq!(entry.to_body(), entry.to_body());
        if let PackEntry::Fact(fact) = entry {
            again.extend(builder.push(fact.clone()));
            facts.push(PackEntry::Fact(fact));
        }
    }
    again.extend(builder.finish());
    let decoded = again.iter().filter_map(Body::value_bytes);
    let decoded = decoded.flat_map(|pack| fact_pack::decode(&pack).expect("our own"));
    assert_eq!(decoded.collect::<Vec<_>>(), facts);
}

/// A pack of a fact and of two copies of one event.
fn fact_pack_sample() -> Vec<u8> {
    let mut builder = FactPackBuilder::default();
    for (operators, key) in [(&[][..], "k"), (&[4, 7], "l"), (&[4], "m")] {
        let fact = PackedFact {
            hops: 2,
            time: Millis(1_767_607_201_000),
            operators: Bytes::copy_from_slice(operators),
            key: key.into(),
            value: Bytes::from_static(b"event"),
        };
        assert_eq!(builder.push(fact), None);
    }
    let pack = builder.finish().expect("three entries");
    pack.value().expect("a value").to_vec()
}

/// Any record may be in the topic of dead letters.
fn check_dead_letter(body: Body) {
    let record = Record { offset: Offset(7), timestamp: Millis(1_000), body };
    if ResolutionRecord::is_resolution(&record) {
        let _ = ResolutionRecord::decode(&record);
    }
    let dead_letter = DeadLetter::of(Partition(1), record);
    assert_eq!(dead_letter.identity(), dead_letter.identity());
    let _ = (
        dead_letter.id(),
        dead_letter.source_position(),
        dead_letter.reason(),
        dead_letter.field(),
        dead_letter.detail(),
        dead_letter.operator_failure(),
    );
    let _ =
        (dead_letter.time(), dead_letter.written(), dead_letter.source_key(), dead_letter.size());
    assert!(dead_letter.own_headers().count() < 1 << 16 && dead_letter.trail().len() <= 16);
    let _ = destination(&Topology::default(), &dead_letter);
}

fn stored() -> Vec<Vec<u8>> {
    let progress = TaskProgress {
        state: Offset(7),
        windows: Offset(300),
        order: Offset(1 << 40),
        times: LaneTimes([-5, 0, 300, 1, 1 << 40, 7].map(Millis)),
        lane_ids: [1, 2, 300, 0, u64::MAX, 6].map(TopicId),
        lanes: [None, Some(Offset(0)), Some(Offset(9)), None, None, None],
    };
    let verdict = verdict_sample();
    let body = Body::new(Some(b"k"), Some(b"value"), &[("verdict", &verdict)]);
    let mut samples = vec![progress.encode().to_vec(), body.as_bytes().to_vec(), verdict];
    // Two offsets above a delivered range.
    samples.push(b"\x01\0\0\0\0\0\0\0\x07\x03\x90\x01\x02\x95\x01\x02".to_vec());
    samples.push(Body::new(None, None, &[]).as_bytes().to_vec());
    samples.push(order_sample());
    samples.push(fact_pack_sample());
    let record = Body::new(Some(b"k"), Some(b"value"), &[("tw-operator", b"unread")]);
    let requeued = fact_pack::pack_of_record(&record);
    samples.push(requeued.value().expect("a value").to_vec());
    samples.push(LayoutNumber::CURRENT.encode());
    let headers: &[(&str, &[u8])] = &[
        ("reason", b"not_json"),
        ("detail", b"at byte 1"),
        ("time", b"1767607201000"),
        ("source-key", b"k"),
        ("h-requeued-from", b"tw.in/0/1,tw.in/0/9"),
        ("resolution", b"requeued"),
    ];
    let dead_letter = Body::new(Some(b"tw.in/3/7"), Some(b"{"), headers);
    samples.push(dead_letter.as_bytes().to_vec());
    samples
}

/// A verdict with every field filled.
fn verdict_sample() -> Vec<u8> {
    let source = VerdictSource {
        input: 1,
        topic: TopicId(9),
        partition: Partition(3),
        offset: Offset(300),
        delivered_from: Offset(5),
        delivered_to: Offset(200),
    };
    let verdict = Verdict {
        decision: Decision::Passed,
        settings_hash: 7,
        control: Offset(40),
        append_time: Millis(1_767_607_200_000),
        source,
        rules: vec![1, 300],
    };
    verdict.encode()
}

/// An `order` record with every field filled.
fn order_sample() -> Vec<u8> {
    let span = LaneSpan { first: Offset(5), last: Offset(9) };
    let order = OrderRecord {
        build: "0.1.0".to_owned(),
        settings_hash: 1,
        catalogue_hash: 2,
        level: ValueLevel(1),
        lane_ids: [1, 2, 3, 4, 5, 6].map(TopicId),
        before: LaneTimes([1_000, 900, 800, 0, 1_000, 0].map(Millis)),
        after: LaneTimes([2_000, 900, 1_800, 1_500, 1_500, 0].map(Millis)),
        spans: [Some(span), None, Some(span), None, None, None],
        sequence: vec![(Lane::ALL[0], 5), (Lane::ALL[2], 5)],
        ticks: vec![Tick { after: 3, at: Millis(1_500), ended: LaneSet(0b1_1001) }],
        dead_letters: vec![4],
        accepted: vec![Accepted { at: Millis(1_200), since: Millis(1_300), ids: vec![[7; 16]; 3] }],
        outputs: 12,
        outputs_hash: 3,
    };
    order.encode()
}

fn audit(input: &[u8]) {
    let Ok(part) = AuditPart::decode(input) else { return };
    // Each entry and each item has a byte at least.
    let items: usize = part.entries.iter().map(|entry| 1 + entry.items.len()).sum();
    assert!(items <= input.len());
    assert_eq!(AuditPart::decode(input), Ok(part));
}

fn audits() -> Vec<Vec<u8>> {
    // A record with its source and event; a call that emits a fact, sets a timer, marks a change.
    let record =
        b"\x01\x00\x01\x01\x02\x0a\xc8\x01\x01\x00\x03\x07\x05\x06e-1\x00\x01t\x00\x01a\x01\x00";
    let call: &[u8] =
        b"\x0a\x3c\x0b\0\0\x01o0123456789abcdef\x01\x02\0\x01b\x0d\x04\x13\x0212345678\x1487654321";
    let failed = b"\x17\x00\x01o\x00\x02id\x00\x03why\x19\x15\x01\x1a\x01\x04\x02\x07\x08\x00";
    let timer = b"\x02\x3c12345678\x00\x01a\x00\x01k\x02\x16\x00\x01r\x00";
    vec![
        record.to_vec(),
        [&record[..record.len() - 1], call, failed, timer].concat(),
        b"\x01\x01\x02\x04\x02\x12\x00\x01c\x01\x00".to_vec(),
    ]
}

fn catalogue(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Catalogue::load(&[("channels.toml", "[channels]"), ("posts.toml", text)]);
}

fn catalogues() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../schemas/catalogue/posts.toml")[..2_000].to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutations of each target in one run.
    const ROUNDS: usize = 20_000;

    #[test]
    fn no_parser_panics_on_mutated_input() {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let seed = number("TIDEWIRE_SEED").unwrap_or(1);
        let rounds = number("TIDEWIRE_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
        eprintln!("repeat with TIDEWIRE_SEED={seed}; TIDEWIRE_ROUNDS={rounds} of each");
        for target in TARGETS {
            target.mutate_and_run(seed, rounds);
        }
    }

    #[test]
    fn every_target_has_a_file_for_cargo_fuzz_and_every_file_a_target() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .expect("the folder is there")
            .map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8"))
            .collect();
        let mut names: Vec<String> = TARGETS.iter().map(|t| format!("{}.rs", t.name)).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
    }
}

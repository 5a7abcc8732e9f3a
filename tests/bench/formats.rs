//! Benchmark of decoding an event, by its format, on one thread.
//!
//! `bench-formats [EVENTS]`. An Avro record becomes JSON through apache-avro's `Value`, the usual
//! way, and through the schema prepared for reading. Then each format goes all the way from a
//! record's bytes to an event. The best of several rounds counts, since the machine is shared.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use tidewire_app::synthetic::Generator;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::{
    DecodeContext, HeaderLookup, Registry, RegistryFault, WriterSchema, admit,
};
use tidewire_schemas::envelope::{RecordOrigin, Writers};
use tidewire_tests::machine;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS: usize = 100_000;
const ROUNDS: usize = 5;

/// Different events, so that no branch predictor learns one.
const DISTINCT_EVENTS: usize = 1_000;

const ORIGIN: RecordOrigin<'_> = RecordOrigin {
    topic: "in",
    partition: 0,
    offset: 0,
    append_time_ms: 1_767_607_201_000,
    writers: Writers::Producers,
};

/// A post as a team with Avro would write it.
const POST: &str = r#"{"type":"record","name":"Post","namespace":"com.acme","fields":[
    {"name":"event_id","type":"string"},
    {"name":"account_id","type":"string"},
    {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"priority","type":["null","int"],"default":null},
    {"name":"post_id","type":"string"},
    {"name":"author_id","type":"string"},
    {"name":"text","type":"string"},
    {"name":"lang","type":["null","string"],"default":null},
    {"name":"hashtags","type":{"type":"array","items":"string"}},
    {"name":"author","type":{"type":"record","name":"Author","fields":[
        {"name":"name","type":"string"},{"name":"followers","type":"long"}]}},
    {"name":"score","type":"double"}]}"#;

#[derive(Debug)]
struct SingleSchema(Arc<WriterSchema>);

impl Registry for SingleSchema {
    fn schema(&self, _: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        Ok(Arc::clone(&self.0))
    }

    fn schema_by_guid(&self, _: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        Ok(Arc::clone(&self.0))
    }
}

struct StaticHeaders(&'static [(&'static str, &'static [u8])]);

impl HeaderLookup for StaticHeaders {
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.0.each_header(visit);
    }
}

fn main() {
    let events = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(EVENTS);
    println!("{}", machine::describe());
    let schema = Schema::parse_str(POST).expect("a schema");
    let ours = Arc::new(WriterSchema::avro(POST, &[]).expect("a schema"));
    let records = records(&schema);
    println!("an Avro record of {} B to JSON:", mean_bytes(&records));
    let reader = GenericDatumReader::builder(&schema).build().expect("resolved");
    let peer = per_event("apache-avro, by Value", events, &records, |record| {
        let value = reader.read_value(&mut &*record).expect("a record");
        let json = serde_json::Value::try_from(value).expect("finite numbers");
        json.to_string().len()
    });
    let own = per_event("tidewire", events, &records, |record| {
        ours.to_json(record).expect("a record").len()
    });
    println!("  ratio: {:.1}", peer.as_secs_f64() / own.as_secs_f64());
    let registry = SingleSchema(ours);
    let whole = |what: &str, records: &[Vec<u8>], headers: StaticHeaders| {
        println!("{what}, records of {} B to events:", mean_bytes(records));
        let context = DecodeContext {
            catalogue: Catalogue::builtin(),
            registry: Some(&registry),
            origin: &ORIGIN,
        };
        let each = per_event("tidewire", events, records, |record| {
            admit(&context, Some(record), &headers).expect("an event").event.data.len()
        });
        println!("  {:.2} million/s", 1e-6 / each.as_secs_f64());
    };
    let typed: Vec<_> = records.iter().map(|r| [&[0, 0, 0, 0, 7][..], r].concat()).collect();
    whole("JSON envelope, the mix of `generate`", &mix(), StaticHeaders(&[]));
    whole("JSON envelope, posts", &posts(), StaticHeaders(&[]));
    let kind = StaticHeaders(&[("content-type", b"application/cloudevents+json")]);
    whole("CloudEvents, structured, posts", &cloudevents(), kind);
    whole("Avro in Confluent's framing", &typed, StaticHeaders(&[("event_type", b"post.created")]));
}

/// The time one call takes in the best round.
fn per_event(
    what: &str,
    events: usize,
    records: &[Vec<u8>],
    mut read: impl FnMut(&[u8]) -> usize,
) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = machine::thread_cpu_time();
        for record in records.iter().cycle().take(events) {
            black_box(read(black_box(record)));
        }
        machine::thread_cpu_time() - begun
    });
    let best = rounds.min().expect("several rounds").div_f64(events as f64);
    println!("  {what}: {:.3} µs", best.as_secs_f64() * 1e6);
    best
}

fn mean_bytes(records: &[Vec<u8>]) -> usize {
    records.iter().map(Vec::len).sum::<usize>() / records.len()
}

fn words(n: usize) -> String {
    format!("The {n}th tide of the day came in over the flats, \"quietly\", and went out again.")
}

fn records(schema: &Schema) -> Vec<Vec<u8>> {
    let writer = GenericDatumWriter::builder(schema).build().expect("resolved");
    let text = |text: String| Value::String(text);
    let record = |n: usize| {
        let some = |value| Value::Union(1, Box::new(value));
        let fields = [
            ("event_id", text(format!("event-{n}"))),
            ("account_id", text("acc-1".to_owned())),
            ("timestamp", Value::TimestampMillis(1_767_607_201_000 + n as i64)),
            ("priority", some(Value::Int((n % 4) as i32))),
            ("post_id", text(format!("post-{n}"))),
            ("author_id", text(format!("user-{}", n % 97))),
            ("text", text(words(n))),
            ("lang", some(text("en".to_owned()))),
            ("hashtags", Value::Array(vec![text("tide".to_owned()), text("sea".to_owned())])),
            (
                "author",
                Value::Record(vec![
                    ("name".to_owned(), text("Ann".to_owned())),
                    ("followers".to_owned(), Value::Long(n as i64 * 7)),
                ]),
            ),
            ("score", Value::Double(n as f64 / 8.0)),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        writer.write_value_to_vec(Value::Record(fields.into())).expect("it fits")
    };
    (0..DISTINCT_EVENTS).map(record).collect()
}

fn mix() -> Vec<Vec<u8>> {
    let mut generator = Generator::new(1, "bench");
    let line = |_| {
        let mut line = String::new();
        generator.next_line(&mut line);
        line.into_bytes()
    };
    (0..DISTINCT_EVENTS).map(line).collect()
}

fn data(n: usize) -> serde_json::Value {
    serde_json::json!({"post_id": format!("post-{n}"), "author_id": format!("user-{}", n % 97),
        "text": words(n), "lang": "en", "hashtags": ["tide", "sea"], "score": n as f64 / 8.0,
        "author": {"name": "Ann", "followers": n * 7}})
}

fn posts() -> Vec<Vec<u8>> {
    let post = |n: usize| {
        let event = serde_json::json!({"event_id": format!("event-{n}"), "account_id": "acc-1",
            "event_type": "post.created", "timestamp": 1_767_607_201_000u64 + n as u64,
            "priority": n % 4, "data": data(n)});
        event.to_string().into_bytes()
    };
    (0..DISTINCT_EVENTS).map(post).collect()
}

fn cloudevents() -> Vec<Vec<u8>> {
    let event = |n: usize| {
        let event = serde_json::json!({"specversion": "1.0", "id": format!("event-{n}"),
            "source": "/bench", "type": "post.created", "accountid": "acc-1",
            "time": "2026-01-05T10:00:00Z", "data": data(n)});
        event.to_string().into_bytes()
    };
    (0..DISTINCT_EVENTS).map(event).collect()
}

//! The schema registry's client against a fake registry over HTTP.
//!
//! Tests what it caches, how long it waits, and how it handles wrong responses.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidewire_connectors::registry::{Config, Credentials, QueryPolicy, SchemaRegistry};
use tidewire_schemas::codec::{Registry, RegistryFault};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::fake_registry::{FakeRegistry, RegistryBehaviour};
use tidewire_tests::server::Server;

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": []}"#;

/// Short enough for tests that have to wait for it.
const SHORT_LIMITS: QueryPolicy = QueryPolicy {
    try_limit: Duration::from_millis(400),
    limit: Duration::from_millis(1_000),
    tries: 3,
    unknown_pause: Duration::from_millis(600),
    unavailable_pause: Duration::from_millis(600),
};

/// Long enough for a thousand look-ups on a busy machine.
const FIRST_WAIT: Duration = Duration::from_secs(2);

fn client_of(urls: &[String], credentials: Credentials, policy: QueryPolicy) -> SchemaRegistry {
    SchemaRegistry::new(&Config { urls: urls.to_vec(), credentials, authorities: None, policy })
}

fn client(registry: &FakeRegistry) -> SchemaRegistry {
    client_of(&[registry.url()], Credentials::None, SHORT_LIMITS)
}

/// An address without a listener.
fn nowhere() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

fn unavailable(client: &SchemaRegistry, id: u32) -> String {
    match client.schema(id) {
        Err(RegistryFault::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn unusable(client: &SchemaRegistry, id: u32) -> String {
    match client.schema(id) {
        Err(RegistryFault::Unusable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_records_of_one_schema_make_one_request() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    let client = client(&registry);
    for _ in 0..1_000 {
        client.schema(id).expect("it is there");
    }
    assert_eq!(registry.requests(), ["GET /schemas/ids/1"]);
    registry.set_behaviour(RegistryBehaviour::Down);
    client.schema(id).expect("a cached schema needs no request");
}

#[test]
fn a_schema_is_found_by_its_guid() {
    let registry = FakeRegistry::start();
    registry.find_by_guid();
    let id = registry.put("s", SCHEMA);
    let client = client(&registry);
    for _ in 0..100 {
        client.schema_by_guid(FakeRegistry::guid(id)).expect("it is there");
    }
    assert_eq!(registry.requests(), ["GET /schemas/guids/0f1e2d3c-4b5a-6978-8796-a5b400000001"]);
    let unknown = client.schema_by_guid(7).expect_err("it is not there");
    let RegistryFault::Unknown(why) = unknown else { panic!("{unknown:?}") };
    assert!(why.contains("has no schema 00000000-0000-0000-0000-000000000007"), "{why}");
}

#[test]
fn a_registry_without_guids_stops_no_other_question() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    let client = client(&registry);
    let without = client.schema_by_guid(FakeRegistry::guid(id)).expect_err("it has no such path");
    let RegistryFault::Unknown(why) = without else { panic!("{without:?}") };
    assert!(why.contains("value.schema.id.serializer"), "{why}");
    client.schema(id).expect("it is found by its number");
}

#[test]
fn a_registry_of_another_maker_without_guids_is_not_away() {
    let registry = FakeRegistry::start();
    let client = client(&registry);
    let guids = "/schemas/guids/".to_owned();
    registry.set_behaviour(RegistryBehaviour::FixedFor(guids, 404, "Not Found".into()));
    let Err(RegistryFault::Unknown(why)) = client.schema_by_guid(7) else { panic!("no path") };
    assert!(why.contains("finds no schemas by GUID"), "{why}");
    client.schema(registry.put("s", SCHEMA)).expect("nothing is paused");
}

#[test]
fn a_guid_takes_part_in_an_outage_like_an_id() {
    let registry = FakeRegistry::start();
    registry.find_by_guid();
    let ids = [registry.put("s", SCHEMA), registry.put("t", &SCHEMA.replace('R', "T"))];
    let guid = |id: u32| FakeRegistry::guid(id);
    let unavailable_by_guid = |client: &SchemaRegistry, id| match client.schema_by_guid(guid(id)) {
        Err(RegistryFault::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    };
    let no_page = r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#;
    for (status, body) in [(503, ""), (401, ""), (404, no_page), (404, "no such page")] {
        registry.set_behaviour(RegistryBehaviour::Fixed(status, body.to_owned()));
        let policy = QueryPolicy { unavailable_pause: 4 * FIRST_WAIT, ..SHORT_LIMITS };
        let client = client_of(&[registry.url()], Credentials::None, policy);
        let why = unavailable_by_guid(&client, ids[0]);
        assert!(why.contains(&status.to_string()), "{why}");
        let asked = registry.count();
        unavailable(&client, ids[0]);
        unavailable_by_guid(&client, ids[1]);
        assert_eq!(registry.count(), asked, "no key is asked for during an outage");
        registry.set_behaviour(RegistryBehaviour::Normal);
        std::thread::sleep(FIRST_WAIT);
        client.schema_by_guid(guid(ids[1])).expect("it is asked again");
        client.schema(ids[0]).expect("that ended the outage for every key");
        client.schema_by_guid(guid(ids[0])).expect("no fault of this GUID is remembered");
    }
}

#[test]
fn it_works_inside_an_async_runtime() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    let client = std::sync::Arc::new(client(&registry));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let shared = client.clone();
    let asked = async move { tokio::task::spawn_blocking(move || shared.schema(id)).await };
    runtime.block_on(asked).expect("no panic").expect("it is there");
    runtime.block_on(async { client.schema(7) }).expect_err("it is not there, and nothing panics");
}

#[test]
fn an_unknown_id_is_requested_again_only_after_a_pause() {
    let registry = FakeRegistry::start();
    let client = client(&registry);
    for _ in 0..100 {
        let Err(RegistryFault::Unknown(why)) = client.schema(1) else { panic!("it is not there") };
        assert!(why.contains("has no schema 1; check that the producer uses"), "{why}");
    }
    assert_eq!(registry.count(), 1);
    // Random bytes that look like an id: the registry has no such schema.
    let Err(RegistryFault::Unknown(why)) = client.schema(u32::MAX) else { panic!("no such id") };
    assert!(why.contains("4294967295 is larger than any schema id"), "{why}");
    assert_eq!(registry.count(), 1);
    let id = registry.put("s", SCHEMA);
    std::thread::sleep(SHORT_LIMITS.unknown_pause);
    client.schema(id).expect("it is there by now");
}

#[test]
fn a_registry_that_is_down_is_tried_three_times_and_then_paused() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    registry.set_behaviour(RegistryBehaviour::Fixed(
        503,
        r#"{"error_code": 50003, "message": "no leader"}"#.into(),
    ));
    let policy = QueryPolicy { unavailable_pause: 4 * FIRST_WAIT, ..SHORT_LIMITS };
    let client = client_of(&[registry.url()], Credentials::None, policy);
    let error = unavailable(&client, id);
    assert!(error.contains("503: no leader (tried 3 times in"), "{error}");
    assert!(error.contains("check that the schema registry runs, and registry.url"), "{error}");
    for id in 0..1_000 {
        unavailable(&client, id);
    }
    assert_eq!(registry.count(), 3, "{:?}", registry.requests());
    // Then one request asks whether it is back, whatever number of records wait for it.
    std::thread::sleep(FIRST_WAIT);
    for id in 0..1_000 {
        unavailable(&client, id);
    }
    assert_eq!(registry.count(), 4);
    registry.set_behaviour(RegistryBehaviour::Normal);
    std::thread::sleep(2 * FIRST_WAIT);
    client.schema(id).expect("it is asked again");
    client.schema(registry.put("t", &SCHEMA.replace('R', "T"))).expect("nothing is paused");
}

#[test]
fn every_way_to_be_away_is_unavailable_and_ends_when_it_answers() {
    let fixed = |status| RegistryBehaviour::Fixed(status, String::new());
    for behaviour in [
        RegistryBehaviour::Down,
        RegistryBehaviour::Slow(Duration::from_secs(3)),
        fixed(401),
        fixed(403),
        fixed(408),
        fixed(429),
        fixed(500),
        fixed(502),
    ] {
        let registry = FakeRegistry::start();
        let id = registry.put("s", SCHEMA);
        let client = client(&registry);
        registry.set_behaviour(behaviour);
        unavailable(&client, id);
        registry.set_behaviour(RegistryBehaviour::Normal);
        std::thread::sleep(SHORT_LIMITS.unavailable_pause);
        client.schema(id).expect("it is asked again");
    }
}

#[test]
fn a_silent_registry_times_out_after_5_seconds_in_all() {
    let registry = FakeRegistry::start();
    registry.set_behaviour(RegistryBehaviour::Slow(Duration::from_secs(20)));
    let client = client_of(&[registry.url()], Credentials::None, QueryPolicy::default());
    let begin = Instant::now();
    unavailable(&client, 1);
    let took = begin.elapsed();
    // Below the time-out of a single response, with a margin for a busy machine.
    assert!((4_000..12_000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(registry.count(), 3);
}

#[test]
fn occasional_failures_are_retried() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    registry.set_behaviour(RegistryBehaviour::Slow(Duration::from_millis(100)));
    client(&registry).schema(id).expect("slow is not down");
    registry.set_behaviour(RegistryBehaviour::Down);
    let client = client(&registry);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            registry.set_behaviour(RegistryBehaviour::Normal);
        });
        client.schema(id).expect("a later try finds it up");
    });
}

#[test]
fn the_next_address_takes_over_and_is_kept() {
    let registry = FakeRegistry::start();
    let ids = [registry.put("a", SCHEMA), registry.put("b", &SCHEMA.replace('R', "S"))];
    let dead = FakeRegistry::start();
    dead.set_behaviour(RegistryBehaviour::Fixed(500, String::new()));
    let urls = [nowhere(), dead.url(), registry.url()];
    let client = client_of(&urls, Credentials::None, SHORT_LIMITS);
    for id in ids {
        client.schema(id).expect("the third has it");
    }
    assert_eq!(dead.count(), 1, "the second request goes to the one that responded");
    let none = client_of(&[nowhere(), nowhere()], Credentials::None, SHORT_LIMITS);
    let error = unavailable(&none, 1);
    assert!(error.contains("tried 3 times"), "{error}");
}

#[test]
fn a_login_is_sent_and_never_shown() {
    let registry = FakeRegistry::start();
    let id = registry.put("s", SCHEMA);
    let user =
        |password: &str| Credentials::Basic { username: "ann".into(), password: password.into() };
    registry.require_user("ann", "s3cret-1");
    let asked = |credentials| client_of(&[registry.url()], credentials, SHORT_LIMITS);
    asked(user("s3cret-1")).schema(id).expect("the right one");
    for credentials in [user("s3cret-2"), Credentials::Bearer("s3cret-3".into())] {
        let client = asked(credentials);
        let error = format!("{} {client:?}", unavailable(&client, id));
        assert!(error.contains("401: the login was rejected; check registry.username"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let error = unavailable(&asked(Credentials::None), id);
    assert!(error.contains("give registry.username and registry.password, or"), "{error}");
    assert_eq!(registry.count(), 4, "a wrong login is not tried again");
    registry.require_token("t0ken");
    asked(Credentials::Bearer("t0ken".into())).schema(id).expect("the right one");
    // A registry that echoes our credentials must not make us print them.
    let echo = r#"{"error_code": 42200, "message": "Bearer t0ken is odd"}"#;
    registry.set_behaviour(RegistryBehaviour::Fixed(422, echo.into()));
    let error = unavailable(&asked(Credentials::Bearer("t0ken".into())), 9);
    assert!(error.contains("Bearer … is odd") && !error.contains("t0ken"), "{error}");
}

#[test]
fn references_are_fetched_once_and_deepest_first() {
    let registry = FakeRegistry::start();
    let one = |name: &str, of: &[&str]| {
        let fields: Vec<String> =
            of.iter().map(|of| format!(r#"{{"name": "{of}", "type": "{of}"}}"#)).collect();
        format!(r#"{{"type": "record", "name": "{name}", "fields": [{}]}}"#, fields.join(","))
    };
    registry.put("d", &one("D", &[]));
    registry.put_as("b/ü", ("AVRO", &one("B", &["D"])), &[("d", 1)]);
    registry.put_as("c", ("AVRO", &one("C", &["D"])), &[("d", 1)]);
    let id = registry.put_as("a", ("AVRO", &one("A", &["B", "C"])), &[("b/ü", 1), ("c", 1)]);
    client(&registry).schema(id).expect("all is there");
    let expected = [
        "GET /schemas/ids/4",
        "GET /subjects/b%2F%C3%BC/versions/1",
        "GET /subjects/d/versions/1",
        "GET /subjects/c/versions/1",
    ];
    assert_eq!(registry.requests(), expected);
}

#[test]
fn missing_circular_and_too_deep_references_are_refused() {
    let registry = FakeRegistry::start();
    let client = client(&registry);
    let gone = registry.put_as("gone", ("AVRO", SCHEMA), &[("nobody", 3)]);
    let error = unusable(&client, gone);
    assert!(
        error.contains("references nobody version 3, which fails: Subject 'nobody' not found."),
        "{error}"
    );
    registry.put_as("x", ("AVRO", r#""int""#), &[("y", 1)]);
    let circle = registry.put_as("y", ("AVRO", r#""long""#), &[("x", 1)]);
    let error = unusable(&client, circle);
    assert!(error.contains("has a circular reference through"), "{error}");
    let text = |n: usize| format!(r#"{{"type": "fixed", "name": "F{n}", "size": {n}}}"#);
    registry.put("chain0", &text(1));
    let mut last = 0;
    for n in 1..30 {
        let before = format!("chain{}", n - 1);
        let subject = format!("chain{n}");
        last = registry.put_as(&subject, ("AVRO", &text(n + 1)), &[(&before, 1)]);
    }
    let error = unusable(&client, last);
    assert!(error.contains("more than 16 levels of them"), "{error}");
    let names: Vec<String> = (0..100).map(|n| format!("wide{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        registry.put(name, &text(n + 1_000));
    }
    let all: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let wide = registry.put_as("wide", ("AVRO", r#""double""#), &all);
    let error = unusable(&client, wide);
    assert!(error.contains("more than 64 references"), "{error}");
    let asked = registry.count();
    unusable(&client, wide);
    assert_eq!(registry.count(), asked, "unusable schemas are cached too");
}

#[test]
fn a_reference_to_the_newest_version_is_asked_for_as_latest() {
    let registry = FakeRegistry::start();
    registry.put("d", r#"{"type": "fixed", "name": "D", "size": 1}"#);
    registry.put("d", r#"{"type": "fixed", "name": "D", "size": 2}"#);
    let named = |name: &str| {
        format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"d","type":"D"}}]}}"#)
    };
    let client = client(&registry);
    let minus_1 = registry.put_as("a", ("AVRO", &named("A")), &[("d", -1)]);
    client.schema(minus_1).expect("-1 is the newest version");
    let latest = serde_json::json!([{"name": "d", "subject": "d", "version": "latest"}]);
    let latest = registry.put_unchecked("b", ("AVRO", &named("B")), latest);
    client.schema(latest).expect("latest too");
    let twice = registry.put_as("c", ("AVRO", &named("C")), &[("d", -1), ("d", 2)]);
    client.schema(twice).expect("one text may be referenced by number and as the newest");
    let asked = registry.requests();
    assert_eq!(asked[1], "GET /subjects/d/versions/latest");
    assert_eq!(asked[3], "GET /subjects/d/versions/latest");
}

#[test]
fn what_is_wrong_with_one_schema_never_delays_another() {
    let registry = FakeRegistry::start();
    registry.put("d", r#"{"type": "fixed", "name": "D", "size": 1}"#);
    let client = client(&registry);
    let mut number = 0;
    let mut another_is_read = || {
        number += 1;
        let text = SCHEMA.replace('R', &format!("R{number}"));
        client.schema(registry.put(&format!("s{number}"), &text)).expect("it is right");
    };
    for (n, references) in [
        serde_json::json!({}),
        serde_json::json!(["d"]),
        serde_json::json!([{"subject": "d"}]),
        serde_json::json!([{"subject": 7, "version": 1}]),
        serde_json::json!([{"subject": "d", "version": 0}]),
        serde_json::json!([{"subject": "d", "version": -2}]),
        serde_json::json!([{"subject": "d", "version": 1.5}]),
        serde_json::json!([{"subject": "d", "version": "newest"}]),
        serde_json::json!([{"subject": "d", "version": 7}]),
        serde_json::json!([{"subject": "nobody", "version": -1}]),
    ]
    .into_iter()
    .enumerate()
    {
        let text = SCHEMA.replace('R', &format!("Bad{n}"));
        let id = registry.put_unchecked(&format!("bad{n}"), ("AVRO", &text), references.clone());
        let error = unusable(&client, id);
        assert!(error.starts_with(&format!("schema {id} ")), "{references}: {error}");
        another_is_read();
    }
    for text in ["", "nonsense", "{\"type\": ", "\"R1\""] {
        let id = registry.put("broken", text);
        let error = unusable(&client, id);
        assert!(error.starts_with(&format!("schema {id} can't be used")), "{error}");
        another_is_read();
    }
}

/// The fault of schema `number` when requests that begin with `target`, or else those for its id,
/// get this answer; another schema can be read meanwhile.
fn fault_beside_a_good_schema(
    (registry, client): (&FakeRegistry, &SchemaRegistry),
    number: usize,
    target: Option<&str>,
    (status, body): (u16, &str),
) -> RegistryFault {
    let text = |name: &str| SCHEMA.replace('R', &format!("{name}{number}"));
    let refers: &[(&str, i64)] = if target.is_some() { &[("d", 1)] } else { &[] };
    let odd = registry.put_as(&format!("odd{number}"), ("AVRO", &text("Odd")), refers);
    let target = target.map_or(format!("/schemas/ids/{odd}"), str::to_owned);
    registry.set_behaviour(RegistryBehaviour::FixedFor(target, status, body.to_owned()));
    let fault = client.schema(odd).expect_err("it is odd");
    client.schema(registry.put(&format!("s{number}"), &text("S"))).expect("it is right");
    fault
}

#[test]
fn an_odd_answer_about_one_schema_or_reference_never_delays_another() {
    let registry = FakeRegistry::start();
    registry.put("d", r#"{"type": "fixed", "name": "D", "size": 1}"#);
    let policy = QueryPolicy { limit: Duration::from_secs(10), ..SHORT_LIMITS };
    let client = client_of(&[registry.url()], Credentials::None, policy);
    let of = (&registry, &client);
    for (n, answer) in [
        (200, "<html>welcome</html>"),
        (200, "{}"),
        (200, "{\"schema\": 7}"),
        (200, "{\"schema\": \"\\\"int\\\"\", \"schemaType\": 7}"),
        (404, "no such page"),
        (422, "{\"error_code\": 42299, \"message\": \"odd\"}"),
    ]
    .into_iter()
    .enumerate()
    {
        for (number, target) in [(2 * n, None), (2 * n + 1, Some("/subjects/d"))] {
            let fault = fault_beside_a_good_schema(of, number, target, answer);
            assert!(matches!(fault, RegistryFault::Unusable(_)), "{answer:?}: {fault:?}");
        }
    }
    // The login may not read them, or a reference can't be had now: only they wait.
    let reference = Some("/subjects/d");
    for (number, target, status) in [(90, None, 403), (91, reference, 403), (92, reference, 503)] {
        let fault = fault_beside_a_good_schema(of, number, target, (status, ""));
        assert!(matches!(fault, RegistryFault::Unavailable(_)), "{status}: {fault:?}");
    }
}

#[test]
fn json_is_read_and_protobuf_is_refused_with_an_error() {
    let registry = FakeRegistry::start();
    let client = client(&registry);
    client.schema(registry.put_as("j", ("JSON", "{}"), &[])).expect("JSON is read");
    let id = registry.put_as("p", ("PROTOBUF", "syntax = \"proto3\";"), &[]);
    let error = unusable(&client, id);
    assert!(error.contains("is PROTOBUF, which is not supported; send Avro or JSON"), "{error}");
}

/// Names of Java and Debezium, and a default that does not fit, as Kafka Connect writes them.
const JAVA_POST: &str = r#"{"type": "record", "name": "Outer$Post", "namespace": "srv-1.db",
    "connect.name": "srv-1.db.Outer$Post", "fields": [
        {"name": "event_type", "type": "string", "default": null},
        {"name": "account_id", "type": "string"}, {"name": "post_id", "type": "string"},
        {"name": "author_id", "type": "string"}, {"name": "text", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 90,
            "scale": 70}, "default": 7},
        {"name": "odd", "type": {"type": "bytes", "logicalType": "decimal", "precision": 2,
            "scale": 70}}]}"#;

#[test]
fn an_event_of_a_union_of_java_s_and_kafka_connect_s_schemas_is_delivered() {
    let registry = FakeRegistry::start();
    registry.put("post", JAVA_POST);
    let union = r#"["null", "srv-1.db.Outer$Post"]"#;
    let id = registry.put_as("union", ("AVRO", union), &[("post", 1)]);
    let server = Server::start_as("dev", &[], &[("TIDEWIRE_REGISTRY_URL", &registry.url())]);
    let mut body = [&[0][..], &id.to_be_bytes(), &[2]].concat();
    for text in ["post.created", "demo", "p1", "ann", "hi"] {
        body.push(u8::try_from(2 * text.len()).expect("a short text"));
        body.extend(text.bytes());
    }
    body.extend([4, 0xfb, 0x2e, 2, 5]);
    let response = server.http().post("/v1/events", "application/avro", &body);
    let response = response.expect("an answer");
    assert_eq!(response.status, 202, "{}", response.text());
    let path = "/v1/sse?channels=posts:ann&from=earliest";
    let mut source = EventSource::open(server.addr(), path, None, None).expect("it serves");
    let event = source.next_event(Duration::from_secs(30)).expect("the stream goes on");
    let event = event.expect("the event comes");
    assert_eq!(event.data_str("amount"), format!("-0.{}1234", "0".repeat(66)));
    assert_eq!(event.data["odd"], serde_json::json!([5]));
}

#[test]
fn schemas_are_bounded() {
    let registry = FakeRegistry::start();
    let client = client(&registry);
    let record = |fields: usize| {
        let all: Vec<String> =
            (0..fields).map(|n| format!(r#"{{"name":"f{n}","type":"int"}}"#)).collect();
        format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, all.join(","))
    };
    for text in [record(100_000), format!("\"{}\"", "x".repeat(1_100_000))] {
        let error = unusable(&client, registry.put("large", &text));
        assert!(error.contains("too large") || error.contains("more than 1 MiB"), "{error}");
    }
    let id = registry.put_as("sum", ("AVRO", &record(20_000)), &[("large2", 1)]);
    registry.put("large2", &record(30_000));
    let error = unusable(&client, id);
    assert!(error.contains("more than 1 MiB with its references"), "{error}");
    let recursive = r#"{"type": "record", "name": "List",
        "fields": [{"name": "next", "type": ["null", "List"]}]}"#;
    client.schema(registry.put("list", recursive)).expect("a list of any length is one schema");
    // Whatever the result for the largest schema that passes, it must come soon.
    let begin = Instant::now();
    let _ = client.schema(registry.put("fields", &record(30_000)));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn invalid_responses_give_an_error_and_never_a_panic() {
    let registry = FakeRegistry::start();
    let deep = "[".repeat(100_000);
    for (status, body) in [
        (200, "<html>welcome</html>"),
        (200, ""),
        (200, "{\"schema\": "),
        (200, "null"),
        (200, "[]"),
        (200, "{}"),
        (200, "{\"schema\": 7}"),
        (200, &deep),
        (204, ""),
        (302, ""),
        (403, ""),
        (404, "no such page"),
        (404, "{\"error_code\": 404, \"message\": \"HTTP 404 Not Found\"}"),
        (404, "{\"error_code\": \"40403\"}"),
        (418, "[]"),
        (500, "oops"),
    ] {
        registry.set_behaviour(RegistryBehaviour::Fixed(status, body.to_owned()));
        let error = unavailable(&client(&registry), 1);
        assert!(error.contains("http://127.0.0.1") || error.contains("registry.url"), "{error}");
        assert!(error.len() < 1_000, "{error}");
    }
    registry.set_behaviour(RegistryBehaviour::Huge(64 << 20));
    let error = unusable(&client(&registry), 1);
    assert!(error.contains("answers with more than 2 MiB"), "{error}");
    // An unreadable schema is refused, and a schema of another team is read as it is.
    for text in ["", "nonsense", "{}", &deep] {
        let body = serde_json::json!({"schema": text}).to_string();
        registry.set_behaviour(RegistryBehaviour::Fixed(200, body));
        let _ = client(&registry).schema(1);
    }
}

#[test]
fn an_https_registry_is_trusted_if_a_known_authority_signed_its_certificate() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    tidewire_tests::broker::secure::make_certificates(folder.path());
    // openssl serves files of its folder, which is enough of a registry here.
    fs::create_dir_all(folder.path().join("schemas/ids")).expect("our folder");
    let answer = serde_json::json!({"schema": SCHEMA}).to_string();
    fs::write(folder.path().join("schemas/ids/1"), answer).expect("our folder");
    let address = nowhere().replace("http://", "");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-WWW", "-cert", "broker.pem", "-key", "broker.pem", "-accept"]);
    command.arg(&address).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().expect("openssl is there: scripts/install.sh test");
    let asked = |authorities: Option<String>| {
        let urls = vec![format!("https://{address}")];
        let config =
            Config { urls, credentials: Credentials::None, authorities, policy: SHORT_LIMITS };
        SchemaRegistry::new(&config).schema(1)
    };
    let authority = fs::read_to_string(folder.path().join("ca.pem")).expect("it was made");
    let begin = Instant::now();
    let mut believed = asked(Some(authority.clone()));
    while believed.is_err() && begin.elapsed() < Duration::from_secs(10) {
        believed = asked(Some(authority.clone()));
    }
    let stranger = asked(None);
    server.kill().expect("it is our child");
    server.wait().expect("it is our child");
    believed.expect("its authority is known");
    let Err(RegistryFault::Unavailable(why)) = stranger else { panic!("{stranger:?}") };
    assert!(why.contains("for an authority of your own, set registry.ca"), "{why}");
}

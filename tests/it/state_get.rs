//! `tidewire state get`: reads the state of tasks while their process runs, and afterwards.

use std::path::Path;

use serde_json::{Value, json};
use tidewire_schemas::id::hash128;
use tidewire_tests::server::{Server, command};

use crate::dead_letters::fixture::wait_until;

const EVENT: &str = r#"{"event_id":"g-1","event_type":"post.created","account_id":"acme",
    "data":{"post_id":"p1","author_id":"u1","text":"t"}}"#;

/// The key of the event's id in the table of de-duplication.
fn id_key() -> String {
    let hash = hash128("acme", "g-1");
    format!("hex:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// What a run of `state get` printed.
struct Got {
    code: Option<i32>,
    lines: Vec<String>,
    errors: String,
}

fn get(data_dir: &Path, args: &[&str]) -> Got {
    let mut command = command();
    command.args(["state", "get"]).args(args).arg("--data-dir").arg(data_dir);
    let output = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Got {
        code: output.status.code(),
        lines: text(output.stdout).lines().map(str::to_owned).collect(),
        errors: text(output.stderr),
    }
}

fn objects(got: &Got) -> Vec<Value> {
    got.lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn check_id(data_dir: &Path) -> Value {
    let key = id_key();
    let got = get(data_dir, &["ids", &key]);
    assert_eq!((got.code, got.lines.len()), (Some(0), 1), "{}", got.errors);
    assert!(got.lines[0].contains(&format!("  {key}  20")), "{}", got.lines[0]);
    assert_eq!(get(data_dir, &["1", &key]).lines, got.lines, "by number");
    let listed = get(data_dir, &["ids", "--prefix", &key[..12]]);
    assert_eq!(listed.lines, got.lines, "by the beginning of the key");
    let object = objects(&get(data_dir, &["ids", &key, "--json"])).remove(0);
    assert_eq!(object["key"][0], key.as_str());
    assert_eq!(format!("hex:{}", object["key_hex"].as_str().expect("text")), key);
    assert_eq!(object["version"], Value::Null, "an id has no version");
    assert!(object["order_offset"].as_u64() > Some(0), "{object}");
    let partition = object["partition"].as_u64().expect("a number");
    assert!(got.lines[0].starts_with(&format!("partition {partition}  ")), "{}", got.lines[0]);
    let only = |n: u64| get(data_dir, &["ids", &key, "--partition", &n.to_string()]).code;
    assert_eq!((only(partition), only((partition + 1) % 8)), (Some(0), Some(1)));
    object
}

#[test]
fn an_id_is_read_while_the_process_runs_and_after_it_stopped() {
    let mut server = Server::start(&[]);
    let data_dir = server.data_dir();
    let empty = get(&data_dir, &["ids", &id_key()]);
    assert_eq!((empty.code, empty.lines.len()), (Some(1), 0), "{}", empty.errors);
    let expected = format!("table ids has no entry with the key {} in 8 stores in ", id_key());
    assert!(empty.errors.contains(&expected), "{}", empty.errors);

    let posted = server.http().post("/v1/events", "application/json", EVENT.as_bytes());
    assert!((200..300).contains(&posted.expect("an answer").status));
    wait_until("the id is written", || get(&data_dir, &["ids", &id_key()]).code == Some(0));
    let running = check_id(&data_dir);
    let post = |args: &[&str]| objects(&get(&data_dir, &[&["posts", "--json"], args].concat()));
    let by_key = post(&["--account", "acme", "p1"]);
    assert_eq!((by_key.len(), &by_key[0]["key"]), (1, &json!(["acme", "p1"])), "{by_key:?}");
    assert!(by_key[0]["time"].is_string() && by_key[0]["version"].is_u64(), "{by_key:?}");
    assert_eq!(post(&["acme", "--prefix"]), by_key);

    server.stop();
    let stopped = check_id(&data_dir);
    assert_eq!(stopped["value_hex"], running["value_hex"]);
    server.restart();
    check_id(&data_dir);
    server.kill9();
    check_id(&data_dir);
}

#[test]
fn a_list_is_limited_and_says_so() {
    let mut server = Server::start(&[]);
    let mut http = server.http();
    for n in 0..30 {
        let event = EVENT.replace("g-1", &format!("l-{n}"));
        let posted = http.post("/v1/events", "application/json", event.as_bytes());
        assert!((200..300).contains(&posted.expect("an answer").status));
    }
    let data_dir = server.data_dir();
    let list = |further: &[&str]| get(&data_dir, &[&["ids", "--prefix"], further].concat());
    wait_until("the ids are written", || list(&["--limit", "1000"]).lines.len() == 30);
    let listed = list(&[]);
    assert_eq!((listed.code, listed.lines.len()), (Some(0), 20));
    assert!(listed.errors.contains("printed the first 20 entries"), "{}", listed.errors);
    let whole = list(&["--limit", "30"]);
    assert_eq!((whole.lines.len(), whole.errors.as_str()), (30, ""));
    assert_eq!(whole.lines[..20], listed.lines);
    server.stop();
}

#[test]
fn what_is_wrong_in_the_arguments_is_named_with_what_there_is() {
    let server = Server::start(&[]);
    let data_dir = server.data_dir();
    let tables = "there are: timers (0), ids (1), sources (2)";
    for (args, code, expected) in [
        (&["idz", "a"][..], 2, tables),
        (&["200", "a"], 2, tables),
        (&["ids", "hex:0"], 2, "hex:0 is not pairs of hexadecimal digits"),
        (&["timers", "time:now"], 2, "such as time:2026-01-05T10:00:00Z"),
        (&["ids"], 2, "--prefix"),
        (&["ids", "a", "--limit", "3"], 2, "--prefix"),
        (&["ids", "a", "--partition", "99"], 1, "no state of partition 99"),
        (&["timers", "--prefix"], 1, "table timers has no entry in 8 stores"),
    ] {
        let got = get(&data_dir, args);
        assert_eq!((got.code, got.lines.len()), (Some(code), 0), "{args:?}: {}", got.errors);
        assert!(got.errors.contains(expected), "{args:?}: {}", got.errors);
    }
    let mistyped = data_dir.with_extension("x");
    let got = get(&mistyped, &["ids", "a"]);
    assert_eq!(got.code, Some(1), "{}", got.errors);
    assert!(got.errors.contains("there is no state in") && !mistyped.exists(), "{}", got.errors);
}

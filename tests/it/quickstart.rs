//! The programs of `docs/quickstart.md`, run as printed with the packages it names.
//!
//! All receivers run at once beside one server. Each gets what every sender sends. Then the
//! receivers are killed, the server is killed, an older copy of the log is put back and the log is
//! removed; each receiver resumes without loss, or reports what is missing.

pub(crate) mod document;
mod programs;
mod receiver;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tidewire_tests::broker;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

use self::programs::Programs;
use self::receiver::Receiver;

/// The page.
const PAGE: &str = "quickstart.md";

/// The address in the document.
const ADDRESS: &str = "127.0.0.1:8080";

/// The broker's address in the document.
const BROKER: &str = "127.0.0.1:9092";

/// The sending programs and the ids of the events that they send.
const SENDERS: [(&str, &str); 5] = [
    ("send.sh", "hello-curl"),
    ("send.py", "hello-python"),
    ("send.mjs", "hello-javascript"),
    ("send.go", "hello-go"),
    ("Send.java", "hello-java"),
];

/// The receiving programs.
const RECEIVERS: [&str; 5] =
    ["receive.sh", "receive.py", "receive.mjs", "receive.go", "Receive.java"];

/// The receiving script of a browser.
const BROWSER: &str = "browser.js";

/// The command that only receives.
const LISTEN: &str = "listen.sh";

/// How the server is started on Kafka, and what sends there with its event's id.
const KAFKA: (&str, &str, &str) = ("run-kafka.sh", "send_kafka.py", "hello-kafka");

/// Commands that install packages, each with the file of `tests/clients/quickstart` that pins them.
const INSTALLS: [(&str, &str); 4] = [
    ("install-python.sh", "requirements.txt"),
    ("install-kafka.sh", "requirements.txt"),
    ("install-node.sh", "package.json"),
    ("install-go.sh", "go.mod"),
];

/// Runs for a quarter of an hour; here only the Makefile's verb is checked.
const MAKE_RUN: &str = "run.sh";

/// How long an event may take on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// How long nothing must arrive.
const QUIET: Duration = Duration::from_millis(500);

/// Events sent while no receiver runs.
const AWAY: [&str; 3] = ["away-1", "away-2", "away-3"];

#[test]
fn every_snippet_is_run_and_every_package_is_the_one_that_is_named() {
    let snippets = document::snippets(PAGE);
    let mut run = vec![BROWSER, LISTEN, MAKE_RUN, KAFKA.0, KAFKA.1];
    run.extend(SENDERS.iter().map(|sender| sender.0).chain(RECEIVERS));
    run.extend(INSTALLS.iter().map(|install| install.0));
    let run: BTreeSet<_> = run.into_iter().collect();
    let printed: BTreeSet<_> = snippets.keys().map(String::as_str).collect();
    assert_eq!(printed, run, "run a new snippet in a test of this file");

    for (file, pins) in INSTALLS {
        let pins = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/quickstart/").to_owned() + pins;
        let pinned = fs::read_to_string(&pins).expect("the file is there");
        let packages = snippets[file].split_whitespace().filter(|word| word.contains(['@', '=']));
        let packages: Vec<_> = packages.collect();
        assert!(!packages.is_empty(), "{file} names no version");
        for package in packages {
            let (name, version) = package.split_once(['@', '=']).expect("it holds one of them");
            let version = version.trim_start_matches('=');
            let is_pinned = |line: &str| line.contains(name) && line.contains(version);
            assert!(pinned.lines().any(is_pinned), "{file}: {package} is not what {pins} pins");
        }
    }
    let verb = snippets[MAKE_RUN].trim().strip_prefix("make ").expect("it is a verb of make");
    let makefile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Makefile"));
    let makefile = makefile.expect("the file is there");
    assert!(makefile.contains(&format!("\n{verb}:")), "the Makefile has no {verb}");
}

#[test]
fn every_receiver_gets_what_every_sender_sends_and_resumes_without_loss() {
    let mut server = Server::start(&[]);
    let address = server.addr().to_string();
    let programs = Programs::write(&document::snippets(PAGE), (ADDRESS, &address));
    let mut receivers = Vec::from(RECEIVERS.map(|file| Receiver::program(file, &programs)));
    receivers.push(Receiver::page(BROWSER, &programs, &server));

    let sent = SENDERS.map(|(file, id)| {
        send(&programs, file, id);
        id
    });
    // A repeated event is dropped.
    send(&programs, SENDERS[0].0, SENDERS[0].1);
    listen(&programs, SENDERS[0].1);
    for receiver in &mut receivers {
        receiver.expect(&sent);
        receiver.stop(sent[sent.len() - 1]);
    }

    server.stop();
    let older = tempfile::tempdir().expect("the temporary folder can be written");
    copy(&server.data_dir(), &older.path().join("data"));
    server.restart_in_place();
    post(&server, &AWAY);
    for receiver in &mut receivers {
        receiver.start(&programs, &server);
    }
    expect_all(&mut receivers, &AWAY);

    server.kill9();
    server.restart_in_place();
    post(&server, &["killed"]);
    expect_all(&mut receivers, &["killed"]);

    // Every position is beyond the end of the older log, which is a `gap`.
    server.stop();
    fs::remove_dir_all(server.data_dir()).expect("it is there");
    copy(&older.path().join("data"), &server.data_dir());
    server.restart_in_place();
    for receiver in &mut receivers {
        receiver.expect_line("gap ");
    }
    post(&server, &["older"]);
    expect_all(&mut receivers, &["older"]);

    // Another log has other topics, which is a `gap`.
    server.stop();
    fs::remove_dir_all(server.data_dir()).expect("it is there");
    server.restart_in_place();
    for receiver in &mut receivers {
        receiver.expect_line("gap ");
    }
    post(&server, &["other"]);
    expect_all(&mut receivers, &["other"]);
    thread::sleep(QUIET);
    expect_all(&mut receivers, &[]);
}

/// curl takes a stream for dead below a byte per second; `receive.sh` relies on the keepalives.
#[test]
fn curl_does_not_take_a_quiet_stream_for_dead() {
    let server = Server::start(&[]);
    let url = format!("http://{}/v1/sse?channels=posts:quiet", server.addr());
    let limits = ["--speed-limit", "1", "--speed-time", "17", "--max-time", "27"];
    let output = Command::new("curl").arg("-sSN").args(limits).arg(url).output().expect("curl");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("timed out after 27"), "only our own limit of time ended it: {said}");
}

#[test]
fn a_kafka_producer_sends_to_the_same_channel() {
    let bootstrap = broker::shared().bootstrap();
    let programs = Programs::write(&document::snippets(PAGE), (BROKER, &bootstrap));
    let (start, file, id) = KAFKA;
    let command = programs.text(start);
    let words: Vec<_> = command.split_whitespace().collect();
    assert_eq!(words[0], "tidewire", "{command}");
    let server = Server::start_as(words[1], &words[2..], &[("TIDEWIRE_INSTANCE", "quickstart")]);
    let printed = programs.run(file);
    assert!(printed.starts_with("tw.in "), "{printed}");
    let path = "/v1/sse?channels=posts:ann&from=earliest";
    let mut source = EventSource::open(server.addr(), path, None, None).expect("it serves");
    let event = source.next_event(ARRIVAL_LIMIT).expect("the stream goes on");
    assert_eq!(event.expect("the event comes").event_id, id);
}

/// Runs a sending program and checks what it printed.
fn send(programs: &Programs, file: &str, id: &str) {
    let printed = programs.run(file);
    let is_accepted = printed.contains(r#""accepted":1"#) && printed.contains(id);
    assert!(is_accepted, "{file} printed:\n{printed}");
}

/// Runs the command that only receives, until it shows an event.
fn listen(programs: &Programs, id: &str) {
    let running = programs.start(LISTEN);
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    let mut printed = Vec::new();
    let shows = |line: &String| line.starts_with("data: ") && line.contains(id);
    while !printed.iter().any(shows) {
        assert!(Instant::now() < deadline, "{LISTEN} printed:\n{}", printed.join("\n"));
        printed.extend(running.lines());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends events to the channel of the document.
fn post(server: &Server, ids: &[&str]) {
    let event = |id: &&str| {
        let data = json!({"post_id": id, "author_id": "ann", "text": "From the test"});
        json!({"event_id": id, "event_type": "post.created", "account_id": "demo", "data": data})
    };
    let body = serde_json::Value::from_iter(ids.iter().map(event)).to_string();
    let response = server.http().post("/v1/events", "application/json", body.as_bytes());
    let response = response.expect("an answer");
    assert_eq!(response.status, 202, "{}", response.text());
}

fn expect_all(receivers: &mut [Receiver], events: &[&str]) {
    for receiver in receivers {
        receiver.expect(events);
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp is there").success(), "{} was not copied", from.display());
}

//! Unmodified clients of server-sent events, each of which gets every event exactly once.
//!
//! The clients run at once, each behind a relay that counts the server's keepalives and cuts the
//! stream. `tests/clients/README.md` describes them and their faults.

mod relay;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_tests::client_program::{self, PrintingProgram};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

use self::relay::Relay;

/// Keepalives that each client has to pass over.
const KEEPALIVES: usize = 3;

/// A stream's keepalives come at the seconds of its number in the server. Streams that are opened
/// first make the clients' numbers larger, so that their first keepalives come soon.
const STREAMS_BEFORE: usize = 4;

/// How long events may take on a busy machine, a client's pause before it reconnects included.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// How long nothing must arrive.
const QUIET: Duration = Duration::from_millis(500);

/// How often a client's output is read.
const POLL: Duration = Duration::from_millis(20);

/// Text with all that some reader takes for the end of a line or of an event.
const TEXT: &str = "🌊 a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\u{1c}g\u{1d}h\u{1e}i\r\nj\rk\n\n\
                    data: l\n\n: m\n\nÅ … \u{feff}\"\\";

/// A client by its name in the list of the install script.
struct SseClient {
    name: &'static str,
    /// What it does with a block without data, as at the beginning of a stream.
    empty_block: EmptyBlock,
    /// What becomes of an event of which only a part arrived.
    torn_event: TornEvent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EmptyBlock {
    /// No message, as the specification says.
    Ignored,
    /// A message without data.
    Shown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TornEvent {
    /// It comes again, whole.
    Repeated,
    /// The client counts it as received.
    Miscounted,
}

const CLIENTS: [SseClient; 7] = [
    client("httpx-sse", EmptyBlock::Shown, TornEvent::Repeated),
    client("sseclient-py", EmptyBlock::Ignored, TornEvent::Miscounted),
    client("sseclient", EmptyBlock::Shown, TornEvent::Repeated),
    client("aiosseclient", EmptyBlock::Shown, TornEvent::Repeated),
    client("eventsource", EmptyBlock::Ignored, TornEvent::Repeated),
    client("fetch-event-source", EmptyBlock::Shown, TornEvent::Miscounted),
    client("r3labs", EmptyBlock::Shown, TornEvent::Miscounted),
];

const fn client(name: &'static str, empty_block: EmptyBlock, torn_event: TornEvent) -> SseClient {
    SseClient { name, empty_block, torn_event }
}

#[test]
fn every_client_gets_each_event_once_over_keepalives_and_a_cut() {
    let commands = client_program::install("sse");
    let server = Server::start_as("dev", &[], &[("TIDEWIRE_GATEWAY_SHARDS", "1")]);
    let path = "/v1/sse?channels=posts:none";
    let open = |_| EventSource::open(server.addr(), path, None, None).expect("a stream");
    let before: Vec<_> = (0..STREAMS_BEFORE).map(open).collect();
    thread::scope(|scope| {
        for client in &CLIENTS {
            let (commands, server) = (&commands, &server);
            scope.spawn(move || SseSession::start(client, commands, server).run());
        }
    });
    drop(before);
}

/// One client on its own channel.
struct SseSession<'a> {
    client: &'a SseClient,
    server: &'a Server,
    relay: Relay,
    program: PrintingProgram,
    /// Everything it printed.
    printed: Vec<String>,
    /// Ids and texts of the events since the last check.
    events: Vec<(String, String)>,
    /// Messages without data since the beginning.
    empty: usize,
}

impl<'a> SseSession<'a> {
    fn start(
        client: &'a SseClient,
        commands: &BTreeMap<String, Vec<String>>,
        server: &'a Server,
    ) -> Self {
        let relay = Relay::start(server.addr());
        let channel = format!("posts:{}", client.name);
        let url = format!("http://{}/v1/sse?channels={channel}&from=earliest", relay.addr());
        let words = [commands[client.name].as_slice(), &[url]].concat();
        let program = PrintingProgram::start(client_program::command(&words));
        let (printed, events) = (Vec::new(), Vec::new());
        Self { client, server, relay, program, printed, events, empty: 0 }
    }

    fn run(mut self) {
        self.post(&["first-1", "first-2"]);
        self.expect(&["first-1", "first-2"]);
        self.relay.wait_for_keepalives(1);
        self.post(&["second"]);
        self.expect(&["second"]);
        self.relay.wait_for_keepalives(KEEPALIVES);
        self.post(&["third"]);
        self.expect(&["third"]);

        match self.client.torn_event {
            TornEvent::Repeated => self.relay.cut_next_event(),
            TornEvent::Miscounted => self.relay.cut(),
        }
        self.post(&["cut-1"]);
        self.relay.wait_until_cut();
        self.post(&["cut-2", "cut-3"]);
        self.relay.open();
        self.expect(&["cut-1", "cut-2", "cut-3"]);
        thread::sleep(QUIET);
        self.expect(&[]);

        let heads = self.relay.heads();
        assert_eq!(heads.len(), 2, "{}: {heads:?}", self.client.name);
        assert!(!heads[0].contains("\r\nlast-event-id:"), "{}: {heads:?}", self.client.name);
        assert!(heads[1].contains("\r\nlast-event-id:"), "{}: {heads:?}", self.client.name);
        let blocks = if self.client.empty_block == EmptyBlock::Shown { heads.len() } else { 0 };
        assert_eq!(self.empty, blocks, "{} printed:\n{}", self.client.name, self.text());
    }

    /// Sends events to the client's channel.
    fn post(&self, ids: &[&str]) {
        let name = self.client.name;
        let event = |id: &&str| {
            let data = json!({"post_id": id, "author_id": name, "text": TEXT});
            json!({"event_id": format!("{name}-{id}"), "event_type": "post.created",
                "account_id": "demo", "data": data})
        };
        let body = Value::from_iter(ids.iter().map(event)).to_string();
        let response = self.server.http().post("/v1/events", "application/json", body.as_bytes());
        let response = response.expect("an answer");
        assert_eq!(response.status, 202, "{}", response.text());
    }

    /// Waits for exactly these events since the last call.
    fn expect(&mut self, ids: &[&str]) {
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        self.read();
        while self.events.len() < ids.len() && Instant::now() < deadline {
            thread::sleep(POLL);
            self.read();
        }
        let name = self.client.name;
        let expected: Vec<_> =
            ids.iter().map(|id| (format!("{name}-{id}"), TEXT.to_owned())).collect();
        assert_eq!(self.events, expected, "{name} printed:\n{}", self.text());
        self.events.clear();
    }

    fn read(&mut self) {
        for line in self.program.lines() {
            if let Ok(message) = serde_json::from_str::<Value>(&line) {
                self.take(&message);
            }
            self.printed.push(line);
        }
    }

    fn take(&mut self, message: &Value) {
        let data = message["data"].as_str().unwrap_or_default();
        if data.is_empty() {
            self.empty += 1;
            return;
        }
        assert_eq!(message["event"], "post.created", "{}: {message}", self.client.name);
        let event: Value = serde_json::from_str(data).unwrap_or_else(|error| {
            panic!("{}: {error} in {data:?}", self.client.name);
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.events.push((text(&event["event_id"]), text(&event["data"]["text"])));
    }

    fn text(&self) -> String {
        self.printed.join("\n")
    }
}

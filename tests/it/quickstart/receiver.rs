//! A receiving program of the quickstart, or its script in a browser, and what it printed.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_tests::browser::Browser;
use tidewire_tests::client_program::PrintingProgram;
use tidewire_tests::server::Server;

use super::programs::Programs;

/// How long one step may take on a busy machine: programs wait before they reconnect, and a JVM
/// starts.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// How often a program's output is polled.
const POLL: Duration = Duration::from_millis(20);

/// The beginning of a line that shows an event.
const EVENT: &str = "post.created ";

/// Keeps what a page prints.
const CAPTURE: &str = "window.printed = [];
    console.log = (...words) => window.printed.push(words.join(' '));";

/// One receiver.
pub(super) struct Receiver {
    file: &'static str,
    host: ReceiverHost,
    /// Everything it printed.
    printed: Vec<String>,
    /// Ids of the events it printed since the last step.
    received: Vec<String>,
    /// The event that may be repeated, because it was stopped before it stored the position.
    last: Option<String>,
}

enum ReceiverHost {
    Program(Option<PrintingProgram>),
    Page(Browser),
}

impl Receiver {
    /// Starts a program.
    pub(super) fn program(file: &'static str, programs: &Programs) -> Self {
        Self::new(file, ReceiverHost::Program(Some(programs.start(file))))
    }

    /// Runs a script in a page of the server.
    pub(super) fn page(file: &'static str, programs: &Programs, server: &Server) -> Self {
        let mut receiver = Self::new(file, ReceiverHost::Page(Browser::start()));
        receiver.start(programs, server);
        receiver
    }

    fn new(file: &'static str, host: ReceiverHost) -> Self {
        Self { file, host, printed: Vec::new(), received: Vec::new(), last: None }
    }

    /// Kills the program, or leaves the page.
    pub(super) fn stop(&mut self, last: &str) {
        self.last = Some(last.to_owned());
        match &mut self.host {
            ReceiverHost::Program(running) => *running = None,
            ReceiverHost::Page(browser) => browser.open("about:blank"),
        }
    }

    /// Starts it again.
    pub(super) fn start(&mut self, programs: &Programs, server: &Server) {
        match &mut self.host {
            ReceiverHost::Program(running) => *running = Some(programs.start(self.file)),
            ReceiverHost::Page(browser) => {
                browser.open(&format!("http://{}/", server.addr()));
                browser.run(CAPTURE, json!([]));
                browser.run(&programs.text(self.file), json!([]));
            }
        }
    }

    /// Waits until it has printed these events since the last step, each once and in this order.
    pub(super) fn expect(&mut self, events: &[&str]) {
        self.wait_until(|receiver| receiver.received.len() >= events.len(), &format!("{events:?}"));
        assert_eq!(self.received, events, "{} printed:\n{}", self.file, self.printed.join("\n"));
        self.received.clear();
    }

    /// Waits until it has printed a line with this beginning since the last such line.
    pub(super) fn expect_line(&mut self, beginning: &str) {
        let is_there = |line: &String| line.starts_with(beginning);
        self.wait_until(|receiver| receiver.printed.iter().any(is_there), beginning);
        let at = self.printed.iter().position(is_there).expect("it was found");
        self.printed.drain(..=at);
    }

    fn wait_until(&mut self, holds: impl Fn(&Self) -> bool, what: &str) {
        let deadline = Instant::now() + STEP_LIMIT;
        self.read();
        while !holds(self) {
            let printed = || self.printed.join("\n");
            assert!(Instant::now() < deadline, "{}: no {what} in:\n{}", self.file, printed());
            thread::sleep(POLL);
            self.read();
        }
    }

    fn read(&mut self) {
        let fresh = match &mut self.host {
            ReceiverHost::Program(running) => running.as_ref().expect("it runs").lines(),
            ReceiverHost::Page(browser) => {
                let printed = browser.run("return window.printed.splice(0);", json!([]));
                let printed = printed.as_array().expect("a list").iter();
                printed.map(|line| line.as_str().expect("text").to_owned()).collect()
            }
        };
        for line in fresh {
            if let Some(id) = event_id(&line) {
                let is_repeated =
                    self.received.is_empty() && self.last.take().as_ref() == Some(&id);
                if !is_repeated {
                    self.received.push(id);
                }
            }
            self.printed.push(line);
        }
    }
}

/// The id in `post.created hello-go {…}`, or in `post.created {"event_id":"hello-go",…}` of a
/// program that prints an event as received.
fn event_id(line: &str) -> Option<String> {
    let rest = line.strip_prefix(EVENT)?;
    let whole = serde_json::from_str::<Value>(rest).ok();
    let id = whole.as_ref().and_then(|event| event["event_id"].as_str());
    id.or_else(|| rest.split(' ').next()).map(str::to_owned)
}

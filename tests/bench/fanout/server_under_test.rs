//! The two servers under test: a process to measure, and how to subscribe and publish.
//!
//! Both get the same 200-byte JSON object per event. Tidewire sends it inside its event frame
//! (channel, type, ids, time, position), the baseline sends it bare, so the baseline moves fewer
//! bytes for the same payload.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tidewire_tests::publisher::{LineEncoder, PostTarget};
use tidewire_tests::server::Server;
use tidewire_tests::subscriber_pool::SubscriberEndpoint;

use crate::baseline;

/// Bytes of an event's payload.
const PAYLOAD_BYTES: usize = 200;

/// The text before an event's number in [`payload`].
const SEQ_MARKER: &str = "\"seq\":\"";

/// A server under test.
pub(crate) struct ServerUnderTest {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How subscribers connect.
    pub(crate) endpoint: SubscriberEndpoint,
    /// How events are published.
    pub(crate) target: PostTarget,
    process: Process,
}

enum Process {
    Axum(Child),
    Tidewire(Box<Server>),
}

impl ServerUnderTest {
    /// This program again, as the baseline.
    pub(crate) fn axum() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(baseline::SUBCOMMAND).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("the output is piped");
        BufReader::new(stdout).read_line(&mut line)?;
        let addr: SocketAddr = line.trim().parse().map_err(io::Error::other)?;
        let endpoint = SubscriberEndpoint {
            addr,
            path: "/ws".to_owned(),
            greeting: None,
            seq_marker: SEQ_MARKER,
        };
        let line: LineEncoder =
            Arc::new(|seq, body| body.extend_from_slice(payload(seq).as_bytes()));
        let target = PostTarget { addr, path: "/publish", line };
        Ok(Self { name: "axum", endpoint, target, process: Process::Axum(child) })
    }

    /// The real binary on a fresh data folder.
    pub(crate) fn tidewire() -> io::Result<Self> {
        let server = Server::start(&[]);
        let addr = server.addr();
        let subscribe = r#"{"op":"subscribe","id":1,"channel":"account:bench","from":"latest"}"#;
        let greeting = Some((subscribe.to_owned(), r#""op":"ok""#));
        Ok(Self {
            name: "tidewire",
            endpoint: SubscriberEndpoint {
                addr,
                path: "/v1/ws?user=bench".to_owned(),
                greeting,
                seq_marker: SEQ_MARKER,
            },
            target: PostTarget { addr, path: "/v1/events", line: event() },
            process: Process::Tidewire(Box::new(server)),
        })
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Process::Axum(child) => child.id(),
            Process::Tidewire(server) => server.pid(),
        }
    }
}

impl Drop for ServerUnderTest {
    fn drop(&mut self) {
        if let Process::Axum(child) = &mut self.process {
            // Failures change nothing: it is gone already. The other process ends with its harness.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Exactly [`PAYLOAD_BYTES`] of JSON.
fn payload(seq: u64) -> String {
    let frame_bytes = r#"{"seq":"0000000000","pad":""}"#.len();
    let pad = "x".repeat(PAYLOAD_BYTES - frame_bytes);
    format!(r#"{{"seq":"{seq:010}","pad":"{pad}"}}"#)
}

/// The cheapest event: one channel, no operator but de-duplication.
fn event() -> LineEncoder {
    Arc::new(|seq, body| {
        let event = format!(
            "{{\"event_id\":\"bench-{seq:010}\",\"event_type\":\"custom.bench\",\
             \"account_id\":\"bench\",\"data\":{}}}",
            payload(seq)
        );
        body.extend_from_slice(event.as_bytes());
    })
}

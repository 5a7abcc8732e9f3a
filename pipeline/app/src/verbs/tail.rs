//! `tidewire tail`: prints the events of channels as they arrive, over server-sent events.
//!
//! The last `id:` of the stream is the position; a new connection resumes after it, so no event is
//! missed or printed twice. A refusal (an invalid channel, no permission) ends the command; a
//! server that does not answer is retried.

use std::fmt::Write as _;
use std::io::BufRead;
use std::time::Duration;

use serde_json::Value;

use crate::api_client::ApiClient;
use crate::cli::TailArgs;
use crate::process_exit::ProcessExit;
use crate::runtime::clock;
use crate::{configure, terminal};

/// The wait before a reconnect.
const RECONNECT_WAIT: Duration = Duration::from_secs(1);
/// Attempts of the first connection: a wrong URL must be an error, not an endless wait.
const CONNECT_ATTEMPTS_MAX: u32 = 3;
/// The longest line of a stream that is read; events are much shorter.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Characters of an event's data printed on a line.
const TEXT_CHARS_MAX: usize = 100;

/// One block of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    id: Option<String>,
    event: Option<String>,
    data: Option<String>,
}

/// How the stream of one connection ended.
enum StreamEnd {
    /// The connection was lost; resume from the position.
    Lost,
    /// `--count` events were printed.
    CountReached,
}

/// The state that outlives a connection.
struct TailSession<'a> {
    args: &'a TailArgs,
    json: bool,
    position: Option<String>,
    shown: u64,
}

/// Prints events until interrupted, or until `--count` of them.
pub fn run(args: &TailArgs) -> Result<(), ProcessExit> {
    let client = ApiClient::new(&configure::url_of(&args.at)?)?;
    let json = args.json || !terminal::is_interactive();
    let mut session = TailSession { args, json, position: None, shown: 0 };
    let path = path_of(args);
    let mut failures = 0;
    let mut connected = false;
    loop {
        match client.stream(&path, session.position.as_deref())? {
            Ok(stream) => {
                connected = true;
                failures = 0;
                if let StreamEnd::CountReached = session.show(stream)? {
                    return Ok(());
                }
                terminal::print_notice("tidewire: the connection is lost; resuming");
            }
            Err(error) => {
                failures += 1;
                if !connected && failures >= CONNECT_ATTEMPTS_MAX {
                    return Err(error);
                }
                if failures == 1 {
                    terminal::print_notice(&format!("tidewire: {error}; trying again"));
                }
            }
        }
        clock::pause(RECONNECT_WAIT);
    }
}

fn path_of(args: &TailArgs) -> String {
    let mut path = "/v1/sse?channels=".to_owned();
    for (i, channel) in args.channels.iter().enumerate() {
        if i > 0 {
            path.push_str("%2C");
        }
        escape(channel, &mut path);
    }
    path.push_str("&from=");
    escape(&args.from, &mut path);
    path.push_str("&user=");
    escape(&args.user, &mut path);
    if args.snapshot {
        path.push_str("&snapshot=true");
    }
    path
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(byte.into());
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

impl TailSession<'_> {
    fn show(&mut self, mut stream: impl BufRead) -> Result<StreamEnd, ProcessExit> {
        while let Some(block) = read_block(&mut stream) {
            if let (Some(event), Some(data)) = (block.event.as_deref(), &block.data) {
                for line in lines_of(event, data) {
                    let shown = if self.json { line.clone() } else { format_line(event, &line) };
                    terminal::print_line(&shown)?;
                    // A gap is shown and is no event.
                    self.shown += u64::from(event != "gap");
                    if self.has_shown_all() {
                        return Ok(StreamEnd::CountReached);
                    }
                }
            }
            // After printing: an event that was not printed must not be skipped by the resume.
            if block.id.is_some() {
                self.position = block.id;
            }
            if self.has_shown_all() {
                return Ok(StreamEnd::CountReached);
            }
        }
        Ok(StreamEnd::Lost)
    }

    fn has_shown_all(&self) -> bool {
        self.args.count.is_some_and(|count| self.shown >= count)
    }
}

/// What a block has to show: itself, or each entry of a snapshot, with its channel.
fn lines_of(event: &str, data: &str) -> Vec<String> {
    if event != "snapshot" {
        return vec![data.to_owned()];
    }
    let mut snapshot: Value = serde_json::from_str(data).unwrap_or_default();
    let channel = snapshot["channel"].take();
    let Value::Array(entries) = snapshot["state"].take() else { return Vec::new() };
    let with_channel = |mut entry: Value| {
        if let Value::Object(members) = &mut entry {
            members.insert("channel".to_owned(), channel.clone());
        }
        entry.to_string()
    };
    entries.into_iter().map(with_channel).collect()
}

/// The next block; `None` when the stream ends. Comments are skipped.
fn read_block(stream: &mut impl BufRead) -> Option<Block> {
    let mut block = Block::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut *stream, LINE_BYTES_MAX as u64);
        if bounded.read_until(b'\n', &mut line).ok()? == 0 || !line.ends_with(b"\n") {
            return None;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            if block != Block::default() {
                return Some(block);
            }
            continue;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => block.id = Some(value),
            "event" => block.event = Some(value),
            "data" => match &mut block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                none => *none = Some(value),
            },
            _ => {}
        }
    }
}

/// Time, lane, channel, type and the most readable part of the data.
fn format_line(event: &str, data: &str) -> String {
    let value: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
    let time = text("timestamp");
    let time = time.get(11..23).unwrap_or(&time).to_owned();
    let lane = match value["priority"].as_u64() {
        Some(0) => "low",
        Some(1) => "normal",
        Some(2) => "high",
        Some(3) => "critical",
        _ => "-",
    };
    let event_type = match text("type") {
        none if none.is_empty() => event.to_owned(),
        given => given,
    };
    let content = if value["value"].is_null() { &value["data"] } else { &value["value"] };
    let summary: String = summary_text(content, data).chars().take(TEXT_CHARS_MAX).collect();
    format!("{time:12}  {lane:8}  {:24}  {event_type:22}  {summary}", text("channel"))
}

fn summary_text(data: &Value, otherwise: &str) -> String {
    let fields = ["text", "title", "message", "status", "reaction_type", "post_id", "user_id"];
    let found = fields.iter().find_map(|name| data[*name].as_str());
    let summary = found.map_or_else(
        || if data.is_null() { otherwise.to_owned() } else { data.to_string() },
        str::to_owned,
    );
    // A terminal executes control characters, and events are of unknown origin.
    summary.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<Block> {
        let mut stream = text.as_bytes();
        std::iter::from_fn(|| read_block(&mut stream)).collect()
    }

    #[test]
    fn a_stream_is_read_block_by_block() {
        let text =
            "retry: 1000\n\n: hi\n\nid: p1\nevent: post.created\ndata: {\"a\":1}\n\nid:p2\n\n";
        let expected = [
            Block {
                id: Some("p1".into()),
                event: Some("post.created".into()),
                data: Some("{\"a\":1}".into()),
            },
            Block { id: Some("p2".into()), ..Block::default() },
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn an_incomplete_block_is_not_returned() {
        assert_eq!(blocks("id: p1\nevent: x\ndata: {}"), []);
        assert_eq!(blocks("id: p1\nevent: x\ndata: {}\n"), []);
    }

    #[test]
    fn control_characters_of_events_are_replaced() {
        let line = format_line("x", "{\"type\":\"t\",\"data\":{\"text\":\"a\\u001b[2Jb\\nc\"}}");
        assert!(line.ends_with("a [2Jb c"), "{line:?}");
    }

    #[test]
    fn a_snapshot_is_shown_entry_by_entry_with_its_channel() {
        let data = r#"{"op":"snapshot","channel":"follows:a","last":true,"state":[
            {"key":"k1","value":{"user_id":"b"}},{"key":"k2","value":{}}]}"#;
        let lines = lines_of("snapshot", data);
        assert_eq!(lines.len(), 2);
        let first: Value = serde_json::from_str(&lines[0]).expect("an entry");
        assert_eq!((&first["channel"], &first["key"]), (&"follows:a".into(), &"k1".into()));
        assert!(format_line("snapshot", &lines[0]).ends_with("b"), "{}", lines[0]);
        assert_eq!(lines_of("post.created", "{}"), ["{}"]);
    }

    #[test]
    fn channels_are_percent_encoded() {
        let mut out = String::new();
        escape("posts:a b,ü", &mut out);
        assert_eq!(out, "posts:a%20b%2C%C3%BC");
    }
}

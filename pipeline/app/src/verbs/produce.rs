//! `tidewire produce`: sends events from a file or standard input to a running process.
//!
//! Lines are sent in batches, each confirmed before the next; none waits for lines that are not
//! there yet. An event without an id gets one here, before its first attempt, so that a repeated
//! request adds no duplicate. A refused line is reported with its number and the rest is sent; the
//! exit code is then 1.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use indicatif::{ProgressBar, ProgressStyle};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api_client::{ApiClient, SendFailure};
use crate::cli::ProduceArgs;
use crate::process_exit::ProcessExit;
use crate::runtime::random;
use crate::{configure, terminal};

/// Events in a request; the server accepts up to 1,000.
const BATCH_EVENTS_MAX: usize = 500;
/// Bytes in a request; the server accepts up to 4 MiB.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The longest line that is read; the server accepts events up to 256 KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Refused lines that are printed; further ones are counted.
const REFUSALS_SHOWN_MAX: u64 = 20;

/// The members of an object, in order, with their values as they are written.
struct RawMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(RawMembersVisitor)
    }
}

struct RawMembersVisitor;

impl<'de> Visitor<'de> for RawMembersVisitor {
    type Value = RawMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(RawMembers(members))
    }
}

/// Lines to send, with their numbers in the input.
struct LineBatch {
    bytes: Vec<u8>,
    line_numbers: Vec<u64>,
}

/// The results so far.
struct ProduceTotals {
    accepted: u64,
    refused: u64,
    bar: ProgressBar,
}

/// Sends every line of the input.
pub fn run(args: &ProduceArgs) -> Result<(), ProcessExit> {
    let client = ApiClient::new(&configure::url_of(&args.to)?)?;
    let (input, size) = open_input(&args.file)?;
    let mut totals = ProduceTotals { accepted: 0, refused: 0, bar: progress_bar(size) };
    let sent = send_all(input, &client, &mut totals);
    totals.bar.finish_and_clear();
    if let Err(error) = sent {
        let ProduceTotals { accepted, refused, .. } = totals;
        let counts = format!("{accepted} accepted, {refused} refused before this error");
        terminal::print_notice(&counts);
        return Err(error);
    }
    terminal::print_line(&format!("{} accepted, {} refused", totals.accepted, totals.refused))?;
    if totals.refused == 0 {
        return Ok(());
    }
    Err(ProcessExit::failed("some lines were refused; fix them and send those again"))
}

fn send_all(
    input: BufReader<Box<dyn Read>>,
    client: &ApiClient,
    totals: &mut ProduceTotals,
) -> Result<(), ProcessExit> {
    let run_id = random::token();
    let mut batch = LineBatch { bytes: Vec::new(), line_numbers: Vec::new() };
    let mut lines = Lines { input, number: 0, line: Vec::new() };
    loop {
        // Nobody knows when the next line comes.
        if !lines.has_next() {
            flush(&mut batch, client, totals)?;
        }
        let Some((number, line)) = lines.next()? else {
            return Ok(());
        };
        match with_event_id(line, || format!("{run_id}-{number}")) {
            Ok(None) => {}
            Ok(Some(event)) => {
                let full = batch.bytes.len() + event.len() > BATCH_BYTES_MAX
                    || batch.line_numbers.len() == BATCH_EVENTS_MAX;
                if full {
                    flush(&mut batch, client, totals)?;
                }
                batch.bytes.extend_from_slice(event.as_bytes());
                batch.bytes.push(b'\n');
                batch.line_numbers.push(number);
            }
            Err(reason) => totals.refuse(number, &reason),
        }
    }
}

fn flush(
    batch: &mut LineBatch,
    client: &ApiClient,
    totals: &mut ProduceTotals,
) -> Result<(), ProcessExit> {
    if batch.line_numbers.is_empty() {
        return Ok(());
    }
    let answers = client.send(&batch.bytes).map_err(|failure| {
        let (first, last) = (batch.line_numbers[0], batch.line_numbers.last());
        let last = last.expect("the batch is not empty");
        let text = match &failure {
            SendFailure::NothingStored(_) => {
                format!("stopped: no line from {first} on was sent; send them again from there")
            }
            SendFailure::Unknown(_) => format!(
                "stopped: lines {first} to {last} may have been accepted, and none after them was \
                 sent; those without an event_id are added twice if they are sent again"
            ),
        };
        ProcessExit::because(text, ProcessExit::from(failure))
    })?;
    if answers.len() != batch.line_numbers.len() {
        return Err(ProcessExit::failed(format!(
            "sent {} events but got {} results; the process may be of another version",
            batch.line_numbers.len(),
            answers.len()
        )));
    }
    for (number, answer) in batch.line_numbers.drain(..).zip(answers) {
        match answer.error {
            None => totals.accepted += 1,
            Some(error) => {
                let field = error.field.map_or(String::new(), |field| format!(" ({field})"));
                totals.refuse(number, &format!("{}{field}: {}", error.reason, error.message));
            }
        }
    }
    totals.bar.inc(batch.bytes.len() as u64);
    batch.bytes.clear();
    Ok(())
}

impl ProduceTotals {
    fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        if self.refused <= REFUSALS_SHOWN_MAX {
            self.bar.suspend(|| terminal::print_notice(&format!("line {line}: {reason}")));
        } else if self.refused == REFUSALS_SHOWN_MAX + 1 {
            self.bar.suspend(|| terminal::print_notice("further refused lines are counted only"));
        }
    }
}

/// The line as it is sent: with an id and without white space around it. `None`: a blank line.
fn with_event_id(line: &[u8], id: impl FnOnce() -> String) -> Result<Option<String>, String> {
    let line = std::str::from_utf8(line).map_err(|error| {
        format!("not_utf8: byte {} is not UTF-8; give JSON in UTF-8", error.valid_up_to() + 1)
    })?;
    // A byte order mark is no white space.
    let line = line.trim_start_matches('\u{feff}').trim();
    if line.is_empty() {
        return Ok(None);
    }
    let Some(rest) = line.strip_prefix('{') else {
        let json: Result<IgnoredAny, _> = serde_json::from_str(line);
        return Err(match json {
            Ok(_) => "not_object: give one JSON object per line, {\"event_type\":…}".into(),
            Err(error) => not_json(&error),
        });
    };
    let RawMembers(members) = serde_json::from_str(line).map_err(|error| not_json(&error))?;
    let mut ids = members.iter().filter(|(name, _)| name == "event_id");
    Ok(Some(match (ids.next(), ids.next()) {
        (None, _) if members.is_empty() => line.to_owned(),
        (None, _) => format!("{{\"event_id\":\"{}\",{rest}", id()),
        // Null counts as absent.
        (Some((_, value)), None) if value.get() == "null" => replaced_id(&members, &id()),
        // The server says what is wrong with two ids.
        (Some(_), _) => line.to_owned(),
    }))
}

/// The object with this id.
fn replaced_id(members: &[(String, &RawValue)], id: &str) -> String {
    let mut out = format!("{{\"event_id\":\"{id}\"");
    for (name, value) in members.iter().filter(|(name, _)| name != "event_id") {
        out.push(',');
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
    out
}

/// The parser's error without its line number, which is always 1.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    format!("not_json: {what}, column {}", error.column())
}

/// Lines of bounded length, counted from 1.
struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Whether the next line was read already, so that [`Lines::next`] does not wait.
    fn has_next(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    fn next(&mut self) -> Result<Option<(u64, &[u8])>, ProcessExit> {
        self.line.clear();
        self.number += 1;
        let mut bounded = self.input.by_ref().take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| {
            ProcessExit::because(format!("could not read line {}", self.number), error)
        })?;
        if read as u64 == LINE_BYTES_MAX && !self.line.ends_with(b"\n") {
            return Err(ProcessExit::failed(format!(
                "stopped: line {} is longer than {LINE_BYTES_MAX} bytes, and nothing after it was \
                 sent; give one JSON object per line",
                self.number
            )));
        }
        Ok((read > 0).then_some((self.number, &self.line)))
    }
}

fn open_input(file: &str) -> Result<(BufReader<Box<dyn Read>>, Option<u64>), ProcessExit> {
    // A whole batch is read at once where it is there.
    let buffered = |input: Box<dyn Read>| BufReader::with_capacity(BATCH_BYTES_MAX, input);
    if file == "-" {
        return Ok((buffered(Box::new(io::stdin().lock())), None));
    }
    let opened = File::open(file)
        .map_err(|error| ProcessExit::because(format!("could not open {file}"), error))?;
    let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    Ok((buffered(Box::new(opened)), size))
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => {
            (ProgressBar::new(size), "{bar:32} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Option<&str>, &str>) {
        let identified = with_event_id(line.as_bytes(), || "r-1".into());
        let expected = expected.map(|e| e.map(str::to_owned)).map_err(str::to_owned);
        assert_eq!(identified, expected);
    }

    #[test]
    fn an_event_without_an_id_gets_one_and_is_otherwise_untouched() {
        check(
            r#" {"event_type":"a.b", "data":{"n":1.50}} "#,
            Ok(Some(r#"{"event_id":"r-1","event_type":"a.b", "data":{"n":1.50}}"#)),
        );
    }

    #[test]
    fn an_existing_id_is_kept() {
        check(r#"{"event_id":"e1"}"#, Ok(Some(r#"{"event_id":"e1"}"#)));
        check(
            r#"{"data":{"event_id":"x"}}"#,
            Ok(Some(r#"{"event_id":"r-1","data":{"event_id":"x"}}"#)),
        );
    }

    #[test]
    fn an_id_that_is_null_counts_as_absent() {
        check(
            r#"{"a":1.50,"event_id": null,"b\"":{"event_id":null}}"#,
            Ok(Some(r#"{"event_id":"r-1","a":1.50,"b\"":{"event_id":null}}"#)),
        );
        check(r#"{"event_id":null}"#, Ok(Some(r#"{"event_id":"r-1"}"#)));
        let twice = r#"{"event_id":null,"event_id":"e"}"#;
        check(twice, Ok(Some(twice)));
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        check("\u{feff}{\"event_id\":\"e\"}", Ok(Some(r#"{"event_id":"e"}"#)));
        check("\u{feff}\n", Ok(None));
    }

    /// Gives one line at a time, as a slow producer does.
    struct SlowLines(Vec<&'static str>);

    impl Read for SlowLines {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(line) = self.0.pop() else { return Ok(0) };
            out[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }

    #[test]
    fn only_lines_that_are_there_are_waited_for() {
        let input = BufReader::new(SlowLines(vec!["{\"c\":", "{\"a\":1}\n{\"b\":2}\n"]));
        let mut lines = Lines { input, number: 0, line: Vec::new() };
        assert!(!lines.has_next());
        assert_eq!(lines.next().expect("it reads").map(|(n, _)| n), Some(1));
        assert!(lines.has_next());
        assert_eq!(lines.next().expect("it reads").map(|(n, _)| n), Some(2));
        assert!(!lines.has_next());
        assert_eq!(lines.next().expect("it reads").map(|(n, l)| (n, l.len())), Some((3, 5)));
        assert_eq!(lines.next().expect("it reads"), None);
    }

    #[test]
    fn blank_lines_are_skipped_and_other_invalid_lines_are_refused() {
        check("  \r\n", Ok(None));
        check("{}", Ok(Some("{}")));
        check("[1]", Err("not_object: give one JSON object per line, {\"event_type\":…}"));
        check("not json", Err("not_json: expected ident, column 2"));
        check("{\"a\":}", Err("not_json: expected value, column 6"));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let endless = io::repeat(b'x');
        let mut lines = Lines { input: BufReader::new(endless), number: 0, line: Vec::new() };
        let error = lines.next().expect_err("too long").to_string();
        assert!(error.starts_with("stopped: line 1 is longer"), "{error}");
    }
}

//! Prints the answers of the admin interface for people: a table, one dead letter, and counts.
//!
//! Records contain text of unknown origin, so control characters are printed as escapes: a terminal
//! would execute them.

use serde_json::Value;

use crate::process_exit::ProcessExit;
use crate::terminal;

/// The columns before the last one, which has no fixed width.
const COLUMNS: [&str; 5] = ["time", "id", "state", "reason", "field"];

/// A table, the newest last.
pub(super) fn table(entries: &[Value]) -> Result<(), ProcessExit> {
    let cells = |entry: &Value| COLUMNS.map(|column| plain(entry[column].as_str().unwrap_or("-")));
    let rows: Vec<[String; 5]> = entries.iter().map(cells).collect();
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].chars().count());
        cells.chain([COLUMNS[n].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |cells: [&str; 5], last: &str| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}  {last}", padded.collect::<Vec<_>>().join("  "))
    };
    terminal::print_line(&line(COLUMNS, "detail"))?;
    for (row, entry) in rows.iter().zip(entries) {
        let detail = entry["detail"].as_str().unwrap_or_default();
        let first = plain(detail.lines().next().unwrap_or_default());
        terminal::print_line(&line(std::array::from_fn(|n| row[n].as_str()), &first))?;
    }
    Ok(())
}

/// One dead letter with its bytes, headers and trail.
pub(super) fn whole(entry: &Value) -> Result<(), ProcessExit> {
    let names = ["id", "state", "time", "written", "reason", "field", "detail"];
    for name in names.into_iter().chain(["operator", "trigger", "account"]) {
        if let Some(text) = entry[name].as_str() {
            terminal::print_line(&format!("{name:10} {}", plain(text)))?;
        }
    }
    if let Some(emitted) = entry["emission"].as_u64() {
        let events = if emitted == 1 { "event" } else { "events" };
        terminal::print_line(&format!("{:10} failed after {emitted} {events}", "emission"))?;
    }
    for record in entry["resolved"].as_array().into_iter().flatten() {
        let of = |name: &str| record[name].as_str().map(plain);
        let mut line = format!(
            "{:10} {}",
            of("resolution").unwrap_or_default(),
            of("time").unwrap_or_default()
        );
        line.extend(of("to").map(|to| format!(" to {to}")));
        line.extend(of("because").map(|because| format!(": {because}")));
        terminal::print_line(&line)?;
    }
    let trail: Vec<String> = entry["trail"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(plain)
        .collect();
    if !trail.is_empty() {
        let id = plain(entry["id"].as_str().unwrap_or_default());
        terminal::print_line(&format!("{:10} {} > {id}", "trail", trail.join(" > ")))?;
    }
    if !entry["key"].is_null() {
        terminal::print_line(&format!("{:10} {}", "key", shown(&entry["key"])))?;
    }
    for header in entry["headers"].as_array().into_iter().flatten() {
        let name = plain(header[0].as_str().unwrap_or_default());
        terminal::print_line(&format!("{:10} {name}: {}", "header", shown(&header[1])))?;
    }
    let size = entry["bytes"].as_u64().unwrap_or_default();
    match (&entry["value"], entry["value"]["hex"].is_string()) {
        (Value::Null, _) => terminal::print_line("no value"),
        (value, true) => terminal::print_line(&format!("{size} bytes, in hex:\n{}", shown(value))),
        (value, false) => terminal::print_line(&format!("{size} bytes:\n{}", shown(value))),
    }
}

/// The bytes of the record, unchanged.
pub(super) fn raw(entry: &Value) -> Result<(), ProcessExit> {
    let value = &entry["value"];
    if let Some(text) = value["text"].as_str() {
        return terminal::print_bytes(text.as_bytes());
    }
    let digits = value["hex"].as_str().unwrap_or_default().as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    let bytes: Vec<u8> = digits.chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect();
    terminal::print_bytes(&bytes)
}

/// Counts by reason: `3 dead letters: not_json 2, bad_id 1`.
pub(super) fn counted(done: &[(String, u64)]) -> String {
    let count: u64 = done.iter().map(|(_, count)| count).sum();
    let noun = if count == 1 { "dead letter" } else { "dead letters" };
    let by: Vec<String> =
        done.iter().map(|(reason, count)| format!("{} {count}", plain(reason))).collect();
    let joint = if by.is_empty() { "" } else { ": " };
    format!("{count} {noun}{joint}{}", by.join(", "))
}

fn shown(bytes: &Value) -> String {
    let text = bytes["text"].as_str().or_else(|| bytes["hex"].as_str());
    text.map(lines).unwrap_or_default()
}

/// The text on one line.
fn plain(text: &str) -> String {
    escaped(text, |_| false)
}

/// The text with its line breaks.
fn lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !keeps(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(lines("a\n\u{7}b"), "a\n\\u{7}b");
    }

    #[test]
    fn counts_are_listed_by_reason() {
        assert_eq!(counted(&[("bad_id".into(), 1)]), "1 dead letter: bad_id 1");
        assert_eq!(counted(&[]), "0 dead letters");
    }
}

//! An event as a subscriber received it, from either transport.

use serde_json::Value;

/// An event out of a WebSocket frame or an SSE message.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// Channel it came on.
    pub channel: String,
    /// Canonical type.
    pub event_type: String,
    /// Id, unique within the account.
    pub event_id: String,
    /// When it happened, RFC 3339.
    pub timestamp: String,
    /// Where to resume after this event: `position` or `id:`.
    pub position: String,
    /// What the producer sent.
    pub data: Value,
}

impl ReceivedEvent {
    /// Parses an event's JSON. Panics with the text if a field is missing.
    pub fn parse(text: &str, position: Option<&str>) -> Self {
        let event: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let field = |name: &str| match event.get(name).and_then(Value::as_str) {
            Some(value) => value.to_owned(),
            None => panic!("no {name:?} in {text}"),
        };
        Self {
            channel: field("channel"),
            event_type: field("type"),
            event_id: field("event_id"),
            timestamp: field("timestamp"),
            position: position.map_or_else(|| field("position"), str::to_owned),
            data: event.get("data").cloned().unwrap_or_else(|| panic!("no data in {text}")),
        }
    }

    /// A string of `data`; panics if there is none.
    pub fn data_str(&self, name: &str) -> &str {
        let value = self.data.get(name).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no {name:?} in {}", self.data))
    }
}

/// Percent-encodes what a query can't contain.
pub fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte.into());
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

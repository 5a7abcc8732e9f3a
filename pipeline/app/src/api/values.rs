//! JSON Schemas of the values that frames, parameters and bodies share.
//!
//! Request ids, positions, channel names, and where a subscription starts.

use serde_json::{Map, Value, json};
use tidewire_engine::fanout::config::REQUEST_ID_MAX_BYTES;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::channel::NAME_MAX_CHARS;
use tidewire_schemas::position::TOKEN_MAX_CHARS;

use super::events;
use super::property::reference;

/// The shortest position: seven bytes in base64url.
const POSITION_MIN_CHARS: usize = 10;

/// Every schema of these, by name.
pub(super) fn schemas(catalogue: &Catalogue) -> Map<String, Value> {
    let named = [
        ("RequestId", request_id()),
        ("Position", position()),
        ("StartAt", start_at()),
        ("ChannelName", channel_name(catalogue)),
    ];
    named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn request_id() -> Value {
    // The limit is for the JSON text, of which the quotation marks are two bytes.
    let max = REQUEST_ID_MAX_BYTES - 2;
    json!({
        "description": format!("An id chosen by the client: a number, or a string of at most {max} \
                                bytes. Null counts as absent."),
        "type": ["string", "number", "null"],
        "maxLength": max,
        "examples": [1, "sub-1"],
    })
}

fn position() -> Value {
    json!({
        "description": "A position in the log. Opaque: keep it and send it back unchanged.",
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]+$",
        "minLength": POSITION_MIN_CHARS,
        "maxLength": TOKEN_MAX_CHARS,
    })
}

fn start_at() -> Value {
    json!({
        "description": "Where a subscription starts: `latest` (new events only), `earliest` (the \
                        oldest event that is kept), a time (the first event appended at or after \
                        it: RFC 3339, a date for its start in UTC, or milliseconds since 1970), \
                        or a position.",
        "anyOf": [
            { "type": "string", "enum": ["latest", "earliest"] },
            { "type": "string", "format": "date-time" },
            { "type": "string", "format": "date" },
            { "type": "integer", "minimum": 100_000_000_000_i64 },
            reference("Position"),
            { "type": "null" },
        ],
    })
}

/// The name of a channel: a kind that can be subscribed to, and an id.
fn channel_name(catalogue: &Catalogue) -> Value {
    let kinds: Vec<&str> = catalogue
        .channel_kinds()
        .iter()
        .filter(|k| events::is_served(k))
        .map(|k| k.name.as_str())
        .collect();
    json!({
        "description": "`kind:id`. The id is visible ASCII without comma, `*`, `{` and `}`; other \
                        characters and `%` are percent-encoded UTF-8.",
        "type": "string",
        "maxLength": NAME_MAX_CHARS,
        "pattern": format!("^({})(:[!-)+\\--z|~]+)?$", kinds.join("|")),
        "examples": ["posts:ann", "timeline:demo"],
    })
}

//! JSON Schemas of WebSocket frames and of the blocks of an SSE stream.
//!
//! Both directions are listed by the enums of the fan-out's protocol, so a frame can't be added
//! there without a schema here. A frame's table in `docs/protocol.md` is made of its properties.

use serde_json::{Map, Value, json};
use tidewire_engine::fanout::config::{
    CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S, SUBSCRIPTIONS_MAX,
    WEBSOCKET_KEEPALIVE_MS,
};
use tidewire_engine::fanout::protocol::names::{FrameName, GapReason, OpName};
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::events;
use super::property::{
    Presence, Property, always, constant, count, object, one_of, reference, sometimes, text,
};

/// The name of a client frame's schema.
pub fn client_schema_name(op: OpName) -> String {
    format!("{}Request", capitalised(op.as_str()))
}

/// The name of a server frame's schema.
pub fn server_schema_name(op: FrameName) -> String {
    format!("{}Frame", capitalised(op.as_str()))
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// What a client sends with this operation; `None` if it is not served.
pub fn client_frame(op: OpName) -> Option<Vec<Property>> {
    let head = [
        always("op", constant(op.as_str()), "the operation"),
        sometimes("id", reference("RequestId"), "comes back in the answer"),
    ];
    let rest = match op {
        OpName::Ping => Vec::new(),
        OpName::Unsubscribe => {
            vec![always("channel", reference("ChannelName"), "the channel to leave")]
        }
        OpName::Subscribe => vec![
            always("channel", reference("ChannelName"), "the channel to join"),
            sometimes("from", reference("StartAt"), "where to start; `latest` if absent or null"),
            sometimes(
                "snapshot",
                json!({ "type": ["boolean", "null"] }),
                "whether to begin with the channel's state; false if absent or null",
            ),
            sometimes(
                "filter",
                json!({ "type": "null" }),
                "reserved; anything but null is refused",
            ),
        ],
        OpName::History | OpName::Send | OpName::Command | OpName::Refresh => return None,
    };
    Some(head.into_iter().chain(rest).collect())
}

/// What the server sends in a frame of this kind.
pub fn server_frame(op: FrameName) -> Vec<Property> {
    let id = || sometimes("id", reference("RequestId"), "the request's `id`, if it had one");
    let channel = |meaning| always("channel", reference("ChannelName"), meaning);
    let rest = match op {
        FrameName::Welcome => vec![
            always("connection", text(), "a name for this connection, unique within the process"),
            always("user", text(), "the user the connection belongs to"),
            always("heartbeat_ms", count(), "milliseconds between the server's pings"),
            always("limits", limits(), "the limits of this connection"),
        ],
        FrameName::Ok => vec![
            id(),
            channel("the channel's canonical name, as event frames carry it"),
            sometimes(
                "position",
                reference("Position"),
                "where the subscription starts; absent in the answer to `unsubscribe`",
            ),
        ],
        FrameName::Error => vec![
            id(),
            always("code", one_of(ErrorCode::ALL.map(ErrorCode::as_str)), "for programs"),
            always("message", text(), "for people: what is wrong and what is right"),
        ],
        FrameName::Pong => vec![id()],
        FrameName::Event => return events::event_frame(),
        FrameName::Snapshot => events::snapshot_frame(),
        FrameName::Deleted => events::deleted_frame(),
        FrameName::Position => vec![always(
            "position",
            reference("Position"),
            "where every subscription of this connection is now",
        )],
        FrameName::Gap => vec![
            channel("the channel that lost events"),
            always("reason", one_of(GapReason::ALL.map(GapReason::as_str)), "why they are lost"),
            always("from", reference("Position"), "the position asked for"),
            always("to", reference("Position"), "the position the subscription continues at"),
        ],
        FrameName::Move => vec![always(
            "within_ms",
            count(),
            "milliseconds until the server closes the connection",
        )],
    };
    let op = always("op", constant(op.as_str()), "the kind of frame");
    std::iter::once(op).chain(rest).collect()
}

fn limits() -> Value {
    object(
        "The limits of a connection",
        &[
            always("subscriptions", count(), "subscriptions at the same time"),
            always("frame_bytes", count(), "bytes of one message of the client"),
            always("messages_per_second", count(), "messages per second, sustained"),
            always("burst", count(), "messages at once after a quiet time"),
        ],
    )
}

/// A `welcome` as every connection gets it, apart from its two names.
pub fn example_of_welcome() -> Value {
    json!({
        "op": FrameName::Welcome.as_str(),
        "connection": "0-12-0",
        "user": "ann",
        "heartbeat_ms": WEBSOCKET_KEEPALIVE_MS,
        "limits": {
            "subscriptions": SUBSCRIPTIONS_MAX,
            "frame_bytes": CLIENT_FRAME_MAX_BYTES,
            "messages_per_second": CLIENT_MESSAGES_PER_S,
            "burst": CLIENT_MESSAGES_BURST,
        },
    })
}

/// Every schema of frames, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for op in OpName::ALL {
        if let Some(properties) = client_frame(op) {
            let mut schema = object(op.meaning(), &properties);
            if op != OpName::Ping {
                schema["patternProperties"] = json!({ "^_": {} });
                schema["additionalProperties"] = json!(false);
            }
            all.insert(client_schema_name(op), schema);
        }
    }
    for op in FrameName::ALL {
        let mut schema = object(op.meaning(), &server_frame(op));
        if op == FrameName::Event {
            schema["allOf"] = json!([reference("DataByType")]);
        }
        all.insert(server_schema_name(op), schema);
    }
    all
}

/// Whether a property is always there, as the tables of `docs/protocol.md` show it.
pub fn presence_in_words(presence: Presence) -> &'static str {
    match presence {
        Presence::Always => "always",
        Presence::Sometimes => "optional",
    }
}

//! Builds the AsyncAPI 3 document: the WebSocket and the SSE stream, message by message.
//!
//! Operations are the server's, as AsyncAPI has them: what it receives are the requests of clients,
//! what it sends are frames. A frame that answers a request is the reply of that operation.

use serde_json::{Map, Value, json};
use tidewire_connectors::socket::http::routes::Route;
use tidewire_connectors::socket::http::subscribe::SUBPROTOCOL;
use tidewire_engine::fanout::protocol::names::{FrameName, OpName};
use tidewire_engine::fanout::protocol::native::{CloseReason, ErrorCode};
use tidewire_schemas::catalogue::Catalogue;

use super::document_info::{OPENAPI_PATH, info};
use super::frames::{self, client_schema_name, server_schema_name};
use super::property::{Property, object, reference};
use super::{events, limits, parameters, values};

/// Frames that an SSE stream carries too, each in a block of its own; an event's is
/// [`events::STREAM_EVENT`].
const IN_STREAMS: [FrameName; 4] =
    [FrameName::Snapshot, FrameName::Deleted, FrameName::Gap, FrameName::Error];

/// The document.
pub(super) fn document(catalogue: &Catalogue) -> Value {
    let mut schemas = values::schemas(catalogue);
    schemas.extend(frames::schemas());
    schemas.extend(events::schemas(catalogue));
    json!({
        "asyncapi": "3.0.0",
        "info": info(
            "Streams of Tidewire",
            &format!(
                "The native protocol over WebSocket (subprotocol `{SUBPROTOCOL}`) and server-sent \
                 events. Fields and frames that are not described here may be added: ignore them. \
                 The HTTP endpoints are described at `{OPENAPI_PATH}`."
            ),
        ),
        "defaultContentType": "application/json",
        "servers": { "websocket": server("ws"), "http": server("http") },
        "channels": { "websocket": websocket(), "stream": stream() },
        "operations": operations(),
        "components": { "messages": messages(), "schemas": schemas },
        "x-error-codes": error_codes(),
        "x-close-codes": close_codes(),
        "x-limits": limits::extension(),
        "x-catalogue": events::catalogue_extension(catalogue),
    })
}

fn server(protocol: &str) -> Value {
    json!({
        "host": "{host}",
        "protocol": protocol,
        "variables": {
            "host": { "default": "127.0.0.1:8080", "description": "Host and port of the server" },
        },
    })
}

fn served(op: OpName) -> bool {
    frames::client_frame(op).is_some()
}

fn requests() -> impl Iterator<Item = OpName> {
    OpName::ALL.into_iter().filter(|op| served(*op))
}

fn websocket() -> Value {
    let mut messages = Map::new();
    for op in requests() {
        messages.insert(request_name(op), message_reference(&request_name(op)));
    }
    for op in FrameName::ALL {
        messages.insert(op.as_str().to_owned(), message_reference(op.as_str()));
    }
    json!({
        "address": Route::WebSocket.path(),
        "title": "WebSocket",
        "description": "JSON objects in text frames, both ways.",
        "servers": [{ "$ref": "#/servers/websocket" }],
        "messages": messages,
        "bindings": {
            "ws": { "method": "GET", "query": query(&parameters::of_websocket()) },
        },
    })
}

fn stream() -> Value {
    let mut messages = Map::new();
    messages.insert("event".to_owned(), message_reference("stream.event"));
    messages.insert("position".to_owned(), message_reference("stream.position"));
    for op in IN_STREAMS {
        let name = stream_name(op);
        messages.insert(op.as_str().to_owned(), message_reference(&name));
    }
    json!({
        "address": Route::Sse.path(),
        "title": "Server-sent events",
        "description": "Blocks of `text/event-stream`, from the server to the client.",
        "servers": [{ "$ref": "#/servers/http" }],
        "messages": messages,
    })
}

fn query(properties: &[Property]) -> Value {
    object("The query of the request that opens the stream", properties)
}

fn request_name(op: OpName) -> String {
    format!("{}.request", op.as_str())
}

fn stream_name(op: FrameName) -> String {
    format!("stream.{}", op.in_stream())
}

fn message_reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/messages/{name}") })
}

fn messages() -> Map<String, Value> {
    let mut all = Map::new();
    for op in requests() {
        let payload = reference(&client_schema_name(op));
        all.insert(request_name(op), message(op.as_str(), op.meaning(), payload));
    }
    for op in FrameName::ALL {
        let payload = reference(&server_schema_name(op));
        let mut described = message(op.as_str(), op.meaning(), payload.clone());
        if op == FrameName::Welcome {
            described["examples"] = json!([{ "payload": frames::example_of_welcome() }]);
        }
        all.insert(op.as_str().to_owned(), described);
        if IN_STREAMS.contains(&op) {
            let mut block = message(op.in_stream(), op.meaning(), payload);
            block["headers"] = block_fields(json!({ "const": op.in_stream() }), None);
            if op == FrameName::Gap {
                // Only the last of several has one.
                block["headers"]["properties"]["id"] = reference("Position");
            }
            all.insert(stream_name(op), block);
        }
    }
    all.extend(stream_only());
    all
}

/// The blocks that only an SSE stream has.
fn stream_only() -> [(String, Value); 2] {
    let position = Some(reference("Position"));
    let meaning = "An event: its type in `event:`, its position in `id:`, itself in `data:`.";
    let mut event = message("event", meaning, reference(events::STREAM_EVENT));
    event["headers"] = block_fields(json!({ "type": "string" }), None);
    // A change of state has none.
    event["headers"]["properties"]["id"] = reference("Position");
    let meaning = "The position of the stream: an `id:` without data.";
    let mut quiet = message("position", meaning, json!({ "type": "null" }));
    quiet["headers"] = json!({
        "type": "object", "required": ["id"], "properties": { "id": position },
    });
    [("stream.event".to_owned(), event), ("stream.position".to_owned(), quiet)]
}

fn message(name: &str, meaning: &str, payload: Value) -> Value {
    json!({ "name": name, "summary": meaning, "payload": payload })
}

/// The fields of an SSE block other than `data:`.
fn block_fields(event: Value, id: Option<Value>) -> Value {
    let mut schema = json!({
        "type": "object",
        "description": "The fields of the block other than `data:`.",
        "required": ["event"],
        "properties": { "event": event },
    });
    if let Some(id) = id {
        schema["required"] = json!(["id", "event"]);
        schema["properties"]["id"] = id;
    }
    schema
}

fn operations() -> Map<String, Value> {
    let mut all = Map::new();
    for op in requests() {
        let answers = op.answers().iter().map(|answer| in_websocket(answer.as_str()));
        let operation = json!({
            "action": "receive",
            "channel": { "$ref": "#/channels/websocket" },
            "summary": op.meaning(),
            "messages": [in_websocket(&request_name(op))],
            "reply": {
                "channel": { "$ref": "#/channels/websocket" },
                "messages": answers.collect::<Vec<_>>(),
            },
        });
        all.insert(op.as_str().to_owned(), operation);
    }
    let unasked = FrameName::ALL.into_iter().filter(|op| !op.is_answer());
    all.insert(
        "sendFrames".to_owned(),
        json!({
            "action": "send",
            "channel": { "$ref": "#/channels/websocket" },
            "summary": "What a WebSocket carries that is not an answer to a request",
            "messages": unasked.map(|op| in_websocket(op.as_str())).collect::<Vec<_>>(),
        }),
    );
    all.insert(
        "sendBlocks".to_owned(),
        json!({
            "action": "send",
            "channel": { "$ref": "#/channels/stream" },
            "summary": "What an SSE stream carries",
            "bindings": { "http": { "method": "GET", "query": query(&parameters::of_stream()) } },
        }),
    );
    all
}

fn in_websocket(message: &str) -> Value {
    json!({ "$ref": format!("#/channels/websocket/messages/{message}") })
}

fn error_codes() -> Vec<Value> {
    let entry = |code: ErrorCode| {
        let (code, meaning, advice) = (code.as_str(), code.meaning(), code.advice());
        json!({ "code": code, "meaning": meaning, "advice": advice })
    };
    ErrorCode::ALL.into_iter().map(entry).collect()
}

fn close_codes() -> Vec<Value> {
    let entry = |reason: CloseReason| {
        json!({
            "code": reason.code(),
            "reason": reason.text(),
            "meaning": reason.meaning(),
            "reconnect": reason.reconnect().as_str(),
        })
    };
    CloseReason::ALL.into_iter().map(entry).collect()
}

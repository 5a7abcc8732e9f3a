//! JSON Schemas of the bodies of HTTP requests and responses.
//!
//! Fields that the server may leave out are not `required`; clients ignore fields they do not know.

use serde_json::{Map, Value, json};
use tidewire_connectors::socket::http::response::HttpErrorCode;
use tidewire_schemas::envelope::{
    CORRELATION_ID_MAX_CHARS, ID_MAX_CHARS, Reason, SOURCE_MAX_CHARS, TYPE_MAX_CHARS,
};

use super::events;
use super::property::{always, count, list, object, one_of, reference, sometimes, text, time};

/// Every schema of bodies, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let named = [
        ("EventEnvelope", envelope()),
        ("PublishAnswer", publish_answer()),
        ("AcceptedEvent", accepted_event()),
        ("RefusedEvent", refused_event()),
        ("ChannelState", channel_state()),
        ("StateEntry", object("The newest value of a key", &events::state_entry())),
        ("Stats", stats()),
        ("TopicOffsets", topic_offsets()),
        ("Restore", restore()),
        ("DeadLetterSummary", object("A dead letter, in short", &summary())),
        ("DeadLetter", dead_letter()),
        ("DeadLetterList", dead_letter_list()),
        ("DeadLetterDetails", dead_letter_details()),
        ("Resolved", resolved()),
        ("Resumed", resumed()),
        ("Explanation", explanation()),
        ("ExplainedCause", explained_cause()),
        ("Bytes", bytes()),
    ];
    named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// The body of an error with one of these codes.
pub(super) fn error_body(codes: &[HttpErrorCode]) -> Value {
    let error = object(
        "What is wrong",
        &[
            always("code", one_of(codes.iter().map(|code| code.as_str())), "for programs"),
            always("message", text(), "for people: what is wrong and what is right"),
        ],
    );
    object("An error", &[always("error", error, "the error")])
}

fn id() -> Value {
    json!({ "type": ["string", "integer"], "minLength": 1, "maxLength": ID_MAX_CHARS })
}

/// An optional field, which may be null.
fn nullable(mut schema: Value) -> Value {
    let mut kinds = match schema["type"].take() {
        Value::Array(kinds) => kinds,
        kind => vec![kind],
    };
    kinds.push(json!("null"));
    schema["type"] = json!(kinds);
    schema
}

fn at_most(characters: usize) -> Value {
    json!({ "type": "string", "maxLength": characters })
}

fn explanation() -> Value {
    let node = json!({ "type": "object" });
    let index = object(
        "How far the index is",
        &[
            always("left", count(), "records that are not read yet; if not 0, repeat the request"),
            always("unreadable", count(), "records that this build can't read"),
            always("since", nullable(time()), "where it begins; null: with the oldest record"),
            always("empty", json!({ "type": "boolean" }), "whether there is no audit at all"),
        ],
    );
    object(
        "What an event has caused",
        &[
            always("index", index, "the index that the answer follows from"),
            sometimes("id", text(), "the event's id"),
            sometimes("causes", list(reference("ExplainedCause")), "what led to it, nearest first"),
            sometimes(
                "events",
                list(node),
                "what was decided about it; `effects` has what followed, and so on",
            ),
            sometimes("truncated", json!({ "type": "boolean" }), "whether more followed"),
        ],
    )
}

fn channel_state() -> Value {
    let truncated = "true: the channel has more entries than a snapshot may have";
    object(
        "The state of a channel",
        &[
            always("channel", reference("ChannelName"), "its canonical name"),
            always(
                "position",
                reference("Position"),
                "where to subscribe to get the channel's events since then; it does not resume \
                 changes of state",
            ),
            always("truncated", json!({ "type": "boolean" }), truncated),
            always("state", list(reference("StateEntry")), "the newest value of each key"),
        ],
    )
}

fn explained_cause() -> Value {
    object(
        "The call of an operator that emitted an event",
        &[
            always("operator", text(), "its name"),
            always("called_with", one_of(["event", "timer", "update"]), "what it was called with"),
            always("id", nullable(text()), "the id of that event"),
            always("type", nullable(text()), "its type"),
            always("key", nullable(text()), "its key"),
            always("task", count(), "the task"),
        ],
    )
}

fn envelope() -> Value {
    let mut schema = object(
        "An event as a producer sends it. Unknown fields are ignored.",
        &[
            sometimes(
                "event_id",
                nullable(id()),
                "unique within the account, visible ASCII; a repeated one is dropped",
            ),
            always(
                "event_type",
                json!({ "type": "string", "minLength": 1, "maxLength": TYPE_MAX_CHARS }),
                "a type of the catalogue or one of its aliases",
            ),
            always("account_id", id(), "the account"),
            sometimes(
                "timestamp",
                json!({ "type": ["string", "number", "null"] }),
                "RFC 3339 or milliseconds since 1970; the time of the append if absent",
            ),
            sometimes(
                "correlation_id",
                nullable(at_most(CORRELATION_ID_MAX_CHARS)),
                "what the event belongs to; its id if absent",
            ),
            sometimes(
                "priority",
                json!({ "type": ["integer", "null"], "enum": [0, 1, 2, 3, null] }),
                "0 low, 1 normal, 2 high, 3 critical; the type's if absent",
            ),
            sometimes(
                "key",
                nullable(id()),
                "chooses the partition of the input; it owns no state",
            ),
            sometimes("source", nullable(at_most(SOURCE_MAX_CHARS)), "the producer's name"),
            always("data", json!({ "type": "object" }), "the fields of the type"),
        ],
    );
    schema["additionalProperties"] = json!(true);
    schema
}

fn publish_answer() -> Value {
    let entry = json!({ "oneOf": [reference("AcceptedEvent"), reference("RefusedEvent")] });
    object(
        "What became of the events of a body",
        &[
            always("accepted", count(), "how many were accepted"),
            always("events", list(entry), "one entry per event, in the order they were sent"),
        ],
    )
}

fn accepted_event() -> Value {
    let position = json!({ "type": "string", "pattern": "/[0-9]+/[0-9]+$" });
    object(
        "An event that is in the log",
        &[
            always("event_id", text(), "its id; its place in the log if it had none"),
            always("log_position", position, "its place in the log: topic/partition/offset"),
        ],
    )
}

fn refused_event() -> Value {
    let error = object(
        "Why the event was refused",
        &[
            always("reason", one_of(Reason::ALL.map(Reason::as_str)), "for programs"),
            always("field", nullable(text()), "the field that is wrong, if it is one"),
            always("message", text(), "for people: what is wrong and what is right"),
        ],
    );
    object("An event that went to the dead letters", &[always("error", error, "the error")])
}

fn stats() -> Value {
    let mut properties = vec![
        always("version", text(), "the version of the server and, after +, a hash of its sources"),
        always("role", one_of(["dev", "admit", "derive", "gateway"]), "the role of the process"),
        always("instance", text(), "the name of the process"),
        sometimes("data_dir", text(), "the folder of the embedded log; absent on Kafka"),
        always("restoring", list(reference("Restore")), "tasks that restore their state"),
        sometimes(
            "topics",
            list(reference("TopicOffsets")),
            "the topics; absent if the log failed",
        ),
        sometimes("error", text(), "why the log could not be asked"),
        always("uptime_seconds", count(), "seconds since the start"),
        always("connections", count(), "connections of any kind"),
    ];
    let streams = [
        ("websockets", "open WebSockets"),
        ("sse_streams", "open SSE streams"),
        ("subscriptions", "subscriptions of both"),
        ("channels", "channels with a subscriber, counted per worker thread"),
        ("backlogged", "connections with something to read"),
        ("behind", "subscriptions that catch up from memory or the log"),
        ("deliveries", "event frames written since the start"),
        ("delivered_bytes", "bytes of all frames written since the start"),
    ];
    properties.extend(streams.map(|(name, meaning)| sometimes(name, count(), meaning)));
    object(
        "What a process does now; those about streams only where streams are served",
        &properties,
    )
}

fn topic_offsets() -> Value {
    let pair = json!({
        "type": "array", "minItems": 2, "maxItems": 2, "items": { "type": "integer", "minimum": 0 },
    });
    object(
        "A topic and its offsets",
        &[
            always("topic", text(), "its name"),
            always("keeps", text(), "what it keeps, in words"),
            always("offsets", list(pair), "by partition: the oldest offset, and the end"),
        ],
    )
}

fn restore() -> Value {
    object(
        "A task that restores its state",
        &[
            always("partition", count(), "the task's partition"),
            always("done", count(), "records read"),
            always("total", count(), "records to read"),
            always("seconds_left", nullable(count()), "an estimate; null while there is none"),
        ],
    )
}

fn summary() -> Vec<super::property::Property> {
    vec![
        always(
            "id",
            text(),
            "where it came from: topic/partition/offset, of an entry of a pack of facts with \
             /index, or http/time/number",
        ),
        always("time", time(), "when it came in"),
        always("state", one_of(["open", "requeued", "dropped"]), "what became of it"),
        always("reason", text(), "why it is a dead letter"),
        always("field", nullable(text()), "the field that was wrong, if it was one"),
        always("detail", text(), "the reason in words"),
        always("bytes", count(), "bytes of its value"),
        always("operator", nullable(text()), "the operator that failed, if the others did not"),
    ]
}

fn dead_letter() -> Value {
    let header = json!({
        "type": "array", "minItems": 2, "maxItems": 2,
        "items": { "anyOf": [{ "type": "string" }, reference("Bytes")] },
    });
    let resolution = object(
        "What was done with it",
        &[
            always("resolution", one_of(["requeued", "dropped"]), "what was done"),
            always("time", time(), "when"),
            always("to", nullable(text()), "where the record went, if it was requeued"),
            always("because", nullable(text()), "the note that was given with it"),
        ],
    );
    let bytes_or_null = json!({ "anyOf": [reference("Bytes"), { "type": "null" }] });
    let mut properties = summary();
    properties.extend([
        always("written", time(), "when the dead letter was written"),
        always("trigger", nullable(text()), "what that operator was called with: event or timer"),
        always("account", nullable(text()), "the account of that event or timer"),
        always("emission", nullable(count()), "events that the call had emitted before it failed"),
        always("trail", list(text()), "where it was before, if it was requeued and failed again"),
        always("key", bytes_or_null.clone(), "its key"),
        always("value", bytes_or_null, "its value"),
        always("headers", list(header), "its headers: name, value"),
        always("resolved", list(resolution), "what was done with it, oldest first"),
    ]);
    object("A dead letter", &properties)
}

fn dead_letter_list() -> Value {
    object(
        "Dead letters, the newest that match",
        &[
            always("dead_letters", list(reference("DeadLetterSummary")), "oldest first"),
            always("matching", count(), "how many match, listed or not"),
        ],
    )
}

fn dead_letter_details() -> Value {
    object(
        "The dead letters of one id",
        &[always(
            "dead_letters",
            list(reference("DeadLetter")),
            "one entry per copy; empty if none",
        )],
    )
}

fn resolved() -> Value {
    let by_reason = json!({ "type": "object", "additionalProperties": count() });
    object(
        "What was done, or would be",
        &[
            always("done", by_reason, "dead letters by reason"),
            always("count", count(), "how many in all"),
            always("left", count(), "how many match and are beyond the limit; ask again"),
            always("unable", count(), "how many match and cannot be requeued"),
            always("absent", list(text()), "ids that have no open dead letter"),
        ],
    )
}

fn resumed() -> Value {
    object(
        "What was resumed",
        &[always("resumed", list(text()), "why each loop had stopped; empty if none had")],
    )
}

fn bytes() -> Value {
    let text_form = object("UTF-8", &[always("text", text(), "the text")]);
    let hex = json!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" });
    let hex_form = object("Anything else", &[always("hex", hex, "the bytes")]);
    json!({ "description": "Bytes", "oneOf": [text_form, hex_form] })
}

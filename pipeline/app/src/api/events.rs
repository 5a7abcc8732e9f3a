//! JSON Schemas of the events that subscribers receive: the envelope, and the data of every type.
//!
//! `data` is what passed validation: fields the type declares have their kinds, optional ones may
//! be null, fields it does not declare are kept as they were sent. Types whose data is not checked
//! have no schema.

use serde_json::{Map, Value, json};
use tidewire_engine::fanout::protocol::names::FrameName;
use tidewire_schemas::catalogue::{
    Catalogue, ChannelKind, Class, DeliveryPolicy, EventType, Field, FieldKind,
};
use tidewire_schemas::envelope::{ID_MAX_CHARS, TYPE_MAX_CHARS};

use super::property::{Property, always, constant, list, object, reference, sometimes, text, time};

/// The name of the schema of an SSE stream's event.
pub const STREAM_EVENT: &str = "StreamEvent";

/// Replaces the star of a type that is a prefix, in the name of a schema.
const ANY: &str = "any";

/// The properties of an `event` frame.
pub(super) fn event_frame() -> Vec<Property> {
    let mut properties = stream_event();
    properties.insert(0, always("op", constant(FrameName::Event.as_str()), "the kind of frame"));
    let position = sometimes(
        "position",
        reference("Position"),
        "the position behind this event; subscribe with it as `from` to continue after it. Absent \
         if the frame is a change of state",
    );
    properties.push(position);
    properties
}

/// The properties of a `snapshot` frame, without `op`.
pub(super) fn snapshot_frame() -> Vec<Property> {
    let entry = object("The newest value of a key", &state_entry());
    vec![
        always("channel", reference("ChannelName"), "the channel whose state it is"),
        always("reset", boolean(), "whether the client has been given state of it before"),
        always("first", boolean(), "whether it is the first page: clear what is known"),
        always("last", boolean(), "whether it is the last page; changes follow it"),
        sometimes("truncated", boolean(), "true: the channel has more entries than a snapshot"),
        always("state", list(entry), "the entries of this page"),
    ]
}

/// The properties of a `deleted` frame, without `op`.
pub(super) fn deleted_frame() -> Vec<Property> {
    vec![
        always("channel", reference("ChannelName"), "the channel whose state it was"),
        always("key", text(), "the key that has no value any more"),
        always("account_id", id(), "the account it belonged to"),
    ]
}

/// The properties of an entry of a snapshot.
pub(super) fn state_entry() -> Vec<Property> {
    vec![
        always("key", text(), "unique within channel and account"),
        always("account_id", id(), "the account it belongs to"),
        always("type", type_name(), "the canonical type of the event that set it"),
        always("event_id", text(), "that event"),
        always("timestamp", time(), "when it happened, UTC with milliseconds"),
        always("value", json!({ "type": "object" }), "that event's data"),
    ]
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// The properties of an event in the `data:` of an SSE stream; its position is the block's `id:`.
pub fn stream_event() -> Vec<Property> {
    let priority = json!({ "type": "integer", "enum": [0, 1, 2, 3] });
    vec![
        always("channel", reference("ChannelName"), "the channel it was delivered to"),
        sometimes("key", text(), "if it is a change of the channel's state: the key that it sets"),
        always("type", type_name(), "the canonical event type"),
        always("event_id", text(), "unique within the account; the same in every channel"),
        always("account_id", id(), "the account it belongs to"),
        always("timestamp", time(), "when it happened, UTC with milliseconds"),
        always("priority", priority, "0 low, 1 normal, 2 high, 3 critical"),
        always("correlation_id", text(), "what it belongs to; the `event_id` if none was sent"),
        always("data", json!({ "type": "object" }), "the event's fields; its type says which"),
    ]
}

fn type_name() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": TYPE_MAX_CHARS })
}

fn id() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": ID_MAX_CHARS })
}

/// Every schema of events, by name.
pub(super) fn schemas(catalogue: &Catalogue) -> Map<String, Value> {
    let mut all = Map::new();
    let mut stream = object(
        "An event in the `data:` of an SSE block. The block's `event:` is its type, its `id:` the \
         position behind it.",
        &stream_event(),
    );
    stream["allOf"] = json!([reference("DataByType")]);
    all.insert(STREAM_EVENT.to_owned(), stream);
    let mut by_type = Vec::new();
    for event_type in delivered(catalogue).filter(|event_type| !event_type.unchecked) {
        let name = data_schema_name(event_type);
        let of_type = json!({ "type": matching(event_type, catalogue) });
        by_type.push(json!({
            "if": { "properties": of_type, "required": ["type"] },
            "then": { "properties": { "data": reference(&name) } },
        }));
        all.insert(name, data(event_type));
    }
    let by_type = json!({
        "description": "The data of an event, by its type. Types that are not listed have data of \
                        any shape.",
        "allOf": by_type,
    });
    all.insert("DataByType".to_owned(), by_type);
    all
}

/// The types that reach subscribers: those that go to a channel with history or state.
fn delivered(catalogue: &Catalogue) -> impl Iterator<Item = &EventType> {
    let is_seen = |class: &Class| matches!(class, Class::Stream | Class::State);
    let seen = move |t: &&EventType| t.channels.iter().any(|r| r.classes.iter().any(is_seen));
    catalogue.types().iter().filter(|t| !t.internal).filter(seen)
}

fn data_schema_name(event_type: &EventType) -> String {
    format!("data.{}", event_type.name.replace('*', ANY))
}

/// Which values of `type` mean this type. A prefix does not mean the types that begin so and have
/// entries of their own.
fn matching(event_type: &EventType, catalogue: &Catalogue) -> Value {
    let Some(prefix) = event_type.name.strip_suffix('*') else {
        return json!({ "const": event_type.name });
    };
    let own = catalogue.types().iter().map(|t| t.name.as_str());
    let own: Vec<&str> =
        own.filter(|name| name.starts_with(prefix) && !name.ends_with('*')).collect();
    let pattern = format!("^{}", prefix.replace('.', "\\."));
    match own.is_empty() {
        true => json!({ "pattern": pattern }),
        false => json!({ "pattern": pattern, "not": { "enum": own } }),
    }
}

fn data(event_type: &EventType) -> Value {
    let mut members = Map::new();
    for field in &event_type.fields {
        members.insert(field.name.clone(), field_schema(field));
    }
    let required: Vec<&str> =
        event_type.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    let mut schema = json!({
        "type": "object",
        "description": format!("The data of `{}`.", event_type.name),
        "properties": members,
        "additionalProperties": true,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let groups: Vec<Value> = event_type.one_of.iter().map(|group| any_of(group)).collect();
    if !groups.is_empty() {
        schema["allOf"] = json!(groups);
    }
    schema
}

fn any_of(group: &[String]) -> Value {
    let one = |name: &String| json!({ "required": [name] });
    json!({ "anyOf": group.iter().map(one).collect::<Vec<_>>() })
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        FieldKind::Id => json!({ "type": ["string", "integer"] }),
        FieldKind::Text => json!({ "type": ["string"] }),
        FieldKind::Integer => json!({ "type": ["integer"] }),
        FieldKind::Number => json!({ "type": ["number"] }),
        FieldKind::Bool => json!({ "type": ["boolean"] }),
        FieldKind::Time => json!({
            "type": ["string", "number"],
            "description": "An RFC 3339 time, or milliseconds since 1970.",
        }),
        FieldKind::Object => json!({ "type": ["object"] }),
        FieldKind::Texts => json!({ "type": ["array"], "items": { "type": "string" } }),
        FieldKind::Objects => json!({ "type": ["array"], "items": { "type": "object" } }),
    };
    if field.kind == FieldKind::Id || field.identifies {
        schema["minLength"] = json!(1);
        schema["maxLength"] = json!(ID_MAX_CHARS);
    }
    if let Some((least, greatest)) = field.range {
        schema["minimum"] = json!(least);
        schema["maximum"] = json!(greatest);
    }
    if field.kind == FieldKind::Text && !field.values.is_empty() {
        schema["enum"] = json!(field.values);
    }
    if let Some(shape) = &field.shape {
        schema["description"] = json!(format!("Usually has: {shape}. This is not checked."));
    }
    if !field.required {
        allow_null(&mut schema);
    }
    schema
}

/// An optional field may be there and null.
fn allow_null(schema: &mut Value) {
    for name in ["type", "enum"] {
        let null = if name == "type" { json!("null") } else { Value::Null };
        if let Some(values) = schema.get_mut(name).and_then(Value::as_array_mut) {
            values.push(null);
        }
    }
}

/// Whether channels of this kind can be subscribed to.
pub fn is_served(kind: &ChannelKind) -> bool {
    kind.classes.iter().any(|class| matches!(class, Class::Stream | Class::State))
}

/// What the catalogue says of channel kinds and event types, for generators of clients.
pub(super) fn catalogue_extension(catalogue: &Catalogue) -> Value {
    let kinds = catalogue.channel_kinds().iter().map(|kind| {
        json!({
            "kind": kind.name,
            "id": kind.id,
            "carries": kind.carries,
            "classes": kind.classes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            "readers": kind.readers.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
            "served": is_served(kind),
        })
    });
    let types = delivered(catalogue).map(|t| {
        let mut entry = json!({
            "type": t.name,
            "priority": t.priority.number(),
            "channels": t.channels.iter().map(|rule| rule.text.as_str()).collect::<Vec<_>>(),
        });
        if !t.unchecked {
            entry["data"] = json!(format!("#/components/schemas/{}", data_schema_name(t)));
        }
        if t.delivery_policy == DeliveryPolicy::Emitted {
            entry["only_emitted"] = json!(true);
        }
        entry
    });
    json!({ "channel_kinds": kinds.collect::<Vec<_>>(), "event_types": types.collect::<Vec<_>>() })
}

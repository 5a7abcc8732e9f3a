//! Generates an Avro schema per event type that producers send, from the catalogue.
//!
//! A typed record is flat: the envelope's fields, then those of data. Its full name gives the type.
//! The generated files are committed as `schemas/avro/<type>.avsc`, so that they are available
//! without a build. A test fails if a file differs from the generated schema, and if a former
//! version can't be read with the present one.
//!
//! The shape of an object is not declared, so an object is JSON text in a string with an attribute.

#[cfg(test)]
mod tests;

use crate::catalogue::{Catalogue, EventType, Field, FieldKind};
use crate::json::quoted;

/// The first part of every namespace.
const NAMESPACE: &str = "tidewire";
/// The attribute of a string that holds JSON text.
pub const JSON_ATTRIBUTE: &str = "tidewire.json";
/// The Avro type of a time.
const TIME: &str = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
/// The Avro type of an object or a list of objects.
const JSON_TEXT: &str = r#"{"type": "string", "tidewire.json": true}"#;

/// A field of a record.
struct AvroField<'a> {
    name: &'a str,
    kind: &'a str,
    required: bool,
    doc: String,
}

/// The envelope's fields: name, type, required, doc.
const ENVELOPE: &[(&str, &str, bool, &str)] = &[
    (
        "event_id",
        r#""string""#,
        false,
        "Unique within the account; a repeated one is dropped. Without it no resend is recognised.",
    ),
    ("account_id", r#""string""#, true, "The tenant."),
    ("timestamp", TIME, false, "Event time; the time of the append where it is null."),
    ("correlation_id", r#""string""#, false, "What the event belongs to."),
    ("priority", r#""int""#, false, "0 low, 1 normal, 2 high, 3 critical; the type's if null."),
    ("key", r#""string""#, false, "Chooses the partition of the input if it is sent over HTTP."),
    ("source", r#""string""#, false, "The producer's name."),
];

/// The types that have a schema: those that producers send, without patterns.
pub fn types(catalogue: &Catalogue) -> impl Iterator<Item = &EventType> {
    let sent = |t: &&EventType| t.producers && !t.internal && !t.name.ends_with('*');
    catalogue.types().iter().filter(sent)
}

/// The full name of a canonical type's record: `post.created` is `tidewire.post.Created`.
pub fn full_name(event_type: &str) -> String {
    let (namespace, name) = names(event_type);
    format!("{namespace}.{name}")
}

fn names(event_type: &str) -> (String, String) {
    let (leading, last) = match event_type.rsplit_once('.') {
        Some((leading, last)) => (Some(leading), last),
        None => (None, event_type),
    };
    let namespace = match leading {
        Some(leading) => format!("{NAMESPACE}.{leading}"),
        None => NAMESPACE.to_owned(),
    };
    (namespace, last.split('_').map(capitalised).collect())
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// The Avro schema of a type's record, as in its file.
pub fn avsc(event_type: &EventType) -> String {
    let (namespace, name) = names(&event_type.name);
    let doc = format!("The event {}, as producers send it.", event_type.name);
    let of_envelope = ENVELOPE.iter().filter(|(name, ..)| event_type.field(name).is_none()).map(
        |&(name, kind, required, doc)| AvroField { name, kind, required, doc: doc.to_owned() },
    );
    let of_data = event_type.fields.iter().map(|field| AvroField {
        name: &field.name,
        kind: avro_kind(field.kind),
        required: field.required && !is_filled(event_type, &field.name),
        doc: doc_of(event_type, field),
    });
    let fields: Vec<String> = of_envelope.chain(of_data).map(|entry| line(&entry)).collect();
    format!(
        "{{\n  \"type\": \"record\",\n  \"name\": {},\n  \"namespace\": {},\n  \"doc\": {},\n  \
         \"fields\": [\n{}\n  ]\n}}\n",
        quoted(&name),
        quoted(&namespace),
        quoted(&doc),
        fields.join(",\n")
    )
}

fn line(entry: &AvroField<'_>) -> String {
    let AvroField { name, kind, required, doc } = entry;
    let kind = match required {
        true => (*kind).to_owned(),
        false => format!("[\"null\", {kind}], \"default\": null"),
    };
    let doc = if doc.is_empty() { String::new() } else { format!(", \"doc\": {}", quoted(doc)) };
    format!("    {{\"name\": {}, \"type\": {kind}{doc}}}", quoted(name))
}

fn avro_kind(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Id | FieldKind::Text => r#""string""#,
        FieldKind::Integer => r#""long""#,
        FieldKind::Number => r#""double""#,
        FieldKind::Bool => r#""boolean""#,
        FieldKind::Time => TIME,
        FieldKind::Texts => r#"{"type": "array", "items": "string"}"#,
        FieldKind::Object | FieldKind::Objects => JSON_TEXT,
    }
}

/// Whether normalisation sets the field if a producer did not.
fn is_filled(event_type: &EventType, name: &str) -> bool {
    event_type.presets.iter().any(|(field, _)| field == name)
        || event_type.defaults.iter().any(|default| default.field == name)
}

/// The doc of a field: what its Avro type does not express.
fn doc_of(event_type: &EventType, field: &Field) -> String {
    let mut notes = Vec::new();
    match (field.kind, &field.shape) {
        (FieldKind::Object, None) => notes.push("A JSON object.".to_owned()),
        (FieldKind::Object, Some(shape)) => notes.push(format!("A JSON object: {shape}.")),
        (FieldKind::Objects, None) => notes.push("A JSON array of objects.".to_owned()),
        (FieldKind::Objects, Some(shape)) => {
            notes.push(format!("A JSON array of objects: {shape}."));
        }
        _ => {}
    }
    if !field.values.is_empty() {
        notes.push(format!("One of {}.", field.values.join(", ")));
    }
    if let Some((least, greatest)) = field.range {
        notes.push(format!("From {least} to {greatest}."));
    }
    for group in event_type.one_of.iter().filter(|group| group.contains(&field.name)) {
        notes.push(format!("At least one of {} is required.", group.join(", ")));
    }
    if ENVELOPE.iter().any(|(name, ..)| *name == field.name) {
        notes.push("A field of data; a record header sets the envelope field of this name.".into());
    }
    notes.join(" ")
}

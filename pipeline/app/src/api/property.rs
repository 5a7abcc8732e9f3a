//! Builds JSON Schemas of objects from lists of properties.
//!
//! The schemas stay within what JSON Schema draft 07 (AsyncAPI's default) and draft 2020-12
//! (OpenAPI 3.1) have in common, so both documents share them. An object that says nothing of
//! further properties may get some in a later release: clients ignore what they do not know.

use serde_json::{Map, Value, json};

/// A property of an object.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Whether every object has it.
    pub presence: Presence,
    /// Its schema, without a description.
    pub schema: Value,
    /// What it means, in one clause.
    pub meaning: &'static str,
}

/// Whether a property is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In every object.
    Always,
    /// In some.
    Sometimes,
}

/// A property that every object has.
pub(super) fn always(name: &'static str, schema: Value, meaning: &'static str) -> Property {
    Property { name, presence: Presence::Always, schema, meaning }
}

/// A property that some objects have.
pub(super) fn sometimes(name: &'static str, schema: Value, meaning: &'static str) -> Property {
    Property { name, presence: Presence::Sometimes, schema, meaning }
}

/// The schema of an object with these properties.
pub(super) fn object(meaning: &str, properties: &[Property]) -> Value {
    let mut members = Map::new();
    for property in properties {
        members.insert(property.name.to_owned(), described(&property.schema, property.meaning));
    }
    let required: Vec<&str> = properties
        .iter()
        .filter(|property| property.presence == Presence::Always)
        .map(|property| property.name)
        .collect();
    let mut schema = json!({ "type": "object", "description": meaning, "properties": members });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A schema with a description. Draft 07 ignores what is next to a reference, so that is
/// wrapped.
fn described(schema: &Value, meaning: &str) -> Value {
    let mut schema = match schema.get("$ref") {
        Some(_) => json!({ "allOf": [schema] }),
        None => schema.clone(),
    };
    schema["description"] = json!(meaning);
    schema
}

/// A reference to a named schema of the same document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A text.
pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// A whole number from 0 on.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A time as this server writes it.
pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// Exactly this text.
pub(super) fn constant(text: &str) -> Value {
    json!({ "type": "string", "const": text })
}

/// One of these texts.
pub(super) fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    let texts: Vec<&str> = texts.into_iter().collect();
    json!({ "type": "string", "enum": texts })
}

/// A list of these.
pub(super) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// The type of a schema in words, as the tables of `docs/protocol.md` show it.
pub fn kind_in_words(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return name.to_owned();
    }
    if let Some(constant) = schema["const"].as_str() {
        return format!("`\"{constant}\"`");
    }
    let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => {
            format!("list of {}", kind_in_words(&schema["items"]))
        }
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            kinds.join(" or ")
        }
        _ => "any".to_owned(),
    }
}

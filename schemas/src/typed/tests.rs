//! Tests of the typed schemas, of the committed files, and of their compatibility.
//!
//! If `TIDEWIRE_UPDATE` is set, the first test writes the committed files. A version with another
//! meaning is then kept under `avro/before/`, and every version kept there must stay readable with
//! the present one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde_json::Value;

use super::*;
use crate::event::SCHEMA_V1;

const UPDATE_COMMAND: &str =
    "TIDEWIRE_UPDATE=1 cargo test --release -p tidewire-schemas the_committed";

fn folder() -> PathBuf {
    // A test runs in its package's folder; CARGO_MANIFEST_DIR may be that of another clone.
    PathBuf::from("avro")
}

/// Every `.avsc` of a folder, by its name without the ending.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let schemas = paths.filter(|path| path.extension().is_some_and(|ending| ending == "avsc"));
    let named = |path: PathBuf| {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a schema is text"))
    };
    schemas.map(named).collect()
}

/// A schema without its docs.
fn meaning(schema: &str) -> Value {
    fn without_docs(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let kept = members.into_iter().filter(|(name, _)| name != "doc");
                Value::Object(kept.map(|(name, value)| (name, without_docs(value))).collect())
            }
            Value::Array(items) => items.into_iter().map(without_docs).collect(),
            other => other,
        }
    }
    without_docs(serde_json::from_str(schema).expect("a schema is JSON"))
}

/// `post.created.v2` is the second former version of `post.created`.
fn former(name: &str) -> Option<(&str, u32)> {
    let (name, version) = name.rsplit_once(".v")?;
    Some((name, version.parse().ok()?))
}

#[expect(clippy::disallowed_methods, reason = "the one place that may be told to write the files")]
fn update_if_requested() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if std::env::var_os("TIDEWIRE_UPDATE").is_some() {
            let all = types(Catalogue::builtin());
            all.for_each(|t| update(&folder(), &t.name, &avsc(t)));
        }
    });
}

/// Writes a schema, and keeps the one it replaces if that has another meaning.
fn update(folder: &Path, name: &str, new: &str) {
    let path = folder.join(format!("{name}.avsc"));
    if let Ok(old) = fs::read_to_string(&path)
        && meaning(&old) != meaning(new)
    {
        let before = folder.join("before");
        fs::create_dir_all(&before).expect("the folder can be made");
        let kept = files(&before);
        let versions = kept.keys().filter_map(|kept| former(kept)).filter(|(of, _)| *of == name);
        let next = versions.map(|(_, version)| version).max().unwrap_or(0) + 1;
        fs::write(before.join(format!("{name}.v{next}.avsc")), old).expect("it can be written");
    }
    fs::write(path, new).expect("the schema can be written");
}

/// Why `current` can't read what was written with `before`.
fn obstacle(current: &str, before: &str) -> Option<String> {
    let parse = |text| Schema::parse_str(text).expect("a schema is valid Avro");
    let (reader, writer) = (parse(current), parse(before));
    let names = [&writer, &reader].map(|schema| schema.name().map(|name| name.fullname(None)));
    if names[0] != names[1] {
        return Some(format!("the name was {:?} and is {:?}", names[0], names[1]));
    }
    match SchemaCompatibility::can_read(&writer, &reader) {
        Ok(Compatibility::Full) => None,
        // Not every record would be readable.
        Ok(Compatibility::Partial) => Some("a type became narrower".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn record_names_are_derived_from_types_and_unique() {
    for (event_type, name) in [
        ("post.created", "tidewire.post.Created"),
        ("account.health_alert", "tidewire.account.HealthAlert"),
        ("mention", "tidewire.Mention"),
        ("a.b.c_d_2e", "tidewire.a.b.CD2e"),
    ] {
        assert_eq!(full_name(event_type), name);
    }
    let mut seen = BTreeMap::from([("tidewire.Event".to_owned(), "the event on our topics")]);
    for event_type in Catalogue::builtin().types() {
        let before = seen.insert(full_name(&event_type.name), &event_type.name);
        assert_eq!(before, None, "{}", event_type.name);
    }
}

#[test]
fn every_type_that_producers_send_has_a_valid_schema() {
    let catalogue = Catalogue::builtin();
    let mut count = 0;
    for event_type in types(catalogue) {
        let schema = Schema::parse_str(&avsc(event_type)).expect(&event_type.name);
        let name = schema.name().expect("a record has a name").fullname(None);
        assert_eq!(name, full_name(&event_type.name));
        count += 1;
    }
    assert!(count > 50, "{count}");
    let has = |name: &str| types(catalogue).any(|event_type| event_type.name == name);
    assert!(has("post.created") && has("command.accepted"), "sent by producers");
    for name in ["custom.*", "command.*", "gateway.lease", "engagement.updated"] {
        assert!(catalogue.types().iter().any(|t| t.name == name) && !has(name), "{name}");
    }
}

/// The field's type and default in the schema of a type.
fn field(event_type: &str, name: &str) -> Option<String> {
    let event_type = Catalogue::builtin().resolve(event_type).expect("a type");
    let schema = meaning(&avsc(event_type));
    let fields = schema["fields"].as_array().expect("a record has fields").clone();
    let found = fields.into_iter().find(|field| field["name"] == name)?;
    let default = found.get("default").map(|default| format!(" = {default}"));
    Some(format!("{}{}", found["type"], default.unwrap_or_default()))
}

#[test]
fn each_kind_of_field_has_its_avro_type() {
    let check = |event_type: &str, name: &str, expected: &str| {
        assert_eq!(field(event_type, name).as_deref(), Some(expected), "{event_type} {name}");
    };
    check("post.created", "account_id", r#""string""#);
    check("post.created", "event_id", r#"["null","string"] = null"#);
    check("post.created", "priority", r#"["null","int"] = null"#);
    let time = r#"["null",{"logicalType":"timestamp-millis","type":"long"}] = null"#;
    check("post.created", "timestamp", time);
    check("post.updated", "scheduled_at", time);
    check("post.created", "author_id", r#""string""#);
    check("post.created", "lang", r#"["null","string"] = null"#);
    check("post.created", "hashtags", r#"["null",{"items":"string","type":"array"}] = null"#);
    let json = r#"{"tidewire.json":true,"type":"string"}"#;
    check("post.created", "author", &format!(r#"["null",{json}] = null"#));
    check("feed.recommended", "posts", json);
    check("account.login", "success", r#""boolean""#);
    check("account.followers_changed", "followers", r#""long""#);
    check("account.health_alert", "value", r#"["null","double"] = null"#);
}

#[test]
fn fields_with_defaults_are_optional() {
    for (event_type, name) in [("post.deleted", "author_id"), ("command.retweet", "command_id")] {
        let field = field(event_type, name);
        assert_eq!(field.as_deref(), Some(r#"["null","string"] = null"#), "{event_type}");
    }
}

#[test]
fn a_name_of_envelope_and_data_is_a_field_of_data() {
    let event_type = Catalogue::builtin().resolve("news.published").expect("a type");
    let schema = avsc(event_type);
    assert_eq!(schema.matches("\"source\"").count(), 1, "{schema}");
    assert!(schema.contains("a record header sets the envelope field"), "{schema}");
}

#[test]
fn the_committed_schemas_match_the_catalogue() {
    update_if_requested();
    let mut committed = files(&folder());
    for event_type in types(Catalogue::builtin()) {
        let name = &event_type.name;
        let file = committed.remove(name).unwrap_or_default();
        assert!(file == avsc(event_type), "{name}.avsc is out of date: run {UPDATE_COMMAND}");
    }
    committed.retain(|name, _| former(name).is_none_or(|(of, _)| of != "event"));
    let orphans: Vec<&String> = committed.keys().collect();
    assert!(orphans.is_empty(), "of no type that producers send: {orphans:?}");
}

#[test]
fn former_schemas_are_readable_with_the_present_one() {
    update_if_requested();
    let mut present = files(&folder());
    let mut before = files(&folder().join("before"));
    // The event schema has its version in its name; the latest reads all others.
    let versions: Vec<(u32, String)> = present
        .keys()
        .filter_map(|name| former(name).filter(|(of, _)| *of == "event"))
        .map(|(_, version)| (version, format!("event.v{version}")))
        .collect();
    let (_, latest) = versions.iter().max().expect("there is an event schema");
    present.insert("event".to_owned(), present[latest].clone());
    for (_, name) in &versions {
        before.insert(name.clone(), present[name].clone());
    }
    assert_eq!(before["event.v1"], SCHEMA_V1);
    for (name, schema) in &before {
        let (of, _) = former(name).expect("a former schema is called <type>.v<n>.avsc");
        let reader = present.get(of).unwrap_or_else(|| panic!("{name}: there is no {of} any more"));
        if let Some(obstacle) = obstacle(reader, schema) {
            panic!("{of} can't read what was written as {name}: {obstacle}");
        }
    }
}

#[test]
fn incompatible_changes_are_found() {
    let record = |name: &str, fields: &str| {
        format!(r#"{{"type": "record", "name": "{name}", "fields": [{fields}]}}"#)
    };
    let a = r#"{"name": "a", "type": "string"}"#;
    let before = record("t.R", a);
    let check = |fields: &str, expected: Option<&str>| match (
        obstacle(&record("t.R", fields), &before),
        expected,
    ) {
        (None, None) => {}
        (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
        other => panic!("{fields}: {other:?}"),
    };
    check(a, None);
    check("", None);
    check(&format!(r#"{a}, {{"name": "b", "type": ["null", "int"], "default": null}}"#), None);
    check(r#"{"name": "a", "type": ["null", "string"], "default": null}"#, None);
    check(&format!(r#"{a}, {{"name": "b", "type": "int"}}"#), Some("b"));
    check(r#"{"name": "a", "type": "long"}"#, Some("a"));
    let renamed = obstacle(&record("t.S", a), &before).expect("another name");
    assert!(renamed.contains("t.S"), "{renamed}");
    let wide = record("t.R", r#"{"name": "a", "type": ["null", "string"], "default": null}"#);
    let narrower = obstacle(&before, &wide).expect("null can't be read");
    assert!(narrower.contains("narrower"), "{narrower}");
}

#[test]
fn only_docs_may_change_without_changing_the_meaning() {
    let first = r#"{"type": "string", "doc": "x"}"#;
    assert_eq!(meaning(first), meaning(r#"{"doc": "y", "type": "string"}"#));
    assert_ne!(meaning(first), meaning(JSON_TEXT));
    assert_ne!(meaning(TIME), meaning(r#"{"type": "long"}"#));
    assert!(JSON_TEXT.contains(JSON_ATTRIBUTE));
}

#[test]
fn a_version_is_kept_only_if_its_meaning_changes() {
    let folder = std::env::temp_dir().join(format!("tidewire-typed-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let write = |text: &str| update(&folder, "a.b", text);
    let kept = || files(&folder.join("before")).into_iter().collect::<Vec<_>>();
    write(r#"{"type": "int"}"#);
    write(r#"{"type": "int", "doc": "x"}"#);
    assert_eq!(kept(), []);
    write(r#"{"type": "long"}"#);
    write(r#"{"type": "double"}"#);
    let versions =
        [("a.b.v1", r#"{"type": "int", "doc": "x"}"#), ("a.b.v2", r#"{"type": "long"}"#)];
    assert_eq!(kept(), versions.map(|(name, text)| (name.to_owned(), text.to_owned())));
    assert_eq!(files(&folder)["a.b"], r#"{"type": "double"}"#);
    fs::remove_dir_all(&folder).expect("it is ours");
}

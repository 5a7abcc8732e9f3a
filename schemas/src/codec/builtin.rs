//! The Avro schemas of this build: the event schema and one schema per event type.
//!
//! Implementations of Avro disagree on whether a schema's canonical form, and so its fingerprint,
//! includes logical types. Each schema is therefore registered under both fingerprints.

use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;

use super::writer::WriterSchema;
use crate::catalogue::Catalogue;
use crate::event::{FINGERPRINT_V1, SCHEMA_V1};
use crate::typed;

/// The only logical type of the generated schemas.
const LOGICAL: &str = r#", "logicalType": "timestamp-millis""#;

struct BuiltinSchemas {
    schemas: Vec<WriterSchema>,
    /// Indexes into `schemas`, by CRC-64-AVRO.
    fingerprints: HashMap<u64, usize>,
    /// Event types, by the full name of their record.
    types: HashMap<String, &'static str>,
}

static BUILTIN: LazyLock<BuiltinSchemas> = LazyLock::new(|| {
    let own = WriterSchema::avro(SCHEMA_V1, &[]).expect("a test parses the event schema");
    let mut builtin = BuiltinSchemas {
        schemas: vec![own],
        fingerprints: HashMap::from([(FINGERPRINT_V1, 0)]),
        types: HashMap::new(),
    };
    for event_type in typed::types(Catalogue::builtin()) {
        let text = typed::avsc(event_type);
        for form in [&text, &text.replace(LOGICAL, "")] {
            builtin.fingerprints.insert(fingerprint(form), builtin.schemas.len());
        }
        builtin
            .schemas
            .push(WriterSchema::avro(&text, &[]).expect("a test parses every typed schema"));
        builtin.types.insert(typed::full_name(&event_type.name), event_type.name.as_str());
    }
    builtin
});

/// The schema of a fingerprint (CRC-64-AVRO).
pub(super) fn schema(fingerprint: u64) -> Option<&'static WriterSchema> {
    let builtin = &*BUILTIN;
    builtin.fingerprints.get(&fingerprint).map(|at| &builtin.schemas[*at])
}

/// The event type whose typed records have this full name.
pub(super) fn event_type(full_name: &str) -> Option<&'static str> {
    BUILTIN.types.get(full_name).copied()
}

/// CRC-64-AVRO of a schema's canonical form.
fn fingerprint(schema: &str) -> u64 {
    let schema = Schema::parse_str(schema).expect("a test parses every schema");
    let bytes = schema.fingerprint::<Rabin>().bytes;
    u64::from_le_bytes(*bytes.first_chunk().expect("CRC-64 has eight bytes"))
}

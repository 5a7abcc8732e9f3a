//! The Avro schemas of a catalogue: the event schema and one schema per event type.
//!
//! Implementations of Avro disagree on whether a schema's canonical form, and so its fingerprint,
//! includes logical types. Each schema is therefore registered under both fingerprints.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;

use super::writer::WriterSchema;
use crate::catalogue::Catalogue;
use crate::event::{FINGERPRINT_V1, SCHEMA_V1};
use crate::typed;

/// The only logical type of the generated schemas.
const LOGICAL: &str = r#", "logicalType": "timestamp-millis""#;

/// The schemas, made once per catalogue.
#[derive(Debug)]
pub(crate) struct TypedSchemas {
    schemas: Vec<WriterSchema>,
    /// Indexes into `schemas`, by CRC-64-AVRO.
    fingerprints: HashMap<u64, usize>,
    /// Event types, by the full name of their record.
    types: HashMap<String, String>,
}

impl TypedSchemas {
    /// Those of `catalogue`.
    pub(crate) fn of(catalogue: &Catalogue) -> &Self {
        catalogue.typed_schemas(Self::new)
    }

    fn new(catalogue: &Catalogue) -> Self {
        let own = WriterSchema::avro(SCHEMA_V1, &[]).expect("a test parses the event schema");
        let mut schemas = Self {
            schemas: vec![own],
            fingerprints: HashMap::from([(FINGERPRINT_V1, 0)]),
            types: HashMap::new(),
        };
        for event_type in typed::types(catalogue) {
            let text = typed::avsc(event_type);
            for form in [&text, &text.replace(LOGICAL, "")] {
                schemas.fingerprints.insert(fingerprint(form), schemas.schemas.len());
            }
            let schema = WriterSchema::avro(&text, &[]);
            schemas.schemas.push(schema.expect("names of types and fields are names of Avro"));
            schemas.types.insert(typed::full_name(&event_type.name), event_type.name.clone());
        }
        schemas
    }

    /// The schema of a fingerprint (CRC-64-AVRO).
    pub(super) fn schema(&self, fingerprint: u64) -> Option<&WriterSchema> {
        self.fingerprints.get(&fingerprint).map(|at| &self.schemas[*at])
    }

    /// The event type whose typed records have this full name.
    pub(crate) fn event_type(&self, full_name: &str) -> Option<&str> {
        self.types.get(full_name).map(String::as_str)
    }
}

/// CRC-64-AVRO of a schema's canonical form.
fn fingerprint(schema: &str) -> u64 {
    let schema = Schema::parse_str(schema).expect("names of types and fields are names of Avro");
    let bytes = schema.fingerprint::<Rabin>().bytes;
    u64::from_le_bytes(*bytes.first_chunk().expect("CRC-64 has eight bytes"))
}

//! Resolves a schema id or GUID to a compiled schema, with all schemas that it references.
//!
//! Anyone who may register schemas controls their text, so everything is bounded: the bytes of the
//! texts, the number of references, their depth, and the time for all requests together. A circular
//! reference is an error.

use std::time::Instant;

use serde_json::Value;
use tidewire_schemas::codec::{RegistryFault, WriterSchema};

use super::cache::SchemaKey;
use super::exchange::{Exchange, ExchangeError, RegistryRefusal, path_segment};

/// Bytes of a schema's text together with those it references.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Schemas that one may reference, directly and through others.
const REFERENCES_MAX: usize = 64;
/// How long a chain of references may be.
const REFERENCE_DEPTH_MAX: usize = 16;

/// The API's code for an unknown id. A 404 without it means that the address is wrong.
const NO_SCHEMA: u64 = 40403;

/// The API's code for a path that it does not have.
const NO_PATH: u64 = 404;

/// Ids are signed 32-bit numbers; registries answer larger ones as if the address were wrong.
const ID_MAX: u32 = i32::MAX as u32;

/// A schema as the registry has it.
struct SchemaDocument {
    text: String,
    kind: String,
    references: Vec<Reference>,
}

/// A reference to another schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    subject: String,
    version: u64,
}

/// The schema of a key, and the bytes of the texts it was compiled from.
pub(super) fn schema(
    exchange: &Exchange,
    key: SchemaKey,
    deadline: Instant,
) -> Result<(WriterSchema, usize), RegistryFault> {
    let path = match key {
        SchemaKey::Id(id) if id > ID_MAX => {
            return Err(RegistryFault::Unknown(format!(
                "{id} is larger than any schema id; the record is probably not in Confluent's wire \
                 format, although it begins like it"
            )));
        }
        SchemaKey::Id(id) => format!("/schemas/ids/{id}"),
        SchemaKey::Guid(_) => format!("/schemas/guids/{key}"),
    };
    let asked = exchange.ask(&path, None, deadline);
    let answer = asked.map_err(|error| match (error, key) {
        (ExchangeError::Refused(RegistryRefusal { code: NO_SCHEMA, .. }), _) => {
            RegistryFault::Unknown(format!(
                "the schema registry at {} has no schema {key}; check that the producer uses the \
                 same registry",
                exchange.addresses()
            ))
        }
        (ExchangeError::Refused(RegistryRefusal { code: NO_PATH, .. }), SchemaKey::Guid(_)) => {
            RegistryFault::Unknown(format!(
                "the schema registry at {} finds no schemas by GUID, as newer versions of \
                 Confluent's do; update it, or set value.schema.id.serializer (Python: \
                 schema.id.serializer) in the producer to the prefix serialiser",
                exchange.addresses()
            ))
        }
        (other, _) => fault(key, other),
    })?;
    let document = parse_document(&answer).ok_or_else(|| not_a_schema(exchange, key))?;
    match document.kind.as_str() {
        "AVRO" => {}
        "JSON" => return Ok((WriterSchema::json(), document.text.len())),
        kind => {
            let kind = exchange.sanitize(kind);
            return Err(unusable(
                key,
                format!("is {kind}, which is not supported; send Avro or JSON"),
            ));
        }
    }
    let mut resolver = ReferenceResolver::new(exchange, key, deadline);
    resolver.count(&document.text)?;
    resolver.resolve(&document.references)?;
    let schema = WriterSchema::avro(&document.text, &resolver.texts)
        .map_err(|why| unusable(key, format!("can't be used: {}", exchange.sanitize(&why.0))))?;
    Ok((schema, resolver.bytes))
}

/// Reads a schema from an answer; `None` if the answer has another shape.
fn parse_document(answer: &Value) -> Option<SchemaDocument> {
    let text = answer.get("schema")?.as_str()?.to_owned();
    // A missing type means Avro, which is older than the field.
    let kind = match answer.get("schemaType") {
        None | Some(Value::Null) => "AVRO".to_owned(),
        Some(kind) => kind.as_str()?.to_owned(),
    };
    let references = match answer.get("references") {
        None | Some(Value::Null) => Vec::new(),
        Some(list) => list.as_array()?.iter().map(reference).collect::<Option<_>>()?,
    };
    Some(SchemaDocument { text, kind, references })
}

fn reference(value: &Value) -> Option<Reference> {
    Some(Reference {
        subject: value.get("subject")?.as_str()?.to_owned(),
        version: value.get("version")?.as_u64()?,
    })
}

/// Walks over all references of a schema, deepest first.
struct ReferenceResolver<'a> {
    exchange: &'a Exchange,
    key: SchemaKey,
    deadline: Instant,
    /// Texts in the order in which they have to be parsed.
    texts: Vec<String>,
    /// Bytes so far, the schema's own included.
    bytes: usize,
    /// References that were fetched.
    seen: Vec<Reference>,
    /// References from the schema to the current one.
    path: Vec<Reference>,
}

impl<'a> ReferenceResolver<'a> {
    fn new(exchange: &'a Exchange, key: SchemaKey, deadline: Instant) -> Self {
        Self {
            exchange,
            key,
            deadline,
            texts: Vec::new(),
            bytes: 0,
            seen: Vec::new(),
            path: Vec::new(),
        }
    }

    fn count(&mut self, text: &str) -> Result<(), RegistryFault> {
        self.bytes += text.len();
        if self.bytes <= TEXT_BYTES_MAX {
            return Ok(());
        }
        let mib = TEXT_BYTES_MAX >> 20;
        Err(unusable(self.key, format!("has more than {mib} MiB with its references")))
    }

    fn resolve(&mut self, references: &[Reference]) -> Result<(), RegistryFault> {
        for reference in references {
            if self.path.contains(reference) {
                let subject = self.exchange.sanitize(&reference.subject);
                return Err(unusable(
                    self.key,
                    format!("has a circular reference through {subject}"),
                ));
            }
            if self.seen.contains(reference) {
                continue;
            }
            if self.seen.len() == REFERENCES_MAX || self.path.len() == REFERENCE_DEPTH_MAX {
                return Err(unusable(
                    self.key,
                    format!(
                        "has more than {REFERENCES_MAX} references, or more than \
                         {REFERENCE_DEPTH_MAX} levels of them"
                    ),
                ));
            }
            self.seen.push(reference.clone());
            let document = self.fetch(reference)?;
            self.count(&document.text)?;
            self.path.push(reference.clone());
            self.resolve(&document.references)?;
            self.path.pop();
            self.texts.push(document.text);
        }
        Ok(())
    }

    fn fetch(&self, reference: &Reference) -> Result<SchemaDocument, RegistryFault> {
        let Reference { subject, version } = reference;
        let path = format!("/subjects/{}/versions/{version}", path_segment(subject));
        let answer = self.exchange.ask(&path, None, self.deadline).map_err(|error| {
            let ExchangeError::Refused(refusal) = error else { return fault(self.key, error) };
            let subject = self.exchange.sanitize(subject);
            let message = refusal.message;
            unusable(
                self.key,
                format!("references {subject} version {version}, which fails: {message}"),
            )
        })?;
        let document =
            parse_document(&answer).ok_or_else(|| not_a_schema(self.exchange, self.key))?;
        if document.kind == "AVRO" {
            return Ok(document);
        }
        let subject = self.exchange.sanitize(subject);
        Err(unusable(self.key, format!("references {subject}, which is not Avro")))
    }
}

fn fault(key: SchemaKey, error: ExchangeError) -> RegistryFault {
    match error {
        ExchangeError::Refused(RegistryRefusal { code, message }) => {
            RegistryFault::Unavailable(format!(
                "the schema registry refused the request for schema {key} ({code}: {message}); \
                 check registry.url and the login"
            ))
        }
        ExchangeError::Unavailable(why) => RegistryFault::Unavailable(why),
        ExchangeError::TooLarge(why) => unusable(key, format!("is too large: {why}")),
    }
}

fn unusable(key: SchemaKey, why: String) -> RegistryFault {
    RegistryFault::Unusable(format!("schema {key} {why}"))
}

fn not_a_schema(exchange: &Exchange, key: SchemaKey) -> RegistryFault {
    RegistryFault::Unavailable(format!(
        "{} answers the request for schema {key}, but not with a schema; check that registry.url \
         is a schema registry",
        exchange.addresses()
    ))
}

//! Resolves a schema id or GUID to a compiled schema, with all schemas that it references.
//!
//! Anyone who may register schemas controls their text, so everything is bounded: the bytes of the
//! texts, the number of references, their depth, and the time for all requests together. A circular
//! reference is an error. Whatever is wrong with a schema or its references concerns that schema
//! only; the registry counts as away only if it can't be asked for the schema itself.

use serde_json::Value;
use tidewire_schemas::codec::{RegistryFault, SchemaKey, WriterSchema};

use super::exchange::{AskLimit, Exchange, ExchangeError, RegistryRefusal, path_segment};

/// Bytes of a schema's text together with those it references.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Schemas that one may reference, directly and through others.
const REFERENCES_MAX: usize = 64;
/// How long a chain of references may be.
const REFERENCE_DEPTH_MAX: usize = 16;

/// The API's codes for something it does not have; 40403 is an unknown id. A 404 without them may
/// mean that the address is wrong.
const NOT_FOUND: std::ops::RangeInclusive<u64> = 40_400..=40_499;

/// The API's code for a path that it does not have.
const NO_PATH: u64 = 404;

/// Ids are signed 32-bit numbers; registries answer larger ones as if the address were wrong.
const ID_IMPOSSIBLE_MIN: u32 = 1 << 31;

/// The newest version of a subject, as a path has it.
const LATEST: &str = "latest";

/// Why there is no schema, by what that says about others.
#[derive(Debug)]
pub(super) enum SchemaFailure {
    /// The registry can't be asked; why, and what to do.
    Outage(String),
    /// The registry answers; only this schema is concerned.
    OfSchema(RegistryFault),
}

/// A schema as the registry has it.
struct SchemaDocument {
    text: String,
    kind: String,
    references: Vec<Reference>,
}

/// Why an answer is no schema.
enum DocumentError {
    /// It has no text of a schema.
    NotASchema,
    /// It has one, and this is wrong with the rest.
    Malformed(String),
}

/// A reference to another schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    subject: String,
    /// A number or [`LATEST`].
    version: String,
}

/// The fault of a number that is no schema id, which needs no request.
pub(super) fn impossible_id(key: SchemaKey) -> Option<RegistryFault> {
    let SchemaKey::Id(id @ ID_IMPOSSIBLE_MIN..) = key else { return None };
    Some(RegistryFault::Unknown(format!(
        "{id} is larger than any schema id; the record is probably not in Confluent's wire format, \
         although it begins like it"
    )))
}

/// The schema of a key, and the bytes of the texts it was compiled from.
pub(super) fn schema(
    exchange: &Exchange,
    key: SchemaKey,
    limit: AskLimit,
) -> Result<(WriterSchema, usize), SchemaFailure> {
    let document = document(exchange, key, limit)?;
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
    let mut resolver = ReferenceResolver::new(exchange, key, limit);
    resolver.count(&document.text)?;
    resolver.resolve(&document.references)?;
    let schema = WriterSchema::avro(&document.text, &resolver.texts)
        .map_err(|why| unusable(key, format!("can't be used: {}", exchange.sanitize(&why.0))))?;
    Ok((schema, resolver.bytes))
}

/// The schema of a key, without those it references.
fn document(
    exchange: &Exchange,
    key: SchemaKey,
    limit: AskLimit,
) -> Result<SchemaDocument, SchemaFailure> {
    let path = match key {
        SchemaKey::Id(_) => format!("/schemas/ids/{key}"),
        SchemaKey::Guid(_) => format!("/schemas/guids/{key}"),
    };
    let mut has_path = true;
    let why = match exchange.ask_within(&path, None, limit) {
        Ok(answer) => match parse_document(exchange, &answer) {
            Ok(document) => return Ok(document),
            Err(DocumentError::Malformed(why)) => return Err(unusable(key, why)),
            Err(DocumentError::NotASchema) => not_a_schema(exchange, key),
        },
        Err(ExchangeError::Refused(RegistryRefusal { code, .. })) if NOT_FOUND.contains(&code) => {
            return Err(unknown(format!(
                "the schema registry at {} has no schema {key}; check that the producer uses the \
                 same registry",
                exchange.addresses()
            )));
        }
        Err(ExchangeError::Refused(RegistryRefusal { code, message })) => {
            has_path = code != NO_PATH;
            format!(
                "the schema registry refused the request for schema {key} ({code}: {message}); \
                 check registry.url and the login"
            )
        }
        Err(ExchangeError::NoPath(why)) => {
            has_path = false;
            why
        }
        Err(ExchangeError::Unrecognized(why)) => why,
        Err(ExchangeError::Unavailable(why)) => return Err(SchemaFailure::Outage(why)),
        Err(ExchangeError::Denied(why)) => return Err(unavailable(why)),
        Err(ExchangeError::TooLarge(why)) => {
            return Err(unusable(key, format!("is too large: {why}")));
        }
    };
    // A registry may answer so for one schema; anything else at this address does for all.
    if !exchange.is_registry(limit.deadline) {
        return Err(SchemaFailure::Outage(why));
    }
    match key {
        SchemaKey::Guid(_) if !has_path => Err(no_guids(exchange)),
        _ => Err(unusable(key, format!("can't be read from the registry: {why}"))),
    }
}

/// Reads a schema from an answer.
fn parse_document(exchange: &Exchange, answer: &Value) -> Result<SchemaDocument, DocumentError> {
    let text = answer.get("schema").and_then(Value::as_str).ok_or(DocumentError::NotASchema)?;
    // A missing type means Avro, which is older than the field.
    let kind = match answer.get("schemaType") {
        None | Some(Value::Null) => "AVRO",
        Some(Value::String(kind)) => kind,
        Some(other) => {
            let other = exchange.sanitize(&other.to_string());
            return Err(DocumentError::Malformed(format!("has the schemaType {other}, no text")));
        }
    };
    let references = match answer.get("references") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| reference(one).ok_or_else(|| malformed_reference(exchange, one)))
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(malformed_reference(exchange, other)),
    };
    Ok(SchemaDocument { text: text.to_owned(), kind: kind.to_owned(), references })
}

fn malformed_reference(exchange: &Exchange, value: &Value) -> DocumentError {
    let value = exchange.sanitize(&value.to_string());
    DocumentError::Malformed(format!(
        "has the reference {value}; a reference needs a subject and a version, which is a number \
         from 1, or -1 or \"latest\""
    ))
}

/// A reference; `None` if it has no subject or no valid version. Confluent's API writes the newest
/// version as -1 too.
fn reference(value: &Value) -> Option<Reference> {
    let subject = value.get("subject")?.as_str()?.to_owned();
    let version = match value.get("version")? {
        Value::String(text) if text == LATEST => LATEST.to_owned(),
        number => match number.as_i64()? {
            -1 => LATEST.to_owned(),
            number @ 1.. => number.to_string(),
            _ => return None,
        },
    };
    Some(Reference { subject, version })
}

/// Walks over all references of a schema, deepest first.
struct ReferenceResolver<'a> {
    exchange: &'a Exchange,
    key: SchemaKey,
    limit: AskLimit,
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
    fn new(exchange: &'a Exchange, key: SchemaKey, limit: AskLimit) -> Self {
        Self {
            exchange,
            key,
            limit,
            texts: Vec::new(),
            bytes: 0,
            seen: Vec::new(),
            path: Vec::new(),
        }
    }

    fn count(&mut self, text: &str) -> Result<(), SchemaFailure> {
        self.bytes += text.len();
        if self.bytes <= TEXT_BYTES_MAX {
            return Ok(());
        }
        let mib = TEXT_BYTES_MAX >> 20;
        Err(unusable(self.key, format!("has more than {mib} MiB with its references")))
    }

    fn resolve(&mut self, references: &[Reference]) -> Result<(), SchemaFailure> {
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
            // Two versions may be one text, and `latest` is one of the others.
            if !self.texts.contains(&document.text) {
                self.texts.push(document.text);
            }
        }
        Ok(())
    }

    /// The registry just answered for the schema itself, so that a reference that can't be had now
    /// delays this schema only. One that it does not give is the schema's fault.
    fn fetch(&self, reference: &Reference) -> Result<SchemaDocument, SchemaFailure> {
        let Reference { subject, version } = reference;
        let path = format!("/subjects/{}/versions/{version}", path_segment(subject));
        let subject = self.exchange.sanitize(subject);
        let failed = |what: String| {
            unusable(self.key, format!("references {subject} version {version}, which {what}"))
        };
        let answer = match self.exchange.ask_within(&path, None, self.limit) {
            Ok(answer) => answer,
            Err(ExchangeError::Unavailable(why) | ExchangeError::Denied(why)) => {
                return Err(unavailable(why));
            }
            Err(
                ExchangeError::Refused(RegistryRefusal { message: why, .. })
                | ExchangeError::NoPath(why)
                | ExchangeError::Unrecognized(why)
                | ExchangeError::TooLarge(why),
            ) => return Err(failed(format!("fails: {why}"))),
        };
        match parse_document(self.exchange, &answer) {
            Ok(document) if document.kind == "AVRO" => Ok(document),
            Ok(_) => Err(failed("is not Avro".to_owned())),
            Err(DocumentError::NotASchema) => Err(failed("is no schema".to_owned())),
            Err(DocumentError::Malformed(why)) => Err(failed(why)),
        }
    }
}

fn unusable(key: SchemaKey, why: String) -> SchemaFailure {
    SchemaFailure::OfSchema(RegistryFault::Unusable(format!("schema {key} {why}")))
}

fn unknown(why: String) -> SchemaFailure {
    SchemaFailure::OfSchema(RegistryFault::Unknown(why))
}

/// The registry has no path for GUIDs.
fn no_guids(exchange: &Exchange) -> SchemaFailure {
    unknown(format!(
        "the schema registry at {} finds no schemas by GUID, as newer versions of Confluent's do; \
         update it, or set value.schema.id.serializer (Python: schema.id.serializer) in the \
         producer to the prefix serialiser",
        exchange.addresses()
    ))
}

/// The registry answers, but this schema can't be asked for.
fn unavailable(why: String) -> SchemaFailure {
    SchemaFailure::OfSchema(RegistryFault::Unavailable(why))
}

fn not_a_schema(exchange: &Exchange, key: SchemaKey) -> String {
    format!(
        "{} answers the request for schema {key}, but not with a schema; check that registry.url \
         is a schema registry",
        exchange.addresses()
    )
}

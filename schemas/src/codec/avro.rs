//! Decodes Avro records: finds the schema that wrote them and what their fields mean.
//!
//! ```text
//! C3 01 · fingerprint (8 bytes)  · record     single-object: a schema of the catalogue
//! 00    · schema id (4 bytes)    · record     Confluent's framing: a schema of the registry
//! ```
//!
//! A record is a whole envelope if it has a field `data` that its type does not declare. Otherwise
//! it is typed: the header `event_type`, a field of that name or the record's full name gives its
//! type; fields with the envelope's names are the envelope's unless the type declares them as its
//! own; every other field is a field of `data`. Headers set the envelope fields that the record
//! lacks.
//!
//! Both go through the validation of the JSON envelope. Where a header names the schema, the value
//! has no framing.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use super::context::{DecodeContext, HeaderLookup};
use super::format::SINGLE_OBJECT;
use super::headers::{plain_text, singles};
use super::read::{DecodedFields, read};
use super::read_plan::{Node, PlanRecord, ReadPlan};
use super::registry::{AdmitFailure, SchemaKey};
use super::schema_header;
use super::typed_schemas::TypedSchemas;
use super::writer::{RecordFormat, WriterSchema};
use crate::catalogue::{Catalogue, EventType, FieldKind};
use crate::envelope::{
    Admitted, DATA_MAX_DEPTH, DATA_MAX_FIELDS, DataField, Envelope, EventData, Reason, Rejection,
    TimeUnit, complete, rejection, shown, text,
};
use crate::json::{self, JsonMember, Scanner};

/// Envelope fields a record or its headers may have.
const ENVELOPE: [&str; 8] = [
    "event_type",
    "event_id",
    "account_id",
    "timestamp",
    "correlation_id",
    "priority",
    "key",
    "source",
];

/// The record of encoded events, whose timestamp is in milliseconds without a logical type.
const EVENT_RECORD: &str = "tidewire.Event";

/// A schema of the catalogue or of the registry.
enum Schema<'a> {
    Typed(&'a WriterSchema),
    Registered(Arc<WriterSchema>),
}

impl Deref for Schema<'_> {
    type Target = WriterSchema;

    fn deref(&self) -> &WriterSchema {
        match self {
            Self::Typed(schema) => schema,
            Self::Registered(schema) => schema,
        }
    }
}

/// A schema and the bytes it wrote.
type SchemaAndRecord<'a> = (Schema<'a>, &'a [u8]);

/// Finds the schema of a record by its header, else by one of the two framings.
fn find<'a>(
    context: &DecodeContext<'a>,
    bytes: &'a [u8],
    headers: &dyn HeaderLookup,
) -> Result<SchemaAndRecord<'a>, AdmitFailure> {
    if let Some(schema) = schema_header::schema(context, headers)? {
        return Ok((Schema::Registered(schema), bytes));
    }
    match bytes.strip_prefix(&SINGLE_OBJECT) {
        Some(bytes) => Ok(single_object(context.catalogue, bytes)?),
        None => framed(context, bytes),
    }
}

/// A record in single-object encoding.
fn single_object<'a>(
    catalogue: &'a Catalogue,
    bytes: &'a [u8],
) -> Result<SchemaAndRecord<'a>, Rejection> {
    let (fingerprint, record) = bytes.split_first_chunk().ok_or_else(|| {
        let message = "the record ends within the fingerprint, the 8 bytes after C3 01";
        Rejection::new(Reason::AvroDecode, message)
    })?;
    let fingerprint = u64::from_le_bytes(*fingerprint);
    let schema = TypedSchemas::of(catalogue).schema(fingerprint).ok_or_else(|| {
        let message = format!(
            "no schema of the catalogue has the fingerprint {fingerprint:016x}; use one of \
             `tidewire schemas export`, or register yours and write with its id (Confluent's \
             framing)"
        );
        Rejection::new(Reason::SchemaUnknown, message)
    })?;
    Ok((Schema::Typed(schema), record))
}

/// A record in Confluent's framing.
fn framed<'a>(
    context: &DecodeContext<'_>,
    bytes: &'a [u8],
) -> Result<SchemaAndRecord<'a>, AdmitFailure> {
    let (id, record) = bytes[1..].split_first_chunk().ok_or_else(|| {
        let message = "the record ends within the schema id, the 4 bytes after the first byte 0";
        Rejection::new(Reason::AvroDecode, message)
    })?;
    let id = u32::from_be_bytes(*id);
    let registry = context.registry.ok_or_else(|| {
        let message = format!(
            "the record needs schema {id} of a registry, but none is configured; set registry.url"
        );
        Rejection::new(Reason::RegistryUnavailable, message)
    })?;
    let schema = registry.schema(id).map_err(|fault| {
        let reject = |reason, why| Rejection::new(reason, format!("schema {id}: {why}"));
        fault.failure(SchemaKey::Id(id), reject)
    })?;
    Ok((Schema::Registered(schema), record))
}

/// Decodes a record with a schema to an event.
pub(super) fn admit(
    context: &DecodeContext<'_>,
    bytes: &[u8],
    headers: &dyn HeaderLookup,
) -> Result<Admitted, AdmitFailure> {
    let (schema, record) = find(context, bytes, headers)?;
    match &schema.format {
        RecordFormat::Json => {
            let envelope = Envelope::read(text(Some(record))?)?;
            Ok(complete(context.catalogue, envelope, context.origin)?)
        }
        RecordFormat::Avro(plan) => {
            let fields = read(plan, record)?;
            let from_headers = HeaderFields::of(headers)?;
            let record = AvroRecord {
                plan,
                record: fields.record,
                fields: &fields,
                from_headers: &from_headers,
            };
            Ok(record.admit(context)?)
        }
    }
}

/// Decodes a record with a schema to the JSON object that is an event's data.
pub(super) fn as_data(
    context: &DecodeContext<'_>,
    bytes: &[u8],
    headers: &dyn HeaderLookup,
) -> Result<String, AdmitFailure> {
    let (schema, record) = find(context, bytes, headers)?;
    Ok(schema.to_json(record).map(Cow::into_owned)?)
}

/// Envelope fields from headers, as JSON, in the order of [`ENVELOPE`].
struct HeaderFields([Option<String>; ENVELOPE.len()]);

impl HeaderFields {
    fn of(headers: &dyn HeaderLookup) -> Result<Self, Rejection> {
        let mut given = [const { None }; ENVELOPE.len()];
        for ((name, value), slot) in ENVELOPE.iter().zip(singles(headers, ENVELOPE)).zip(&mut given)
        {
            let text = plain_text(name, value)?;
            *slot = text.map(|text| quoted_header(name, &text));
        }
        Ok(Self(given))
    }
}

/// A header's value as JSON: a number where the envelope has numbers, else a string.
fn quoted_header(name: &str, text: &str) -> String {
    let is_number = matches!(name, "timestamp" | "priority")
        && text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_number { text.to_owned() } else { json::quoted(text) }
}

/// A decoded record with the envelope fields of its headers.
struct AvroRecord<'a> {
    plan: &'a ReadPlan,
    record: &'a PlanRecord,
    fields: &'a DecodedFields<'a>,
    from_headers: &'a HeaderFields,
}

impl<'a> AvroRecord<'a> {
    fn admit(&self, context: &DecodeContext<'_>) -> Result<Admitted, Rejection> {
        let event_type = self.event_type(context.catalogue);
        let name = json::string(&event_type).unwrap_or_default();
        let declared = context.catalogue.resolve(&name);
        let mut envelope = Envelope { event_type: Some(&event_type), ..Envelope::default() };
        let data = self.data_field(declared);
        // Declared here because the envelope borrows from it.
        let inner;
        if let Some(at) = data {
            self.fill(&mut envelope, None);
            let known = |name: &str| name == "data" || ENVELOPE.contains(&name);
            let others = self.record.fields.iter().filter(|field| !known(&field.name));
            envelope.ignored = others.count().try_into().unwrap_or(u32::MAX);
            inner = inner_text(self.fields.value(at));
            envelope.data = DataField::of_text(&inner).map_err(|refused| Rejection {
                field: refused.field.or(Some("data".to_owned())),
                ..refused
            })?;
        } else {
            self.fill(&mut envelope, declared);
            envelope.data = Some(DataField::Object(EventData::of_members(self.members(declared)?)));
        }
        complete(context.catalogue, envelope, context.origin)
    }

    /// The type's name as JSON: from the header, the field or the record's name, in this order.
    fn event_type(&self, catalogue: &Catalogue) -> Cow<'a, str> {
        if let Some(given) = &self.from_headers.0[0] {
            return Cow::Borrowed(given);
        }
        if let Some(value) = self.own(ENVELOPE[0]) {
            return Cow::Borrowed(value);
        }
        let name = TypedSchemas::of(catalogue).event_type(&self.record.name);
        let name = name.unwrap_or(&self.record.name);
        Cow::Owned(json::quoted(name))
    }

    /// A field of the record that is not null.
    fn own(&self, name: &str) -> Option<&'a str> {
        let at = self.record.fields.iter().position(|field| field.name == name)?;
        Some(self.fields.value(at)).filter(|value| *value != "null")
    }

    /// The index of the field `data` of a whole envelope.
    fn data_field(&self, declared: Option<&EventType>) -> Option<usize> {
        let is_own = declared.is_some_and(|of| of.field("data").is_some());
        let at = self.record.fields.iter().position(|field| field.name == "data")?;
        (!is_own).then_some(at)
    }

    /// The envelope's fields, except those the type declares as its own.
    fn fill(&self, envelope: &mut Envelope<'a>, declared: Option<&EventType>) {
        let slots = [
            &mut envelope.event_id,
            &mut envelope.account_id,
            &mut envelope.timestamp,
            &mut envelope.correlation_id,
            &mut envelope.priority,
            &mut envelope.key,
            &mut envelope.source,
        ];
        for ((name, given), slot) in ENVELOPE.iter().zip(&self.from_headers.0).skip(1).zip(slots) {
            let own = if is_own(declared, name) { None } else { self.own(name) };
            *slot = own.or(given.as_deref());
            if *name == "timestamp" && own.is_some() && self.states_millis() {
                envelope.time_unit = TimeUnit::Stated;
            }
        }
    }

    /// Whether the schema makes the record's timestamp milliseconds: by a logical type, or since it
    /// is the schema of encoded events.
    fn states_millis(&self) -> bool {
        let is_time = |node: &Node| matches!(node, Node::Time(_));
        self.record.name == EVENT_RECORD
            || self.record.fields.iter().filter(|field| field.name == "timestamp").any(|field| {
                match self.plan.node(field.node) {
                    Node::Union(branches) => branches.iter().any(|at| is_time(self.plan.node(*at))),
                    node => is_time(node),
                }
            })
    }

    /// The fields of data.
    fn members(&self, declared: Option<&EventType>) -> Result<Vec<JsonMember<'a>>, Rejection> {
        let mut members = Vec::with_capacity(self.record.fields.len());
        for (at, field) in self.record.fields.iter().enumerate() {
            if ENVELOPE.contains(&&*field.name) && !is_own(declared, &field.name) {
                continue;
            }
            if members.len() == DATA_MAX_FIELDS {
                let message = format!("data has more than {DATA_MAX_FIELDS} fields");
                return Err(Rejection::of(Reason::TooLarge, "data", message));
            }
            let kind = declared.and_then(|of| of.field(&field.name)).map(|field| field.kind);
            let value = match (self.fields.value(at), kind) {
                (value, Some(FieldKind::Object | FieldKind::Objects)) if value.starts_with('"') => {
                    Cow::Owned(json_in_text(value, &field.name)?)
                }
                (value, _) => Cow::Borrowed(value),
            };
            members.push(JsonMember { name: Cow::Borrowed(&field.name), value });
        }
        Ok(members)
    }
}

fn is_own(declared: Option<&EventType>, name: &str) -> bool {
    declared.is_some_and(|of| of.field(name).is_some())
}

/// `data` of a whole envelope: JSON in a string, or a record or map.
fn inner_text(value: &str) -> Cow<'_, str> {
    json::string(value).unwrap_or(Cow::Borrowed(value))
}

/// JSON text in an Avro string, compacted.
fn json_in_text(value: &str, field: &str) -> Result<String, Rejection> {
    let text = inner_text(value);
    // It is nested in two levels: data and this field.
    let mut scanner = Scanner::new(&text, DATA_MAX_DEPTH - 1);
    let checked = scanner.value().and_then(|inner| scanner.end().map(|()| inner));
    let inner = checked.map_err(|error| {
        let refused = rejection(error);
        let shown = shown(field);
        let message = format!("data.{shown} must be JSON in a string: {}", refused.message);
        Rejection::of(refused.reason, field, message).in_data()
    })?;
    let mut out = String::with_capacity(inner.len());
    json::compact(inner, &mut out);
    Ok(out)
}

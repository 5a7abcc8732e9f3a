//! Decodes CloudEvents 1.0 by mapping their attributes to the envelope.
//!
//! ```text
//! type          event_type           time           timestamp
//! source, id    event_id             subject        key
//! accountid     account_id           correlationid  correlation_id
//! priority      priority             source         source, if it is short enough
//! ```
//!
//! Structured mode: one JSON object (CloudEvents JSON format, section 3). Binary mode: attributes
//! in headers `ce_…`, data in the value (Kafka protocol binding, section 3.2). Data is JSON, plain
//! or in base64, or Avro with a known schema. Other attributes are ignored and counted.
//!
//! The event id is `ce_source|id`. A source is a URI-reference, which has no `|` (RFC 3986), so two
//! pairs of source and id never give the same event id. The prefix keeps it apart from ids that
//! producers of JSON envelopes choose. If it is no valid id, a hash of both takes its place.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::context::{DecodeContext, HeaderLookup};
use super::format::{CONTENT_TYPE, SPECVERSION_HEADER, media_type};
use super::headers::{attribute, plain_text, singles};
use super::registry::AdmitFailure;
use super::schema_header::needs_schema;
use crate::channel::{ID_MAX_ENCODED_CHARS, encoded_len};
use crate::envelope::{
    Admitted, DATA_MAX_DEPTH, DataField, Envelope, ID_MAX_CHARS, Reason, Rejection,
    SOURCE_MAX_CHARS, TimeUnit, complete, rejection, shown, text, without_mark,
};
use crate::id::hash128;
use crate::json::{self, Scanner, quoted};

/// The only released version 1.
const SPECVERSION: &str = "1.0";

/// Attributes that are read.
const NAMES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "accountid",
    "correlationid",
    "priority",
];

/// The headers of these attributes in binary mode, in the same order.
const HEADERS: [&str; NAMES.len()] = [
    SPECVERSION_HEADER,
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    CONTENT_TYPE,
    "ce_accountid",
    "ce_correlationid",
    "ce_priority",
];

/// Between source and id in an event id.
const ID_SEPARATOR: char = '|';

/// The attributes of an event as text, in the order of [`NAMES`].
#[derive(Default)]
struct Attributes<'a> {
    values: [Option<Cow<'a, str>>; NAMES.len()],
    ignored: u32,
}

/// An event in structured mode.
pub(super) fn structured(
    context: &DecodeContext<'_>,
    value: Option<&[u8]>,
) -> Result<Admitted, Rejection> {
    let text = text(value)?;
    let mut scanner = Scanner::new(text, DATA_MAX_DEPTH + 1);
    if scanner.peek() != Some(b'{') {
        scanner.value().and_then(|_| scanner.end()).map_err(rejection)?;
        return Err(Rejection::new(Reason::NotObject, "a CloudEvent must be a JSON object"));
    }
    scanner.open(b'{').map_err(rejection)?;
    let mut attributes = Attributes::default();
    let (mut data, mut base64) = (None, None);
    let mut seen = Vec::with_capacity(NAMES.len() + 2);
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first).map_err(rejection)? {
        if seen.contains(&name) {
            let message = format!("`{name}` occurs twice; send it once");
            return Err(Rejection::of(Reason::BadField, name, message));
        }
        match &*name {
            "data" => data = DataField::read(&mut scanner, text)?,
            "data_base64" => base64 = Some(scanner.value().map_err(rejection)?),
            known if NAMES.contains(&known) => {
                attributes.set(known, scanner.value().map_err(rejection)?)?;
            }
            _ => {
                scanner.value().map_err(rejection)?;
                attributes.ignored = attributes.ignored.saturating_add(1);
                continue;
            }
        }
        seen.push(name);
    }
    scanner.end().map_err(rejection)?;
    attributes.check_kind()?;
    let decoded = base64.map(decoded).transpose()?;
    let data = match &decoded {
        Some(inner) => data_in(inner)?,
        None => data.unwrap_or(empty()),
    };
    attributes.complete(context, data)
}

/// An event in binary mode, its attributes in headers.
pub(super) fn binary(
    context: &DecodeContext<'_>,
    value: Option<&[u8]>,
    headers: &dyn HeaderLookup,
) -> Result<Admitted, AdmitFailure> {
    let attributes = Attributes::of_headers(headers)?;
    if let Some(bytes) = value.filter(|value| !value.is_empty())
        && needs_schema(bytes, headers)?
    {
        let inner = super::avro::as_data(context, bytes, headers)?;
        let data = data_in(&inner)?;
        return Ok(attributes.complete(context, data)?);
    }
    attributes.check_kind()?;
    let data = match value {
        None | Some([]) => empty(),
        value => data_in(text(value)?)?,
    };
    Ok(attributes.complete(context, data)?)
}

/// The data of an event that has none: an empty object.
fn empty<'a>() -> DataField<'a> {
    DataField::Object(crate::envelope::EventData::of_members(Vec::new()))
}

fn data_in(text: &str) -> Result<DataField<'_>, Rejection> {
    Ok(DataField::of_text(without_mark(text))?.unwrap_or(empty()))
}

fn decoded(value: &str) -> Result<String, Rejection> {
    let refuse = |message: &str| Rejection::of(Reason::BadField, "data_base64", message);
    let text = json::string(value).ok_or_else(|| refuse("data_base64 must be a string"))?;
    let bytes =
        STANDARD.decode(text.as_bytes()).map_err(|_| refuse("data_base64 is not valid base64"))?;
    String::from_utf8(bytes).map_err(|_| refuse("data_base64 must contain JSON in UTF-8"))
}

impl<'a> Attributes<'a> {
    fn of_headers(headers: &'a dyn HeaderLookup) -> Result<Self, Rejection> {
        let mut attributes = Self::default();
        let found = HEADERS.into_iter().zip(singles(headers, HEADERS));
        for (((header, value), name), slot) in found.zip(NAMES).zip(&mut attributes.values) {
            let text = match header {
                CONTENT_TYPE => plain_text(header, value),
                _ => attribute(header, value),
            };
            *slot =
                text.map_err(|refused| Rejection { field: Some(name.to_owned()), ..refused })?;
        }
        headers.each_header(&mut |header, _| {
            let is_other = header.starts_with("ce_") && !HEADERS.contains(&header);
            attributes.ignored = attributes.ignored.saturating_add(u32::from(is_other));
        });
        Ok(attributes)
    }

    fn set(&mut self, name: &str, value: &'a str) -> Result<(), Rejection> {
        let place =
            NAMES.iter().position(|known| *known == name).expect("callers pass names of NAMES");
        if value != "null" {
            let text = json::scalar(value).ok_or_else(|| {
                let message = format!("the attribute `{name}` must be a string");
                Rejection::of(Reason::BadField, name, message)
            })?;
            self.values[place] = Some(text);
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let place = NAMES.iter().position(|known| *known == name)?;
        self.values[place].as_deref().filter(|text| !text.is_empty())
    }

    fn need(&self, name: &str) -> Result<&str, Rejection> {
        self.get(name).ok_or_else(|| {
            let message = format!("a CloudEvent needs the attribute `{name}`");
            Rejection::of(Reason::MissingField, name, message)
        })
    }

    /// Rejects data that is not JSON.
    fn check_kind(&self) -> Result<(), Rejection> {
        let kind = self.get("datacontenttype").unwrap_or("application/json");
        let media = media_type(kind);
        if media.ends_with("/json") || media.ends_with("+json") {
            return Ok(());
        }
        let message = format!("data of an event must be JSON, not {}", shown(&media));
        Err(Rejection::of(Reason::ConnectorMapping, "datacontenttype", message))
    }

    fn complete(
        &self,
        context: &DecodeContext<'_>,
        data: DataField<'_>,
    ) -> Result<Admitted, Rejection> {
        let version = self.need("specversion")?;
        if version != SPECVERSION {
            let version = shown(version);
            let message = format!("specversion must be {SPECVERSION}, not `{version}`");
            return Err(Rejection::of(Reason::BadField, "specversion", message));
        }
        let id = quoted(&self.event_id()?);
        let event_type = quoted(self.need("type")?);
        let source = self.get("source").filter(|source| source.chars().count() <= SOURCE_MAX_CHARS);
        let [account, time, subject, correlation, priority] =
            ["accountid", "time", "subject", "correlationid", "priority"]
                .map(|name| self.get(name).map(|text| field(name, text)));
        let source = source.map(quoted);
        let envelope = Envelope {
            event_id: Some(&id),
            event_type: Some(&event_type),
            account_id: account.as_deref(),
            timestamp: time.as_deref(),
            time_unit: TimeUnit::Assumed,
            key: subject.as_deref(),
            correlation_id: correlation.as_deref(),
            priority: priority.as_deref(),
            source: source.as_deref(),
            data: Some(data),
            ignored: self.ignored,
            is_cloudevent: true,
        };
        complete(context.catalogue, envelope, context.origin).map_err(in_attribute_names)
    }

    /// `source` and `id` together, which the standard makes unique.
    fn event_id(&self) -> Result<String, Rejection> {
        let (source, id) = (self.need("source")?, self.need("id")?);
        let plain = format!("ce_{source}{ID_SEPARATOR}{id}");
        let is_valid = plain.len() <= ID_MAX_CHARS
            && encoded_len(&plain) <= ID_MAX_ENCODED_CHARS
            && plain.bytes().all(|byte| byte.is_ascii_graphic());
        if is_valid && !source.contains(ID_SEPARATOR) {
            return Ok(plain);
        }
        let hash = u128::from_be_bytes(hash128(source, id));
        Ok(format!("ce_{hash:032x}"))
    }
}

/// An attribute as a field of the envelope: a priority becomes a number, the rest strings.
fn field(name: &str, text: &str) -> String {
    match name {
        "priority" if text.parse::<u8>().is_ok() => text.to_owned(),
        _ => quoted(text),
    }
}

/// Names the attribute in a rejection instead of the envelope field.
fn in_attribute_names(refused: Rejection) -> Rejection {
    let field = refused.field.map(|field| {
        let theirs = match &*field {
            "event_id" => "id",
            "event_type" => "type",
            "account_id" => "accountid",
            "timestamp" => "time",
            "key" => "subject",
            "correlation_id" => "correlationid",
            other => return other.to_owned(),
        };
        theirs.to_owned()
    });
    let message = match field.as_deref() {
        Some("accountid") => {
            format!("{}; in a CloudEvent it is the attribute `accountid`", refused.message)
        }
        _ => refused.message,
    };
    Rejection { field, message, ..refused }
}

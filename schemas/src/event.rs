//! An event after normalisation, and its encoding on lanes, facts and outputs.
//!
//! The encoding is Avro's single-object form of `avro/event.v1.avsc`: the bytes `C3 01`, the
//! schema's CRC-64-AVRO fingerprint (8 bytes, little-endian), then the record. Encoder and decoder
//! are written by hand, because every event is encoded once and decoded several times; tests
//! compare both with apache-avro. Decoding borrows: an [`EventView`] points into the bytes of a
//! record.
//!
//! Damaged bytes are an error, never a panic. Nothing here knows the meaning of a type.

use crate::Priority;

/// The schema, for other readers of the topics.
pub const SCHEMA_V1: &str = include_str!("../avro/event.v1.avsc");
/// CRC-64-AVRO of the schema's parsing canonical form. The schema has no logical types, because
/// implementations of Avro disagree about the canonical form of those and thus about this number.
pub const FINGERPRINT_V1: u64 = 0xdbc3_e045_224c_cd94;

const MARKER: [u8; 2] = [0xc3, 0x01];
const HEADER_BYTES: usize = 10;
/// Bytes reserved for lengths, timestamp and priority when sizing a buffer.
const NUMBERS_MAX_BYTES: usize = 48;

/// An event after normalisation: what lanes and outputs carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique within the account; by default the position of the record in the input.
    pub event_id: String,
    /// The canonical type.
    pub event_type: String,
    /// The tenant: account, workspace or brand.
    pub account_id: String,
    /// Event time, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// What this event belongs to; by default the event's own id.
    pub correlation_id: String,
    /// Chooses the lane.
    pub priority: Priority,
    /// The entity the event is about; chooses the partition.
    pub key: String,
    /// The producer's name.
    pub source: Option<String>,
    /// The alias under which the type was sent, if it was one.
    pub alias: Option<String>,
    /// A JSON object as text.
    pub data: String,
}

/// The same, borrowed from encoded bytes or from an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'a> {
    /// See [`Event::event_id`].
    pub event_id: &'a str,
    /// See [`Event::event_type`].
    pub event_type: &'a str,
    /// See [`Event::account_id`].
    pub account_id: &'a str,
    /// See [`Event::timestamp_ms`].
    pub timestamp_ms: i64,
    /// See [`Event::correlation_id`].
    pub correlation_id: &'a str,
    /// See [`Event::priority`].
    pub priority: Priority,
    /// See [`Event::key`].
    pub key: &'a str,
    /// See [`Event::source`].
    pub source: Option<&'a str>,
    /// See [`Event::alias`].
    pub alias: Option<&'a str>,
    /// See [`Event::data`].
    pub data: &'a str,
}

/// Why bytes are not an encoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They don't begin with Avro's single-object marker.
    #[error("not an encoded event: the bytes don't begin with C3 01")]
    NotSingleObject,
    /// They were written with another schema, perhaps a newer version.
    #[error("unknown event schema {fingerprint:016x}, this build reads {FINGERPRINT_V1:016x}")]
    UnknownSchema {
        /// The fingerprint they carry.
        fingerprint: u64,
    },
    /// The record does not follow the schema.
    #[error("the event's bytes are damaged at byte {at}")]
    Damaged {
        /// Where reading stopped, counted from the marker.
        at: usize,
    },
}

impl Event {
    /// Encodes the event.
    pub fn encode(&self) -> Vec<u8> {
        self.view().encode()
    }

    /// Borrows the event.
    pub fn view(&self) -> EventView<'_> {
        EventView {
            event_id: &self.event_id,
            event_type: &self.event_type,
            account_id: &self.account_id,
            timestamp_ms: self.timestamp_ms,
            correlation_id: &self.correlation_id,
            priority: self.priority,
            key: &self.key,
            source: self.source.as_deref(),
            alias: self.alias.as_deref(),
            data: &self.data,
        }
    }
}

impl<'a> EventView<'a> {
    /// Encodes the event.
    pub fn encode(&self) -> Vec<u8> {
        let texts = self.event_id.len()
            + self.event_type.len()
            + self.account_id.len()
            + self.correlation_id.len()
            + self.key.len()
            + self.source.map_or(0, str::len)
            + self.alias.map_or(0, str::len)
            + self.data.len();
        let mut out = Vec::with_capacity(HEADER_BYTES + NUMBERS_MAX_BYTES + texts);
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&FINGERPRINT_V1.to_le_bytes());
        put_text(&mut out, self.event_id);
        put_text(&mut out, self.event_type);
        put_text(&mut out, self.account_id);
        put_long(&mut out, self.timestamp_ms);
        put_text(&mut out, self.correlation_id);
        put_long(&mut out, i64::from(self.priority.number()));
        put_text(&mut out, self.key);
        put_optional(&mut out, self.source);
        put_optional(&mut out, self.alias);
        put_text(&mut out, self.data);
        out
    }

    /// Decodes bytes; the view borrows from them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if !bytes.starts_with(&MARKER) {
            return Err(DecodeError::NotSingleObject);
        }
        let fingerprint = bytes
            .get(MARKER.len()..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(DecodeError::Damaged { at: bytes.len() })?;
        let fingerprint = u64::from_le_bytes(*fingerprint);
        if fingerprint != FINGERPRINT_V1 {
            return Err(DecodeError::UnknownSchema { fingerprint });
        }
        let mut decoder = EventDecoder { bytes, at: HEADER_BYTES };
        let view = decoder.event().ok_or(DecodeError::Damaged { at: decoder.at })?;
        if decoder.at == bytes.len() {
            Ok(view)
        } else {
            Err(DecodeError::Damaged { at: decoder.at })
        }
    }

    /// Copies it.
    pub fn to_event(&self) -> Event {
        Event {
            event_id: self.event_id.to_owned(),
            event_type: self.event_type.to_owned(),
            account_id: self.account_id.to_owned(),
            timestamp_ms: self.timestamp_ms,
            correlation_id: self.correlation_id.to_owned(),
            priority: self.priority,
            key: self.key.to_owned(),
            source: self.source.map(str::to_owned),
            alias: self.alias.map(str::to_owned),
            data: self.data.to_owned(),
        }
    }
}

/// Avro's `int` and `long`: zigzag, then LEB128.
fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// A union of null (branch 0) and string (branch 1).
fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    put_long(out, i64::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

/// Reads encoded bytes; every step is `None` if they don't follow the schema.
struct EventDecoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> EventDecoder<'a> {
    fn event(&mut self) -> Option<EventView<'a>> {
        Some(EventView {
            event_id: self.text()?,
            event_type: self.text()?,
            account_id: self.text()?,
            timestamp_ms: self.long()?,
            correlation_id: self.text()?,
            priority: Priority::from_number(self.long()?)?,
            key: self.text()?,
            source: self.optional()?,
            alias: self.optional()?,
            data: self.text()?,
        })
    }

    fn long(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.long()?).ok()?;
        let end = self.at.checked_add(len)?;
        let text = std::str::from_utf8(self.bytes.get(self.at..end)?).ok()?;
        self.at = end;
        Some(text)
    }

    fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.long()? {
            0 => Some(None),
            1 => self.text().map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::rabin::Rabin;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;
    use apache_avro::writer::datum::GenericDatumWriter;
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        Schema::parse_str(SCHEMA_V1).expect("the schema is valid")
    }

    /// The event as apache-avro sees it.
    fn value(event: &Event) -> Value {
        let text = |text: &str| Value::String(text.to_owned());
        let optional = |value: &Option<String>| match value {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(value) => Value::Union(1, Box::new(text(value))),
        };
        let fields = [
            ("event_id", text(&event.event_id)),
            ("event_type", text(&event.event_type)),
            ("account_id", text(&event.account_id)),
            ("timestamp", Value::Long(event.timestamp_ms)),
            ("correlation_id", text(&event.correlation_id)),
            ("priority", Value::Int(i32::from(event.priority.number()))),
            ("key", text(&event.key)),
            ("source", optional(&event.source)),
            ("alias", optional(&event.alias)),
            ("data", text(&event.data)),
        ];
        Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn events() -> impl Strategy<Value = Event> {
        let texts = (".{0,20}", "[a-z.]{0,20}", ".{0,20}", ".{0,20}", ".{0,20}", ".{0,300}");
        let optional = (proptest::option::of(".{0,9}"), proptest::option::of(".{0,9}"));
        (texts, optional, any::<i64>(), 0..4i64).prop_map(|(texts, optional, time, priority)| {
            Event {
                event_id: texts.0,
                event_type: texts.1,
                account_id: texts.2,
                timestamp_ms: time,
                correlation_id: texts.3,
                priority: Priority::from_number(priority).expect("0 to 3"),
                key: texts.4,
                source: optional.0,
                alias: optional.1,
                data: texts.5,
            }
        })
    }

    #[test]
    fn the_fingerprint_is_apache_avros() {
        let fingerprint = schema().fingerprint::<Rabin>();
        assert_eq!(fingerprint.bytes, FINGERPRINT_V1.to_le_bytes());
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_agree_with_apache_avro(event in events()) {
            let ours = event.encode();
            let schema = schema();
            let writer = GenericDatumWriter::builder(&schema).build().expect("resolved");
            let reference = writer.write_value_to_vec(value(&event)).expect("valid");
            prop_assert_eq!(&ours[HEADER_BYTES..], &reference[..]);
            let reader = GenericDatumReader::builder(&schema).build().expect("resolved");
            let read = reader.read_value(&mut &ours[HEADER_BYTES..]);
            prop_assert_eq!(read.expect("valid"), value(&event));
            prop_assert_eq!(EventView::decode(&ours).map(|view| view.to_event()), Ok(event));
        }

        #[test]
        fn damaged_bytes_never_panic(
            event in events(),
            at in any::<proptest::sample::Index>(),
            byte: u8,
            keep in any::<proptest::sample::Index>(),
        ) {
            let bytes = event.encode();
            let mut altered = bytes.clone();
            altered[at.index(bytes.len())] = byte;
            let _ = EventView::decode(&altered);
            let short = &bytes[..keep.index(bytes.len())];
            prop_assert!(EventView::decode(short).is_err());
            let long = [&bytes[..], &[0]].concat();
            let at = bytes.len();
            prop_assert_eq!(EventView::decode(&long), Err(DecodeError::Damaged { at }));
        }

        #[test]
        fn no_record_after_the_header_panics(
            record in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let header = [&MARKER[..], &FINGERPRINT_V1.to_le_bytes()].concat();
            let _ = EventView::decode(&[header, record].concat());
        }
    }

    #[test]
    fn foreign_bytes_give_their_error() {
        assert_eq!(EventView::decode(b""), Err(DecodeError::NotSingleObject));
        assert_eq!(EventView::decode(b"{}"), Err(DecodeError::NotSingleObject));
        assert_eq!(EventView::decode(&MARKER), Err(DecodeError::Damaged { at: 2 }));
        let other = [&MARKER[..], &7u64.to_le_bytes()].concat();
        assert_eq!(EventView::decode(&other), Err(DecodeError::UnknownSchema { fingerprint: 7 }));
    }
}

//! Detects the format of a record by its headers, else by its first bytes, and decodes it.
//!
//! Nothing beyond them is inspected, so the content of a record can't change how it is read. The
//! one exception is JSON beside a header with a schema id, which `schema_header` explains.

use super::context::{DecodeContext, HeaderLookup};
use super::format::{CONTENT_TYPE, SPECVERSION_HEADER, STRUCTURED, media_type};
use super::headers::{plain_text, singles};
use super::{avro, cloudevents, schema_header};
use crate::envelope::{self, Admitted, Reason, Rejection, within_limits};

/// Decodes, normalises and validates a producer's record of any format, and fills in what the
/// producer left out. May wait for the registry, for a bounded time.
///
/// The content type decides the mode of a CloudEvent, so attributes in headers beside a structured
/// one have no effect (CloudEvents Kafka protocol binding, section 3).
pub fn admit(
    context: &DecodeContext<'_>,
    value: Option<&[u8]>,
    headers: &dyn HeaderLookup,
) -> Result<Admitted, Rejection> {
    let [kind, version] = singles(headers, [CONTENT_TYPE, SPECVERSION_HEADER]);
    let kind = plain_text(CONTENT_TYPE, kind)?.map_or(String::new(), |kind| media_type(&kind));
    if kind.starts_with(CLOUDEVENTS) {
        return match kind.as_str() {
            STRUCTURED => cloudevents::structured(context, value),
            "application/cloudevents-batch+json" => Err(unread(
                "a record holds one CloudEvent; send each event of a batch as a record of its own",
            )),
            _ => Err(unread(
                "only the JSON format of CloudEvents is read: application/cloudevents+json",
            )),
        };
    }
    if plain_text(SPECVERSION_HEADER, version)?.is_some() {
        return cloudevents::binary(context, value, headers);
    }
    match value {
        Some(bytes) if schema_header::needs_schema(bytes, headers)? => {
            avro::admit(context, within_limits(value)?, headers)
        }
        _ => envelope::admit(context.catalogue, value, context.origin)
            .map_err(|rejection| explain_framing(rejection, &kind)),
    }
}

/// Names the two Avro framings if the content type is Avro and the value is neither Avro nor JSON.
fn explain_framing(rejection: Rejection, kind: &str) -> Rejection {
    let unread = matches!(rejection.reason, Reason::NotJson | Reason::NotUtf8);
    if !unread || !AVRO.contains(&kind) {
        return rejection;
    }
    let message = "the body begins neither with C3 01 (single-object encoding) nor with 00 \
                   (Confluent's framing), and is not JSON";
    Rejection { message: message.into(), ..rejection }
}

const AVRO: [&str; 3] = ["application/avro", "avro/binary", "application/vnd.apache.avro"];

/// How every content type of CloudEvents begins whose value has the attributes.
const CLOUDEVENTS: &str = "application/cloudevents";

fn unread(message: &str) -> Rejection {
    Rejection::of(Reason::ConnectorMapping, CONTENT_TYPE, message)
}

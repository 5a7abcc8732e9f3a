//! Detects the format of a record by its headers, else by its first bytes, and decodes it.
//!
//! Nothing beyond them is inspected, so the content of a record can't change how it is read.

use super::context::{DecodeContext, HeaderLookup};
use super::format::{CONTENT_TYPE, SPECVERSION_HEADER, STRUCTURED, is_avro, media_type};
use super::registry::AdmitFailure;
use super::{avro, cloudevents};
use crate::envelope::{self, Admitted, Reason, Rejection, within_limits};

/// Decodes, normalises and validates a producer's record of any format, and fills in what the
/// producer left out. May wait for the registry, for a bounded time; if it does not answer, nothing
/// is known about the record.
pub fn admit(
    context: &DecodeContext<'_>,
    value: Option<&[u8]>,
    headers: &dyn HeaderLookup,
) -> Result<Admitted, AdmitFailure> {
    if headers.header(SPECVERSION_HEADER).is_some() {
        return cloudevents::binary(context, value, headers);
    }
    let kind = headers.header(CONTENT_TYPE).unwrap_or_default();
    if kind.len() >= CLOUDEVENTS.len()
        && kind[..CLOUDEVENTS.len()].eq_ignore_ascii_case(CLOUDEVENTS)
    {
        return match media_type(kind).as_str() {
            STRUCTURED => Ok(cloudevents::structured(context, value)?),
            "application/cloudevents-batch+json" => Err(unread(
                "a record holds one CloudEvent; send each event of a batch as a record of its own",
            )
            .into()),
            _ => Err(unread(
                "only the JSON format of CloudEvents is read: application/cloudevents+json",
            )
            .into()),
        };
    }
    match value {
        Some(bytes) if is_avro(bytes) => avro::admit(context, within_limits(value)?, headers),
        _ => envelope::admit(context.catalogue, value, context.origin)
            .map_err(|rejection| explain_framing(rejection, kind).into()),
    }
}

/// Names the two Avro framings if the content type is Avro and the value is neither Avro nor JSON.
fn explain_framing(rejection: Rejection, kind: &[u8]) -> Rejection {
    let unread = matches!(rejection.reason, Reason::NotJson | Reason::NotUtf8);
    if !unread || !AVRO.contains(&media_type(kind).as_str()) {
        return rejection;
    }
    let message = "the body begins neither with C3 01 (single-object encoding) nor with 00 \
                   (Confluent's framing), and is not JSON";
    Rejection { message: message.into(), ..rejection }
}

const AVRO: [&str; 3] = ["application/avro", "avro/binary", "application/vnd.apache.avro"];

const CLOUDEVENTS: &[u8] = b"application/cloudevents";

fn unread(message: &str) -> Rejection {
    Rejection::of(Reason::ConnectorMapping, CONTENT_TYPE, message)
}

//! Decodes the frames of clients into requests.
//!
//! A frame that is not a valid request becomes an error that names the right form, with the
//! client's `id` if that could be read. Whether a request is allowed is decided elsewhere.

use serde_json::{Map, Value};

use super::names::OpName;
use super::native::{ErrorCode, RequestError, StartAt};
use crate::fanout::config::REQUEST_ID_MAX_BYTES;

/// Characters of an unknown field's name that an error repeats.
const FIELD_NAME_SHOWN_CHARS: usize = 40;

/// A client's frame, decoded as far as possible.
pub(in crate::fanout) struct ClientRequest {
    /// The client's id, as JSON.
    pub(in crate::fanout) id: Option<Box<str>>,
    pub(in crate::fanout) op: Result<ClientOp, RequestError>,
}

/// What a client asks for.
pub(in crate::fanout) enum ClientOp {
    Subscribe(SubscribeOp),
    Unsubscribe { channel: String },
    Ping,
}

/// A channel to deliver, and from where on.
pub(in crate::fanout) struct SubscribeOp {
    /// As the client wrote it.
    pub(in crate::fanout) channel: String,
    pub(in crate::fanout) start: StartAt,
}

impl ClientRequest {
    /// Decodes one frame.
    pub(in crate::fanout) fn decode(text: &str) -> Self {
        let invalid =
            |code, message: &str| Self { id: None, op: Err(RequestError::new(code, message)) };
        let object = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(_) => {
                return invalid(
                    ErrorCode::InvalidMessage,
                    "not a JSON object: send one with an `op`",
                );
            }
            Err(error) => {
                return invalid(
                    ErrorCode::InvalidJson,
                    &format!("not JSON, send one object: {error}"),
                );
            }
        };
        let id: Option<Box<str>> = match object.get("id") {
            None | Some(Value::Null) => None,
            Some(id @ (Value::Number(_) | Value::String(_))) => Some(id.to_string().into()),
            Some(_) => {
                return invalid(ErrorCode::InvalidMessage, "`id` must be a number or a string");
            }
        };
        if id.as_ref().is_some_and(|id| id.len() > REQUEST_ID_MAX_BYTES) {
            return invalid(ErrorCode::InvalidMessage, "`id` is too long: at most 62 bytes");
        }
        Self { id, op: decode_op(&object) }
    }
}

fn decode_op(object: &Map<String, Value>) -> Result<ClientOp, RequestError> {
    let later = |text: &str| Err(RequestError::new(ErrorCode::NotFound, text));
    match object.get("op").and_then(Value::as_str).and_then(OpName::parse) {
        Some(OpName::Ping) => check_fields(object, "ping", &[])?,
        Some(OpName::Subscribe) => {
            check_fields(object, "subscribe", &["channel", "from", "filter"])?;
        }
        Some(OpName::Unsubscribe) => check_fields(object, "unsubscribe", &["channel"])?,
        _ => {}
    }
    match object.get("op").and_then(Value::as_str).and_then(OpName::parse) {
        Some(OpName::Ping) => Ok(ClientOp::Ping),
        Some(OpName::Subscribe) => decode_subscribe(object),
        Some(OpName::Unsubscribe) => Ok(ClientOp::Unsubscribe { channel: decode_channel(object)? }),
        Some(OpName::History) => {
            later("`history` is not served yet: subscribe with `from` instead")
        }
        Some(OpName::Send) => later("`send` is not served yet: post to /v1/events instead"),
        Some(OpName::Command) => later("`command` is not served yet"),
        Some(OpName::Refresh) => later("`refresh` is not served yet: connect again instead"),
        None => {
            let text = "`op` must be one of subscribe, unsubscribe, ping";
            Err(RequestError::new(ErrorCode::InvalidMessage, text))
        }
    }
}

/// Refuses fields that the operation does not have: a position under another name would otherwise
/// start at `latest`, and events would be missing without a word.
fn check_fields(
    object: &Map<String, Value>,
    op: &str,
    fields: &[&str],
) -> Result<(), RequestError> {
    let all: Vec<&str> = ["op", "id"].into_iter().chain(fields.iter().copied()).collect();
    let is_known = |name: &&String| all.contains(&name.as_str());
    let Some(other) = object.keys().find(|name| !is_known(name)) else { return Ok(()) };
    let name: String = other.chars().take(FIELD_NAME_SHOWN_CHARS).collect();
    let hint = match fields.contains(&"from") {
        true => "a position or a time is given as `from`".to_owned(),
        false => format!("it has {}", all.join(", ")),
    };
    let text = format!("`{op}` has no field `{name}`: {hint}");
    Err(RequestError::new(ErrorCode::InvalidMessage, text))
}

fn decode_channel(object: &Map<String, Value>) -> Result<String, RequestError> {
    match object.get("channel") {
        Some(Value::String(channel)) => Ok(channel.clone()),
        _ => {
            let text = "`channel` must be a string such as \"posts:alice\"";
            Err(RequestError::new(ErrorCode::InvalidMessage, text))
        }
    }
}

fn decode_subscribe(object: &Map<String, Value>) -> Result<ClientOp, RequestError> {
    let channel = decode_channel(object)?;
    if object.get("filter").is_some_and(|filter| !filter.is_null()) {
        return Err(RequestError::new(ErrorCode::InvalidFilter, "filters are not served yet"));
    }
    let start = match object.get("from") {
        None | Some(Value::Null) => StartAt::Latest,
        Some(Value::String(from)) => StartAt::parse(from)?,
        Some(_) => {
            let text = "`from` must be \"latest\", \"earliest\", a position or an RFC 3339 time";
            return Err(RequestError::new(ErrorCode::InvalidPosition, text));
        }
    };
    Ok(ClientOp::Subscribe(SubscribeOp { channel, start }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_refused_with_the_right_one() {
        let refused = |text: &str| match ClientRequest::decode(text).op {
            Err(error) => error.message,
            Ok(_) => panic!("{text} is accepted"),
        };
        let text = refused(r#"{"op":"subscribe","channel":"posts:a","position":"x"}"#);
        assert!(text.contains("`position`") && text.contains("`from`"), "{text}");
        let text = refused(r#"{"op":"ping","data":1}"#);
        assert!(text.contains("`data`") && text.contains("op, id"), "{text}");
        assert!(refused(r#"{"op":"unsubscribe","channel":"a:b","from":"x"}"#).contains("`from`"));
        let known =
            r#"{"op":"subscribe","id":1,"channel":"posts:a","from":"latest","filter":null}"#;
        assert!(ClientRequest::decode(known).op.is_ok());
    }
}

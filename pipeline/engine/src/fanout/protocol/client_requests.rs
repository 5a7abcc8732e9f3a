//! Decodes the frames of clients into requests.
//!
//! A frame that is not a valid request becomes an error that names the right form, with the
//! client's `id` if that could be read. A field that `subscribe` or `unsubscribe` does not have is
//! such an error too: the one that was skipped could be the client's position, and it would miss
//! what came since. Names that begin with `_` belong to the client and are never read. Whether a
//! request is allowed is decided elsewhere.

use serde_json::{Map, Value};
use tidewire_schemas::similar::most_similar;

use super::names::OpName;
use super::native::{ErrorCode, RequestError, SnapshotWish, StartAt};
use crate::fanout::config::REQUEST_ID_MAX_BYTES;

/// The fields of `subscribe`.
const SUBSCRIBE_FIELDS: [&str; 6] = ["op", "id", "channel", "from", "snapshot", "filter"];

/// The fields of `unsubscribe`.
const UNSUBSCRIBE_FIELDS: [&str; 3] = ["op", "id", "channel"];

/// Names that others give to where a subscription starts.
const STARTS: [&str; 8] = [
    "position",
    "since",
    "start",
    "offset",
    "cursor",
    "last_event_id",
    "lastEventId",
    "Last-Event-ID",
];

/// Characters of a field's name that an error repeats.
const SHOWN_CHARS: usize = 80;

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
    pub(in crate::fanout) snapshot: SnapshotWish,
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
        Some(OpName::Ping) => Ok(ClientOp::Ping),
        Some(OpName::Subscribe) => decode_subscribe(object),
        Some(OpName::Unsubscribe) => {
            check_fields(object, OpName::Unsubscribe, &UNSUBSCRIBE_FIELDS)?;
            Ok(ClientOp::Unsubscribe { channel: decode_channel(object)? })
        }
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

fn check_fields(
    object: &Map<String, Value>,
    op: OpName,
    known: &[&str],
) -> Result<(), RequestError> {
    let is_known = |name: &str| name.starts_with('_') || known.contains(&name);
    let Some(name) = object.keys().find(|name| !is_known(name)) else { return Ok(()) };
    let right = match most_similar(name, known.iter().copied()) {
        _ if STARTS.contains(&name.as_str()) && known.contains(&"from") => {
            "send where to start as `from`".to_owned()
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", known.join(", ")),
    };
    let name: String = name.chars().take(SHOWN_CHARS).collect();
    let text = format!("`{}` has no field `{name}`; {right}", op.as_str());
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
    check_fields(object, OpName::Subscribe, &SUBSCRIBE_FIELDS)?;
    let channel = decode_channel(object)?;
    if object.get("filter").is_some_and(|filter| !filter.is_null()) {
        return Err(RequestError::new(ErrorCode::InvalidFilter, "filters are not served yet"));
    }
    let start = match object.get("from") {
        None | Some(Value::Null) => StartAt::Latest,
        Some(Value::String(from)) => StartAt::parse(from)?,
        Some(Value::Number(from)) => StartAt::parse(&from.to_string())?,
        Some(_) => {
            let text = "`from` must be \"latest\", \"earliest\", a position or a time";
            return Err(RequestError::new(ErrorCode::InvalidPosition, text));
        }
    };
    let snapshot = match object.get("snapshot") {
        Some(Value::Bool(true)) => SnapshotWish::Send,
        None | Some(Value::Null | Value::Bool(false)) => SnapshotWish::Skip,
        Some(_) => {
            let text = "`snapshot` must be true or false";
            return Err(RequestError::new(ErrorCode::InvalidMessage, text));
        }
    };
    Ok(ClientOp::Subscribe(SubscribeOp { channel, start, snapshot }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Millis;

    fn check_refused(text: &str, part: &str) {
        match ClientRequest::decode(text).op {
            Err(error) => assert!(error.message.contains(part), "{text}: {}", error.message),
            Ok(_) => panic!("{text} is taken"),
        }
    }

    #[test]
    fn a_field_that_an_operation_does_not_have_is_refused_with_the_right_one() {
        let subscribe = |more: &str| format!(r#"{{"op":"subscribe","channel":"posts:a",{more}}}"#);
        for name in STARTS {
            check_refused(&subscribe(&format!(r#""{name}":"x""#)), "as `from`");
        }
        check_refused(&subscribe(r#""fron":"earliest""#), "did you mean `from`?");
        check_refused(&subscribe(r#""From":"earliest""#), "did you mean `from`?");
        check_refused(&subscribe(r#""colour":"red""#), "op, id, channel, from, snapshot, filter");
        check_refused(r#"{"op":"unsubscribe","chanel":"posts:a"}"#, "did you mean `channel`?");
        let id = ClientRequest::decode(&subscribe(r#""id":7,"position":"x""#)).id;
        assert_eq!(id.as_deref(), Some("7"), "the answer names the request");
    }

    #[test]
    fn the_snapshot_is_sent_if_it_is_asked_for() {
        let wish = |more: &str| {
            let text = format!(r#"{{"op":"subscribe","channel":"follows:a"{more}}}"#);
            match ClientRequest::decode(&text).op {
                Ok(ClientOp::Subscribe(subscribe)) => subscribe.snapshot,
                _ => panic!("a subscribe"),
            }
        };
        assert_eq!(wish(""), SnapshotWish::Skip);
        assert_eq!(wish(r#","snapshot":null"#), SnapshotWish::Skip);
        assert_eq!(wish(r#","snapshot":true"#), SnapshotWish::Send);
        assert_eq!(wish(r#","snapshot":false"#), SnapshotWish::Skip);
        let text = r#"{"op":"subscribe","channel":"follows:a","snapshot":"no"}"#;
        check_refused(text, "`snapshot` must be true or false");
    }

    #[test]
    fn fields_of_the_client_are_ignored() {
        for text in [
            r#"{"op":"subscribe","channel":"posts:a","_trace":{"id":1}}"#,
            r#"{"op":"unsubscribe","channel":"posts:a","_":null}"#,
            r#"{"op":"ping","sent":1767607200000}"#,
        ] {
            assert!(ClientRequest::decode(text).op.is_ok(), "{text}");
        }
    }

    #[test]
    fn a_start_may_be_a_number_of_milliseconds() {
        let text = r#"{"op":"subscribe","channel":"posts:a","from":1767607200000}"#;
        let Ok(ClientOp::Subscribe(subscribe)) = ClientRequest::decode(text).op else {
            panic!("a subscribe");
        };
        assert_eq!(subscribe.start, StartAt::Time(Millis(1_767_607_200_000)));
        for from in ["1767607200", "-1", "1.5", "true"] {
            let text = format!(r#"{{"op":"subscribe","channel":"posts:a","from":{from}}}"#);
            assert!(ClientRequest::decode(&text).op.is_err(), "{from}");
        }
    }
}

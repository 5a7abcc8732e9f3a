//! `GET /v1/ws` and `GET /v1/sse`: checks a request to subscribe and turns it into a stream.
//!
//! Everything about the request is checked here, by an ordinary handler, so that a refusal is an
//! ordinary HTTP error. A valid request leaves the HTTP server as a [`Takeover`]: the response head
//! as bytes, and the stream to open.
//!
//! The WebSocket handshake follows RFC 6455 §4.2. No extension is accepted: a frame is encoded once
//! for all connections, and compression per connection would end that.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use serde::Deserialize;

use tidewire_engine::fanout::config::SUBSCRIPTIONS_MAX;
use tidewire_engine::fanout::identity::{Accounts, Identity, Roles};
use tidewire_engine::fanout::protocol::native::{ErrorCode, RequestError, StartAt};
use tidewire_engine::fanout::shard::{Framing, OpenRequest, Shard};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::extensions::{CheckedOrigin, PermitSlot, TakeoverSlot};
use super::guard::RequestOrigin;
use super::response::ErrorResponse;
use super::state::RouterState;
use super::takeover::Takeover;
use crate::socket::limits::LimitReached;
use crate::telemetry;

/// The WebSocket subprotocol, accepted if the client offers it.
pub const SUBPROTOCOL: &str = "tidewire.v1";

/// The user of a request without `user=` (development only).
const ANONYMOUS: &str = "anonymous";

/// The longest `user=`.
pub const USER_CHARS: usize = 128;

/// The parameters of both endpoints; others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeQuery {
    user: Option<String>,
    channels: Option<String>,
    from: Option<String>,
    last_event_id: Option<String>,
}

/// `GET /v1/ws`.
pub async fn websocket(
    State(state): State<RouterState>,
    query: Result<Query<SubscribeQuery>, QueryRejection>,
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    let key = handshake(&request)?;
    let query = query.map_err(bad_query)?.0;
    let user = user_of(&query)?;
    state.wait_until_started().await;
    let mut head = String::from(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n",
    );
    push_header(&mut head, "sec-websocket-accept", &derive_accept_key(key.as_bytes()));
    if offers_subprotocol(request.headers()) {
        push_header(&mut head, "sec-websocket-protocol", SUBPROTOCOL);
    }
    head.push_str("\r\n");
    let open = OpenRequest {
        framing: Framing::WebSocket,
        identity: Arc::new(dev_identity(&user)),
        channels: Vec::new(),
        start: StartAt::Latest,
    };
    take_over(&request, Takeover { head: head.into_bytes(), open })
}

/// `GET /v1/sse`.
pub async fn sse(
    State(state): State<RouterState>,
    query: Result<Query<SubscribeQuery>, QueryRejection>,
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    if request.method() != Method::GET || has_body(request.headers()) {
        let message = "/v1/sse needs a GET request without a body";
        return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message).into());
    }
    let query = query.map_err(bad_query)?.0;
    let user = user_of(&query)?;
    let open = sse_open(query, dev_identity(&user), request.headers()).map_err(error_response)?;
    state.wait_until_started().await;
    let mut head = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
         cache-control: no-cache, no-transform\r\n\
         x-accel-buffering: no\r\nconnection: close\r\n",
    );
    if let Some(CheckedOrigin(RequestOrigin::Allowed(origin))) =
        request.extensions().get::<CheckedOrigin>()
    {
        push_header(&mut head, "access-control-allow-origin", origin.to_str().unwrap_or("null"));
        push_header(&mut head, "vary", "Origin");
    }
    head.push_str("\r\n");
    take_over(&request, Takeover { head: head.into_bytes(), open })
}

/// Counts the stream and makes the connection leave the HTTP server. The response returned here is
/// never written.
fn take_over(request: &Request<Body>, takeover: Takeover) -> Result<Response, SubscribeError> {
    let extensions = request.extensions();
    let (Some(takeover_slot), Some(permit_slot)) =
        (extensions.get::<TakeoverSlot>(), extensions.get::<PermitSlot>())
    else {
        return Err(ErrorResponse::overloaded(
            "this connection can't become a stream; open a new one",
        )
        .into());
    };
    if let Some(Err(full)) =
        permit_slot.with_permit(|permit| permit.count_stream(&takeover.open.identity))
    {
        return Err(limit_response(full).into());
    }
    takeover_slot.put(takeover);
    Ok(StatusCode::OK.into_response())
}

/// The error for a connection limit that was reached.
pub fn limit_response(full: LimitReached) -> ErrorResponse {
    telemetry::connection_refused(full.reason());
    match full {
        LimitReached::Process => {
            ErrorResponse::overloaded("this gateway has reached its limit of connections")
        }
        LimitReached::Address => ErrorResponse::new(
            ErrorCode::RateLimited,
            "this address has reached its limit of connections; close some first",
        ),
        LimitReached::User => ErrorResponse::new(
            ErrorCode::RateLimited,
            "this user has reached its limit of streams; close some first",
        ),
    }
}

fn bad_query(rejection: QueryRejection) -> ErrorResponse {
    ErrorResponse::new(ErrorCode::InvalidMessage, rejection.body_text())
}

fn user_of(query: &SubscribeQuery) -> Result<String, ErrorResponse> {
    let user = query.user.as_deref().filter(|user| !user.is_empty()).unwrap_or(ANONYMOUS);
    if user.chars().count() > USER_CHARS || user.chars().any(char::is_control) {
        let message = format!("user= must have 1 to {USER_CHARS} printable characters");
        return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message));
    }
    Ok(user.to_owned())
}

/// The identity of an unauthenticated user (development only): every account, every role.
fn dev_identity(user: &str) -> Identity {
    Identity { user: user.into(), accounts: Accounts::All, roles: Roles::ALL }
}

/// Checks what the shard would refuse, while an HTTP status can still say it.
fn sse_open(
    query: SubscribeQuery,
    identity: Identity,
    headers: &HeaderMap,
) -> Result<OpenRequest, RequestError> {
    let list = query.channels.unwrap_or_default();
    let channels: Vec<String> =
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if channels.is_empty() || channels.len() > SUBSCRIPTIONS_MAX {
        let message = format!(
            "channels= has {} channels; give 1 to {SUBSCRIPTIONS_MAX}, separated by commas",
            channels.len()
        );
        return Err(RequestError::new(ErrorCode::InvalidChannel, message));
    }
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last_event_id = header.or(query.last_event_id.as_deref()).filter(|id| !id.is_empty());
    let from = query.from.as_deref().filter(|from| !from.is_empty());
    let start = match (last_event_id, from) {
        (Some(id), _) => StartAt::parse(id)?,
        (None, Some(from)) => StartAt::parse(from)?,
        (None, None) => StartAt::Latest,
    };
    for channel in &channels {
        Shard::check(&identity, channel, &start)?;
    }
    Ok(OpenRequest { framing: Framing::Sse, identity: Arc::new(identity), channels, start })
}

/// An error of the fan-out as an HTTP error.
fn error_response(error: RequestError) -> ErrorResponse {
    ErrorResponse::new(error.code, error.message)
}

/// Why a request is not a valid WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakeRejection {
    /// It does not ask for a WebSocket.
    NotWebSocket,
    /// It asks for another version than 13.
    UnsupportedVersion,
    /// It lacks this, which RFC 6455 requires.
    Malformed(&'static str),
}

fn handshake(request: &Request<Body>) -> Result<String, HandshakeRejection> {
    let headers = request.headers();
    let upgrade = has_token(headers, UPGRADE.as_str(), "websocket");
    if !upgrade || request.method() != Method::GET {
        return Err(HandshakeRejection::NotWebSocket);
    }
    if request.version() != Version::HTTP_11 {
        return Err(HandshakeRejection::Malformed("HTTP/1.1"));
    }
    if !has_token(headers, CONNECTION.as_str(), "upgrade") {
        return Err(HandshakeRejection::Malformed("the header Connection: Upgrade"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeRejection::UnsupportedVersion);
    }
    if has_body(headers) {
        return Err(HandshakeRejection::Malformed("a request without a body"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    key.filter(|key| is_handshake_key(key))
        .map(str::to_owned)
        .ok_or(HandshakeRejection::Malformed("a Sec-WebSocket-Key of 16 bytes in base64"))
}

/// Why no stream is opened.
#[derive(Debug)]
pub enum SubscribeError {
    /// An ordinary error.
    Response(ErrorResponse),
    /// 426: not a WebSocket request of version 13; headers of the response name what is served.
    UpgradeRequired,
}

impl From<ErrorResponse> for SubscribeError {
    fn from(response: ErrorResponse) -> Self {
        Self::Response(response)
    }
}

impl From<HandshakeRejection> for SubscribeError {
    fn from(rejection: HandshakeRejection) -> Self {
        telemetry::connection_refused("handshake");
        match rejection {
            HandshakeRejection::NotWebSocket | HandshakeRejection::UnsupportedVersion => {
                Self::UpgradeRequired
            }
            HandshakeRejection::Malformed(what) => {
                let message = format!("a WebSocket handshake needs {what}");
                Self::Response(ErrorResponse::new(ErrorCode::InvalidMessage, message))
            }
        }
    }
}

impl IntoResponse for SubscribeError {
    fn into_response(self) -> Response {
        let Self::Response(response) = self else {
            let message =
                "/v1/ws needs a WebSocket handshake of version 13: use a WebSocket client";
            let status = StatusCode::UPGRADE_REQUIRED;
            let response = ErrorResponse::new(ErrorCode::InvalidMessage, message);
            let mut response = ErrorResponse { status, ..response }.into_response();
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return response;
        };
        response.into_response()
    }
}

/// 16 bytes in base64: 22 characters and the padding.
fn is_handshake_key(key: &str) -> bool {
    key.len() == 24
        && key.strip_suffix("==").is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        })
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    has_token(headers, SEC_WEBSOCKET_PROTOCOL.as_str(), SUBPROTOCOL)
}

/// Whether a comma-separated header contains this token.
fn has_token(headers: &HeaderMap, name: &str, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn push_header(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.push_str(value);
    head.push_str("\r\n");
}

//! `GET /v1/ws` and `GET /v1/sse`: checks a request to subscribe and turns it into a stream.
//!
//! Everything about the request is checked here, by an ordinary handler, so that a refusal is an
//! ordinary HTTP error. A valid request leaves the HTTP server as a [`Takeover`]: the response head
//! as bytes, and the stream to open.
//!
//! The WebSocket handshake follows RFC 6455 §4.2. No extension is accepted: a frame is encoded once
//! for all connections, and compression per connection would end that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};

use tidewire_engine::fanout::config::SUBSCRIPTIONS_MAX;
use tidewire_engine::fanout::identity::{Accounts, Identity, Roles};
use tidewire_engine::fanout::protocol::native::{ErrorCode, RequestError, StartAt};
use tidewire_engine::fanout::shard::{Framing, OpenRequest, Shard};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::extensions::{CheckedOrigin, PermitSlot, TakeoverSlot};
use super::guard::RequestOrigin;
use super::request_headers;
use super::response::{ErrorResponse, text_response};
use super::state::RouterState;
use super::subscribe_query::SubscribeQuery;
use super::takeover::Takeover;
use crate::socket::limits::LimitReached;
use crate::telemetry;

/// The WebSocket subprotocol, accepted if the client offers it.
pub const SUBPROTOCOL: &str = "tidewire.v1";

/// The user of a request without `user=` (development only).
const ANONYMOUS: &str = "anonymous";

/// Milliseconds after which an `EventSource` beyond a limit comes again, at least; at most twice as
/// long.
const COME_AGAIN_MS: u32 = 5_000;

/// The longest `user=`.
pub const USER_CHARS: usize = 128;

/// `GET /v1/ws`.
pub async fn websocket(
    State(state): State<RouterState>,
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    let key = handshake(&request)?;
    let query = SubscribeQuery::parse(request.uri().query().unwrap_or(""))?;
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
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    if has_body(request.headers()) {
        let message = "/v1/sse needs a GET request without a body";
        return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message).into());
    }
    let query = SubscribeQuery::parse(request.uri().query().unwrap_or(""))?;
    let user = user_of(&query)?;
    let open = sse_open(query, dev_identity(&user), request.headers())?;
    if request.method() == Method::HEAD {
        return Ok(text_response(StatusCode::OK, "text/event-stream", ""));
    }
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
    match take_over(&request, Takeover { head: head.into_bytes(), open }) {
        Err(SubscribeError::Limit(full)) => Ok(come_again(full)),
        other => other,
    }
}

/// The answer to a stream beyond a limit: an `EventSource` takes every status but 200 as final, and
/// connects again after the stream has ended. The times differ, so that not all come at once.
pub(super) fn come_again(full: LimitReached) -> Response {
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    telemetry::connection_refused(full.reason());
    // Consecutive multiples of an odd constant are spread evenly (Fibonacci hashing).
    let spread = ANSWERS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
    let after_ms = COME_AGAIN_MS + spread % COME_AGAIN_MS;
    text_response(StatusCode::OK, "text/event-stream", format!("retry: {after_ms}\n\n"))
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
        return Err(SubscribeError::Limit(full));
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
) -> Result<OpenRequest, ErrorResponse> {
    let list = query.channels.unwrap_or_default();
    let channels: Vec<String> =
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if channels.is_empty() || channels.len() > SUBSCRIPTIONS_MAX {
        let message = format!(
            "channels= has {} channels; give 1 to {SUBSCRIPTIONS_MAX}, separated by commas",
            channels.len()
        );
        return Err(ErrorResponse::new(ErrorCode::InvalidChannel, message));
    }
    // A browser that reconnects repeats its URL and adds the header, so the header is newer.
    let header = request_headers::single(headers, "last-event-id")?;
    let start = header.or(query.last_event_id.as_deref()).or(query.from.as_deref());
    let start = start.map_or(Ok(StartAt::Latest), StartAt::parse).map_err(error_response)?;
    for channel in &channels {
        Shard::check(&identity, channel, &start).map_err(error_response)?;
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
    /// A limit was reached.
    Limit(LimitReached),
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
        let response = match self {
            Self::Response(response) => Some(response),
            Self::Limit(full) => Some(limit_response(full)),
            Self::UpgradeRequired => None,
        };
        let Some(response) = response else {
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

/// Whether the client offers the subprotocol, whose case counts (RFC 6455 §4.1).
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    tokens(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).any(|token| token == SUBPROTOCOL)
}

/// Whether a comma-separated header contains this token, in any case.
fn has_token(headers: &HeaderMap, name: &str, word: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(word))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
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

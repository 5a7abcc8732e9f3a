//! `GET /v1/ws` and `GET /v1/sse`: checks a request to subscribe and turns it into a stream.
//!
//! Everything about the request is checked here, by an ordinary handler, so that a refusal is an
//! ordinary HTTP error. A valid request leaves the HTTP server as a [`Takeover`]: the response head
//! as bytes, and the stream to open.
//!
//! The WebSocket handshake follows RFC 6455 §4.2. No extension is accepted: a frame is encoded once
//! for all connections, and compression per connection would end that.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};

use tidewire_engine::fanout::identity::{Accounts, Identity, Roles};
use tidewire_engine::fanout::protocol::native::{ErrorCode, SnapshotWish, StartAt};
use tidewire_engine::fanout::shard::{Framing, OpenRequest, Shard};
use tidewire_schemas::catalogue::Catalogue;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::cors;
use super::extensions::{CheckedOrigin, PermitSlot, TakeoverSlot};
use super::guard::RequestOrigin;
use super::response::ErrorResponse;
use super::state::RouterState;
use super::subscribe_query::SubscribeQuery;
use super::takeover::{Takeover, retry_line};
use super::{request_headers, security_headers};
use crate::socket::limits::LimitReached;
use crate::telemetry;

/// The WebSocket subprotocol, accepted if the client offers it.
pub const SUBPROTOCOL: &str = "tidewire.v1";

/// The response headers of a stream, besides those of every response.
const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    // Some clients decode text of no charset as ISO 8859-1.
    (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
    // A proxy that compresses or rewrites a stream would hold its events back.
    (CACHE_CONTROL, "no-cache, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// `GET /v1/ws`.
pub async fn websocket(
    State(state): State<RouterState>,
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    let key = handshake(&request)?;
    let user = SubscribeQuery::of_websocket(request.uri().query())?.user()?;
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
        snapshot: SnapshotWish::Skip,
    };
    take_over(&request, Takeover { head: head.into_bytes(), open })
}

/// `GET /v1/sse`. `HEAD` checks the same and answers with the head alone.
pub async fn sse(
    State(state): State<RouterState>,
    request: Request<Body>,
) -> Result<Response, SubscribeError> {
    if has_body(request.headers()) {
        let message = "/v1/sse needs a request without a body";
        return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message).into());
    }
    let query = SubscribeQuery::of_stream(request.uri().query())?;
    let open = sse_open(state.catalogue(), &query, request.headers())?;
    if request.method() == Method::HEAD {
        // The length of a stream is unknown, and 0 would be wrong (RFC 9110, section 8.6).
        let unknown = futures_util::stream::empty::<Result<Bytes, Infallible>>();
        return Ok(stream_response(Body::from_stream(unknown)));
    }
    state.wait_until_started().await;
    let origin = request.extensions().get::<CheckedOrigin>();
    let head = stream_head(origin.map(|CheckedOrigin(origin)| origin));
    take_over(&request, Takeover { head: head.into_bytes(), open })
}

/// The head of a stream that leaves the HTTP server.
fn stream_head(origin: Option<&RequestOrigin>) -> String {
    let mut headers = HeaderMap::new();
    headers.extend(STREAM_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    security_headers::insert(&mut headers);
    if let Some(RequestOrigin::Allowed(origin)) = origin {
        cors::allow_origin(&mut headers, origin);
    }
    let mut head = String::from("HTTP/1.1 200 OK\r\nconnection: close\r\n");
    for (name, value) in &headers {
        push_header(&mut head, name.as_str(), value.to_str().unwrap_or_default());
    }
    head.push_str("\r\n");
    head
}

/// The answer to a stream for which there is no room: a stream that ends, with the time after which
/// `EventSource` tries again. After a status other than 200 it would never try again.
///
/// The line is no block, since some clients take a block without data for an event.
pub(super) fn full_stream(full: LimitReached) -> Response {
    let refused = limit_response(full);
    stream_response(format!(": {}\n{}", refused.message, retry_line()).into())
}

fn stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.extend(STREAM_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
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

/// The identity of an unauthenticated user (development only): every account, every role.
pub(super) fn dev_identity(user: &str) -> Identity {
    Identity { user: user.into(), accounts: Accounts::All, roles: Roles::ALL }
}

/// Checks what the shard would refuse, while an HTTP status can still say it.
fn sse_open(
    catalogue: &'static Catalogue,
    query: &SubscribeQuery,
    headers: &HeaderMap,
) -> Result<OpenRequest, ErrorResponse> {
    let (identity, channels) = (dev_identity(&query.user()?), query.channels()?);
    let start = query.start(headers)?;
    for channel in &channels {
        Shard::check(catalogue, &identity, channel, &start)?;
    }
    let (identity, snapshot) = (Arc::new(identity), query.snapshot()?);
    Ok(OpenRequest { framing: Framing::Sse, identity, channels, start, snapshot })
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
    let upgrade = has_token(headers, &UPGRADE, "websocket");
    if !upgrade || request.method() != Method::GET {
        return Err(HandshakeRejection::NotWebSocket);
    }
    if request.version() != Version::HTTP_11 {
        return Err(HandshakeRejection::Malformed("HTTP/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(HandshakeRejection::Malformed("the header Connection: Upgrade"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(HandshakeRejection::UnsupportedVersion);
    }
    if has_body(headers) {
        return Err(HandshakeRejection::Malformed("a request without a body"));
    }
    single(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_handshake_key(key))
        .map(str::to_owned)
        .ok_or(HandshakeRejection::Malformed("one Sec-WebSocket-Key of 16 bytes in base64"))
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

/// The value of a header; `None` also if it can't be read or contradicts itself.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    request_headers::single(headers, name.as_str()).ok().flatten()
}

/// Subprotocols are compared with case (RFC 6455, section 11.3.4).
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|token| token == SUBPROTOCOL)
}

/// Whether a comma-separated header contains this token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(word))
}

/// The tokens of a comma-separated header.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
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

//! Responses that are not streams: JSON bodies, and errors as `{"error":{"code","message"}}`.
//!
//! The codes are public and never change; `docs/protocol.md` and the OpenAPI document list them
//! with their meaning and what a client should do. Messages are for people: what is wrong, with the
//! value, and what would be right.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tidewire_engine::fanout::protocol::native::ErrorCode;

use crate::socket::limits::{BODY_BYTES, BODY_EVENTS, RETRY_AFTER_SECONDS};

/// The media type of every error.
pub(super) const JSON: &str = "application/json";

/// Characters of a client's value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// The code of an error over HTTP; each has one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpErrorCode {
    /// A code that `error` frames have too.
    Shared(ErrorCode),
    /// The path does not have this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// Another requeue or drop took over.
    Conflict,
    /// The body has too many bytes or events.
    TooLarge,
    /// The body's type or encoding is not supported.
    Unsupported,
    /// A parameter of an admin request is wrong.
    InvalidQuery,
    /// The process can't do its work yet.
    NotReady,
}

impl HttpErrorCode {
    /// The codes that come over HTTP only, in the order of the reference page.
    pub const HTTP_ONLY: [Self; 7] = [
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::Conflict,
        Self::TooLarge,
        Self::Unsupported,
        Self::InvalidQuery,
        Self::NotReady,
    ];

    /// The name in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared(code) => code.as_str(),
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::InvalidQuery => "invalid_query",
            Self::NotReady => "not_ready",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Shared(code) => status_of(code),
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidQuery => StatusCode::BAD_REQUEST,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What it means, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Shared(code) => code.meaning(),
            Self::MethodNotAllowed => "the path does not have this method",
            Self::Timeout => "the body did not arrive in time",
            Self::Conflict => "another requeue or drop of dead letters took over",
            Self::TooLarge => "the body has too many bytes or events",
            Self::Unsupported => "the content type or encoding is not supported",
            Self::InvalidQuery => "a parameter of an admin endpoint is wrong",
            Self::NotReady => {
                "the process can't do its work yet; the message says what it waits for"
            }
        }
    }

    /// What a client does next.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Shared(code) => code.advice(),
            Self::MethodNotAllowed => "do not repeat it; the `Allow` header names the methods",
            Self::Timeout => "repeat it",
            Self::Conflict => "repeat it for the rest",
            Self::TooLarge => "split it",
            Self::Unsupported => "do not repeat it; the message lists those that are",
            Self::InvalidQuery => "do not repeat it; the message names what is right",
            Self::NotReady => "repeat it after `Retry-After`",
        }
    }

    /// Whether the response has a `Retry-After`.
    pub fn sends_retry_after(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<ErrorCode> for HttpErrorCode {
    fn from(code: ErrorCode) -> Self {
        Self::Shared(code)
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Overloaded | ErrorCode::Internal => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::InvalidJson
        | ErrorCode::InvalidMessage
        | ErrorCode::InvalidChannel
        | ErrorCode::InvalidPosition
        | ErrorCode::InvalidFilter
        | ErrorCode::TooManySubscriptions
        | ErrorCode::AlreadySubscribed => StatusCode::BAD_REQUEST,
    }
}

/// An error, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The public code.
    pub code: HttpErrorCode,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ErrorResponse {
    /// An error with this code and its status.
    pub fn new(code: impl Into<HttpErrorCode>, message: impl Into<String>) -> Self {
        let code = code.into();
        Self { status: code.status(), code, message: message.into() }
    }

    /// 409: another request of the same kind took over.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(HttpErrorCode::Conflict, message)
    }

    /// 413: the body is too large.
    pub fn body_too_large() -> Self {
        let message = format!(
            "a body has at most {BODY_BYTES} bytes unpacked and {BODY_EVENTS} events; split it"
        );
        Self::new(HttpErrorCode::TooLarge, message)
    }

    /// 415: the value of a header names something that is not supported.
    pub(super) fn unsupported(header: &str, sent: &str, supported: &str) -> Self {
        let sent: String = sent.chars().take(SHOWN_CHARS).collect();
        let message = match sent.as_str() {
            "" => format!("{header} is missing; send {supported}"),
            sent => format!("{header} `{sent}` is not supported; send {supported}"),
        };
        Self::new(HttpErrorCode::Unsupported, message)
    }

    /// 503: the log failed or did not confirm.
    pub fn log_failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// 503: the request may be sent again after `Retry-After`.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Overloaded, message)
    }

    /// 503: the process stops before it could handle the request.
    pub fn stopping() -> Self {
        Self::overloaded("the process is stopping; repeat the request after Retry-After")
    }
}

impl ErrorResponse {
    /// The JSON text that is its body.
    pub(super) fn body(&self) -> String {
        json!({"error": {"code": self.code.as_str(), "message": self.message}}).to_string()
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let mut response = text_response(self.status, JSON, self.body());
        if self.code.sends_retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// A JSON response.
pub fn json_response(status: StatusCode, body: &Value) -> Response {
    text_response(status, JSON, body.to_string())
}

/// A response of this media type that must not be cached.
pub fn text_response(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

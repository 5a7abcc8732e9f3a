//! Cross-origin resource sharing: what pages of listed origins may send, and what they may read.
//!
//! Only origins that the guard has allowed get these headers. A preflight names the headers that a
//! page wants to send, and is answered with those of them that the server reads: `*` has no form
//! with a prefix, and the attributes of CloudEvents are headers with any name behind `ce-`.
//!
//! `Access-Control-Allow-Credentials` is never sent. This server knows no cookies and no HTTP
//! authentication, so requests with credentials would only let a page spend what the browser keeps
//! for this host.

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// The methods of all endpoints, and `DELETE` for those of the surfaces to come.
const METHODS: &str = "GET, POST, DELETE";

/// The headers that pages may send, besides those with one of [`PREFIXES`].
const HEADERS: [&str; 5] =
    ["authorization", "last-event-id", "cache-control", "content-type", "content-encoding"];

/// Attributes of CloudEvents, and fields of the envelope.
const PREFIXES: [&str; 2] = ["ce-", "tw-"];

/// The headers of responses that pages may read, besides those that browsers always show.
const EXPOSED: &str = "retry-after, allow";

/// For how long a browser may keep the answer to a preflight, in seconds.
const MAX_AGE_SECONDS: &str = "600";

/// Whether a browser asks if it may send a request.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of a listed origin, which [`allow_origin`] completes.
pub(super) fn preflight(request: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    let allowed = allowed(request).join(", ");
    if let Ok(allowed) = HeaderValue::from_str(&allowed)
        && !allowed.is_empty()
    {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

/// Those of the headers asked for that pages may send.
fn allowed(request: &HeaderMap) -> Vec<String> {
    let asked = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    names.map(|name| name.as_str().to_owned()).filter(|name| is_allowed(name)).collect()
}

fn is_allowed(name: &str) -> bool {
    HEADERS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Lets a page of this listed origin read the response.
pub(super) fn allow_origin(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: &[&'static str], expected: &str) {
        let mut headers = HeaderMap::new();
        for names in asked {
            headers.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(names));
        }
        assert_eq!(allowed(&headers).join(" "), expected, "{asked:?}");
    }

    #[test]
    fn a_preflight_is_granted_the_headers_that_are_read_and_no_others() {
        check(&[], "");
        check(&["authorization,content-type"], "authorization content-type");
        check(&["Cache-Control, Last-Event-ID"], "cache-control last-event-id");
        check(
            &["content-encoding", "ce-id, ce-anything,tw-key"],
            "content-encoding ce-id ce-anything tw-key",
        );
        check(&["x-requested-with, cookie, ce, twin, ace-id"], "");
        check(&["content-type, x y, , \"z\""], "content-type");
    }

    #[test]
    fn credentials_are_never_allowed() {
        let mut response = preflight(&HeaderMap::new());
        allow_origin(response.headers_mut(), &HeaderValue::from_static("http://localhost:3000"));
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
        assert_eq!(response.headers().get_all(VARY).iter().count(), 2);
    }
}

//! Response headers that tell browsers how little a response may do.
//!
//! Every response has them: pages, JSON, errors, streams, and answers to requests that are not
//! HTTP. A response of an API that a browser can be made to render as a page, to run as a script or
//! to put into a frame is an attack on the users of that origin.

use http::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

/// What our page needs, and nothing else: its own scripts, styles and connections, and one icon in
/// a `data:` URL. No other page may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Names and values.
const SECURITY_HEADERS: [(HeaderName, &str); 3] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Adds them to a response.
pub(super) fn insert(headers: &mut HeaderMap) {
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The same as lines of a response head that is written as text.
pub(super) fn lines() -> String {
    SECURITY_HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat()
}

//! Reads request headers of which at most one value counts.
//!
//! A header that can't be read, or that occurs with different values, is refused with its name: a
//! guess could choose another account or position than the client meant. An empty value counts as
//! absent, and the same value twice counts once, since proxies repeat headers.
//!
//! Attributes of a CloudEvent are decoded here too, by the rules of its HTTP binding.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::response::ErrorResponse;

/// Characters of a client's value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// The value of a header, in printable ASCII; `None` if it is absent or empty.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, ErrorResponse> {
    let mut found: Option<&str> = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| unreadable(name))?.trim();
        match found {
            _ if text.is_empty() => {}
            Some(first) if first != text => return Err(contradictory(name, [first, text])),
            _ => found = Some(text),
        }
    }
    Ok(found)
}

/// The attributes of a CloudEvent in binary mode, by name in the order sent: without quotes around
/// the value, then percent-decoded, each once (CloudEvents HTTP protocol binding, section 3.1.3.2).
pub(super) fn attributes(headers: &HeaderMap) -> Result<Vec<(String, String)>, ErrorResponse> {
    let mut found = Vec::new();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let Some(sent) = single(headers, name.as_str())? else { continue };
        let plain = unquoted(sent);
        let value = percent_decode_str(&plain).decode_utf8().map_err(|_| {
            refuse(format!(
                "the header {name} is percent-encoded and its bytes are not UTF-8; encode its text \
                 as UTF-8 first"
            ))
        })?;
        if !value.is_empty() {
            found.push((attribute.to_owned(), value.into_owned()));
        }
    }
    Ok(found)
}

/// A quoted string without its quotes (RFC 9110, section 5.6.4). A value that only begins or ends
/// with a quote is kept.
fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(value);
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Cow::Borrowed(value),
            '\\' => match characters.next() {
                Some(escaped) => plain.push(escaped),
                None => return Cow::Borrowed(value),
            },
            _ => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

fn unreadable(name: &str) -> ErrorResponse {
    let hint = if name.starts_with("ce-") { "percent-encode it" } else { "send ASCII only" };
    refuse(format!("the header {name} is not printable ASCII; {hint}"))
}

fn contradictory(name: &str, values: [&str; 2]) -> ErrorResponse {
    let [first, other] = values.map(shorten);
    refuse(format!(
        "the header {name} occurs with different values, `{first}` and `{other}`; send it once"
    ))
}

/// The start of a client's value.
fn shorten(value: &str) -> String {
    value.chars().take(SHOWN_CHARS).collect()
}

fn refuse(message: String) -> ErrorResponse {
    ErrorResponse::new(ErrorCode::InvalidMessage, message)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn check(values: &[&[u8]], expected: Result<Option<&str>, &str>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("tw-key", HeaderValue::from_bytes(value).expect("a value"));
        }
        match (single(&headers, "tw-key"), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{values:?}"),
            (Err(refused), Err(part)) => {
                assert_eq!(refused.status, StatusCode::BAD_REQUEST);
                assert!(refused.message.contains("tw-key"), "{}", refused.message);
                assert!(refused.message.contains(part), "{}", refused.message);
            }
            (got, expected) => panic!("{values:?}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_header_has_one_value_or_none() {
        check(&[], Ok(None));
        check(&[b"a"], Ok(Some("a")));
        check(&[b" a ", b"a"], Ok(Some("a")));
        check(&[b"", b"  "], Ok(None));
        check(&[b"", b"a", b""], Ok(Some("a")));
    }

    #[test]
    fn what_would_be_a_guess_is_refused_with_the_name() {
        check(&[b"a", b"b"], Err("`a` and `b`"));
        check(&[b"a", b"A"], Err("different values"));
        check(&[b"a", b"", b"b"], Err("send it once"));
        check(&[b"a\xff"], Err("ASCII"));
        check(&[b"a", "ü".as_bytes()], Err("ASCII"));
    }

    fn attribute(value: &str) -> Result<Option<String>, ErrorResponse> {
        let mut headers = HeaderMap::new();
        headers.insert("ce-source", HeaderValue::from_str(value).expect("a value"));
        let found = attributes(&headers)?;
        Ok(found.into_iter().next().map(|(name, value)| {
            assert_eq!(name, "source");
            value
        }))
    }

    #[test]
    fn an_attribute_is_unquoted_once_and_decoded_once() {
        for (sent, expected) in [
            ("/shop", "/shop"),
            ("\"/shop\"", "/shop"),
            ("\"/a%20b\"", "/a b"),
            ("%22/shop%22", "\"/shop\""),
            ("\"\\\"x\\\"\"", "\"x\""),
            ("%2525", "%25"),
            ("Gr%C3%BC%c3%9Fe", "Grüße"),
            ("100%", "100%"),
            ("\"half", "\"half"),
            ("\"a\", \"b\"", "\"a\", \"b\""),
        ] {
            assert_eq!(attribute(sent).expect("readable").as_deref(), Some(expected), "{sent}");
        }
        assert_eq!(attribute("\"\"").expect("readable"), None, "empty is absent");
        let refused = attribute("%FF").expect_err("not UTF-8");
        assert!(refused.message.contains("ce-source"), "{}", refused.message);
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}

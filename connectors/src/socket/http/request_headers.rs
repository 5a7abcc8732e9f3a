//! Reads request headers of which at most one value counts.
//!
//! A header that can't be read, or that occurs with different values, is refused with its name: a
//! guess could choose another account or position than the client meant. An empty value counts as
//! absent, and the same value twice counts once, since proxies repeat headers.
//!
//! Attributes of a CloudEvent are only checked here: the decoder of records decodes them, so that
//! it happens once.

use http::HeaderMap;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_schemas::codec::attribute_text;

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

/// The header of a CloudEvents attribute as it was sent, once it is known to be readable; `None` if
/// nothing is left without its quotes.
pub(super) fn attribute<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, ErrorResponse> {
    let Some(sent) = single(headers, name)? else { return Ok(None) };
    match attribute_text(sent) {
        Some(text) => Ok((!text.is_empty()).then_some(sent)),
        None => Err(refuse(format!(
            "the header {name} is percent-encoded and its bytes are not UTF-8; encode its text as \
             UTF-8 first"
        ))),
    }
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

    #[test]
    fn an_attribute_is_passed_on_as_sent_if_it_can_be_decoded() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("ce-source", HeaderValue::from_str(value).expect("a value"));
            attribute(&headers, "ce-source").map(|sent| sent.map(str::to_owned))
        };
        for sent in ["/shop", "\"/shop\"", "\"/a%20b\"", "%2525", "100%"] {
            assert_eq!(read(sent).expect("readable").as_deref(), Some(sent));
        }
        assert_eq!(read("\"\"").expect("readable"), None, "empty is absent");
        for sent in ["%FF", "\"%C3\""] {
            let refused = read(sent).expect_err("not UTF-8");
            assert!(refused.message.contains("ce-source"), "{}", refused.message);
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }
    }
}

//! Reads record headers of which at most one value counts.
//!
//! A header that occurs with different values, or that is not UTF-8, is refused with its name: a
//! guess could choose another account or event id than the producer meant. An empty value counts as
//! absent, and the same value twice counts once. Headers that nothing reads are not checked.
//!
//! Quotes around a value are removed, since header mappers such as Spring's write text as a JSON
//! string. Attributes of CloudEvents are percent-decoded too. Both happen here only, for records of
//! Kafka and of HTTP.

use std::borrow::Cow;

use super::context::HeaderLookup;
use crate::envelope::{Reason, Rejection};

/// Characters of a producer's value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// A header's value or why it can't be read; `None` if it is absent or empty.
pub(super) type SingleValue<'a> = Result<Option<&'a [u8]>, Rejection>;

/// The values of these headers, read in one pass.
pub(super) fn singles<'a, const N: usize>(
    headers: &'a dyn HeaderLookup,
    names: [&str; N],
) -> [SingleValue<'a>; N] {
    let mut found: [SingleValue<'a>; N] = std::array::from_fn(|_| Ok(None));
    headers.each_header(&mut |name, value: &'a [u8]| {
        let Some(at) = names.iter().position(|known| *known == name) else { return };
        match &found[at] {
            _ if value.is_empty() => {}
            Ok(Some(first)) if *first != value => {
                found[at] = Err(contradictory(name, [*first, value]));
            }
            Ok(_) => found[at] = Ok(Some(value)),
            Err(_) => {}
        }
    });
    found
}

/// A value as text without quotes around it; `None` if nothing is left.
pub(super) fn plain_text<'a>(
    name: &str,
    value: SingleValue<'a>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let Some(bytes) = value? else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| {
        let message = format!("the header {name} is not UTF-8; send its text as UTF-8");
        Rejection::of(Reason::NotUtf8, name, message)
    })?;
    Ok(Some(unquoted(text)).filter(|text| !text.is_empty()))
}

/// An attribute of a CloudEvent as text, unquoted and percent-decoded; `None` if nothing is left.
pub(super) fn attribute<'a>(
    name: &str,
    value: SingleValue<'a>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let Some(plain) = plain_text(name, value)? else { return Ok(None) };
    match percent_decoded(plain) {
        Some(text) => Ok(Some(text)),
        None => {
            let message = format!(
                "the header {name} is percent-encoded and its bytes are not UTF-8; encode its \
                 text as UTF-8 first"
            );
            Err(Rejection::of(Reason::NotUtf8, name, message))
        }
    }
}

/// The value of a CloudEvents attribute in a header: without quotes around it, then
/// percent-decoded, each once (CloudEvents HTTP protocol binding, section 3.1.3.2). `None` if the
/// decoded bytes are not UTF-8.
pub fn attribute_text(sent: &str) -> Option<Cow<'_, str>> {
    percent_decoded(unquoted(sent))
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

/// A text with each `%` and two hexadecimal digits replaced by their byte; other `%` are kept.
fn percent_decoded(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn contradictory(name: &str, values: [&[u8]; 2]) -> Rejection {
    let [first, other] = values.map(shortened);
    let message = format!(
        "the header {name} occurs with different values, `{first}` and `{other}`; send it once"
    );
    Rejection::of(Reason::BadField, name, message)
}

/// The start of a producer's value.
fn shortened(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pairs<'a>(&'a [(&'a str, &'a [u8])]);

    impl HeaderLookup for Pairs<'_> {
        fn each_header<'s>(&'s self, visit: &mut dyn FnMut(&'s str, &'s [u8])) {
            self.0.each_header(visit);
        }
    }

    /// The value of the header `k`.
    fn value(headers: &[(&str, &[u8])]) -> Result<Option<Vec<u8>>, Rejection> {
        let pairs = Pairs(headers);
        let [found] = singles(&pairs, ["k"]);
        Ok(found?.map(<[u8]>::to_vec))
    }

    #[test]
    fn a_header_has_one_value_or_none() {
        let check = |headers: &[(&str, &[u8])], expected: Option<&[u8]>| {
            assert_eq!(value(headers).expect("readable").as_deref(), expected, "{headers:?}");
        };
        check(&[], None);
        check(&[("k", b"")], None);
        check(&[("other", b"a"), ("K", b"a")], None);
        check(&[("k", b"a"), ("k", b""), ("k", b"a"), ("other", b"b")], Some(b"a"));
    }

    #[test]
    fn different_values_and_bytes_that_are_no_text_are_refused_by_name() {
        let refused = value(&[("k", b"a"), ("k", b"b"), ("k", b"a")]).expect_err("refused");
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::BadField, Some("k")));
        assert!(refused.message.contains("header k occurs"), "{refused}");
        assert!(refused.message.contains("`a` and `b`"), "{refused}");
        let unreadable = [
            plain_text("ce_id", Ok(Some(b"\xff"))),
            attribute("ce_id", Ok(Some(b"\xff"))),
            attribute("ce_id", Ok(Some(b"\"%C3\""))),
        ];
        for refused in unreadable.map(|text| text.expect_err("refused")) {
            assert_eq!(refused.reason, Reason::NotUtf8);
            assert!(refused.message.contains("header ce_id "), "{refused}");
        }
    }

    #[test]
    fn an_attribute_is_unquoted_once_and_decoded_once() {
        for (sent, expected) in [
            ("/shop", Some("/shop")),
            ("\"/shop\"", Some("/shop")),
            ("\"/a%20b\"", Some("/a b")),
            ("%22/shop%22", Some("\"/shop\"")),
            ("\"\\\"x\\\"\"", Some("\"x\"")),
            ("%2525", Some("%25")),
            ("Gr%C3%BC%c3%9Fe", Some("Grüße")),
            ("Grüße", Some("Grüße")),
            ("100%", Some("100%")),
            ("%+1%4", Some("%+1%4")),
            ("\"half", Some("\"half")),
            ("\"a\", \"b\"", Some("\"a\", \"b\"")),
            ("\"\"", None),
            ("\"", Some("\"")),
        ] {
            let text = attribute("ce_source", Ok(Some(sent.as_bytes()))).expect("readable");
            assert_eq!(text.as_deref(), expected, "{sent}");
            assert_eq!(attribute_text(sent).as_deref(), Some(expected.unwrap_or_default()));
        }
        assert_eq!(attribute_text("%FF"), None);
        let plain = plain_text("content-type", Ok(Some(b"\"a%20b\""))).expect("readable");
        assert_eq!(plain.as_deref(), Some("a%20b"));
    }
}

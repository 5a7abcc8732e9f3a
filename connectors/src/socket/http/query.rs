//! Decodes the query of a request strictly: what can't be read, or is not known, is an error.
//!
//! A parameter that is skipped silently could be the one that says where to start. So a wrong
//! escape is refused instead of replaced, a name that an endpoint does not know is refused with the
//! one it may have meant, and two different values of a name that counts once are refused.
//!
//! Names that begin with `_` belong to the client: nothing ever reads them. Caches are bypassed by
//! such names (`_=1767607200`), and HTTP libraries add them by themselves.

use percent_encoding::percent_decode;
use tidewire_schemas::similar::most_similar;

/// Characters of a client's text that an error repeats.
const SHOWN_CHARS: usize = 80;

/// Why a query is refused: what is wrong and what is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(pub String);

/// The parameters of a query, decoded, in the order sent. Without those that belong to the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPairs(Vec<(String, String)>);

impl QueryPairs {
    /// Decodes the query of a URI. `+` is a space, as in forms.
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let mut pairs = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name, part)?, decode(value, part)?);
            if !name.starts_with('_') {
                pairs.push((name, value));
            }
        }
        Ok(Self(pairs))
    }

    /// Names and values.
    pub fn as_slice(&self) -> &[(String, String)] {
        &self.0
    }

    /// Refuses a parameter whose name is not one of `known`.
    pub fn check_names(&self, known: &[&str]) -> Result<(), QueryError> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(unknown(name, known)),
            None => Ok(()),
        }
    }
}

/// The error for a parameter that is not one of `known`.
pub(super) fn unknown(name: &str, known: &[&str]) -> QueryError {
    let name = shorten(name);
    let right = match (most_similar(&name, known.iter().copied()), known) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "this endpoint has none".to_owned(),
        (None, known) => format!("give {}", known.join(", ")),
    };
    QueryError(format!("there is no query parameter `{name}`; {right}"))
}

/// The value of a parameter that counts once; an empty one counts as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct SingleValue(Option<String>);

impl SingleValue {
    /// Takes a value; the same one twice counts once.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), QueryError> {
        match &self.0 {
            _ if value.is_empty() => {}
            Some(first) if first != value => {
                let (first, value) = (shorten(first), shorten(value));
                return Err(QueryError(format!(
                    "the query parameter `{name}` is given with different values, `{first}` and \
                     `{value}`; give it once"
                )));
            }
            _ => self.0 = Some(value.to_owned()),
        }
        Ok(())
    }

    /// The value.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Decodes a name or a value; `part` is what an error shows.
fn decode(text: &str, part: &str) -> Result<String, QueryError> {
    let refuse = |what: &str| {
        let part = shorten(part);
        QueryError(format!(
            "the query has {what} in `{part}`; write %25 for a percent sign, and percent-encode \
             other characters as UTF-8"
        ))
    };
    let bytes = text.as_bytes();
    let is_escape = |at: usize| {
        bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    let mut percents = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if !percents.all(|(at, _)| is_escape(at)) {
        return Err(refuse("a % without two hexadecimal digits"));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded.map(String::from).map_err(|_| refuse("bytes that are not UTF-8"))
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Result<&[(&str, &str)], &str>) {
        match (QueryPairs::parse(Some(query)), expected) {
            (Ok(got), Ok(expected)) => {
                let got: Vec<(&str, &str)> =
                    got.0.iter().map(|(name, value)| (&name[..], &value[..])).collect();
                assert_eq!(got, expected, "{query}");
            }
            (Err(QueryError(text)), Err(part)) => assert!(text.contains(part), "{query}: {text}"),
            (got, expected) => panic!("{query}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn names_and_values_are_decoded_in_order() {
        check("", Ok(&[]));
        check("&&", Ok(&[]));
        check("a=1&b=2&a=3", Ok(&[("a", "1"), ("b", "2"), ("a", "3")]));
        check("a=b=c&d", Ok(&[("a", "b=c"), ("d", "")]));
        check("a=x+y%2Bz&%61b=%E6%97%A5", Ok(&[("a", "x y+z"), ("ab", "日")]));
        assert_eq!(QueryPairs::parse(None), Ok(QueryPairs::default()));
    }

    #[test]
    fn an_invalid_escape_is_refused_and_not_replaced() {
        for query in ["a=%", "a=%2", "a=%zz", "%=1", "a=1&b=100%"] {
            check(query, Err("a % without two hexadecimal digits"));
        }
        for query in ["a=%ff", "%fe=1", "a=%C3"] {
            check(query, Err("bytes that are not UTF-8"));
        }
        check("a=1&b=%ff", Err("`b=%ff`"));
    }

    #[test]
    fn names_that_begin_with_an_underscore_belong_to_the_client() {
        check("_=1767607200&a=1&_cb=x", Ok(&[("a", "1")]));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_one_it_may_mean() {
        let error = |query: &str, known: &[&str]| {
            let pairs = QueryPairs::parse(Some(query)).expect("readable");
            pairs.check_names(known).expect_err(query).0
        };
        let known = ["channels", "from"];
        assert!(error("fron=earliest", &known).contains("did you mean `from`?"));
        assert!(error("from=1&colour=red", &known).contains("give channels, from"));
        assert!(error("a=1", &[]).contains("has none"));
        let pairs = QueryPairs::parse(Some("from=1&channels=2")).expect("readable");
        assert_eq!(pairs.check_names(&known), Ok(()));
    }

    #[test]
    fn a_name_that_counts_once_has_one_value() {
        let mut value = SingleValue::default();
        for text in ["", "a", "a", ""] {
            assert_eq!(value.set("from", text), Ok(()));
        }
        assert_eq!(value.get(), Some("a"));
        let QueryError(text) = value.set("from", "b").expect_err("another value");
        assert!(text.contains("`from`") && text.contains("`a` and `b`"), "{text}");
        assert_eq!(SingleValue::default().get(), None);
    }
}

//! The parts of a stored key as words of the command line, in both directions.
//!
//! ```text
//! word                          bytes in the key
//! TEXT, text:TEXT               the text in the encoding of stores, with its end
//! u64:5                         8 bytes
//! time:2026-01-05T10:00:00Z     8 bytes
//! hex:00ff                      the bytes as they are
//! ```
//!
//! Stored keys do not say what their parts are, so printing them is a guess. The words always give
//! the same bytes again, so a printed key can be given to the command.

use std::fmt;

use tidewire_engine::derive::stores::{FieldDecoder, StoreKey as _};
use tidewire_engine::record::Millis;
use tidewire_schemas::time::{format_rfc3339, parse_rfc3339};

const TEXT: &str = "text:";
const NUMBER: &str = "u64:";
const TIME: &str = "time:";
const BYTES: &str = "hex:";

/// Eight bytes are shown as a number below this; above it they are rather something else.
const NUMBER_END: u64 = 1 << 40;

/// Eight bytes are shown as a time in the years 2000 to 2099.
const TIMES_MS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;

/// A part of a stored key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyElement {
    Text(String),
    Number(u64),
    Time(Millis),
    Bytes(Vec<u8>),
}

impl KeyElement {
    /// Reads a word; the error says what to give instead.
    pub(super) fn parse(word: &str) -> Result<Self, String> {
        if let Some(text) = word.strip_prefix(TEXT) {
            Ok(Self::Text(text.to_owned()))
        } else if let Some(number) = word.strip_prefix(NUMBER) {
            let wrong = || format!("{word} is no number; give one from u64:0 to u64:{}", u64::MAX);
            // `parse` would accept a sign.
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|_| digits);
            number.map(Self::Number).ok_or_else(wrong)
        } else if let Some(time) = word.strip_prefix(TIME) {
            let wrong = || format!("{word} is no time; give one such as time:2026-01-05T10:00:00Z");
            parse_rfc3339(time).map(|ms| Self::Time(Millis(ms))).ok_or_else(wrong)
        } else if let Some(digits) = word.strip_prefix(BYTES) {
            let wrong = || format!("{word} is not pairs of hexadecimal digits, such as hex:00ff");
            from_hex(digits).map(Self::Bytes).ok_or_else(wrong)
        } else {
            Ok(Self::Text(word.to_owned()))
        }
    }

    /// Appends its bytes in a key.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => text.put(out),
            Self::Number(number) => number.put(out),
            Self::Time(time) => time.put(out),
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The parts of a stored key, as far as they can be recognised, and the rest as bytes.
    pub(super) fn of_key(key: &[u8]) -> Vec<Self> {
        let (mut elements, mut rest) = (Vec::new(), key);
        while let Some((element, left)) = recognise(rest) {
            elements.push(element);
            rest = left;
        }
        // No key begins with an empty text, but a hash may have its bytes.
        if elements.first() == Some(&Self::Text(String::new())) {
            (elements, rest) = (Vec::new(), key);
        }
        if !rest.is_empty() {
            elements.push(Self::Bytes(rest.to_vec()));
        }
        elements
    }
}

impl fmt::Display for KeyElement {
    /// As [`KeyElement::parse`] reads it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => {
                let kinds = [TEXT, NUMBER, TIME, BYTES];
                let ambiguous = text.is_empty() || kinds.iter().any(|kind| text.starts_with(kind));
                write!(out, "{}{text}", if ambiguous { TEXT } else { "" })
            }
            Self::Number(number) => write!(out, "{NUMBER}{number}"),
            Self::Time(time) => write!(out, "{TIME}{}", time_text(*time)),
            Self::Bytes(bytes) => write!(out, "{BYTES}{}", to_hex(bytes)),
        }
    }
}

/// The element at the beginning of these bytes, and the bytes behind it.
fn recognise(key: &[u8]) -> Option<(KeyElement, &[u8])> {
    let decoded = |decode: fn(&mut FieldDecoder<'_>) -> Option<KeyElement>| {
        let mut from = FieldDecoder(key);
        decode(&mut from).map(|element| (element, from.0))
    };
    let time = decoded(|from| {
        Millis::read(from).filter(|time| TIMES_MS.contains(&time.0)).map(KeyElement::Time)
    });
    let number =
        || decoded(|from| u64::read(from).filter(|n| *n < NUMBER_END).map(KeyElement::Number));
    let text = || {
        decoded(|from| {
            let printable = |text: &String| !text.contains(char::is_control);
            String::read(from).filter(printable).map(KeyElement::Text)
        })
    };
    time.or_else(number).or_else(text)
}

/// A time as in all output.
pub(super) fn time_text(time: Millis) -> String {
    let mut text = String::new();
    format_rfc3339(time.0, &mut text);
    text
}

/// Two digits for each byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u32>> = digits.chars().map(|digit| digit.to_digit(16)).collect();
    let nibbles = nibbles.filter(|nibbles| !nibbles.is_empty() && nibbles.len() % 2 == 0)?;
    Some(nibbles.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in words {
            KeyElement::parse(word).expect("a valid word").put(&mut out);
        }
        out
    }

    fn printed(key: &[u8]) -> Vec<String> {
        KeyElement::of_key(key).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_give_the_bytes_that_stores_write() {
        let (account, post) = ("a\0b".to_owned(), "p".to_owned());
        let mut stored = Vec::new();
        (account, (Millis(-5), 7u64), post).put(&mut stored);
        let time = "time:1969-12-31T23:59:59.995Z";
        assert_eq!(bytes(&["a\0b", time, "u64:7", "p"]), stored);
        assert_eq!(bytes(&["hex:61", "hex:00FF6200"]), stored[..5]);
        assert_eq!(bytes(&["urn:x", "text:u64:1"]), b"urn:x\0\0u64:1\0\0");
        assert_eq!(bytes(&["", "text:"]), [0; 4]);
    }

    #[test]
    fn a_damaged_word_is_refused_with_what_to_give() {
        for (word, expected) in [
            ("u64:", "give one from u64:0"),
            ("u64:-1", "give one from u64:0"),
            ("u64:+1", "give one from u64:0"),
            ("u64:18446744073709551616", "give one from u64:0"),
            ("time:yesterday", "such as time:2026-01-05T10:00:00Z"),
            ("time:2026-13-05T10:00:00Z", "such as time:2026-01-05T10:00:00Z"),
            ("hex:", "such as hex:00ff"),
            ("hex:0", "such as hex:00ff"),
            ("hex:+f", "such as hex:00ff"),
            ("hex:0é", "such as hex:00ff"),
        ] {
            let text = KeyElement::parse(word).expect_err("damaged");
            assert!(text.starts_with(word) && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_printed_key_shows_its_parts() {
        let words = ["acme", "u64:7", "time:2026-01-05T10:00:00.000Z", "text:u64:1", "text:", "é"];
        assert_eq!(printed(&bytes(&words)), words);
        assert_eq!(printed(&bytes(&["acme", "hex:05ff"])), ["acme", "hex:05ff"]);
        assert_eq!(printed(&bytes(&["hex:0000"])), ["hex:0000"], "no key begins with no text");
        assert_eq!(printed(&bytes(&["a\nb"])), ["hex:610a620000"], "a terminal must not get it");
    }

    #[test]
    fn a_printed_key_gives_the_same_bytes_whatever_it_is() {
        // Bytes that begin or end parts, in every combination of up to six.
        let alphabet = [0, 1, b'a', b':', 0x80, 0xff];
        let mut keys = vec![Vec::new()];
        for start in 0.. {
            let Some(key) = keys.get(start).cloned() else { break };
            let words = printed(&key);
            let again = bytes(&words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(again, key, "{words:?}");
            let wide = [&[0; 5][..], &key, &[0x80, 0, 1], &key, b"u64:1"].concat();
            let words = printed(&wide);
            assert_eq!(bytes(&words.iter().map(String::as_str).collect::<Vec<_>>()), wide);
            if key.len() < 6 {
                keys.extend(alphabet.iter().map(|byte| [&key[..], &[*byte]].concat()));
            }
        }
        assert_eq!(keys.len(), 55_987);
    }
}

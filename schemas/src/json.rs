//! A strict JSON scanner that builds no tree and returns slices of its input.
//!
//! It checks the grammar of RFC 8259 once, from left to right. Values that are not decoded keep the
//! bytes of the input, so numbers keep their spelling and strings their escapes. Lone surrogates,
//! control characters in strings, trailing text and nesting beyond the limit are errors with their
//! position. No input makes it panic.

use std::borrow::Cow;

/// The nesting limit for text that was validated before: above the envelope's own limit, and low
/// enough for any stack.
pub(crate) const DEPTH_MAX: usize = 64;

/// The longest number without an exponent that is always in a double's range.
const PLAIN_NUMBER_MAX_CHARS: usize = 300;

/// Why a text is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonError {
    pub(crate) at: usize,
    pub(crate) kind: JsonErrorKind,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonErrorKind {
    /// A syntax error, with its cause.
    Syntax(&'static str),
    /// Nested beyond the limit.
    TooDeep,
    /// A number no double can hold.
    OutOfRange,
    /// A word that other languages write for a number which JSON does not have.
    NonNumber(&'static str),
}

/// Reads one text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
    /// Runs of insignificant white space so far.
    pub(crate) spaces: usize,
}

/// A member of an object: its decoded name, and its value as written.
#[derive(Clone, Debug)]
pub(crate) struct JsonMember<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) value: Cow<'a, str>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str, max_depth: usize) -> Self {
        Self { text, at: 0, depth: 0, max_depth, spaces: 0 }
    }

    /// Skips white space and returns the next byte.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        if let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.spaces += 1;
            while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
                self.at += 1;
            }
        }
        bytes.get(self.at).copied()
    }

    /// Reads one value and returns its text.
    pub(crate) fn value(&mut self) -> Result<&'a str, JsonError> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => drop(self.string()?),
            Some(b'{') => {
                self.open(b'{')?;
                let mut first = true;
                while self.next_name(&mut first)?.is_some() {
                    self.value()?;
                }
            }
            Some(b'[') => {
                self.open(b'[')?;
                let mut first = true;
                while self.next_element(&mut first)? {
                    self.value()?;
                }
            }
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null").map_err(|error| self.named(start, error))?,
            Some(b'-' | b'0'..=b'9') => {
                self.number().map_err(|error| self.named(start, error))?;
            }
            Some(_) => return Err(self.named(start, self.error("a value was expected"))),
            None => return Err(self.error("the text ends where a value was expected")),
        }
        Ok(&self.text[start..self.at])
    }

    /// Checks that only white space follows.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("text follows the value")),
        }
    }

    /// Enters an object or an array.
    pub(crate) fn open(&mut self, bracket: u8) -> Result<(), JsonError> {
        debug_assert_eq!(self.text.as_bytes().get(self.at), Some(&bracket));
        if self.depth == self.max_depth {
            return Err(JsonError { at: self.at, kind: JsonErrorKind::TooDeep });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// The next member's name, or `None` after the object's end. The value must be read before the
    /// next call.
    pub(crate) fn next_name(
        &mut self,
        first: &mut bool,
    ) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.continues(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.error("a name in quotes was expected"));
        }
        let (inner, escaped) = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.error("a colon was expected"));
        }
        self.at += 1;
        Ok(Some(if escaped { unescape(inner) } else { Cow::Borrowed(inner) }))
    }

    /// Whether another element follows.
    pub(crate) fn next_element(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        self.continues(b']', first)
    }

    /// The offset of the next byte.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn continues(&mut self, close: u8, first: &mut bool) -> Result<bool, JsonError> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            Some(_) if *first => {}
            Some(_) => return Err(self.error("a comma or the closing bracket was expected")),
            None => return Err(self.error("the text ends inside an object or an array")),
        }
        *first = false;
        Ok(true)
    }

    /// The error at the start of a value, more precise if the value is not a number.
    fn named(&self, start: usize, error: JsonError) -> JsonError {
        match non_number(&self.text.as_bytes()[start..]) {
            Some(name) => JsonError { at: start, kind: JsonErrorKind::NonNumber(name) },
            None => error,
        }
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, kind: JsonErrorKind::Syntax(what) }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("true, false or null was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(self.error("a digit was expected")),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += usize::from(bytes[self.at] == b'-');
        if bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
            return self.within_doubles(start);
        }
        if self.at - start > PLAIN_NUMBER_MAX_CHARS { self.within_doubles(start) } else { Ok(()) }
    }

    /// Many JSON readers fail on a number beyond a double, and with it on the whole text.
    fn within_doubles(&self, start: usize) -> Result<(), JsonError> {
        match self.text[start..self.at].parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(()),
            _ => Err(JsonError { at: start, kind: JsonErrorKind::OutOfRange }),
        }
    }

    /// The text between the quotes, and whether it has escapes.
    fn string(&mut self) -> Result<(&'a str, bool), JsonError> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &bytes[self.at..];
            let Some(plain) = next_stop(rest) else {
                self.at = bytes.len();
                return Err(self.error("the text ends inside a string"));
            };
            self.at += plain;
            match bytes[self.at] {
                b'"' => {
                    let inner = &self.text[start..self.at];
                    self.at += 1;
                    return Ok((inner, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.error("a control character in a string must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let Some(unit) = hex4(rest) else {
                    return Err(self.error("\\u must be followed by four hexadecimal digits"));
                };
                self.at += 6;
                match unit {
                    0xd800..=0xdbff => match hex4(&rest[6..]) {
                        Some(0xdc00..=0xdfff) => self.at += 6,
                        _ => return Err(self.error("a surrogate has no pair")),
                    },
                    0xdc00..=0xdfff => return Err(self.error("a surrogate has no pair")),
                    _ => {}
                }
            }
            _ => return Err(self.error("unknown escape")),
        }
        Ok(())
    }
}

/// The name of a value that is not a number, in whatever case it is written.
fn non_number(rest: &[u8]) -> Option<&'static str> {
    const WORDS: [(&str, &str); 7] = [
        ("nan", "NaN"),
        ("-nan", "NaN"),
        ("infinity", "Infinity"),
        ("inf", "Infinity"),
        ("+infinity", "Infinity"),
        ("-infinity", "-Infinity"),
        ("-inf", "-Infinity"),
    ];
    let len = rest
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'_'))
        .count();
    let word = &rest[..len];
    let known = WORDS.iter().find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()));
    known.map(|(_, name)| *name)
}

/// The index of the first byte of [`STOPS`], searched eight bytes at a time.
fn next_stop(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    // Sets the high bit of each byte below `limit`; exact for the first such byte.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let escapes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = below(word, 0x20) | quotes | escapes;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| STOPS[usize::from(*byte)]).map(|rest| at + rest)
}

/// The bytes that end a plain part of a string: quote, backslash, control characters.
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        stops[byte] = true;
        byte += 1;
    }
    stops[b'"' as usize] = true;
    stops[b'\\' as usize] = true;
    stops
};

/// The code unit of `\uXXXX` at the front.
fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits
        .iter()
        .try_fold(0, |unit, &digit| char::from(digit).to_digit(16).map(|digit| unit << 4 | digit))
}

/// Decodes the text between the quotes of a string that was scanned before.
pub(crate) fn unescape(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut len = 2;
        match rest.as_bytes().get(1) {
            Some(b'b') => out.push('\u{8}'),
            Some(b'f') => out.push('\u{c}'),
            Some(b'n') => out.push('\n'),
            Some(b'r') => out.push('\r'),
            Some(b't') => out.push('\t'),
            Some(b'u') => {
                let unit = hex4(rest.as_bytes()).unwrap_or(0xfffd);
                len = 6;
                let mut point = unit;
                if let (0xd800..=0xdbff, Some(low)) =
                    (unit, rest.as_bytes().get(6..).and_then(hex4))
                {
                    point = 0x10000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                    len = 12;
                }
                out.push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(&byte) => out.push(char::from(byte)),
            None => {}
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The text of a scalar: a string decoded, a number or boolean as written; `None` for null, objects
/// and arrays.
pub(crate) fn scalar(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => string(value),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value)),
    }
}

/// A string value, decoded; `None` for other values.
pub(crate) fn string(value: &str) -> Option<Cow<'_, str>> {
    value.strip_prefix('"')?.strip_suffix('"').map(unescape)
}

/// The value of a member of an object that was scanned before; null counts as absent.
pub(crate) fn member<'a>(object: &'a str, wanted: &str) -> Option<&'a str> {
    let mut found = None;
    each_member(object, |name, value| {
        if name == wanted && value != "null" {
            found = Some(value);
        }
        found.is_none()
    })
    .ok()?;
    found
}

/// Visits the members of an object until the visitor returns false. Other values have no members.
pub(crate) fn each_member<'a>(
    object: &'a str,
    mut visit: impl FnMut(Cow<'a, str>, &'a str) -> bool,
) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(object, DEPTH_MAX);
    if scanner.peek() != Some(b'{') {
        return Ok(());
    }
    scanner.open(b'{')?;
    let mut first = true;
    while let Some(name) = scanner.next_name(&mut first)? {
        if !visit(name, scanner.value()?) {
            return Ok(());
        }
    }
    scanner.end()
}

/// Visits the elements of an array that was scanned before. Other values have none.
pub(crate) fn each_element<'a>(array: &'a str, mut visit: impl FnMut(&'a str)) {
    let mut scanner = Scanner::new(array, DEPTH_MAX);
    if scanner.peek() != Some(b'[') || scanner.open(b'[').is_err() {
        return;
    }
    let mut first = true;
    while let Ok(true) = scanner.next_element(&mut first) {
        let Ok(element) = scanner.value() else { return };
        visit(element);
    }
}

/// Whether a value is an array and all its elements begin with this byte.
pub(crate) fn is_array_of(value: &str, first_byte: u8) -> bool {
    let mut scanner = Scanner::new(value, DEPTH_MAX);
    if scanner.peek() != Some(b'[') || scanner.open(b'[').is_err() {
        return false;
    }
    let mut first = true;
    while let Ok(true) = scanner.next_element(&mut first) {
        if scanner.peek() != Some(first_byte) || scanner.value().is_err() {
            return false;
        }
    }
    true
}

/// Appends `text` as a JSON string.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = next_stop(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte => {
                let digit = |d: u8| char::from_digit(u32::from(d), 16).expect("below 16");
                out.push_str("\\u00");
                out.push(digit(byte >> 4));
                out.push(digit(byte & 15));
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

/// Appends a value that was scanned before, without its insignificant white space.
pub(crate) fn compact(value: &str, out: &mut String) {
    let mut rest = value;
    while let Some(at) =
        rest.bytes().position(|byte| matches!(byte, b'"' | b' ' | b'\n' | b'\r' | b'\t'))
    {
        out.push_str(&rest[..at]);
        let len = if rest.as_bytes()[at] == b'"' { string_len(&rest[at..]) } else { 0 };
        out.push_str(&rest[at..at + len]);
        rest = &rest[at + len.max(1)..];
    }
    out.push_str(rest);
}

/// The length of the string at the front, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Result<&str, JsonError> {
        let mut scanner = Scanner::new(text, 8);
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value)
    }

    #[test]
    fn the_scanner_accepts_what_serde_json_accepts() {
        for text in [
            "{}",
            "[]",
            "null",
            "true",
            "-0",
            "0.5e-3",
            "12345678901234567890123",
            "\"\"",
            r#"{"a":[1,{"b":null}],"a":2}"#,
            " [ 1 , 2 ] ",
            r#""\ud83d\ude00""#,
            r#""\u0000""#,
            "",
            "{",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "tru",
            "nul",
            "NaN",
            "Infinity",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\0\"",
            r#""\x""#,
            r#""\u12""#,
            "1 2",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "]",
            "[}",
            "{\"a\":1]",
            "\u{feff}1",
        ] {
            let reference = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
            assert_eq!(scan(text).is_ok(), reference, "{text:?}");
        }
    }

    #[test]
    fn the_first_stop_is_found_at_every_offset() {
        const PLAIN: [u8; 8] = [0x20, 0x21, 0x7f, 0x80, 0xff, 0xa2, 0xdc, 0x5d];
        for len in 0..20 {
            for at in 0..len {
                for stop in [b'"', b'\\', 0, 0x1f] {
                    let mut bytes: Vec<u8> = PLAIN.iter().copied().cycle().take(len).collect();
                    assert_eq!(next_stop(&bytes), None);
                    bytes[at] = stop;
                    assert_eq!(next_stop(&bytes), Some(at), "{bytes:?}");
                    // Later stops change nothing.
                    bytes[at..].fill(stop);
                    assert_eq!(next_stop(&bytes), Some(at), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_beyond_a_double_are_rejected_at_every_depth() {
        let long = "9".repeat(400);
        for text in ["1E+400", "[-1e999999]", "{\"a\":[1e309]}", &long] {
            assert_eq!(
                scan(text).map_err(|error| error.kind),
                Err(JsonErrorKind::OutOfRange),
                "{text}"
            );
        }
        for text in ["1e308", "1e-999", "-0.0e0", &long[..300], "0e400"] {
            scan(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    }

    #[test]
    fn lone_surrogates_are_rejected() {
        for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800x""#] {
            let fault = JsonErrorKind::Syntax("a surrogate has no pair");
            assert_eq!(scan(text).map_err(|error| error.kind), Err(fault), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(scan(&nested(8)).is_ok());
        assert_eq!(scan(&nested(9)).map_err(|error| error.kind), Err(JsonErrorKind::TooDeep));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,\"\\\\ued0-9a-f .nrt-]{0,40}") {
            if let Ok(value) = scan(&text) {
                let mut out = String::new();
                compact(value, &mut out);
                scalar(value);
                is_array_of(value, b'"');
                member(value, "a");
            }
        }

        #[test]
        fn a_quoted_string_decodes_to_its_text(text: String) {
            let mut quoted = String::new();
            quote(&text, &mut quoted);
            prop_assert_eq!(scan(&quoted), Ok(&quoted[..]));
            prop_assert_eq!(string(&quoted), Some(Cow::Borrowed(&text[..])));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).expect("valid"), text);
        }

        #[test]
        fn unescaping_agrees_with_serde_json(
            parts in proptest::collection::vec(
                prop_oneof![
                    r#"\\["\\/bfnrt]"#,
                    r"\\u00[0-9a-f]{2}",
                    r"\\ud83d\\ude0[0-9]",
                    "[a-zあ]",
                ],
                0..12,
            ),
        ) {
            let text = parts.concat();
            let quoted = format!("\"{text}\"");
            let reference: String = serde_json::from_str(&quoted).expect("valid");
            prop_assert_eq!(string(&quoted), Some(Cow::Borrowed(&reference[..])));
        }

        #[test]
        fn compacting_changes_white_space_only(
            names in proptest::collection::vec("[a-z \"\\\\]{0,6}", 0..5),
        ) {
            let value = serde_json::json!({ "list": names, "one": { "two": names } });
            let pretty = serde_json::to_string_pretty(&value).expect("valid");
            let mut out = String::new();
            compact(&pretty, &mut out);
            prop_assert_eq!(out, value.to_string());
        }
    }
}

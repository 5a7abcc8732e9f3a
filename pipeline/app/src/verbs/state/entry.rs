//! An entry of a table as a line for people or as a JSON object.
//!
//! ```text
//! table                            stored value
//! that expires by its values       time, 8 bytes big-endian · bytes
//! of `Expiring` and `Sessions`     time, 8 bytes as in keys · version · bytes
//! any other                        version · bytes
//! ```
//!
//! The second form is recognised by its first byte, at least 80 for every time since 1970: no
//! version is as high. The end of an entry that never expires is the year 9999. A value may be
//! empty.

use serde_json::{Value, json};
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::derive::stores::{FieldDecoder, StoreKey as _};
use tidewire_engine::port::TableExpiry;
use tidewire_engine::record::{Millis, Partition};

use super::key_element::{KeyElement, time_text, to_hex};

/// The lowest first byte of times since 1970 as stores encode them.
const TIME_BYTE_MIN: u8 = 0x80;

/// An entry as it is stored.
pub(super) struct StateEntry<'a> {
    pub(super) partition: Partition,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The parts of a stored value.
#[derive(Debug, PartialEq, Eq)]
struct ValueParts<'a> {
    /// When it expires, or the time from which that is counted.
    time: Option<Millis>,
    version: Option<u8>,
    bytes: &'a [u8],
}

impl<'a> ValueParts<'a> {
    /// Splits a value of a table that expires like this.
    fn of(expiry: TableExpiry, stored: &'a [u8]) -> Self {
        let mut from = FieldDecoder(stored);
        if expiry == TableExpiry::ByValueTime {
            let time = from.u64().map(|time| Millis(time as i64));
            return Self { time, version: None, bytes: from.0 };
        }
        let begins_with_time = stored.len() > 8 && stored[0] >= TIME_BYTE_MIN;
        let time = if begins_with_time { Millis::read(&mut from) } else { None };
        let version = from.byte();
        Self { time, version, bytes: from.0 }
    }

    /// The bytes as text, if all of it is printable.
    fn text(&self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.bytes).ok()?;
        (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
    }
}

impl StateEntry<'_> {
    /// Partition, key, and what the value has of time, version, bytes and text.
    pub(super) fn line(&self, expiry: TableExpiry) -> String {
        let value = ValueParts::of(expiry, self.value);
        let mut fields = vec![format!("partition {}", self.partition.0), key_text(self.key)];
        fields.extend(value.time.map(time_text));
        fields.extend(value.version.map(|version| format!("v{version}")));
        if !value.bytes.is_empty() {
            fields.push(to_hex(value.bytes));
        }
        fields.extend(value.text().map(|text| Value::from(text).to_string()));
        fields.join("  ")
    }

    /// The same as an object, with the progress of its store.
    pub(super) fn json(&self, expiry: TableExpiry, progress: Option<&TaskProgress>) -> Value {
        let value = ValueParts::of(expiry, self.value);
        let key = KeyElement::of_key(self.key);
        json!({
            "partition": self.partition.0,
            "key": key.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "key_hex": to_hex(self.key),
            "time": value.time.map(time_text),
            "version": value.version,
            "value_hex": to_hex(value.bytes),
            "value_text": value.text(),
            "order_offset": progress.map(|progress| progress.order.0),
            "latest_time": progress.map(|progress| time_text(progress.times.latest())),
        })
    }
}

/// A key as words of a shell's command line.
pub(super) fn key_text(key: &[u8]) -> String {
    let words = KeyElement::of_key(key);
    words.iter().map(|word| shell_word(&word.to_string())).collect::<Vec<_>>().join(" ")
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:/@%+=,".contains(c);
    if !word.starts_with('-') && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_767_607_200_000;

    fn entry<'a>(key: &'a [u8], value: &'a [u8]) -> StateEntry<'a> {
        StateEntry { partition: Partition(3), key, value }
    }

    #[test]
    fn a_line_has_the_key_and_every_part_of_the_value() {
        let never = |key: &[u8], value: &[u8]| entry(key, value).line(TableExpiry::Never);
        let line = never(b"acme\0\0p 1\0\0", b"\x01hi \"x\"");
        assert_eq!(line, r#"partition 3  acme 'p 1'  v1  686920227822  "hi \"x\"""#);
        assert_eq!(never(b"a\0\0", b"\x02\x07"), "partition 3  a  v2  07");
        assert_eq!(never(b"a\0\0", b"\x01"), "partition 3  a  v1");
        assert_eq!(never(b"a\0\0", b""), "partition 3  a");
    }

    #[test]
    fn the_time_of_a_value_comes_before_its_version() {
        let id = [AT.to_be_bytes(), 5i64.to_be_bytes()].concat();
        let line = entry(b"\xff", &id).line(TableExpiry::ByValueTime);
        assert_eq!(line, "partition 3  hex:ff  2026-01-05T10:00:00.000Z  0000000000000005");
        let mut expiring = Vec::new();
        Millis(AT).put(&mut expiring);
        expiring.extend_from_slice(b"\x01\x09");
        let parts = ValueParts::of(TableExpiry::Never, &expiring);
        assert_eq!(parts, ValueParts { time: Some(Millis(AT)), version: Some(1), bytes: b"\x09" });
        let kept = [&[0xff; 8][..], b"\x01\x09"].concat();
        let line = entry(b"\xff", &kept).line(TableExpiry::Never);
        assert_eq!(line, "partition 3  hex:ff  9999-12-31T23:59:59.999Z  v1  09");
        let damaged = ValueParts::of(TableExpiry::ByValueTime, &id[..7]);
        assert_eq!(damaged, ValueParts { time: None, version: None, bytes: &id[..7] });
    }

    #[test]
    fn an_object_has_the_same_and_the_progress_of_the_store() {
        let progress = TaskProgress::default();
        let object = entry(b"a\0\0", b"\x01hi").json(TableExpiry::Never, Some(&progress));
        assert_eq!(object["partition"], 3);
        assert_eq!(object["key"], json!(["a"]));
        assert_eq!((&object["key_hex"], &object["value_hex"]), (&json!("610000"), &json!("6869")));
        assert_eq!((&object["version"], &object["value_text"]), (&json!(1), &json!("hi")));
        assert_eq!((&object["time"], &object["order_offset"]), (&Value::Null, &json!(0)));
    }

    #[test]
    fn a_word_is_quoted_as_a_shell_needs_it() {
        for (word, quoted) in
            [("p-1", "p-1"), ("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(shell_word(word), quoted);
        }
    }
}

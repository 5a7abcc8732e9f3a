//! The encoding of keys and values in stores.
//!
//! Encoded keys sort like the values they encode, so a range of keys is a range of bytes. Each part
//! marks its own end, so no two tuples have the same encoding. Values begin with a version: a build
//! reads all up to its own, and writes the one of the value level in force (`value_level.rs`).
//!
//! ```text
//! u64        8 bytes big-endian         i64, Millis   the same with the sign flipped
//! text       its bytes, 00 as 00 ff, then 00 00
//! Desc(k)    every byte of k inverted   tuples        one after the other
//! ```

use crate::derive::operator::OperatorError;
use crate::port::Table;
use crate::record::Millis;
use crate::value_level::ValueLevel;

pub use crate::derive::encoding::{FieldDecoder, put_bytes, put_signed};

/// A key of a store, or a prefix of one.
pub trait StoreKey: Sized {
    /// Appends its bytes.
    fn put(&self, out: &mut Vec<u8>);

    /// Decodes it; `None` if the bytes are not an encoding of it.
    fn read(from: &mut FieldDecoder<'_>) -> Option<Self>;
}

/// A value of a store.
pub trait StoreValue: Sized {
    /// The level from which each version is written, from version 1 on: `&[ValueLevel(1),
    /// ValueLevel(3)]` if version 2 is written from level 3 on. The first is 1, and each is higher
    /// than the one before. A new version has the level after the highest of the former release,
    /// whose builds don't read it.
    const LEVELS: &'static [ValueLevel] = &[ValueLevel::FIRST];

    /// Appends its bytes in this version, one of [`StoreValue::LEVELS`], without the version. What
    /// an older version has no field for is left out.
    fn put(&self, version: u8, out: &mut Vec<u8>);

    /// Decodes one of these versions; `None` if the bytes are not an encoding of it.
    fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self>;
}

/// A key that sorts in reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc<K>(pub K);

/// The encoding of a key.
pub(in crate::derive) fn key_bytes(key: &impl StoreKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    key.put(&mut out);
    out
}

/// Decodes a key, which must use up all bytes.
pub(super) fn read_key<K: StoreKey>(table: Table, bytes: &[u8]) -> Result<K, OperatorError> {
    let mut from = FieldDecoder(bytes);
    let key = K::read(&mut from).filter(|_| from.0.is_empty());
    key.ok_or_else(|| unreadable(table, "key"))
}

/// Appends a value's version at this level, and its bytes.
pub(in crate::derive) fn put_value<V: StoreValue>(value: &V, level: ValueLevel, out: &mut Vec<u8>) {
    let version = version_at::<V>(level);
    out.push(version);
    value.put(version, out);
}

/// The version that is written at a level.
fn version_at<V: StoreValue>(level: ValueLevel) -> u8 {
    let versions = V::LEVELS.iter().take_while(|from| **from <= level).count();
    u8::try_from(versions.max(1)).expect("levels rise, so there are at most 255 versions")
}

/// The level from which the newest version is written. It fails to compile, in the constant of a
/// store, if the levels of the versions do not rise from 1.
pub(in crate::derive) const fn newest_level<V: StoreValue>() -> ValueLevel {
    let levels = V::LEVELS;
    assert!(!levels.is_empty() && levels[0].0 == ValueLevel::FIRST.0, "version 1 is of level 1");
    let mut n = 1;
    while n < levels.len() {
        assert!(levels[n - 1].0 < levels[n].0, "a later version is of a higher level");
        n += 1;
    }
    levels[n - 1]
}

/// Decodes a value with its version, which must use up all bytes.
pub(in crate::derive) fn read_value<V: StoreValue>(
    table: Table,
    bytes: &[u8],
) -> Result<V, OperatorError> {
    decode_value(bytes).ok_or_else(|| unreadable(table, "value"))
}

/// Decodes a value with its version; `None` if the bytes are not exactly an encoding of one.
fn decode_value<V: StoreValue>(bytes: &[u8]) -> Option<V> {
    let mut from = FieldDecoder(bytes);
    let version =
        from.byte().filter(|version| (1..=V::LEVELS.len()).contains(&(*version).into()))?;
    V::read(version, &mut from).filter(|_| from.0.is_empty())
}

/// The error of bytes that this build can't decode. It is one of the call: the other operators go
/// on, and the dead letter can be requeued once the cause is removed.
pub(in crate::derive) fn unreadable(table: Table, what: &str) -> OperatorError {
    OperatorError::Failed(format!(
        "a {what} of table {} can't be decoded: a later build wrote it, or it is damaged; start \
         that build, or have the state rebuilt from the changelog with `tidewire state rebuild`, \
         and then requeue this dead letter",
        table.0
    ))
}

impl StoreKey for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.u64()
    }
}

impl StoreKey for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self ^ i64::MIN).to_be_bytes());
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(from.u64()? as i64 ^ i64::MIN)
    }
}

impl StoreKey for Millis {
    fn put(&self, out: &mut Vec<u8>) {
        StoreKey::put(&self.0, out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        <i64 as StoreKey>::read(from).map(Millis)
    }
}

impl StoreKey for () {
    fn put(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(())
    }
}

impl StoreKey for String {
    fn put(&self, out: &mut Vec<u8>) {
        for byte in self.bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
        out.extend_from_slice(&[0, 0]);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        let mut text = Vec::new();
        loop {
            match from.byte()? {
                0 if from.byte()? == 0 => return Self::from_utf8(text).ok(),
                byte => text.push(byte),
            }
        }
    }
}

impl<K: StoreKey> StoreKey for Desc<K> {
    fn put(&self, out: &mut Vec<u8>) {
        let from = out.len();
        self.0.put(out);
        out[from..].iter_mut().for_each(|byte| *byte = !*byte);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        let inverted: Vec<u8> = from.0.iter().map(|byte| !byte).collect();
        let mut own = FieldDecoder(&inverted);
        let key = K::read(&mut own)?;
        from.take(inverted.len() - own.0.len())?;
        Some(Self(key))
    }
}

impl<A: StoreKey, B: StoreKey> StoreKey for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some((A::read(from)?, B::read(from)?))
    }
}

impl<A: StoreKey, B: StoreKey, C: StoreKey> StoreKey for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some((A::read(from)?, B::read(from)?, C::read(from)?))
    }
}

impl StoreValue for () {
    fn put(&self, _: u8, _: &mut Vec<u8>) {}

    fn read(_: u8, _: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(())
    }
}

/// A count.
impl StoreValue for u64 {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        crate::record::put_varint(out, *self);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.varint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Full = (String, (Desc<i64>, u64), Desc<String>);

    fn full() -> impl Strategy<Value = Full> {
        let text = proptest::collection::vec(
            proptest::sample::select(vec!['\0', '\u{1}', 'a', 'b', 'é', '\u{7f}']),
            0..4,
        )
        .prop_map(String::from_iter);
        (text.clone(), any::<i8>(), any::<u8>(), text)
            .prop_map(|(a, b, c, d)| (a, (Desc(i64::from(b)), u64::from(c)), Desc(d)))
    }

    fn order(a: &Full, b: &Full) -> std::cmp::Ordering {
        let text = a.0.as_bytes().cmp(b.0.as_bytes());
        let numbers = b.1.0.0.cmp(&a.1.0.0).then(a.1.1.cmp(&b.1.1));
        text.then(numbers).then(b.2.0.as_bytes().cmp(a.2.0.as_bytes()))
    }

    proptest! {
        #[test]
        fn keys_read_back_and_sort_as_their_values(a in full(), b in full()) {
            let bytes = [key_bytes(&a), key_bytes(&b)];
            prop_assert_eq!(&read_key::<Full>(Table(1), &bytes[0]).expect("own"), &a);
            prop_assert_eq!(bytes[0].cmp(&bytes[1]), order(&a, &b));
        }

        #[test]
        fn damaged_keys_and_values_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = read_key::<Full>(Table(1), &bytes);
            let _ = read_value::<u64>(Table(1), &bytes);
        }
    }

    #[test]
    fn a_value_of_a_later_version_fails_its_call_and_says_what_to_do() {
        let mut bytes = Vec::new();
        put_value(&7u64, ValueLevel::FIRST, &mut bytes);
        assert_eq!(read_value::<u64>(Table(9), &bytes).expect("own"), 7);
        for version in [0, 2] {
            bytes[0] = version;
            let refused = read_value::<u64>(Table(9), &bytes).expect_err("another version");
            let OperatorError::Failed(refused) = refused else { panic!("{refused:?}") };
            assert!(refused.contains("table 9") && refused.contains("later build"), "{refused}");
            assert!(refused.contains("requeue"), "{refused}");
        }
    }

    /// Written as version 2 from level 3 on, and as version 3 from level 4 on.
    #[derive(Debug, PartialEq)]
    struct Versioned(u8);

    impl StoreValue for Versioned {
        const LEVELS: &'static [ValueLevel] = &[ValueLevel(1), ValueLevel(3), ValueLevel(4)];

        fn put(&self, version: u8, out: &mut Vec<u8>) {
            out.extend(std::iter::repeat_n(self.0, version.into()));
        }

        fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
            from.take(version.into()).map(|bytes| Self(bytes[0]))
        }
    }

    #[test]
    fn each_level_writes_its_version_and_every_version_is_read() {
        for (level, version) in [(1, 1), (2, 1), (3, 2), (4, 3), (255, 3)] {
            let mut bytes = Vec::new();
            put_value(&Versioned(9), ValueLevel(level), &mut bytes);
            assert_eq!((bytes[0], bytes.len()), (version, 1 + usize::from(version)), "{level}");
            assert_eq!(decode_value(&bytes), Some(Versioned(9)));
        }
        assert_eq!(decode_value::<Versioned>(&[4, 9, 9, 9, 9]), None);
        assert_eq!(newest_level::<Versioned>(), ValueLevel(4));
        assert_eq!(newest_level::<u64>(), ValueLevel::FIRST);
    }
}

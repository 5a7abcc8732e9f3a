//! The layout record: the number of the layout in which a deployment's topics were created.
//!
//! ```text
//! topic  catalogues (compacted, kept for ever, one partition)
//! key    the 6 bytes `layout`
//! value  the number in decimal digits, without a sign or leading zeros, such as `4`
//! ```
//!
//! Text, so that any Kafka client shows it. It is written once, before any other topic exists, and
//! never changes. Records of this topic with another key are not of this form.
//!
//! * 1: lanes partitioned by the key alone, `control` with as many partitions as the lanes; such
//!   topics have no layout record.
//! * 2: lanes partitioned by account and key, `control` and `catalogues` with one partition.
//! * 3: timers by account and entity; facts without an id in `order`, and copies for other keys.
//! * 4: facts and copies in packs, lists of copies that are still to be written, the cause of an
//!   act that waits, timers of leases, of partials and of what expires in tables of their own, the
//!   intervals of updates in packs, a user's notifications in pages, and the audit of a transaction
//!   as one of its outputs, in `out.audit`.
//!
//! The number is raised with every change of the lanes, of `order` or of state that a former build
//! or a former history would be read wrongly with.

/// The record's key.
pub const LAYOUT_KEY: &str = "layout";

/// The number of a layout, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutNumber(pub u32);

/// A value that is no number of a layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the layout record is {0:?}, which is no number")]
pub struct InvalidLayout(pub String);

impl LayoutNumber {
    /// The layout of this build.
    pub const CURRENT: Self = Self(4);

    /// The layout of topics without a layout record.
    pub const WITHOUT_RECORD: Self = Self(1);

    /// The record's value.
    pub fn encode(self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Reads the record's value. Any other form of a number is invalid.
    pub fn decode(value: &[u8]) -> Result<Self, InvalidLayout> {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let number = number.filter(|number| *number > 0).map(Self);
        number
            .filter(|number| number.encode() == value)
            .ok_or_else(|| InvalidLayout(String::from_utf8_lossy(value).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_is_the_number_in_digits() {
        assert_eq!(LayoutNumber(2).encode(), b"2");
        for wrong in [&b""[..], b"0", b"02", b"+2", b" 2", b"2\n", b"4294967296", b"two", b"\xff"] {
            assert!(LayoutNumber::decode(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_number_reads_back(number in 1..=u32::MAX) {
            let number = LayoutNumber(number);
            prop_assert_eq!(LayoutNumber::decode(&number.encode()), Ok(number));
        }

        #[test]
        fn what_reads_as_a_number_is_what_would_be_written(value in "[ +0-9a]{0,11}") {
            if let Ok(number) = LayoutNumber::decode(value.as_bytes()) {
                prop_assert_eq!(number.encode(), value.as_bytes());
            }
        }
    }
}

//! The value of a timer: what caused it, in one layout.
//!
//! ```text
//! 02 · hops byte · id, 16 bytes · account (LEB128 length, text) · entity · correlation id
//! ```
//!
//! A timer continues the chain of its cause: what it emits belongs to the account and the
//! correlation of the event that set it, and counts that event's hops. The id is a hash over the
//! cause's id and the timer's key, so a timer that has fired and is set again at the same time has
//! another id, and so have the events it emits. It follows from the input alone, as in a replay.

use tidewire_schemas::id::hex;

use crate::derive::encoding::{FieldDecoder, put_bytes};

/// The only version. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
const VERSION: u8 = 2;

/// What caused a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimerCause {
    /// Hops up to the timer, itself included.
    pub(super) hops: u8,
    /// The hash that distinguishes this timer from any other of its account.
    pub(super) id: [u8; 16],
    /// The account of the event that led to it.
    pub(super) account: String,
    /// The entity whose operator set it: the key of the account.
    pub(super) entity: String,
    /// The correlation id of that event.
    pub(super) correlation: String,
}

impl TimerCause {
    pub(super) fn encode(&self) -> Vec<u8> {
        let texts = self.account.len() + self.entity.len() + self.correlation.len();
        let mut out = Vec::with_capacity(24 + texts);
        out.extend_from_slice(&[VERSION, self.hops]);
        out.extend_from_slice(&self.id);
        put_bytes(&mut out, self.account.as_bytes());
        put_bytes(&mut out, self.entity.as_bytes());
        put_bytes(&mut out, self.correlation.as_bytes());
        out
    }

    /// `None`: the bytes are damaged, or a later build wrote them.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let (hops, id) = (from.byte()?, *from.take(16)?.first_chunk()?);
        let account = from.text()?.to_owned();
        let (entity, correlation) = (from.text()?.to_owned(), from.text()?.to_owned());
        from.end()?;
        Some(Self { hops, id, account, entity, correlation })
    }

    /// The id as text, in ids of emitted events and of dead letters.
    pub(super) fn hex(&self) -> String {
        hex(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_timers_cause_reads_back(
            hops: u8,
            id: [u8; 16],
            account in ".{0,40}",
            entity in ".{0,40}",
            correlation in ".{0,200}",
        ) {
            let cause = TimerCause { hops, id, account, entity, correlation };
            prop_assert_eq!(TimerCause::decode(&cause.encode()), Some(cause));
        }

        #[test]
        fn damaged_and_later_causes_are_refused_without_panic(mut bytes: Vec<u8>) {
            let _ = TimerCause::decode(&bytes);
            if let Some(version) = bytes.first_mut() {
                *version = VERSION + 1;
                prop_assert_eq!(TimerCause::decode(&bytes), None);
            }
        }
    }
}

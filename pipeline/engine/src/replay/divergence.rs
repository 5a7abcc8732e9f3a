//! What a replay can find, in words.

use std::fmt;

use crate::port::{LogError, StoreError};
use crate::record::{Offset, TopicPartition};
use crate::turn::EngineError;

/// The first thing that came out otherwise than the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The transaction: its record in `order`.
    pub transaction: (TopicPartition, Offset),
    /// What differs.
    pub kind: DivergenceKind,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DivergenceKind {
    /// A lane has other records than were taken.
    Lane {
        /// Which, and how.
        text: String,
    },
    /// A field of the `order` record.
    Order {
        /// Its name.
        field: &'static str,
        /// What the log has.
        recorded: String,
        /// What came out now.
        replayed: String,
    },
    /// An output that came out now is not in its topic.
    Output {
        /// Which of the transaction's, from 0.
        index: usize,
        /// Where it belongs.
        to: TopicPartition,
        /// The record there that is most like it.
        nearest: Option<Nearest>,
    },
    /// A record of the changelog that did not come out now.
    Changelog {
        /// Where it stands.
        at: (TopicPartition, Offset),
    },
}

/// A record with the same key and length as an output that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Where it stands.
    pub offset: Offset,
    /// How many bytes of its body are others.
    pub bytes: usize,
    /// The first of them.
    pub first: usize,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, offset) = &self.transaction;
        write!(f, "{at}/{}: {}", offset.0, self.kind)
    }
}

impl fmt::Display for DivergenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane { text } => f.write_str(text),
            Self::Order { field, recorded, replayed } => {
                write!(f, "{field}: {recorded} in the log, {replayed} now")
            }
            Self::Output { index, to, nearest: None } => {
                write!(f, "output {index} is not in {to}")
            }
            Self::Output { index, to, nearest: Some(Nearest { offset, bytes, first }) } => write!(
                f,
                "output {index} is not in {to}; nearest is {to}/{} (bytes that differ: {bytes}, \
                 the first at {first})",
                offset.0
            ),
            Self::Changelog { at: (at, offset) } => {
                write!(f, "{at}/{} did not come out", offset.0)
            }
        }
    }
}

/// Why a replay has no result.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// What is asked for can't be replayed; the text says what can.
    #[error("{0}")]
    Refused(String),
    /// The log failed.
    #[error("could not read the log")]
    Log(#[from] LogError),
    /// The sandbox's store failed.
    #[error("could not keep the replay's state")]
    Store(#[from] StoreError),
    /// The sandbox failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

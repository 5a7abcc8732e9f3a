//! The results of a replay: the first divergence from the log, or why there is no result.

use std::fmt;

use crate::port::{LogError, StoreError};
use crate::record::{Offset, TopicPartition};
use crate::turn::EngineError;

/// The first difference between the replay and the log.
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
    /// A lane does not contain the records that the transaction read.
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
        /// What the replay gave.
        replayed: String,
    },
    /// An output of the replay is not in its topic.
    Output {
        /// Its index in the transaction, from 0.
        index: usize,
        /// The partition it belongs to.
        to: TopicPartition,
        /// The most similar record there.
        nearest: Option<Nearest>,
    },
    /// A record of the changelog is not among the results of the replay.
    Changelog {
        /// Its position.
        at: (TopicPartition, Offset),
    },
}

/// A record with the key and length of a missing output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Its offset.
    pub offset: Offset,
    /// How many bytes of its body differ.
    pub bytes: usize,
    /// The first byte that differs.
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
                write!(f, "{field}: {recorded} in the log, {replayed} in the replay")
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
                write!(f, "{at}/{} is not among the replayed changes", offset.0)
            }
        }
    }
}

/// Why a replay has no result.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The requested span can't be replayed; the text says what can.
    #[error("{0}")]
    Refused(String),
    /// The log failed.
    #[error("could not read the log")]
    Log(#[from] LogError),
    /// The sandbox's store failed.
    #[error("could not write the replay's state")]
    Store(#[from] StoreError),
    /// The sandbox failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

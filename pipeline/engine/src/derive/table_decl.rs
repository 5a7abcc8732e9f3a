//! Declarations of an operator's tables: number, name, expiry and the changelog that restores them.
//!
//! They are data that the store, the changelogs and the timers share, so this file uses nothing
//! else of DERIVE.

use crate::port::TableSpec;
use crate::topology::WINDOWS_RETENTION_MS;
use crate::value_level::ValueLevel;

/// The longest window in milliseconds: a day less than its changelog is kept, as a margin for wrong
/// clocks and slow replays.
pub(super) const WINDOW_MS_MAX: i64 = WINDOWS_RETENTION_MS as i64 - 24 * 3_600_000;

/// The topic from which a table is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changelog {
    /// `state`: one record per changed key.
    State,
    /// `state.windows`: the same, for tables whose keys begin with their time.
    Windows,
    /// `order`: the ids accepted; only for the table of de-duplication.
    Order,
}

/// A table of an operator.
#[derive(Clone, Copy, Debug)]
pub struct TableDecl {
    /// Number, name, and how entries expire.
    pub spec: TableSpec,
    /// The topic from which it is restored.
    pub changelog: Changelog,
    /// For a table whose entries expire: milliseconds of settled time until they do.
    pub window_ms: i64,
    /// The level from which the newest version of its values is written; the first for values
    /// without versions.
    pub level: ValueLevel,
}

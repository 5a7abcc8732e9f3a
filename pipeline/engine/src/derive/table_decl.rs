//! Declarations of an operator's tables: number, name, expiry and the changelog that restores them.
//!
//! The declaration is data that the store, the changelog and the timers share, so this file uses
//! nothing else of DERIVE.

use crate::port::TableSpec;

/// Which topic brings a table back after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changelog {
    /// `state`: one record per changed key.
    State,
    /// `state.windows`: the same, for tables whose keys begin with their time.
    Windows,
    /// `order`: the ids accepted; the table of de-duplication alone.
    Order,
}

/// A table an operator keeps.
#[derive(Clone, Copy, Debug)]
pub struct TableDecl {
    /// Number, name, and whether values begin with their time.
    pub spec: TableSpec,
    /// What brings it back.
    pub changelog: Changelog,
    /// For a table that is not kept for ever: milliseconds of task time its entries matter.
    pub window_ms: i64,
}

//! Declarations of partials: what a task must know to flush one, whatever its keys and values are.

use crate::port::Table;

/// The operator number of partials in the table of intervals; no operator may use it.
pub(super) const PARTIALS: u8 = 253;

/// The numbers and names of a partial.
#[derive(Clone, Copy, Debug)]
pub struct PartialSpec {
    /// The table of the parts that were not sent yet.
    pub(super) table: Table,
    /// Its name, and the partial's.
    pub(super) name: &'static str,
    /// The internal event type that carries a part to the owner of its key.
    pub(super) event_type: &'static str,
    /// How long the first part waits for others.
    pub(super) interval_ms: i64,
}

/// A partial of an operator.
pub trait PartialDecl: Sync {
    /// Its numbers and names.
    fn spec(&self) -> PartialSpec;

    /// The data of the event that carries a part, from the stored key and value; `None` if this
    /// build can't decode them.
    fn event_data(&self, key: &[u8], value: &[u8]) -> Option<String>;
}

//! The tables of a task: the timers', the source offsets', and those that its operators declare.
//!
//! Contradicting declarations are bugs and panic at the start, before a store is opened with them.

use crate::derive::operator::Operator;
use crate::derive::partial_decl::PARTIALS;
use crate::derive::source_offsets::SOURCES_DECL;
use crate::derive::state_channel::LIVES;
use crate::derive::stores::EXPIRY;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::{EXPIRIES, INTERVALS, LEASES, TIMERS};
use crate::derive::updates::UPDATES;
use crate::port::{Table, TableExpiry, TableSpec};
use crate::topology::WINDOWS_RETENTION_MS;
use crate::value_level::ValueLevel;

/// The longest window in milliseconds: a day less than its changelog is kept, as a margin for wrong
/// clocks and slow replays.
pub(super) const WINDOW_MS_MAX: i64 = WINDOWS_RETENTION_MS as i64 - 24 * 3_600_000;

/// The highest value level of a build with these operators.
pub fn highest_level(operators: &[&dyn Operator]) -> ValueLevel {
    TaskTables::of(operators).highest_level()
}

/// All tables of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskTables {
    declared: Vec<TableDecl>,
    specs: Vec<TableSpec>,
}

impl TaskTables {
    /// The tables of these operators. Panics on contradicting declarations, such as one number used
    /// twice.
    pub(super) fn of(operators: &[&dyn Operator]) -> Self {
        let mut declared = vec![TIMERS, SOURCES_DECL, INTERVALS, LEASES, EXPIRIES];
        declared.extend(operators.iter().flat_map(|operator| operator.tables()));
        let specs: Vec<TableSpec> = declared.iter().map(|table| table.spec).collect();
        for (n, spec) in specs.iter().enumerate() {
            let twice = specs[..n].iter().any(|other| other.table == spec.table);
            assert!(!twice, "table number {} is declared twice", spec.table.0);
        }
        let is_reserved = |number| [EXPIRY, LIVES, UPDATES, PARTIALS].contains(&number);
        let reserved = operators.iter().find(|operator| is_reserved(operator.number()));
        let reserved = reserved.map(|operator| operator.name());
        assert!(reserved.is_none(), "the number of operator {reserved:?} is the engine's own");
        for operator in operators {
            for partial in operator.partials().iter().map(|partial| partial.spec()) {
                let is_own = operator.tables().iter().any(|own| own.spec.table == partial.table);
                assert!(is_own, "{}: its table is not declared by its operator", partial.name);
            }
        }
        for decl in &declared {
            let by_age = decl.changelog == Changelog::Windows;
            let name = decl.spec.name;
            assert_eq!(
                decl.spec.expiry == TableExpiry::ByKeyTime,
                by_age,
                "{name}: a changelog of windows and expiry by key time go together"
            );
            assert!(!by_age || decl.window_ms <= WINDOW_MS_MAX, "{name}: the window is too long");
        }
        Self { declared, specs }
    }

    /// The tables as the store is told to keep them.
    pub(super) fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// Whether a table is declared.
    pub(super) fn has(&self, table: Table) -> bool {
        self.specs.iter().any(|spec| spec.table == table)
    }

    /// A table's changelog. Panics for an undeclared table: operators write to declared ones only.
    pub(super) fn changelog(&self, table: Table) -> Changelog {
        let decl = self.declared.iter().find(|decl| decl.spec.table == table);
        decl.expect("an operator writes to tables it has declared").changelog
    }

    /// The level from which the newest version of all values is written.
    pub(super) fn highest_level(&self) -> ValueLevel {
        self.declared.iter().map(|decl| decl.level).max().unwrap_or_default()
    }

    /// The tables whose entries expire, and their windows in milliseconds.
    pub(super) fn expiring(&self) -> impl Iterator<Item = (Table, i64)> {
        let goes = |decl: &&TableDecl| decl.spec.expiry != TableExpiry::Never;
        self.declared.iter().filter(goes).map(|decl| (decl.spec.table, decl.window_ms))
    }
}

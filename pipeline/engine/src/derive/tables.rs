//! The tables of a task: those of the engine, and those that its operators declare.
//!
//! Contradicting declarations are bugs and panic at the start, before a store is opened with them.

use crate::derive::dedup::IDS;
use crate::derive::intervals::INTERVALS;
use crate::derive::operator::Operator;
use crate::derive::partial_decl::PARTIALS;
use crate::derive::skipped::{SKIPPED, SKIPPED_WINDOWS};
use crate::derive::source_offsets::SOURCES_DECL;
use crate::derive::state_channel::LIVES;
use crate::derive::stores::EXPIRY;
use crate::derive::table_decl::{Changelog, TableDecl, WINDOW_MS_MAX};
use crate::derive::timers::{EXPIRIES, FLUSHES, LEASES, TIMERS};
use crate::port::{Store, Table, TableExpiry, TableSpec};
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// The highest value level of a build with these operators.
pub fn highest_level(operators: &[&dyn Operator]) -> ValueLevel {
    TaskTables::of(operators).highest_level()
}

/// The state of a task over an opened store. Accepted ids are rarely looked up twice, so they are
/// in memory only until they are written.
pub(super) fn task_state(store: Box<dyn Store>, hash_seed: u64) -> TaskState {
    TaskState::new(store).without_cache(IDS).with_hash_seed(hash_seed)
}

/// All tables of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskTables {
    declared: Vec<TableDecl>,
    specs: Vec<TableSpec>,
    /// By table number.
    changelogs: Vec<Option<Changelog>>,
}

impl TaskTables {
    /// The tables of these operators. Panics on contradicting declarations, such as one number used
    /// twice.
    pub(super) fn of(operators: &[&dyn Operator]) -> Self {
        let mut declared = vec![TIMERS, SOURCES_DECL, INTERVALS, LEASES, EXPIRIES, FLUSHES];
        declared.extend([SKIPPED, SKIPPED_WINDOWS]);
        declared.extend(operators.iter().flat_map(|operator| operator.tables()));
        let specs: Vec<TableSpec> = declared.iter().map(|table| table.spec).collect();
        for (n, spec) in specs.iter().enumerate() {
            let twice = specs[..n].iter().any(|other| other.table == spec.table);
            assert!(!twice, "table number {} is declared twice", spec.table.0);
        }
        let is_reserved = |number| [EXPIRY, LIVES, PARTIALS].contains(&number);
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
        let mut changelogs = vec![None; 1 + usize::from(u8::MAX)];
        for decl in &declared {
            changelogs[usize::from(decl.spec.table.0)] = Some(decl.changelog);
        }
        Self { declared, specs, changelogs }
    }

    /// The tables as the store is told to keep them.
    pub(super) fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// Whether a table is declared.
    pub(super) fn has(&self, table: Table) -> bool {
        self.changelogs[usize::from(table.0)].is_some()
    }

    /// A table's changelog. Panics for an undeclared table: operators write to declared ones only.
    pub(super) fn changelog(&self, table: Table) -> Changelog {
        let changelog = self.changelogs[usize::from(table.0)];
        changelog.expect("an operator writes to tables it has declared")
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

//! The tables of a task: those its operators declare, and the timers'.

use crate::derive::operator::Operator;
use crate::derive::stores::EXPIRY;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::TIMERS;
use crate::port::{Table, TableExpiry, TableSpec};
use crate::topology::WINDOWS_RETENTION_MS;

/// How long an entry of a window may matter: a day less than its changelog keeps it, for a clock
/// that is wrong and a replay that is slow.
pub(super) const WINDOW_MS_MAX: i64 = WINDOWS_RETENTION_MS as i64 - 24 * 3_600_000;

/// Every table a task keeps.
#[derive(Clone, Debug)]
pub(super) struct TaskTables {
    declared: Vec<TableDecl>,
    specs: Vec<TableSpec>,
}

impl TaskTables {
    /// The tables of these operators. Two tables of one number are a bug and stop the start.
    pub(super) fn of(operators: &[&dyn Operator]) -> Self {
        let mut declared = vec![TIMERS];
        declared.extend(operators.iter().flat_map(|operator| operator.tables()));
        let specs: Vec<TableSpec> = declared.iter().map(|table| table.spec).collect();
        for (n, spec) in specs.iter().enumerate() {
            let twice = specs[..n].iter().any(|other| other.table == spec.table);
            assert!(!twice, "table {} is declared twice", spec.table.0);
        }
        let reserved = operators.iter().find(|operator| operator.number() == EXPIRY);
        assert!(reserved.is_none(), "operator {EXPIRY} is the expiry of stores");
        for decl in &declared {
            let by_age = decl.changelog == Changelog::Windows;
            let name = decl.spec.name;
            assert_eq!(
                decl.spec.expiry == TableExpiry::ByKeyTime,
                by_age,
                "{name}: ranges go from both"
            );
            assert!(!by_age || decl.window_ms <= WINDOW_MS_MAX, "{name}: a window is too long");
        }
        Self { declared, specs }
    }

    /// How the store keeps them.
    pub(super) fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// Whether a table is declared.
    pub(super) fn has(&self, table: Table) -> bool {
        self.specs.iter().any(|spec| spec.table == table)
    }

    /// What brings a table back. Operators can write to declared tables only.
    pub(super) fn changelog(&self, table: Table) -> Changelog {
        let decl = self.declared.iter().find(|decl| decl.spec.table == table);
        decl.expect("an operator writes to tables it has declared").changelog
    }

    /// The tables whose entries go by themselves, and their windows in milliseconds.
    pub(super) fn expiring(&self) -> impl Iterator<Item = (Table, i64)> {
        let goes = |decl: &&TableDecl| decl.spec.expiry != TableExpiry::Never;
        self.declared.iter().filter(goes).map(|decl| (decl.spec.table, decl.window_ms))
    }
}

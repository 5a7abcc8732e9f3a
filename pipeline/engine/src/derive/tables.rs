//! The tables of a task: those its operators declare, and the timers'.

use crate::derive::operator::{Changelog, Operator, TableDecl};
use crate::derive::timers::TIMERS;
use crate::port::{Table, TableSpec};

/// Every table a task keeps.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    declared: Vec<TableDecl>,
    specs: Vec<TableSpec>,
}

impl Tables {
    /// The tables of these operators. Two tables of one number are a bug and stop the start.
    pub(super) fn of(operators: &[&dyn Operator]) -> Self {
        let mut declared = vec![TIMERS];
        declared.extend(operators.iter().flat_map(|operator| operator.tables()));
        let specs: Vec<TableSpec> = declared.iter().map(|table| table.spec).collect();
        for (n, spec) in specs.iter().enumerate() {
            let twice = specs[..n].iter().any(|other| other.table == spec.table);
            assert!(!twice, "table {} is declared twice", spec.table.0);
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

    /// Whether a table's changes go to `state`.
    pub(super) fn in_state(&self, table: Table) -> bool {
        self.declared
            .iter()
            .any(|decl| decl.spec.table == table && decl.changelog == Changelog::State)
    }

    /// The tables that expire, and their windows in milliseconds.
    pub(super) fn expiring(&self) -> impl Iterator<Item = (Table, i64)> {
        self.declared.iter().filter(|decl| decl.spec.expires).map(|d| (d.spec.table, d.window_ms))
    }
}

//! The layout of a task's database: column families by how entries expire, table numbers in keys.
//!
//! ```text
//! family     key                      value
//! default    "progress"               the encoded changelog offsets this state corresponds to
//!            "table" · number         the family of the table: 0 kept, 1 expiring, 2 windowed
//! kept       number · key as given    as given; stays until it is removed
//! expiring   number · key as given    as given; expires by the time at the beginning of the value
//! windowed   number · key as given    as given; expires by the time at the beginning of the key
//! ```
//!
//! The number of a table is one byte, so the rows of a table are adjacent and no range of one table
//! has a row of another. Tables share families because each family has a write buffer of its own:
//! with a family per table, eight tasks of fifty tables flush small files all the time.
//!
//! A table never changes its family. A database with other families, or with a table in another
//! family, was written by another build: opening it is an error that says how to rebuild it.

use std::path::Path;

use tidewire_engine::port::{StoreError, Table, TableExpiry};

/// The family of progress and of the tables' families.
pub(super) const META: &str = "default";

/// The key of the progress.
pub(super) const PROGRESS: &[u8] = b"progress";

/// What the keys of the tables' families begin with.
pub(super) const TABLE: &[u8] = b"table";

/// A family of tables, by how their entries expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFamily {
    Kept,
    Expiring,
    Windowed,
}

impl TableFamily {
    pub(super) const ALL: [Self; 3] = [Self::Kept, Self::Expiring, Self::Windowed];

    /// The family of tables that expire like this.
    pub(super) fn of(expiry: TableExpiry) -> Self {
        match expiry {
            TableExpiry::Never => Self::Kept,
            TableExpiry::ByValueTime => Self::Expiring,
            TableExpiry::ByKeyTime => Self::Windowed,
        }
    }

    /// Its name in RocksDB.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Expiring => "expiring",
            Self::Windowed => "windowed",
        }
    }

    /// The value of a table's family.
    pub(super) fn encode(self) -> [u8; 1] {
        [self as u8]
    }

    /// Decodes the value of a table's family; `None` if it is not one.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.encode() == value)
    }
}

/// The key of a table's family.
pub(super) fn table_key(table: Table) -> Vec<u8> {
    [TABLE, &[table.0]].concat()
}

/// The table of such a key; `None` if it is not one.
pub(super) fn table_of(key: &[u8]) -> Option<Table> {
    match key.strip_prefix(TABLE)? {
        [number] => Some(Table(*number)),
        _ => None,
    }
}

/// The row of a table's key.
pub(super) fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    put_row_key(table, key, &mut row);
    row
}

/// Replaces `row` by the row of a table's key.
pub(super) fn put_row_key(table: Table, key: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.push(table.0);
    row.extend_from_slice(key);
}

/// The first row behind a table; `None`: to the end of its family.
pub(super) fn end_of(table: Table) -> Option<Vec<u8>> {
    table.0.checked_add(1).map(|next| vec![next])
}

/// Table and key of a row; `None` for an empty key, which no table has.
pub(super) fn split_row(row: &[u8]) -> Option<(Table, &[u8])> {
    row.split_first().map(|(number, key)| (Table(*number), key))
}

/// Fails if the families of a database are not those of this layout.
pub(super) fn check_families(dir: &Path, families: &[String]) -> Result<(), StoreError> {
    let is_known =
        |name: &str| name == META || TableFamily::ALL.iter().any(|family| family.name() == name);
    match families.iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(other_layout(dir, &format!("it has the column family {name}"))),
    }
}

/// The error of a database that another build has written.
pub(super) fn other_layout(dir: &Path, why: &str) -> StoreError {
    let message = format!(
        "{} was written by another build ({why}): start that build again, or remove the state with \
         `tidewire state rebuild` to have it rebuilt from the changelog",
        dir.display()
    );
    StoreError { message, source: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_sort_by_table_and_key_and_read_back(
            a: (u8, Vec<u8>), b: (u8, Vec<u8>), damaged: Vec<u8>,
        ) {
            let row = |(table, key): &(u8, Vec<u8>)| row_key(Table(*table), key);
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
            let stored = row(&a);
            prop_assert_eq!(split_row(&stored), Some((Table(a.0), &a.1[..])));
            let is_behind = end_of(Table(a.0)).is_some_and(|end| row(&b) >= end);
            prop_assert_eq!(is_behind, b.0 > a.0, "no range of a table has rows of another");
            prop_assert_eq!(table_of(&table_key(Table(a.0))), Some(Table(a.0)));
            let family = TableFamily::decode(&damaged);
            prop_assert!(family.is_none_or(|family| family.encode()[..] == damaged[..]));
        }
    }

    #[test]
    fn a_family_reads_back_and_those_of_another_layout_are_refused() {
        for family in TableFamily::ALL {
            assert_eq!(TableFamily::decode(&family.encode()), Some(family));
        }
        let check = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            check_families(Path::new("dir"), &names).map_err(|error| error.message)
        };
        assert_eq!(check(&["default", "kept", "windowed"]), Ok(()));
        let text = check(&["default", "meta", "table-1"]).unwrap_err();
        assert!(text.contains("column family meta") && text.contains("state rebuild"), "{text}");
    }
}

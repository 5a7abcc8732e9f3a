//! `tidewire state get`: prints entries of a table from the stores in the data folder.
//!
//! It reads the stores beside the process that has them open, locks nothing and changes nothing.
//! Which partition has a key is a matter of the operator that writes it, so all are searched.

use std::ops::ControlFlow;

use tidewire_connectors::rocks::{self, RocksStores, TableView};
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::derive::table_specs;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{StoreError, Table, TableExpiry, TableSpec};
use tidewire_engine::record::Partition;

use super::entry::{StateEntry, key_text};
use super::key_element::KeyElement;
use crate::cli::StateGetArgs;
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Prints the entries; that there are none is a failure.
pub(super) fn run(args: &StateGetArgs) -> Result<(), ProcessExit> {
    let key = key_bytes(args)?;
    let config = configure::for_command(&args.settings)?;
    let stores = RocksStores::new(rocks::Config::new(super::folder(&config)?));
    let partitions = super::partitions(&stores, &args.partitions)?;
    let specs = table_specs(OPERATORS);
    let (table, expiry) = find_table(&specs, &args.table, || tables_of(&stores, &partitions))?;
    let mut search = Search { args, key, expiry, printed: 0, is_cut: false };
    for partition in &partitions {
        if search.is_cut {
            break;
        }
        if let Some(view) = stores.view(*partition, table).map_err(unreadable)? {
            search.print(*partition, &view)?;
        }
    }
    search.conclude(&stores, partitions.len())
}

/// The bytes of the key's parts.
fn key_bytes(args: &StateGetArgs) -> Result<Vec<u8>, ProcessExit> {
    let mut elements: Vec<KeyElement> =
        args.account.iter().cloned().map(KeyElement::Text).collect();
    for word in &args.key {
        elements.push(KeyElement::parse(word).map_err(ProcessExit::Usage)?);
    }
    if elements.is_empty() && !args.prefix {
        return Err(ProcessExit::Usage(
            "give the parts of the key, or --prefix to list the first entries of the table".into(),
        ));
    }
    let mut key = Vec::new();
    elements.iter().for_each(|element| element.put(&mut key));
    Ok(key)
}

/// A table by its name or number, and how its entries expire. A number may also be that of a table
/// of another build, which the stores have.
fn find_table(
    specs: &[TableSpec],
    asked: &str,
    stored: impl FnOnce() -> Result<Vec<Table>, ProcessExit>,
) -> Result<(Table, TableExpiry), ProcessExit> {
    let number = asked.parse().ok().map(Table);
    let is_asked = |spec: &&TableSpec| spec.name == asked || Some(spec.table) == number;
    if let Some(spec) = specs.iter().find(is_asked) {
        return Ok((spec.table, spec.expiry));
    }
    if let Some(number) = number
        && stored()?.contains(&number)
    {
        return Ok((number, TableExpiry::Never));
    }
    let mut known = specs.to_vec();
    known.sort_by_key(|spec| spec.table);
    let known: Vec<String> =
        known.iter().map(|spec| format!("{} ({})", spec.name, spec.table.0)).collect();
    Err(ProcessExit::Usage(format!("there is no table {asked}; there are: {}", known.join(", "))))
}

fn tables_of(stores: &RocksStores, partitions: &[Partition]) -> Result<Vec<Table>, ProcessExit> {
    let mut tables = Vec::new();
    for partition in partitions {
        tables.extend(stores.tables(*partition).map_err(unreadable)?);
    }
    Ok(tables)
}

fn unreadable(error: StoreError) -> ProcessExit {
    ProcessExit::because("could not read the state", error)
}

/// A search in one store after the other.
struct Search<'a> {
    args: &'a StateGetArgs,
    key: Vec<u8>,
    expiry: TableExpiry,
    printed: u32,
    /// There are more entries than the limit.
    is_cut: bool,
}

impl Search<'_> {
    /// Prints what a store has.
    fn print(&mut self, partition: Partition, view: &TableView) -> Result<(), ProcessExit> {
        let progress = view.progress().map_err(unreadable)?;
        let progress = progress.and_then(|bytes| TaskProgress::decode(&bytes));
        let progress = progress.as_ref();
        if !self.args.prefix {
            let Some(value) = view.get(&self.key).map_err(unreadable)? else { return Ok(()) };
            let key = self.key.clone();
            return self.print_entry(&StateEntry { partition, key: &key, value: &value }, progress);
        }
        let (prefix, mut outcome) = (self.key.clone(), Ok(()));
        let visited = view.visit(&prefix, &mut |key, value| {
            if self.printed == self.args.limit {
                self.is_cut = true;
                return ControlFlow::Break(());
            }
            outcome = self.print_entry(&StateEntry { partition, key, value }, progress);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        visited.map_err(unreadable)?;
        outcome
    }

    fn print_entry(
        &mut self,
        entry: &StateEntry<'_>,
        progress: Option<&TaskProgress>,
    ) -> Result<(), ProcessExit> {
        self.printed += 1;
        terminal::print_line(&if self.args.json {
            entry.json(self.expiry, progress).to_string()
        } else {
            entry.line(self.expiry)
        })
    }

    fn conclude(&self, stores: &RocksStores, searched: usize) -> Result<(), ProcessExit> {
        let limit = self.args.limit;
        if self.is_cut {
            terminal::print_notice(&format!(
                "printed the first {limit} entries, there are more; give more parts of the key, \
                 --partition, or a higher --limit"
            ));
        }
        if self.printed > 0 {
            return Ok(());
        }
        let key = key_text(&self.key);
        let what = match (self.args.prefix, key.is_empty()) {
            (true, true) => "entry".to_owned(),
            (true, false) => format!("entry whose key begins with {key}"),
            (false, _) => format!("entry with the key {key}"),
        };
        let stores_text = if searched == 1 { "store" } else { "stores" };
        Err(ProcessExit::failed(format!(
            "table {} has no {what} in {searched} {stores_text} in {}; what was committed in the \
             last second may not be written yet",
            self.args.table,
            stores.folder().display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tidewire_engine::derive::dedup::Dedup;

    use super::*;
    use crate::cli::{Cli, StateVerb, Verb};

    fn parsed(words: &[&str]) -> Result<StateGetArgs, String> {
        let words = ["tidewire", "state", "get"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.verb {
            Verb::State(args) => match args.verb {
                StateVerb::Get(args) => Ok(args),
                StateVerb::Rebuild(_) => Err("rebuild".into()),
            },
            _ => Err("another command".into()),
        }
    }

    fn key(words: &[&str]) -> Result<Vec<u8>, String> {
        key_bytes(&parsed(words)?).map_err(|error| error.to_string())
    }

    #[test]
    fn the_account_is_the_first_part_of_the_key() {
        assert_eq!(key(&["t", "p1", "--account", "hex:00"]), Ok(b"hex:00\0\0p1\0\0".to_vec()));
        assert_eq!(key(&["t", "hex:0102"]), Ok(vec![1, 2]));
        assert_eq!(key(&["t", "--prefix"]), Ok(Vec::new()));
        assert!(key(&["t"]).expect_err("no key").contains("--prefix"));
        assert!(key(&["t", "u64:x"]).expect_err("damaged").contains("u64:0"));
    }

    #[test]
    fn a_limit_is_of_a_list_and_bounded() {
        assert_eq!(parsed(&["t", "--prefix"]).map(|args| args.limit), Ok(20));
        for wrong in [&["t", "a", "--limit", "5"][..], &["t", "--prefix", "--limit", "1001"], &[]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_table_is_found_by_name_and_number_and_an_unknown_one_named_with_all() {
        let specs = table_specs(&[&Dedup]);
        let find = |asked: &str| {
            find_table(&specs, asked, || Ok(vec![Table(1), Table(77)]))
                .map_err(|error| error.to_string())
        };
        assert_eq!(find("ids"), Ok((Table(1), TableExpiry::ByValueTime)));
        assert_eq!(find("1"), find("ids"));
        assert_eq!(find("77"), Ok((Table(77), TableExpiry::Never)));
        for unknown in ["78", "idz", "256", ""] {
            let text = find(unknown).expect_err("unknown");
            let expected = "; there are: timers (0), ids (1), sources (2), intervals (3), \
                            leases (4), expiries (5), flushes (6), skipped (8), \
                            skipped.windows (9)";
            assert_eq!(text, format!("there is no table {unknown}{expected}"));
        }
    }
}

//! Builds with different operators that take turns on the stores of two machines.
//!
//! The earlier build does not have the tables of the later build's operator. Whatever the order in
//! which they run, a store of the later build must hold what a restore into an empty one gives.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, Flow, Input, Operator, OperatorError, Operators,
    TableDecl, dedup::Dedup,
};
use tidewire_engine::port::{Table, TableExpiry, TableSpec};
use tidewire_engine::topology::Lane;
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_tests::test_rng::TestRng;

use crate::fake::FakeStores;
use crate::one_machine::OneMachine;

/// Histories in one run.
const HISTORIES: u64 = 60;

/// Turns of builds in each.
const SESSIONS: u64 = 7;

/// Events of a session.
const EVENTS: u64 = 30;

/// Turns with faults of a session.
const TURNS: u64 = 45;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 500;

/// Ids of posts: few, so that rows are written again and removed.
const POSTS: u64 = 12;

const NUMBER: u8 = 80;

const NEWEST: Table = Table(80);

const SEEN: Table = Table(81);

/// The tables of the later build, one that both have, and those of rows that are kept for another
/// build, which the later build leaves empty.
const COMPARED: [Table; 5] = [NEWEST, SEEN, Table(2), Table(8), Table(9)];

/// Keeps the newest event of each post that is not deleted, and when each was seen.
struct LaterOperator;

impl Operator for LaterOperator {
    fn number(&self) -> u8 {
        NUMBER
    }

    fn name(&self) -> &'static str {
        "later"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const fn decl(table: Table, changelog: Changelog, expiry: TableExpiry) -> TableDecl {
            let spec = TableSpec { table, name: "later", expiry };
            TableDecl { spec, changelog, window_ms: 3_600_000, level: ValueLevel::FIRST }
        }
        const TABLES: &[TableDecl] = &[
            decl(NEWEST, Changelog::State, TableExpiry::Never),
            decl(SEEN, Changelog::Windows, TableExpiry::ByKeyTime),
        ];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        match event.event_type {
            "post.deleted" => context.remove(NEWEST, event.key.as_bytes()),
            _ => context.put(NEWEST, event.key.as_bytes(), event.event_id.as_bytes()),
        }
        let hour = (context.time().0 / 3_600_000) as u64;
        let key = [&hour.to_be_bytes(), event.key.as_bytes()].concat();
        context.put(SEEN, &key, event.event_id.as_bytes());
        Ok(Flow::Continue)
    }
}

const EARLIER: Operators = &[&Dedup, &ChannelDelivery];
const LATER: Operators = &[&Dedup, &LaterOperator, &ChannelDelivery];

fn event(rng: &mut TestRng, n: u64) -> Event {
    let key = format!("p{}", rng.below(POSTS));
    let event_type = if rng.below(3) == 0 { "post.deleted" } else { "post.created" };
    Event {
        event_id: format!("e-{n}"),
        event_type: event_type.to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 0,
        correlation_id: format!("e-{n}"),
        priority: Priority::Normal,
        data: format!(r#"{{"post_id":"{key}","author_id":"a","text":"hello"}}"#),
        key,
        source: None,
        alias: None,
    }
}

/// Rows by partition, table and key.
type Rows = BTreeMap<(u32, Table, Bytes), Bytes>;

/// The rows of a machine's stores.
fn rows(stores: &FakeStores) -> Rows {
    let mut rows = Rows::new();
    for (partition, disk) in stores.disks().iter() {
        let compared = disk.data.iter().filter(|((table, _), _)| COMPARED.contains(table));
        let row = |((table, key), value): (&(Table, Bytes), &Bytes)| {
            ((*partition, *table, key.clone()), value.clone())
        };
        rows.extend(compared.map(row));
    }
    rows
}

/// Lets builds take turns, the later one last on both machines; returns the rows of each machine
/// and those of an empty one after it.
fn history(seed: u64) -> Vec<Rows> {
    let mut rng = TestRng::new(seed);
    let mut machine = OneMachine::new(seed, LATER);
    let stores: Vec<_> = (0..3).map(|n| FakeStores::new(n, &machine.log)).collect();
    for session in 0..SESSIONS {
        let build = if rng.below(2) == 0 { EARLIER } else { LATER };
        machine.replace(build, &stores[rng.index(2)]);
        for n in 0..EVENTS {
            machine.append(Lane::Normal, &event(&mut rng, session * EVENTS + n));
        }
        machine.turn_with_faults(TURNS);
        machine.settle(QUIET_TURNS);
    }
    let run = |stores: &FakeStores| {
        machine.replace(LATER, stores);
        machine.settle(QUIET_TURNS);
        machine.replace(LATER, stores);
        rows(stores)
    };
    stores.iter().map(run).collect()
}

#[test]
fn a_store_that_an_earlier_build_used_holds_all_rows_of_a_later_one() {
    for seed in 0..HISTORIES {
        let rows = history(seed);
        assert!(rows[2].keys().any(|(_, table, _)| *table == SEEN), "history {seed}");
        assert_eq!(rows[0], rows[2], "history {seed}, the first machine");
        assert_eq!(rows[1], rows[2], "history {seed}, the second machine");
    }
}

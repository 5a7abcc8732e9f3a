//! Tests of memberships: cases, the order of the lanes, and a model without rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use super::*;
use crate::derive::TopologyDriver;
use crate::operators::testing::{
    appended, at, event_of, latest, lines, pipe, pipe_interleaved, state,
};
use crate::port::Table;

const ROWS: Table = Table(130);

fn added(account: &str, event_id: &str, role: &str) -> Event {
    event_of(account, event_id, "member.added", json!({"user_id": "al", "role": role}))
}

fn removed(account: &str, event_id: &str) -> Event {
    event_of(account, event_id, "member.removed", json!({"user_id": "al"}))
}

#[test]
fn a_workspace_is_an_entry_until_the_user_is_removed() {
    let mut driver = TopologyDriver::new(&[&Memberships]);
    let [w1, w2] = ["acc", "w2"];
    pipe(&mut driver, &[added(w1, "e1", "member"), added(w2, "e2", "admin")]);
    let entry = |role| format!(r#" = member.added {{"role":"{role}","user_id":"al"}}"#);
    let expected = [
        format!("membership:al[workspace/acc]{}", entry("member")),
        format!("w2/membership:al[workspace/w2]{}", entry("admin")),
    ];
    assert_eq!(lines(&state(&mut driver)), expected);
    pipe(&mut driver, &[at(2, added(w1, "e3", "analyst")), at(1, added(w1, "e4", "admin"))]);
    let newest = format!("membership:al[workspace/acc]{}", entry("analyst"));
    assert_eq!(lines(&state(&mut driver)), [newest], "the newest role counts");
    pipe(&mut driver, &[at(3, removed(w1, "e5")), at(4, removed(w1, "e6"))]);
    assert_eq!(lines(&state(&mut driver)), ["membership:al[workspace/acc] removed"]);
    pipe(&mut driver, &[at(3, added(w1, "e7", "admin"))]);
    assert_eq!(lines(&state(&mut driver)), [""; 0], "it is older than the removal");
    driver.replay().unwrap();
}

fn bools() -> impl Strategy<Value = bool> {
    any::<bool>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_order_of_the_lanes_ends_as_the_model_says(
        ones in proptest::collection::vec((0..2usize, bools(), 0..9i64, bools()), 0..20),
        seed in 0u64..1_000,
    ) {
        let mut last: BTreeMap<usize, ((i64, String), Option<String>)> = BTreeMap::new();
        let mut events = Vec::new();
        for (n, (workspace, is_added, time, is_urgent)) in ones.into_iter().enumerate() {
            let (account, id) = (["acc", "w2"][workspace], format!("e{n:02}"));
            let event = if is_added { added(account, &id, &id) } else { removed(account, &id) };
            // Both types have the same lane by default.
            let priority = if is_urgent { Priority::Critical } else { event.priority };
            let event = Event { priority, ..at(time, event) };
            let stamp = (time, id);
            let value = is_added.then(|| event.data.clone());
            let known = last.entry(workspace).or_insert((stamp.clone(), value.clone()));
            if known.0 <= stamp {
                *known = (stamp, value);
            }
            events.push(event);
        }
        let entry = |(workspace, (_, data)): (usize, (_, Option<String>))| {
            let (prefix, account) = [("", "acc"), ("w2/", "w2")][workspace];
            Some(((format!("{prefix}membership:al"), format!("workspace/{account}")), data?))
        };
        let expected: BTreeMap<_, _> = last.into_iter().filter_map(entry).collect();
        let input = appended(&events, 3);
        let result = |seed| {
            let mut driver = TopologyDriver::new(&[&Memberships]);
            pipe_interleaved(&mut driver, &input, seed);
            driver.replay().unwrap();
            (latest(&state(&mut driver)), driver.all(ROWS))
        };
        let found = result(seed);
        prop_assert_eq!(&found.0, &expected);
        prop_assert_eq!(found, result(0));
    }
}

//! Tests of `unread`: cases, limits, coalescing, the order of lanes, and a model that recomputes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::fields::Truth;
use tidewire_schemas::id::hash128;

use super::changes::LISTED_DATA_MAX_BYTES;
use super::page::{Place, PlacePage};
use super::state::{DAY_MS, Known, LIFE_MS, READ_MARK_MS, UserState};
use super::{
    CLOSED_LEN, HELD_MAX, ID_MAX_BYTES, LISTED_MAX, MARKS_MAX, NEWEST_MAX, OPEN_MAX, Unread, User,
};
use crate::derive::stores::{FieldDecoder, StoreKey, StoreValue};
use crate::derive::{ChannelDelivery, Operator, START, TopologyDriver};
use crate::operators::testing::{
    Written, appended, at, chance, dead_letters, dropped, event, event_of, interleaved, latest,
    lines, pipe, state, stream,
};
use crate::port::Table;
use crate::record::Millis;
use crate::topology::Lane;

const OPERATORS: &[&dyn Operator] = &[&Unread, &ChannelDelivery];

const INTERVAL_MS: i64 = 250;

/// Rows that scans pass at most for a notification: a closed page and its successor.
const ROWS_PER_NOTIFICATION: u64 = 3;

/// The engine's table of timers.
const TIMERS: Table = Table(0);

fn created(id: &str, ms: i64) -> Event {
    let data = json!({"notification_id": id, "user_id": "al", "kind": "like"});
    at(ms, event(&format!("c-{id}-{ms}"), "notification.created", data))
}

fn read(id: &str) -> Event {
    let data = json!({"notification_id": id, "user_id": "al"});
    event(&format!("r-{id}"), "notification.read", data)
}

fn read_all(ms: i64) -> Event {
    let data = json!({"user_id": "al", "all": true});
    at(ms, event(&format!("a-{ms}"), "notification.read", data))
}

fn entry(id: &str, read: Truth) -> String {
    let read = read == Truth::True;
    let data =
        format!(r#"{{"kind":"like","notification_id":"{id}","user_id":"al","read":{read}}}"#);
    format!("notifications:al[n/{id}] = notification.created {data}")
}

fn count(unread: u32) -> String {
    let of = "notifications:al[al] = notification.unread_changed";
    format!(r#"{of} {{"user_id":"al","unread_count":{unread}}}"#)
}

/// The `unread_count` with which events were delivered.
fn delivered(driver: &mut TopologyDriver) -> Vec<i64> {
    let count = |written: &Written| {
        let data: Value = serde_json::from_str(&written.event.as_ref().unwrap().data).unwrap();
        data["unread_count"].as_i64().unwrap()
    };
    stream(driver).iter().map(count).collect()
}

/// Ends the interval of updates.
fn settle(driver: &mut TopologyDriver) {
    driver.advance_wall_clock_time(INTERVAL_MS);
}

/// Pipes an event and returns what is written to `out.state`, its update included.
fn after(driver: &mut TopologyDriver, event: Event) -> Vec<String> {
    driver.pipe_input(&event);
    let written = state(driver);
    settle(driver);
    [lines(&written), lines(&state(driver))].concat()
}

#[test]
fn a_notification_counts_until_it_is_read_and_a_second_read_changes_nothing() {
    let mut driver = TopologyDriver::new(OPERATORS);
    assert_eq!(after(&mut driver, created("n1", 1)), [entry("n1", Truth::False), count(1)]);
    assert_eq!(after(&mut driver, created("n2", 2)), [entry("n2", Truth::False), count(2)]);
    assert_eq!(after(&mut driver, read("n1")), [entry("n1", Truth::True), count(1)]);
    let again = Event { event_id: "r-again".to_owned(), ..read("n1") };
    assert_eq!(after(&mut driver, again), [""; 0]);
    assert_eq!(after(&mut driver, read("n2")), [entry("n2", Truth::True), count(0)]);
    assert_eq!(after(&mut driver, created("n1", 1)), [""; 0], "the same event again");
    assert_eq!(delivered(&mut driver), [1, 2, 1, 1, 0, 0]);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn all_clears_what_was_created_up_to_its_time_whatever_comes_first() {
    let mut driver = TopologyDriver::new(OPERATORS);
    for event in [created("n1", 1), created("n2", 2), created("n3", 3)] {
        after(&mut driver, event);
    }
    let written = after(&mut driver, read_all(2));
    assert_eq!(written, [entry("n1", Truth::True), entry("n2", Truth::True), count(1)]);
    assert_eq!(after(&mut driver, read_all(2)), [""; 0], "again");
    assert_eq!(after(&mut driver, read_all(1)), [""; 0], "an older one");
    assert_eq!(
        after(&mut driver, created("n0", 0)),
        [entry("n0", Truth::True)],
        "created before it"
    );
    assert_eq!(after(&mut driver, created("n4", 4)), [entry("n4", Truth::False), count(2)]);
    assert_eq!(delivered(&mut driver), [1, 2, 3, 1, 1, 1, 1, 2]);
    driver.replay().unwrap();
}

#[test]
fn a_read_may_be_processed_before_its_notification_for_7_days() {
    let mut driver = TopologyDriver::new(OPERATORS);
    assert_eq!(after(&mut driver, read("n1")), [""; 0]);
    driver.advance_wall_clock_time(READ_MARK_MS - 2 * INTERVAL_MS);
    assert_eq!(after(&mut driver, created("n1", 1)), [entry("n1", Truth::True), count(0)]);
    assert_eq!(after(&mut driver, read("n2")), [""; 0]);
    driver.advance_wall_clock_time(READ_MARK_MS);
    assert_eq!(after(&mut driver, created("n2", 1)), [entry("n2", Truth::False), count(1)]);
    driver.replay().unwrap();
}

#[test]
fn of_two_events_of_one_notification_the_later_counts() {
    for order in [[0, 1], [1, 0]] {
        let mut driver = TopologyDriver::new(OPERATORS);
        let events = [created("n1", 1), created("n1", 5)];
        order.iter().for_each(|n| driver.pipe_input(&events[*n]));
        settle(&mut driver);
        let entries = latest(&state(&mut driver));
        let entry_of = |key: &str| entries.get(&("notifications:al".to_owned(), key.to_owned()));
        assert!(entry_of("al").unwrap().ends_with(r#""unread_count":1}"#), "{entries:?}");
        assert_eq!(entries.len(), 2);
        assert_eq!(after(&mut driver, read_all(3)), [""; 0], "the later one is not read");
        assert_eq!(after(&mut driver, read_all(5)).len(), 2);
        driver.replay().unwrap();
    }
}

#[test]
fn the_count_is_sent_at_most_once_in_250_ms_and_the_last_one_always() {
    let mut driver = TopologyDriver::new(OPERATORS);
    for n in 0..10 {
        driver.pipe_input(&created(&format!("n{n}"), n));
        driver.advance_wall_clock_time(10);
    }
    let is_count = |line: &String| line.contains("unread_changed");
    let counts = |driver: &mut TopologyDriver| -> Vec<String> {
        lines(&state(driver)).into_iter().filter(is_count).collect()
    };
    assert_eq!(counts(&mut driver), [count(1)]);
    settle(&mut driver);
    assert_eq!(counts(&mut driver), [count(10)]);
    settle(&mut driver);
    assert_eq!(counts(&mut driver), [""; 0]);
    assert_eq!(delivered(&mut driver), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    driver.replay().unwrap();
}

#[test]
fn the_newest_50_are_listed_and_one_that_leaves_is_removed() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let last = i64::from(LISTED_MAX);
    (0..last).for_each(|n| driver.pipe_input(&created(&format!("n{n}"), n)));
    settle(&mut driver);
    state(&mut driver);
    let written = after(&mut driver, created("n50", last));
    let removed = "notifications:al[n/n0] removed".to_owned();
    assert_eq!(written, [removed, entry("n50", Truth::False), count(51)]);
    assert_eq!(after(&mut driver, created("old", 0)), [count(52)], "older than all of the list");
    assert_eq!(after(&mut driver, read("n0")), [count(51)], "it is not listed any more");
    let ids = after(&mut driver, read_all(last));
    assert_eq!(ids.len(), LISTED_MAX as usize + 1, "each entry and the count");
    driver.replay().unwrap();
}

#[test]
fn at_most_1_000_are_unread_and_which_does_not_depend_on_the_order() {
    let id = |n: u32| format!("n{n:04}");
    let mut results = Vec::new();
    for order in 0..3 {
        let mut driver = TopologyDriver::new(OPERATORS);
        let mut events: Vec<Event> =
            (0..HELD_MAX + 5).map(|n| created(&id(n), i64::from(n))).collect();
        events.extend([2, 7, 900].map(|n| read(&id(n))));
        match order {
            1 => events.reverse(),
            2 => events.sort_by_cached_key(|event| hash128("any order", &event.event_id)),
            _ => {}
        }
        events.iter().for_each(|event| driver.pipe_input(event));
        settle(&mut driver);
        let written = state(&mut driver);
        let counts = latest(&written);
        let count = &counts[&("notifications:al".to_owned(), "al".to_owned())];
        assert_eq!(count, r#"{"user_id":"al","unread_count":998}"#);
        assert_eq!(counts.len(), 1 + LISTED_MAX as usize);
        settle(&mut driver);
        assert_eq!(driver.all(TIMERS).len(), 1, "of the user");
        results.push((kept(&mut driver), counts));
        driver.replay().unwrap();
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

/// What is kept of a user, whatever the pages are.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    /// Held, listed, unread, marks.
    counts: [u32; 4],
    read_up_to: i64,
    last_day: i64,
    /// Oldest first, with their append times.
    places: Vec<(Place, Millis)>,
    known: Vec<(Bytes, Bytes)>,
    marks: Vec<(Bytes, Bytes)>,
}

fn decoded<V: StoreValue>(value: &Bytes) -> V {
    V::read(value[0], &mut FieldDecoder(&value[1..])).unwrap()
}

fn places(page: &PlacePage) -> impl Iterator<Item = (Place, Millis)> + '_ {
    page.iter().map(|held| ((held.time, held.id.to_owned()), held.appended))
}

/// The rows of the only user, which must agree.
fn kept(driver: &mut TopologyDriver) -> Kept {
    let users = driver.all(Table(120));
    let [known, marks] = [Table(121), Table(123)].map(|table| driver.all(table));
    let pages = driver.all(Table(122));
    let Some((_, value)) = users.first() else {
        let older = driver.all(Table(124));
        let rows = [known.len(), pages.len(), marks.len(), older.len()];
        assert_eq!(rows, [0; 4], "nobody has these");
        return Kept::default();
    };
    let state: UserState = decoded(value);
    let dropped = state.closed.as_ref().map_or(0, |closed| closed.dropped as usize);
    let mut all = Vec::new();
    for (n, (key, value)) in pages.iter().enumerate() {
        let (_, first) = <(User, Place)>::read(&mut FieldDecoder(key)).unwrap();
        assert!(all.last().is_none_or(|(last, _)| *last < first), "pages are in order");
        let page: PlacePage = decoded(value);
        assert!(page.len() <= 2 * CLOSED_LEN && !page.is_empty());
        assert!(page.first().unwrap().place() >= (first.0, &first.1));
        if n == 0 {
            assert_eq!(state.closed.as_ref().map(|closed| &closed.first), Some(&first));
            assert!(dropped < page.len());
        }
        all.extend(places(&page).skip(if n == 0 { dropped } else { 0 }));
    }
    assert_eq!(state.closed.is_none(), pages.is_empty());
    let older: Vec<PlacePage> =
        driver.all(Table(124)).iter().map(|(_, value)| decoded(value)).collect();
    assert_eq!(older.iter().map(PlacePage::len).sum::<usize>(), state.older as usize);
    assert!(older.len() <= 1 && older.iter().all(|page| !page.is_empty()));
    assert!(state.newest.len() <= NEWEST_MAX && state.older as usize <= OPEN_MAX);
    assert!(state.open_len() >= state.listed as usize);
    assert!(!state.newest.is_empty() || all.is_empty(), "the newest are open");
    all.extend(older.iter().flat_map(places));
    all.extend(places(&state.newest));
    assert!(all.is_sorted());
    let rows: Vec<Known> = known.iter().map(|(_, value)| decoded(value)).collect();
    let of = |is: &dyn Fn(&Known) -> bool| rows.iter().filter(|known| is(known)).count() as u32;
    let counts = [
        all.len() as u32,
        of(&|known| known.entry.is_some()),
        of(&|known| known.is_unread(state.read_up_to)),
        marks.len() as u32,
    ];
    assert_eq!([state.held, state.listed, state.unread, state.marks], counts);
    assert_eq!(known.len(), all.len());
    let UserState { read_up_to, last_day, .. } = state;
    Kept { counts, read_up_to, last_day, places: all, known, marks }
}

/// The oldest that is held, and the oldest that is listed.
fn oldest(driver: &mut TopologyDriver) -> [Option<Place>; 2] {
    let Kept { counts: [held, listed, ..], places, .. } = kept(driver);
    let of = |n: u32| places.get(n as usize).map(|(place, _)| place.clone());
    [of(0), of(held - listed)]
}

#[test]
fn a_full_user_costs_few_rows_however_many_were_dropped() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let dropped = 500;
    for n in 0..i64::from(HELD_MAX) + dropped {
        let before = driver.passed();
        driver.pipe_input(&created(&format!("n{n}"), n));
        let passed = driver.passed() - before;
        assert!(passed <= ROWS_PER_NOTIFICATION, "notification {n} passes {passed} rows");
    }
    let place = |n: i64| Some((START.0 + n, format!("n{n}")));
    let first_listed = dropped + i64::from(HELD_MAX - LISTED_MAX);
    assert_eq!(oldest(&mut driver), [place(dropped), place(first_listed)]);
    let before = driver.passed();
    driver.pipe_input(&read_all(dropped + 2));
    let passed = driver.passed() - before;
    assert!(passed <= u64::from(HELD_MAX) + ROWS_PER_NOTIFICATION, "all passes {passed} rows");
    driver.replay().unwrap();
}

/// All rows of the operator.
fn rows(driver: &mut TopologyDriver) -> BTreeMap<(u8, Bytes), Bytes> {
    let of = |table| driver.all(Table(table)).into_iter().map(move |(k, v)| ((table, k), v));
    (120..125).flat_map(of).collect()
}

#[test]
fn a_notification_of_a_full_list_writes_three_rows_and_few_places() {
    const COUNT: usize = 100;
    let mut driver = TopologyDriver::new(OPERATORS);
    let id = |n: usize| format!("n_{n:032}");
    (0..COUNT).for_each(|n| driver.pipe_input(&created(&id(n), n as i64)));
    let (mut written, mut bytes, mut before) = (0, 0, rows(&mut driver));
    for n in COUNT..2 * COUNT {
        driver.pipe_input(&created(&id(n), n as i64));
        let after = rows(&mut driver);
        let changed = after.iter().filter(|(key, value)| before.get(key) != Some(value));
        for ((table, _), value) in changed {
            written += 1;
            bytes += if *table == 121 { 0 } else { value.len() };
        }
        before = after;
    }
    assert!(written <= COUNT * 13 / 4, "{written} rows for {COUNT} notifications");
    assert!(bytes <= COUNT * 900, "{bytes} bytes of places for {COUNT} notifications");
    driver.replay().unwrap();
}

#[test]
fn the_oldest_places_follow_what_is_added_moved_and_forgotten() {
    let place = |ms: i64, id: &str| Some((START.0 + ms, id.to_owned()));
    let mut driver = TopologyDriver::new(OPERATORS);
    assert_eq!(oldest(&mut driver), [None, None]);
    let steps = [
        (created("b", 5), place(5, "b")),
        (created("c", 7), place(5, "b")),
        (created("a", 3), place(3, "a")),
        (created("a", 9), place(5, "b")),
        (created("A", 5), place(5, "A")),
        (created("b", 8), place(5, "A")),
        (created("A", 10), place(7, "c")),
    ];
    for (event, expected) in steps {
        let what = event.event_id.clone();
        driver.pipe_input(&event);
        assert_eq!(oldest(&mut driver), [expected.clone(), expected], "{what}");
    }
    driver.advance_wall_clock_time(LIFE_MS + DAY_MS);
    assert_eq!(oldest(&mut driver), [None, None]);
    driver.replay().unwrap();
}

#[test]
fn reads_of_unknown_ids_are_remembered_up_to_a_limit_and_others_are_counted() {
    let id = |n: u32| format!("n{n}");
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&created("held", 1));
    settle(&mut driver);
    state(&mut driver);
    let (drops, ()) = dropped(|| {
        (0..MARKS_MAX + 5).for_each(|n| driver.pipe_input(&read(&id(n))));
        settle(&mut driver);
    });
    assert_eq!(drops, ["unread reads_full 5"]);
    assert_eq!(lines(&state(&mut driver)), [""; 0], "no count has changed");
    let left = |driver: &mut TopologyDriver| {
        let Kept { counts: [held, _, _, marks], .. } = kept(driver);
        assert_eq!(driver.all(TIMERS).len(), 1, "of the user");
        [held, marks]
    };
    assert_eq!(left(&mut driver), [1, MARKS_MAX]);

    let again = |id: &str| Event { event_id: format!("again-{id}"), ..read(id) };
    let (drops, ()) = dropped(|| {
        assert_eq!(after(&mut driver, again("n0")), [""; 0], "it is known");
        let (held, known, unknown) =
            (entry("held", Truth::True), entry("n0", Truth::True), id(MARKS_MAX));
        assert_eq!(after(&mut driver, read("held")), [held, count(0)], "a read counts anyway");
        assert_eq!(after(&mut driver, created("n0", 2)), [known], "it makes room");
        assert_eq!(after(&mut driver, again(&unknown)), [""; 0], "in that room");
    });
    assert_eq!(drops, [""; 0]);
    assert_eq!(left(&mut driver), [2, MARKS_MAX]);
    let (drops, ()) = dropped(|| driver.pipe_input(&read("one more")));
    assert_eq!(drops, ["unread reads_full 1"]);
    driver.advance_wall_clock_time(READ_MARK_MS + DAY_MS);
    assert_eq!(left(&mut driver), [2, 0], "the marks are forgotten");
    driver.replay().unwrap();
}

#[test]
fn reads_of_a_user_who_has_no_notifications_leave_nothing() {
    let mut driver = TopologyDriver::new(OPERATORS);
    assert_eq!(after(&mut driver, read("n1")), [""; 0]);
    assert_eq!(after(&mut driver, read("n2")), [""; 0]);
    assert_eq!(delivered(&mut driver), [0, 0]);
    driver.advance_wall_clock_time(READ_MARK_MS + DAY_MS);
    assert_eq!((kept(&mut driver), driver.all(TIMERS)), (Kept::default(), vec![]));
    assert_eq!(lines(&state(&mut driver)), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn a_read_notification_that_is_dropped_needs_room_among_the_marks() {
    let mut driver = TopologyDriver::new(OPERATORS);
    (0..HELD_MAX).for_each(|n| driver.pipe_input(&created(&format!("n{n:04}"), i64::from(n))));
    ["n0000", "n0001"].into_iter().for_each(|id| driver.pipe_input(&read(id)));
    (1..MARKS_MAX).for_each(|n| driver.pipe_input(&read(&format!("unknown-{n}"))));
    let newer = |n: i64| created(&format!("newer-{n}"), i64::from(HELD_MAX) + n);
    let (drops, ()) = dropped(|| driver.pipe_input(&newer(0)));
    assert_eq!(drops, [""; 0], "the last mark");
    let (drops, ()) = dropped(|| driver.pipe_input(&newer(1)));
    assert_eq!(drops, ["unread reads_full 1"]);
    let (drops, ()) = dropped(|| driver.pipe_input(&newer(2)));
    assert_eq!(drops, [""; 0], "it was not read");
    let Kept { counts: [held, .., marks], .. } = kept(&mut driver);
    assert_eq!([held, marks], [HELD_MAX, MARKS_MAX]);
    driver.replay().unwrap();
}

#[test]
fn a_notification_is_forgotten_after_90_days_and_then_the_user() {
    let mut driver = TopologyDriver::new(OPERATORS);
    after(&mut driver, created("n1", 1));
    after(&mut driver, created("n2", 2));
    after(&mut driver, read("n2"));
    driver.advance_wall_clock_time(LIFE_MS - 6 * INTERVAL_MS);
    assert_eq!(after(&mut driver, created("n3", 3)), [entry("n3", Truth::False), count(2)]);
    assert_eq!(kept(&mut driver).counts, [3, 3, 2, 0]);
    driver.advance_wall_clock_time(DAY_MS + INTERVAL_MS);
    let written = lines(&state(&mut driver));
    let expected = ["notifications:al[n/n1] removed", "notifications:al[n/n2] removed", &count(1)];
    assert_eq!(written, expected);
    driver.advance_wall_clock_time(LIFE_MS);
    driver.tick();
    let written = lines(&state(&mut driver));
    let removed = ["notifications:al[n/n3] removed", "notifications:al[al] removed"];
    assert_eq!(written, removed, "the count, too, without one of zero");
    assert_eq!((kept(&mut driver), driver.all(TIMERS)), (Kept::default(), vec![]));
    assert_eq!(after(&mut driver, created("n4", 4)), [entry("n4", Truth::False), count(1)]);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn that_all_is_read_is_forgotten_90_days_after_the_last_event() {
    let mut driver = TopologyDriver::new(OPERATORS);
    assert_eq!(after(&mut driver, read_all(9)), [count(0)]);
    driver.advance_wall_clock_time(LIFE_MS / 2);
    assert_eq!(after(&mut driver, read_all(8)), [""; 0], "an older one is an event, too");
    driver.advance_wall_clock_time(LIFE_MS - INTERVAL_MS);
    assert_eq!(kept(&mut driver).read_up_to, START.0 + 9);
    assert_eq!(lines(&state(&mut driver)), [""; 0]);
    driver.advance_wall_clock_time(2 * DAY_MS);
    assert_eq!(lines(&state(&mut driver)), ["notifications:al[al] removed"]);
    assert_eq!((kept(&mut driver), driver.all(TIMERS)), (Kept::default(), vec![]));
    driver.replay().unwrap();
}

#[test]
fn an_id_that_is_too_long_fails_its_event_alone() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let longest = "x".repeat(ID_MAX_BYTES);
    (0..HELD_MAX).for_each(|n| {
        driver.pipe_input(&created(&format!("{n:04}{}", &longest[4..]), n.into()));
    });
    assert_eq!(kept(&mut driver).counts, [HELD_MAX, LISTED_MAX, HELD_MAX, 0]);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.pipe_input(&created(&format!("{longest}x"), 0));
    let failed = dead_letters(&mut driver);
    assert!(failed.len() == 1 && failed[0].contains("1025 bytes, and 1024"), "{failed:?}");
    assert_eq!(stream(&mut driver).len(), HELD_MAX as usize + 1, "it is delivered");
}

#[test]
fn users_and_accounts_do_not_share_counts() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let data = json!({"notification_id": "n1", "user_id": "bob", "kind": "like"});
    let of_bob = event("e2", "notification.created", data.clone());
    let other = event_of("other", "e3", "notification.created", data);
    pipe(&mut driver, &[created("n1", 1), of_bob, other]);
    assert_eq!(delivered(&mut driver), [1, 1, 1]);
    let read = read("n1");
    pipe(&mut driver, &[read]);
    settle(&mut driver);
    let keys: Vec<String> = latest(&state(&mut driver)).into_values().collect();
    let unread = keys.iter().filter(|data| data.contains(r#""read":false"#)).count();
    assert_eq!(unread, 2, "{keys:?}");
    driver.replay().unwrap();
}

#[test]
fn a_large_notification_is_listed_without_its_texts() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let large = "x".repeat(LISTED_DATA_MAX_BYTES);
    let data = json!({"notification_id": "n/1", "user_id": "al", "kind": "like", "title": large,
        "text": large, "data": {"x": large}});
    pipe(&mut driver, &[event("e1", "notification.created", data)]);
    let entries = latest(&state(&mut driver));
    let listed = &entries[&("notifications:al".to_owned(), "n/n/1".to_owned())];
    let listed: Value = serde_json::from_str(listed).unwrap();
    let title = "x".repeat(200);
    let expected = json!({"notification_id": "n/1", "user_id": "al", "kind": "like",
        "title": title, "read": false});
    assert_eq!(listed, expected);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

/// So many random events about `ids` notifications, in random lanes.
fn random_events(seed: u64, ids: usize, count: usize) -> Vec<Event> {
    let random = |n: usize| {
        let pick = |salt: usize, below: usize| chance(seed, n * 8 + salt, below);
        let id = format!("n{:02}", pick(1, ids));
        let ms = pick(2, 1_000) as i64;
        let event = match pick(0, 12) {
            0 => read_all(ms / 4),
            1..=4 => read(&id),
            _ => created(&id, ms),
        };
        let priority = Priority::ALL[pick(3, Priority::ALL.len())];
        Event { event_id: format!("e{n:03}"), priority, ..event }
    };
    (0..count).map(random).collect()
}

/// The entries of the list with their read flags, and the count, recomputed from all events.
fn model(events: &[Event]) -> (BTreeMap<String, bool>, usize) {
    let field = |event: &Event, name: &str| {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        data[name].as_str().map(str::to_owned)
    };
    let mut created: BTreeMap<String, i64> = BTreeMap::new();
    let (mut read, mut up_to) = (BTreeSet::new(), i64::MIN);
    for event in events {
        let id = field(event, "notification_id");
        match (event.event_type.as_str(), id) {
            ("notification.created", Some(id)) => {
                let time = created.entry(id).or_insert(i64::MIN);
                *time = event.timestamp_ms.max(*time);
            }
            (_, Some(id)) => drop(read.insert(id)),
            (_, None) => up_to = up_to.max(event.timestamp_ms),
        }
    }
    let is_read = |(time, id): &Place| read.contains(id) || *time <= up_to;
    let mut newest: Vec<Place> = created.into_iter().map(|(id, time)| (time, id)).collect();
    newest.sort();
    newest.reverse();
    newest.truncate(HELD_MAX as usize);
    let unread = newest.iter().filter(|place| !is_read(place)).count();
    newest.truncate(LISTED_MAX as usize);
    let flags = newest.into_iter().map(|place| (place.1.clone(), is_read(&place)));
    (flags.collect(), unread)
}

/// The same of the latest values of the state channel.
fn published(entries: &BTreeMap<(String, String), String>) -> (BTreeMap<String, bool>, usize) {
    let (mut flags, mut unread) = (BTreeMap::new(), 0);
    for ((channel, key), data) in entries {
        assert_eq!(channel, "notifications:al");
        let data: Value = serde_json::from_str(data).unwrap();
        match key.strip_prefix("n/") {
            Some(id) => drop(flags.insert(id.to_owned(), data["read"].as_bool().unwrap())),
            None => unread = data["unread_count"].as_u64().unwrap() as usize,
        }
    }
    (flags, unread)
}

/// Consumes events in orders of the lanes; all must end as the model says, and with equal rows.
fn compare_with_model(events: &[Event], orders: &[u64]) -> Result<(), TestCaseError> {
    let input = appended(events, 40);
    let expected = model(events);
    let mut first = None;
    for order in orders {
        let mut driver = TopologyDriver::new(OPERATORS);
        let last = input.last().map_or(START, |appended| appended.time);
        Lane::ALL.into_iter().for_each(|lane| driver.begin_backlog(lane));
        driver.advance_wall_clock_time(last.0 - START.0);
        for piped in interleaved(&input, *order) {
            driver.pipe_late(piped.lane, &piped.event, piped.time);
        }
        Lane::ALL.into_iter().for_each(|lane| driver.end_backlog(lane));
        driver.tick();
        driver.advance_wall_clock_time(INTERVAL_MS);
        let entries = latest(&state(&mut driver));
        prop_assert_eq!(published(&entries), expected.clone(), "order {}", order);
        let result = (kept(&mut driver), entries);
        let first = first.get_or_insert_with(|| result.clone());
        prop_assert_eq!(&result, &*first, "order {}", order);
        prop_assert_eq!(dead_letters(&mut driver).len(), 0);
        driver.replay().map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn list_and_count_are_those_of_a_model_in_any_order_of_the_lanes(
        seed: u64, ids in 1usize..90,
    ) {
        compare_with_model(&random_events(seed, ids, 2 * ids), &[0, 1, 2, seed | 3])?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    #[test]
    fn those_of_a_full_user_are_too(seed: u64) {
        let events = random_events(seed, 1_300, 4_000);
        let created = events.iter().filter(|event| event.event_type == "notification.created");
        let created: BTreeSet<&str> = created.map(|event| &event.data[..]).collect();
        prop_assert!(created.len() > HELD_MAX as usize, "{} are not too many", created.len());
        compare_with_model(&events, &[0, 2, seed | 3])?;
    }
}

//! Tests of the fold: snapshots are what the log has before their offset, whatever happens.

mod fixture;
mod random;

use std::sync::Arc;

use serde_json::json;

use self::fixture::{FoldFixture, StateRecord};
use super::log::LogTransactionEnd;
use super::stores::{MemoryStores, StoreWriter};
use crate::fanout::identity::Accounts;
use crate::record::Millis;
use crate::turn::EngineError;

const HOUR_MS: i64 = 3_600_000;

fn record<'a>(channel: &'a str, account: &'a str, state_key: &'a str) -> StateRecord<'a> {
    StateRecord { channel, account, state_key }
}

fn only(accounts: &[&str]) -> Accounts {
    Accounts::Only(accounts.iter().map(|account| (*account).into()).collect())
}

#[test]
fn a_snapshot_has_the_newest_entry_of_each_key_as_json() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    let first = fixture.put(record("c:1", "a1", "k1"));
    fixture.put(record("c:1", "a1", "k2"));
    let newest = fixture.put(record("c:1", "a1", "k1"));
    fixture.remove(record("c:1", "a1", "k2"));
    fixture.put(record("c:10", "a1", "k1"));
    let snapshot = fixture.snapshot("c:1", Accounts::All);
    assert_ne!(first, newest);
    let value = json!({"id": newest, "text": "a \"quoted\" line"});
    let entry = json!({
        "key": "k1", "account_id": "a1", "type": "presence.changed", "event_id": newest,
        "timestamp": "1970-01-02T00:00:00.000Z", "value": value,
    });
    assert_eq!(snapshot.entries, vec![entry]);
    assert_eq!(snapshot.found.pages.len(), 1);
    assert!(!snapshot.found.is_truncated());
    let bytes: Vec<_> = snapshot.found.pages().collect();
    assert_eq!(bytes[0], snapshot.found.pages[0].bytes());
    assert!(!bytes[0].contains(&b'\n'), "the data has a line break between its tokens");
    let empty = fixture.snapshot("c:none", Accounts::All);
    assert!(empty.found.pages.is_empty(), "no page without entries");
    assert_eq!((snapshot.found.channel(), empty.found.channel()), ("c:1", "c:none"));
}

#[test]
fn a_snapshot_has_only_entries_of_accounts_that_may_be_seen() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    for account in ["a1", "a2", "a10", "b"] {
        fixture.put(record("c:1", account, "k"));
    }
    let accounts = |fixture: &mut FoldFixture, accounts| -> Vec<String> {
        let entries = fixture.snapshot("c:1", accounts).entries;
        entries.iter().map(|entry| entry["account_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(accounts(&mut fixture, Accounts::All), ["a1", "a10", "a2", "b"]);
    assert_eq!(accounts(&mut fixture, only(&["a1"])), ["a1"]);
    assert_eq!(accounts(&mut fixture, only(&["b", "a2", "b"])), ["a2", "b"]);
    assert_eq!(accounts(&mut fixture, only(&[])), [""; 0]);
    assert_eq!(accounts(&mut fixture, only(&["a", "a1\0k", ""])), [""; 0]);
}

#[test]
fn records_that_are_no_state_are_skipped_and_change_nothing() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    let id = fixture.put(record("c:1", "a1", "k"));
    fixture.append_raw("c:1", Some(b"c:1\0a1\0k"), Some(b"no event"));
    fixture.append_raw("c:1", Some(b"c:1\0a1\0\xff"), None);
    fixture.append_raw("c:1", Some(b"c:1\0a1"), None);
    fixture.append_raw("c:1", Some(b"c:1\0\0k"), None);
    fixture.append_raw("c:1", None, None);
    let snapshot = fixture.snapshot("c:1", Accounts::All);
    assert_eq!(snapshot.entries.len(), 1);
    assert_eq!(snapshot.entries[0]["event_id"], json!(id));
    assert_eq!(snapshot.found.at, 6);
}

#[test]
fn a_snapshot_waits_for_the_end_of_a_transaction_that_was_open_when_it_was_asked_for() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    for (end, entries) in [(LogTransactionEnd::Abort, 0), (LogTransactionEnd::Commit, 1)] {
        fixture.open_transaction("c:1");
        fixture.put(record("c:1", "a1", "k"));
        let asked = fixture.ask("c:1", Accounts::All);
        fixture.turns(20);
        assert!(fixture.answer(asked).is_none(), "it may be committed already");
        fixture.end_transaction("c:1", end);
        fixture.turns(2);
        let found = fixture.found(asked).expect("it has ended");
        assert_eq!(found.entries.len(), entries);
    }
}

#[test]
fn a_snapshot_that_can_not_be_made_within_2_s_is_unavailable_and_the_next_one_is_not() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.put(record("c:1", "a1", "k"));
    fixture.open_transaction("c:1");
    fixture.put(record("c:1", "a1", "k"));
    let asked = fixture.ask("c:1", Accounts::All);
    let elsewhere = fixture.ask("c:2", Accounts::All);
    assert_ne!(fixture.partition_of("c:1"), fixture.partition_of("c:2"));
    fixture.turns(2);
    assert!(fixture.found(elsewhere).is_some(), "the transaction is of another partition");
    fixture.pass_time(1_999);
    fixture.turns(1);
    assert!(fixture.answer(asked).is_none());
    fixture.pass_time(1);
    fixture.turns(1);
    assert!(fixture.is_unavailable(asked));
    fixture.end_transaction("c:1", LogTransactionEnd::Commit);
    assert_eq!(fixture.snapshot("c:1", Accounts::All).entries.len(), 1);
}

#[test]
fn a_partition_without_a_leader_is_unavailable_and_asked_again_only_after_a_while() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.turns(3);
    let partition = fixture.partition_of("c:1");
    fixture.log.set_leader(partition, false);
    let asked = fixture.ask("c:1", Accounts::All);
    for _ in 0..20 {
        fixture.turns(10);
        assert!(fixture.answer(asked).is_none());
        fixture.pass_time(100);
    }
    fixture.turns(1);
    assert!(fixture.is_unavailable(asked));
    let unanswered = fixture.log.unanswered();
    assert!((15..=21).contains(&unanswered), "{unanswered} questions in 2 s");
    let asked = fixture.ask("c:1", Accounts::All);
    fixture.turns(1);
    fixture.log.set_leader(partition, true);
    fixture.pass_time(100);
    fixture.turns(1);
    assert!(fixture.found(asked).is_some(), "one is elected in time");
}

#[test]
fn a_request_that_comes_after_the_end_was_requested_waits_for_the_next_end() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.turns(2);
    fixture.log.hold_ends(true);
    let first = fixture.ask("c:1", Accounts::All);
    fixture.turns(2);
    fixture.put(record("c:1", "a1", "k"));
    let second = fixture.ask("c:1", Accounts::All);
    let lookups = fixture.log.lookups();
    fixture.turns(5);
    assert_eq!(fixture.log.lookups(), lookups, "one request is in flight");
    fixture.log.hold_ends(false);
    fixture.turns(1);
    assert!(fixture.found(first).is_some());
    assert!(fixture.answer(second).is_none(), "its end is not known yet");
    fixture.turns(1);
    assert_eq!(fixture.found(second).expect("it is now").entries.len(), 1);
}

#[test]
fn equal_requests_share_a_snapshot_unless_it_is_older_than_what_they_need() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.put(record("c:1", "a1", "k"));
    let asked = [Accounts::All, Accounts::All, only(&["a1"])];
    let asked = asked.map(|accounts| fixture.ask("c:1", accounts));
    fixture.turns(2);
    let [first, same, other] = asked.map(|asked| fixture.found(asked).unwrap().found);
    assert!(Arc::ptr_eq(&first, &same));
    assert!(!Arc::ptr_eq(&first, &other), "other accounts");
    fixture.pass_time(249);
    let later = fixture.snapshot("c:1", Accounts::All).found;
    assert!(Arc::ptr_eq(&first, &later), "nothing was written in between");
    fixture.put(record("c:1", "a1", "k2"));
    let newer = fixture.snapshot("c:1", Accounts::All);
    assert_eq!(newer.entries.len(), 2);
    let held = Arc::strong_count(&first);
    fixture.pass_time(250);
    fixture.turns(1);
    assert_eq!(Arc::strong_count(&first), held - 1, "it is not kept for long");
    let after = fixture.snapshot("c:1", Accounts::All).found;
    assert!(!Arc::ptr_eq(&newer.found, &after));
}

#[test]
fn a_snapshot_is_truncated_by_entries_and_by_bytes_and_its_pages_are_limited() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    for n in 0..10_001 {
        fixture.put(record("c:many", "a1", &format!("k{n:05}")));
    }
    for n in 0..100 {
        fixture.put_large(record("c:large", "a1", &format!("k{n:05}")), 100_000);
    }
    for (channel, entries) in [("c:many", 10_000), ("c:large", 41)] {
        let snapshot = fixture.snapshot(channel, Accounts::All);
        assert!(snapshot.found.is_truncated(), "{channel}");
        assert_eq!(snapshot.entries.len(), entries, "{channel}");
        let last = format!("k{:05}", entries - 1);
        assert_eq!(snapshot.entries[entries - 1]["key"], json!(last));
        assert!(snapshot.found.pages.len() >= 10);
        assert!(snapshot.found.pages.iter().all(|page| page.bytes().len() <= 256 * 1_024));
    }
    fixture.remove(record("c:many", "a1", "k00000"));
    let snapshot = fixture.snapshot("c:many", Accounts::All);
    assert!(!snapshot.found.is_truncated());
    assert_eq!((snapshot.entries.len(), snapshot.found.pages.len()), (10_000, 10));
}

#[test]
fn an_entry_that_is_larger_than_a_page_has_a_page_of_its_own() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    for (key, bytes) in [("k1", 10), ("k2", 300_000), ("k3", 10)] {
        fixture.put_large(record("c:1", "a1", key), bytes);
    }
    let snapshot = fixture.snapshot("c:1", Accounts::All);
    assert_eq!((snapshot.entries.len(), snapshot.found.pages.len()), (3, 3));
}

#[test]
fn at_most_64_snapshots_are_made_in_a_turn_and_all_requests_are_answered() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.turns(1);
    let asked: Vec<_> = (0..200).map(|n| fixture.ask(&format!("c:{n}"), Accounts::All)).collect();
    let mut answered = 0;
    for _ in 0..4 {
        fixture.turns(1);
        let now = asked.iter().filter(|asked| fixture.answer(**asked).is_some()).count();
        assert!(now - answered <= 64);
        answered = now;
    }
    assert_eq!(answered, 200);
}

#[test]
fn changes_are_handed_over_after_250_ms_and_progress_without_changes_too() {
    let mut fixture = FoldFixture::new(StoreWriter::WhenTold);
    let first = fixture.put(record("c:1", "a1", "k1"));
    fixture.turns(1);
    fixture.pass_time(249);
    fixture.turns(1);
    assert_eq!(fixture.stores.waiting(), 0);
    fixture.pass_time(1);
    let asked = fixture.ask("c:1", Accounts::All);
    fixture.turns(2);
    assert_eq!((fixture.stores.waiting(), fixture.stores.rows()), (1, 0));
    let found = fixture.found(asked).expect("nothing is to be read");
    assert_eq!(found.entries[0]["event_id"], json!(first), "it is being written");
    // While that is written, a newer value of the key is in memory alone.
    let newest = fixture.put(record("c:1", "a1", "k1"));
    fixture.turns(1);
    fixture.pass_time(1_000);
    fixture.turns(1);
    assert_eq!(fixture.stores.waiting(), 1, "one hand-over at a time");
    let id = |fixture: &mut FoldFixture| {
        let entries = fixture.snapshot("c:1", Accounts::All).entries;
        entries[0]["event_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(&mut fixture), newest);
    fixture.stores.write_all();
    assert_eq!(id(&mut fixture), newest);
    fixture.turns(1);
    fixture.stores.write_all();
    fixture.turns(1);
    assert_eq!(id(&mut fixture), newest);
    fixture.skip("c:1");
    fixture.turns(1);
    fixture.pass_time(250);
    fixture.turns(1);
    assert_eq!(fixture.stores.waiting(), 1, "its progress");
}

#[test]
fn reading_waits_for_the_stores_while_the_memory_is_full() {
    let mut fixture = FoldFixture::new(StoreWriter::WhenTold);
    let channels = ["c:1", "c:2", "c:3", "c:4"];
    for n in 0..400 {
        let key = format!("k{n}");
        fixture.put_large(record(channels[n % 4], "a1", &key), 100_000);
    }
    for _ in 0..100 {
        fixture.turns(1);
        fixture.pass_time(10);
    }
    let taken = fixture.log.taken();
    assert!((80..=120).contains(&taken), "{taken} records of 100 kB are in memory");
    let asked = fixture.ask("c:1", Accounts::All);
    for _ in 0..20 {
        fixture.stores.write_all();
        fixture.turns(2);
    }
    assert_eq!(fixture.log.taken(), 400);
    assert!(fixture.found(asked).is_some());
}

#[test]
fn closing_writes_what_is_in_memory_and_answers_every_request() {
    let mut fixture = FoldFixture::new(StoreWriter::WhenTold);
    fixture.put(record("c:1", "a1", "k1"));
    fixture.turns(1);
    fixture.pass_time(250);
    fixture.turns(1);
    fixture.put(record("c:1", "a1", "k2"));
    fixture.turns(1);
    fixture.log.hold_ends(true);
    let taken = fixture.ask("c:1", Accounts::All);
    fixture.turns(1);
    let in_mailbox = fixture.ask("c:1", Accounts::All);
    fixture.close();
    assert_eq!(fixture.stores.rows(), 2);
    assert!(fixture.is_unavailable(taken) && fixture.is_unavailable(in_mailbox));
    assert!(!fixture.hub.ask_snapshot("c:1", Accounts::All, Box::new(|_| ())));
    fixture.log.hold_ends(false);
    fixture.reopen(Millis(0)).unwrap();
    let before = fixture.log.taken();
    assert_eq!(fixture.snapshot("c:1", Accounts::All).entries.len(), 2);
    assert_eq!(fixture.log.taken(), before, "nothing is read twice");
}

#[test]
fn requests_wait_for_the_next_fold_if_one_ends_with_an_error() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.log.hold_ends(true);
    let taken = fixture.ask("c:1", Accounts::All);
    fixture.turns(1);
    let in_mailbox = fixture.ask("c:1", Accounts::All);
    fixture.kill();
    fixture.log.hold_ends(false);
    fixture.reopen(Millis(0)).unwrap();
    fixture.turns(2);
    assert!(fixture.found(taken).is_some() && fixture.found(in_mailbox).is_some());
}

#[test]
fn a_store_that_has_missed_records_for_13_h_is_read_again_and_one_that_has_all_is_kept() {
    for (missed, hours, destroyed) in [(0, 13, 0), (0, 1_000, 0), (1, 11, 0), (1, 13, 1)] {
        let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
        fixture.put(record("c:1", "a1", "k"));
        fixture.turns(2);
        fixture.close();
        for _ in 0..missed {
            fixture.put(record("c:1", "a1", "k2"));
        }
        fixture.reopen(fixture.wall.after(hours * HOUR_MS)).unwrap();
        assert_eq!(fixture.stores.destroyed(), destroyed, "{missed} {hours}");
        let entries = fixture.snapshot("c:1", Accounts::All).entries;
        assert_eq!(entries.len(), 1 + missed);
    }
}

#[test]
fn a_new_store_over_a_topic_with_records_is_none_that_was_away() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.put(record("c:1", "a1", "k"));
    fixture.turns(2);
    fixture.close();
    fixture.stores = MemoryStores::new(StoreWriter::AtOnce);
    fixture.reopen(fixture.wall.after(0)).unwrap();
    assert_eq!(fixture.stores.destroyed(), 0);
    assert_eq!(fixture.snapshot("c:1", Accounts::All).entries.len(), 1);
}

#[test]
fn a_store_outside_the_log_or_with_unreadable_progress_is_read_again() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.put(record("c:1", "a1", "k"));
    fixture.put(record("c:1", "a1", "k2"));
    fixture.turns(2);
    fixture.close();
    let mut destroyed = 0;
    let mut reopens = |fixture: &mut FoldFixture, stores: u64, entries: usize| {
        fixture.reopen(Millis(0)).unwrap();
        destroyed += stores;
        assert_eq!(fixture.stores.destroyed(), destroyed);
        assert_eq!(fixture.snapshot("c:1", Accounts::All).entries.len(), entries);
        fixture.close();
    };
    reopens(&mut fixture, 0, 2);
    fixture.truncate("c:1", 1);
    reopens(&mut fixture, 1, 1);
    for _ in 0..3 {
        fixture.put(record("c:1", "a1", "k3"));
    }
    fixture.retain_from("c:1", 3);
    reopens(&mut fixture, 1, 1);
    fixture.stores.set_progress(b"\x02of another layout");
    reopens(&mut fixture, u64::from(FoldFixture::PARTITIONS), 1);
    fixture.create_topics_again();
    fixture.put(record("c:1", "a1", "k4"));
    fixture.put(record("c:1", "a1", "k5"));
    // The other stores are empty.
    reopens(&mut fixture, 1, 2);
}

#[test]
fn the_fold_is_to_be_opened_again_when_the_topics_are_others_or_the_log_is_shorter() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.put(record("c:1", "a1", "k"));
    fixture.turns(2);
    let fails = |fixture: &mut FoldFixture| {
        let error = fixture.turn().expect_err("it must start again");
        assert!(matches!(error, EngineError::Retry { .. }), "{error}");
        fixture.kill();
        fixture.reopen(Millis(0)).unwrap();
        assert!(fixture.snapshot("c:1", Accounts::All).entries.is_empty());
    };
    fixture.truncate("c:1", 0);
    fails(&mut fixture);
    fixture.create_topics_again();
    fixture.follow_topics();
    fails(&mut fixture);
    assert_eq!(
        fixture.snapshot("c:1", Accounts::All).found.epoch,
        fixture.hub.next_epoch().unwrap()
    );
    // It may know of the new topics before the hub does.
    fixture.create_topics_again();
    fixture.kill();
    fixture.reopen(Millis(0)).unwrap();
    let epoch = fixture.snapshot("c:1", Accounts::All).found.epoch;
    assert_ne!(Some(epoch), fixture.hub.next_epoch());
    fixture.follow_topics();
    assert_eq!(Some(epoch), fixture.hub.next_epoch());
    fixture.turns(2);
    fixture.log.change_topics(Vec::clear);
    fixture.kill();
    let error = fixture.reopen(Millis(0)).expect_err("the topics are missing");
    assert!(matches!(error, EngineError::Retry { .. }), "{error}");
}

#[test]
fn it_is_warm_once_every_partition_is_read_to_the_end_that_it_had_at_start() {
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    assert!(!fixture.hub.fold_warm());
    fixture.turns(1);
    assert!(fixture.hub.fold_warm(), "nothing is to be read");
    let mut fixture = FoldFixture::new(StoreWriter::AtOnce);
    fixture.close();
    for n in 0..5_000 {
        fixture.put(record("c:1", "a1", &format!("k{}", n % 10)));
    }
    fixture.reopen(Millis(0)).unwrap();
    fixture.turns(1);
    assert!(!fixture.hub.fold_warm());
    fixture.turns(1);
    assert!(fixture.hub.fold_warm());
    assert!(!fixture.turn().unwrap(), "there is no more");
}

//! Tests of the audit's layout, of its limits and of what is rolled back.

mod driven;

use std::borrow::Cow;

use proptest::prelude::*;

use super::layout::{
    AuditCause, AuditEntry, AuditError, AuditItem, AuditPart, AuditedCopy, AuditedEvent, CalledFor,
};
use super::*;
use crate::record::Offset;
use crate::topology::Lane;

/// Texts of which some repeat, so that references are tested.
fn text() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&["", "a", "acc", "posts:ä", "a\0b", "engagement", "conversation"][..])
}

fn lane() -> impl Strategy<Value = Lane> {
    proptest::sample::select(&Lane::ALL[..])
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        "op/[a-z_]{0,9}/[0-9a-f]{32}",
        "[0-9a-f]{32}",
        "[0-9A-F]{32}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "op/[0-9a-f/]{0,36}",
    ]
}

fn event() -> impl Strategy<Value = AuditedEvent<'static>> {
    (id(), text(), text(), text()).prop_map(|(id, event_type, account, key)| AuditedEvent {
        id: Cow::Owned(id),
        event_type,
        account,
        key,
    })
}

fn copy() -> impl Strategy<Value = AuditedCopy<'static>> {
    const NUMBERS: &[&[u8]] = &[&[], &[7], &[1, 255]];
    let numbers = proptest::sample::select(NUMBERS);
    (text(), lane(), numbers).prop_map(|(key, lane, operators)| AuditedCopy {
        key,
        lane,
        operators,
    })
}

/// Only lanes of facts have packs.
fn record() -> impl Strategy<Value = AuditCause<'static>> {
    (lane(), any::<u64>(), any::<Option<u8>>()).prop_map(|(lane, n, entry)| {
        let entry = entry.filter(|_| lane.has_facts()).map(u32::from);
        AuditCause::Record { lane, offset: Offset(n), entry }
    })
}

fn cause() -> impl Strategy<Value = AuditCause<'static>> {
    let call = || {
        (any::<u8>(), any::<u64>(), text(), text()).prop_map(|(operator, link, account, entity)| {
            CalledFor { operator, link, account, entity }
        })
    };
    prop_oneof![
        record(),
        call().prop_map(AuditCause::Timer),
        call().prop_map(AuditCause::Update),
        Just(AuditCause::EndOfLife),
    ]
}

fn item() -> impl Strategy<Value = AuditItem<'static>> {
    let plain = proptest::sample::select(
        &[
            AuditItem::Rejected,
            AuditItem::SecondCopy,
            AuditItem::Duplicate,
            AuditItem::ToOperators,
            AuditItem::NextEmission,
        ][..],
    );
    let rules = proptest::collection::vec(any::<u32>(), 0..4);
    prop_oneof![
        plain,
        (any::<u8>(), any::<u32>(), any::<u64>())
            .prop_map(|(input, at, offset)| AuditItem::Source(input, at, Offset(offset))),
        rules.prop_map(|rules| AuditItem::Rules(Cow::Owned(rules))),
        any::<u8>().prop_map(AuditItem::Hops),
        any::<u8>().prop_map(AuditItem::Called),
        event().prop_map(AuditItem::Event),
        event().prop_map(AuditItem::Emitted),
        lane().prop_map(AuditItem::ToKey),
        copy().prop_map(AuditItem::Copied),
        copy().prop_map(AuditItem::Forwarded),
        copy().prop_map(|copy| AuditItem::ForOtherKey(copy.key, copy.operators)),
        text().prop_map(AuditItem::Requeued),
        text().prop_map(AuditItem::ToChannel),
        text().prop_map(AuditItem::ToUrgentChannel),
        text().prop_map(AuditItem::Amended),
        text().prop_map(AuditItem::Dropped),
        [text(), text()].prop_map(|[channel, key]| AuditItem::ToState(channel, key)),
        [text(), text()].prop_map(|[channel, key]| AuditItem::StatePut(channel, key)),
        [text(), text()].prop_map(|[channel, key]| AuditItem::StateRemoved(channel, key)),
        (any::<i64>(), any::<u64>()).prop_map(|(at, link)| AuditItem::TimerSet(Millis(at), link)),
        any::<u64>().prop_map(AuditItem::Marked),
        [text(), text(), text()].prop_map(|[a, b, c]| AuditItem::Failed(a, b, c)),
        [text(), text(), text()].prop_map(|[a, b, c]| AuditItem::DeadLetter(a, b, c)),
        any::<u64>().prop_map(AuditItem::Omitted),
    ]
}

fn entries() -> impl Strategy<Value = Vec<AuditEntry<'static>>> {
    let entry = (cause(), any::<i64>(), proptest::collection::vec(item(), 0..12))
        .prop_map(|(cause, at, items)| AuditEntry { cause, time: Millis(at), items });
    proptest::collection::vec(entry, 1..9)
}

/// The values of the records of an audit with these entries.
fn sealed(entries: &[AuditEntry<'_>]) -> Vec<Vec<u8>> {
    let mut log = AuditLog::default();
    for entry in entries {
        log.begin(AuditMode::On, entry.cause, entry.time);
        entry.items.iter().for_each(|item| log.add(item));
    }
    seal(log)
}

fn seal(mut log: AuditLog) -> Vec<Vec<u8>> {
    let records = log.seal(&Topic::new("t.out.audit"), Partition(3));
    assert!(records.iter().all(|record| record.partition == Partition(3)));
    records.iter().map(|record| record.body.value().expect("a value").to_vec()).collect()
}

proptest! {
    #[test]
    fn an_audit_reads_back(entries in entries()) {
        let values = sealed(&entries);
        prop_assert_eq!(values.len(), 1);
        let expected = AuditPart { part: 0, parts: 1, entries };
        prop_assert_eq!(AuditPart::decode(&values[0]), Ok(expected));
    }

    #[test]
    fn a_damaged_or_later_audit_is_refused(
        entries in entries(), bytes: Vec<u8>, cut in 0..400usize,
    ) {
        let _ = AuditPart::decode(&bytes);
        let mut value = sealed(&entries).remove(0);
        if cut < value.len() {
            let _ = AuditPart::decode(&value[..cut]);
        }
        let len = value.len();
        value[0] += 1;
        prop_assert_eq!(AuditPart::decode(&value), Err(AuditError { len }));
    }

    #[test]
    fn what_was_rolled_back_leaves_nothing(
        before in entries(), gone in proptest::collection::vec(item(), 0..20), after in entries(),
    ) {
        let mut log = AuditLog::default();
        for entry in before.iter().chain(&after) {
            log.begin(AuditMode::On, entry.cause, entry.time);
            for item in &entry.items {
                let savepoint = log.savepoint();
                gone.iter().for_each(|item| log.add(item));
                log.roll_back(savepoint);
                log.add(item);
            }
        }
        let value = seal(log).remove(0);
        let decoded = AuditPart::decode(&value).expect("its own encoding");
        let expected = [before, after].concat();
        prop_assert_eq!(decoded.entries, expected);
    }
}

fn high(n: u64) -> AuditCause<'static> {
    AuditCause::Record { lane: Lane::High, offset: Offset(n), entry: None }
}

#[test]
fn an_audit_is_split_and_each_part_is_read_alone() {
    let mut log = AuditLog::default();
    let entries = 4_000;
    for n in 0..entries {
        log.begin(AuditMode::On, high(n), Millis(5));
        log.add(&AuditItem::Dropped(&"r".repeat(n as usize % 700)));
        log.add(&AuditItem::Dropped("the same"));
    }
    let values = seal(log);
    assert!(values.len() > 2, "{}", values.len());
    let mut next = 0;
    for (n, value) in values.iter().enumerate() {
        assert!(value.len() <= PART_MAX_BYTES, "{}", value.len());
        let part = AuditPart::decode(value).expect("its own encoding");
        assert_eq!((part.part as usize, part.parts as usize), (n, values.len()));
        for entry in part.entries {
            assert_eq!((entry.cause, entry.time), (high(next), Millis(5)));
            assert_eq!(entry.items[1], AuditItem::Dropped("the same"));
            next += 1;
        }
    }
    assert_eq!(next, entries);
}

#[test]
fn a_long_entry_only_counts_the_rest() {
    let mut log = AuditLog::default();
    for n in 0..3 {
        log.begin(AuditMode::On, high(n), Millis(5));
        for n in 0..1_000 {
            log.add(&AuditItem::Dropped(&format!("{n}{}", "why".repeat(1_024))));
        }
        log.add(&AuditItem::Duplicate);
    }
    log.begin(AuditMode::On, high(3), Millis(5));
    log.add(&AuditItem::ToState("posts:a", &"k".repeat(ITEM_MAX_BYTES)));
    let values = seal(log);
    assert!(values.iter().all(|value| value.len() <= PART_MAX_BYTES), "{}", values.len());
    let mut left_out = Vec::new();
    for value in &values {
        for entry in AuditPart::decode(value).expect("its own encoding").entries {
            let Some(AuditItem::Omitted(items)) = entry.items.last() else {
                panic!("nothing is left out of {} items", entry.items.len())
            };
            left_out.push(entry.items.len() as u64 - 1 + items);
        }
    }
    assert_eq!(left_out, [1_001, 1_001, 1_001, 1]);
}

/// A dead letter with this key.
fn letter(key: &str) -> Outgoing {
    let body = Body::new(Some(key.as_bytes()), None, &[]);
    Outgoing { topic: Topic::new("t.dead-letters"), partition: Partition(0), body }
}

#[test]
fn a_long_entry_still_names_every_dead_letter() {
    const LETTERS: usize = 1_000;
    let key = |n: usize| format!("t.order/3/1798416000000/engagement/{n:032x}");
    let mut log = AuditLog::default();
    for n in 0..3 {
        log.begin(AuditMode::On, high(n), Millis(5));
        for n in 0..1_000 {
            log.add(&AuditItem::Dropped(&format!("{n}{}", "x".repeat(1_024))));
        }
        for n in 0..LETTERS {
            log.failed("engagement", &letter(&key(n)), &format!("{n}{}", "why".repeat(1_024)));
        }
        log.dead_letter("avro_decode", &letter(&key(LETTERS)), "it is damaged");
    }
    log.begin(AuditMode::On, high(3), Millis(5));
    log.dead_letter("avro_decode", &letter(&key(LETTERS)), &"d".repeat(ITEM_MAX_BYTES));
    let values = seal(log);
    assert!(values.iter().all(|value| value.len() <= PART_MAX_BYTES), "{}", values.len());
    let mut named = Vec::new();
    for value in &values {
        for entry in AuditPart::decode(value).expect("its own encoding").entries {
            let letters = entry.items.iter().filter_map(|item| match item {
                AuditItem::Failed(_, letter, _) => Some((*letter).to_owned()),
                AuditItem::DeadLetter(_, letter, _) => Some((*letter).to_owned()),
                _ => None,
            });
            named.push(letters.collect::<Vec<_>>());
        }
    }
    let all: Vec<String> = (0..=LETTERS).map(key).collect();
    let found: Vec<usize> = named.iter().map(Vec::len).collect();
    assert!(named == [&all[..], &all, &all, &all[LETTERS..]], "{found:?}");
}

#[test]
fn nothing_is_written_without_an_entry_or_if_it_is_off() {
    let mut log = AuditLog::default();
    log.add(&AuditItem::Duplicate);
    log.begin(AuditMode::Off, AuditCause::EndOfLife, Millis(5));
    log.add(&AuditItem::Duplicate);
    assert!(!log.is_open());
    assert!(seal(log).is_empty());
}

#[test]
fn the_mode_is_a_part_of_the_hash_of_the_settings() {
    for hash in [0, 7, u64::MAX >> 1] {
        for mode in [AuditMode::On, AuditMode::Off] {
            assert_eq!(AuditMode::of(mode.in_hash(hash)), mode);
        }
        assert_eq!(AuditMode::On.in_hash(hash), hash);
    }
}

//! Clauses about retention and compaction.

use std::time::Duration;

use tidewire_engine::port::{Cleanup, Isolation, LogError};
use tidewire_engine::record::Offset;

use super::log_under_test::{
    ALL, Capability, LogUnderTest, append, append_all, at, has_capability, keyed, offsets, pairs,
    read, record, refused, topic, until, values,
};

const HOUR_MS: u64 = 3_600_000;

/// Real time passes too while a clause advances time; no clause takes this long.
const MARGIN_MS: u64 = 300_000;

pub(crate) const COMPACTED: Cleanup = Cleanup::Compact { delete_retention_ms: HOUR_MS };

pub(crate) fn compaction_keeps_the_newest_record_of_each_key<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "compact", (2, COMPACTED));
    let (p, q) = (at(&topic, 0), at(&topic, 1));
    for round in 0..3 {
        let value = round.to_string();
        let records = ["a", "b", "c"].map(|key| keyed(&p, key, Some(&value)));
        append_all(&*log, &records);
        append_all(&*log, &[keyed(&q, "a", Some("other")), keyed(&p, &value, Some("once"))]);
        subject.advance_time(60_000);
    }
    let found = read(&*log, &p, 0);
    assert_eq!(pairs(&found), ["0=once", "1=once", "a=2", "b=2", "c=2", "2=once"]);
    assert_eq!(offsets(&found), [3, 7, 8, 9, 10, 11], "records keep their offsets");
    assert_eq!(pairs(&read(&*log, &q, 0)), ["a=other"]);
    assert_eq!(log.bounds(&p, Isolation::Committed).unwrap().end, Offset(12));
    assert_eq!(pairs(&read(&*log, &p, 4))[0], "1=once", "a read skips the gap");
}

pub(crate) fn a_tombstone_is_removed_after_its_retention<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "tombstones", (1, COMPACTED)), 0);
    append_all(&*log, &[keyed(&partition, "a", Some("1")), keyed(&partition, "b", Some("1"))]);
    append_all(&*log, &[keyed(&partition, "a", None)]);
    subject.advance_time(HOUR_MS / 2);
    assert_eq!(pairs(&read(&*log, &partition, 0)), ["b=1", "a=-"]);
    append_all(&*log, &[keyed(&partition, "b", None), keyed(&partition, "c", None)]);
    append_all(&*log, &[keyed(&partition, "c", Some("again"))]);
    subject.advance_time(HOUR_MS - MARGIN_MS);
    // The time runs from when compaction met the tombstone, so that no reader on its way misses it.
    assert_eq!(pairs(&read(&*log, &partition, 0)), ["a=-", "b=-", "c=again"]);
    subject.advance_time(HOUR_MS);
    assert_eq!(pairs(&read(&*log, &partition, 0)), ["c=again"]);
    assert_eq!(append_all(&*log, &[keyed(&partition, "a", Some("new"))]), [6]);
    subject.advance_time(2 * HOUR_MS);
    assert_eq!(pairs(&read(&*log, &partition, 0)), ["c=again", "a=new"]);
}

pub(crate) fn a_compacted_topic_refuses_records_without_a_key<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "keyless", (1, COMPACTED)), 0);
    let outcome = log.appender().unwrap().append(&[record(&partition, "x")]);
    assert!(matches!(outcome, Err(LogError::Invalid(_))), "{outcome:?}");
    assert_eq!(values(&read(&*log, &partition, 0)), [""; 0]);
}

pub(crate) fn retention_by_age_moves_the_start_and_keeps_offsets_contiguous<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let cleanup = Cleanup::Delete { retention_ms: Some(HOUR_MS), retention_bytes: None };
    let partition = at(&topic(&subject, "aged", (1, cleanup)), 0);
    append(&*log, &partition, &["a", "b", "c"]);
    subject.advance_time(HOUR_MS / 2);
    append(&*log, &partition, &["d", "e"]);
    assert_eq!(log.bounds(&partition, Isolation::Committed).unwrap().start, Offset(0));
    subject.advance_time(HOUR_MS / 2 + 60_000);
    let bounds = log.bounds(&partition, Isolation::Committed).unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(3), Offset(5)));
    assert_eq!(offsets(&read(&*log, &partition, 3)), [3, 4]);
    match refused(&*log, &partition, 2) {
        LogError::OutOfRange { asked: 2, start: 3, end: 5, .. } => {}
        other => panic!("not out of range: {other:?}"),
    }
}

pub(crate) fn retention_by_size_keeps_at_least_that_much<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let cleanup = Cleanup::Delete { retention_ms: None, retention_bytes: Some(10_000) };
    let topic = topic(&subject, "sized", (2, cleanup));
    let (busy, quiet) = (at(&topic, 0), at(&topic, 1));
    append(&*log, &quiet, &["rests"]);
    let value = "v".repeat(1_000);
    for _ in 0..10 {
        append(&*log, &busy, &[value.as_str(); 10]);
        subject.advance_time(1_000);
    }
    let bounds = log.bounds(&busy, Isolation::Committed).unwrap();
    let kept = bounds.end.0 - bounds.start.0;
    assert!((9..=40).contains(&kept), "{kept} records of 1 kB are kept");
    let expected: Vec<u64> = (bounds.start.0..100).collect();
    assert_eq!(offsets(&read(&*log, &busy, bounds.start.0)), expected);
    assert_eq!(values(&read(&*log, &quiet, 0)), ["rests"]);
}

pub(crate) fn an_emptied_partition_continues_at_its_next_offset<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let mut subject = S::new();
    let cleanup = Cleanup::Delete { retention_ms: Some(HOUR_MS), retention_bytes: None };
    let partition = at(&topic(&subject, "emptied", (1, cleanup)), 0);
    append(&*subject.log(), &partition, &["a", "b"]);
    subject.advance_time(3 * HOUR_MS);
    let empty = |subject: &S| {
        let bounds = subject.log().bounds(&partition, Isolation::Committed).unwrap();
        assert_eq!((bounds.start, bounds.end), (Offset(2), Offset(2)));
    };
    empty(&subject);
    if S::CAPABILITIES.contains(&Capability::Restart) {
        subject.restart();
        empty(&subject);
    }
    assert_eq!(append(&*subject.log(), &partition, &["c"]), [2]);
    assert_eq!(values(&read(&*subject.log(), &partition, 2)), ["c"]);
}

pub(crate) fn a_reader_behind_retention_gets_out_of_range<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let cleanup = Cleanup::Delete { retention_ms: Some(HOUR_MS), retention_bytes: None };
    let partition = at(&topic(&subject, "passed", (1, cleanup)), 0);
    append(&*log, &partition, &["a"]);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&partition, Offset(0)).unwrap();
    subject.advance_time(3 * HOUR_MS);
    append(&*log, &partition, &["b"]);
    let mut out = Vec::new();
    // A reader may hold records that it read ahead; it must never skip silently.
    let outcome = until("the reader fails, or has both", || {
        reader.wait(Duration::from_millis(20)).unwrap();
        match reader.take(slot, ALL, &mut out) {
            Ok(_) => (out.len() == 2).then_some(None),
            Err(error) => Some(Some(error)),
        }
    });
    match outcome {
        None => return assert_eq!(values(&out), ["a", "b"]),
        Some(LogError::OutOfRange { asked: 0, start: 1, end: 2, .. }) => {}
        Some(other) => panic!("not out of range: {other:?}"),
    }
    reader.seek(slot, Offset(1)).unwrap();
    until("the rest is read", || (reader.take(slot, ALL, &mut out).unwrap() > 0).then_some(()));
    assert_eq!(values(&out), ["b"]);
}

pub(crate) fn compaction_with_retention_removes_old_keys<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let cleanup = Cleanup::CompactDelete { delete_retention_ms: 60_000, retention_ms: 2 * HOUR_MS };
    let partition = at(&topic(&subject, "windows", (1, cleanup)), 0);
    append_all(&*log, &[keyed(&partition, "old", Some("1")), keyed(&partition, "a", Some("1"))]);
    subject.advance_time(HOUR_MS);
    append_all(&*log, &[keyed(&partition, "a", Some("2"))]);
    subject.advance_time(60_000);
    assert_eq!(pairs(&read(&*log, &partition, 0)), ["old=1", "a=2"]);
    subject.advance_time(HOUR_MS);
    let start = log.bounds(&partition, Isolation::Committed).unwrap().start;
    assert_eq!(pairs(&read(&*log, &partition, start.0)), ["a=2"]);
    append_all(&*log, &[keyed(&partition, "old", Some("3"))]);
    subject.advance_time(60_000);
    assert_eq!(pairs(&read(&*log, &partition, start.0)), ["a=2", "old=3"]);
}

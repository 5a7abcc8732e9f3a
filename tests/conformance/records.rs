//! Clauses about appending and reading outside transactions.

use std::time::Duration;

use tidewire_engine::port::{Isolation, LogError, ReadLimit};
use tidewire_engine::record::{Body, Millis, Offset};

use super::log_under_test::{
    ALL, Capability, FOR_EVER, LogUnderTest, append, append_all, at, has_capability, offsets,
    outgoing, read, record, refused, topic, until, values,
};

pub(crate) fn order_holds_within_each_partition<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "order", (3, FOR_EVER));
    for round in 0..20 {
        let records: Vec<_> =
            (0..30).map(|n| record(&at(&topic, n % 3), &format!("{}", round * 30 + n))).collect();
        append_all(&*log, &records);
    }
    for partition in 0..3 {
        let found: Vec<u32> = values(&read(&*log, &at(&topic, partition), 0))
            .iter()
            .map(|value| value.parse().unwrap())
            .collect();
        let expected: Vec<u32> = (0..600).filter(|n| n % 3 == partition).collect();
        assert_eq!(found, expected);
    }
}

pub(crate) fn offsets_outside_transactions_are_contiguous_from_zero<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "offsets", (2, FOR_EVER));
    let (p, q) = (at(&topic, 0), at(&topic, 1));
    assert_eq!(append(&*log, &p, &["a", "b"]), [0, 1]);
    assert_eq!(append_all(&*log, &[record(&q, "x"), record(&p, "c"), record(&q, "y")]), [0, 2, 1]);
    assert_eq!(append(&*log, &p, &[]), [0u64; 0]);
    assert_eq!(offsets(&read(&*log, &p, 0)), [0, 1, 2]);
    let bounds = log.bounds(&p, Isolation::Committed).unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(3)));
}

pub(crate) fn every_form_of_record_is_read_back_unchanged<S: LogUnderTest>() {
    let subject = S::new();
    let partition = at(&topic(&subject, "forms", (1, FOR_EVER)), 0);
    let large = vec![7; 300_000];
    let bodies = [
        Body::new(None, Some(b"no key"), &[]),
        Body::new(Some(b"key"), None, &[]),
        Body::new(Some(b""), Some(b""), &[("", b"")]),
        Body::new(Some(&[0, 255]), Some(&large), &[("h", b"1"), ("h", b"2"), ("i", &[0, 9])]),
    ];
    let records: Vec<_> = bodies.iter().map(|body| outgoing(&partition, body.clone())).collect();
    append_all(&*subject.log(), &records);
    let found = read(&*subject.log(), &partition, 0);
    assert_eq!(found.iter().map(|r| r.body.clone()).collect::<Vec<_>>(), bodies);
}

pub(crate) fn reading_starts_at_the_offset_asked_for<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "from", (1, FOR_EVER)), 0);
    append(&*log, &partition, &["a", "b", "c"]);
    for (from, expected) in [(0, vec!["a", "b", "c"]), (2, vec!["c"]), (3, vec![])] {
        assert_eq!(values(&read(&*log, &partition, from)), expected);
    }
}

pub(crate) fn reading_outside_the_log_is_out_of_range<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "range", (1, FOR_EVER)), 0);
    append(&*log, &partition, &["a"]);
    match refused(&*log, &partition, 2) {
        LogError::OutOfRange { at, asked: 2, start: 0, end: 1 } => assert_eq!(at, partition),
        other => panic!("not out of range: {other:?}"),
    }
}

pub(crate) fn a_take_respects_its_limit_and_gives_at_least_one_record<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "limit", (1, FOR_EVER)), 0);
    let value = "v".repeat(100);
    append(&*log, &partition, &[value.as_str(); 50]);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&partition, Offset(0)).unwrap();
    let mut taken = Vec::new();
    for (limit, least, most) in [
        (ReadLimit { records: 7, bytes: usize::MAX }, 1, 7),
        (ReadLimit { records: 100, bytes: 1 }, 1, 1),
        (ReadLimit { records: 100, bytes: 1_000 }, 1, 10),
    ] {
        let count = until("some are taken", || {
            reader.wait(Duration::from_millis(20)).unwrap();
            let count = reader.take(slot, limit, &mut taken).unwrap();
            (count > 0).then_some(count)
        });
        assert!((least..=most).contains(&count), "{count} for {limit:?}");
    }
    let expected: Vec<u64> = (0..taken.len() as u64).collect();
    assert_eq!(offsets(&taken), expected);
    assert_eq!(reader.position(slot).unwrap(), Offset(taken.len() as u64));
}

pub(crate) fn seeking_and_removing_move_only_their_own_partition<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "slots", (2, FOR_EVER));
    let (p, q) = (at(&topic, 0), at(&topic, 1));
    append(&*log, &p, &["a", "b"]);
    append(&*log, &q, &["x", "y"]);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let (first, second) = (reader.add(&p, Offset(0)).unwrap(), reader.add(&q, Offset(0)).unwrap());
    assert_ne!(first, second);
    let mut next = |slot, expected: &str| {
        let mut out = Vec::new();
        until("a record is taken", || {
            reader.wait(Duration::from_millis(20)).unwrap();
            let limit = ReadLimit { records: 1, bytes: usize::MAX };
            (reader.take(slot, limit, &mut out).unwrap() > 0).then_some(())
        });
        assert_eq!(values(&out), [expected]);
    };
    next(first, "a");
    next(second, "x");
    reader.seek(first, Offset(0)).unwrap();
    let mut out = Vec::new();
    until("both are taken again", || {
        reader.wait(Duration::from_millis(20)).unwrap();
        reader.take(first, ALL, &mut out).unwrap();
        (out.len() == 2).then_some(())
    });
    assert_eq!(values(&out), ["a", "b"]);
    reader.remove(first);
    let third = reader.add(&p, Offset(1)).unwrap();
    assert!(third != first && third != second, "a slot is not used again");
    assert_eq!(reader.position(second).unwrap(), Offset(1));
}

pub(crate) fn one_reader_reads_a_partition_at_two_positions<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "two-places", (1, FOR_EVER)), 0);
    append(&*log, &partition, &["a", "b", "c"]);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let (first, second) =
        (reader.add(&partition, Offset(0)).unwrap(), reader.add(&partition, Offset(2)).unwrap());
    let (mut from_start, mut from_two) = (Vec::new(), Vec::new());
    until("both are read", || {
        reader.wait(Duration::from_millis(20)).unwrap();
        reader.take(first, ALL, &mut from_start).unwrap();
        reader.take(second, ALL, &mut from_two).unwrap();
        (from_start.len() + from_two.len() >= 4).then_some(())
    });
    assert_eq!(
        (values(&from_start), values(&from_two)),
        (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec!["c".to_owned()],)
    );
}

pub(crate) fn append_times_never_run_backwards<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "times", (1, FOR_EVER)), 0);
    for value in ["a", "b", "c", "d"] {
        append(&*log, &partition, &[value, value]);
    }
    let times: Vec<_> = read(&*log, &partition, 0).iter().map(|r| r.timestamp).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[0] > Millis(0));
}

pub(crate) fn the_offset_of_a_time_is_the_first_record_at_or_after_it<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "by-time", (1, FOR_EVER)), 0);
    assert_eq!(log.offset_at(&partition, Millis(0)).unwrap(), None);
    for value in ["a", "b", "c"] {
        append(&*log, &partition, &[value, value, value]);
        subject.advance_time(1_000);
    }
    let records = read(&*log, &partition, 0);
    for record in &records {
        for time in [record.timestamp.0 - 1, record.timestamp.0, record.timestamp.0 + 1] {
            let expected = records.iter().find(|r| r.timestamp.0 >= time).map(|r| r.offset);
            assert_eq!(log.offset_at(&partition, Millis(time)).unwrap(), expected);
        }
    }
}

pub(crate) fn concurrent_writers_get_distinct_offsets<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "side-by-side", (1, FOR_EVER)), 0);
    let partition = &partition;
    let mut all: Vec<(u64, String)> = std::thread::scope(|scope| {
        let write = |writer: usize| {
            let mut appender = log.appender().unwrap();
            move || {
                let mut mine = Vec::new();
                for n in 0..50 {
                    let value = format!("{writer}-{n}");
                    let offsets = appender.append(&[record(partition, &value)]).unwrap();
                    mine.push((offsets[0].0, value));
                }
                mine
            }
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(write(writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    all.sort();
    let found = read(&*log, partition, 0);
    let found: Vec<_> = offsets(&found).into_iter().zip(values(&found)).collect();
    assert_eq!(found, all);
    assert_eq!(all.len(), 200);
}

pub(crate) fn a_reader_far_behind_gets_every_record_once<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "behind", (1, FOR_EVER)), 0);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&partition, Offset(0)).unwrap();
    let mut taken = Vec::new();
    let value = "v".repeat(1_000);
    for _ in 0..20 {
        append(&*log, &partition, &[value.as_str(); 100]);
        let limit = ReadLimit { records: 37, bytes: usize::MAX };
        reader.take(slot, limit, &mut taken).unwrap();
    }
    until("all are taken", || {
        reader.wait(Duration::from_millis(20)).unwrap();
        reader.take(slot, ALL, &mut taken).unwrap();
        (taken.len() >= 2_000).then_some(())
    });
    assert_eq!(offsets(&taken), (0..2_000).collect::<Vec<u64>>());
}

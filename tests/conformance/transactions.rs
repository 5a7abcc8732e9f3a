//! Clauses about transactions.

use std::time::Duration;

use tidewire_engine::port::{Isolation, Log, LogError, Transactor};
use tidewire_engine::record::{Offset, TopicPartition};

use super::log_under_test::{
    ALL, FOR_EVER, LogUnderTest, append, assert_fenced, at, committed, member, names, progress,
    read, read_to, record, settle, topic, until, values,
};

/// Begins, writes and drains.
fn write(transactor: &mut dyn Transactor, at: &TopicPartition, values: &[&str]) {
    transactor.begin().expect("begun");
    let records: Vec<_> = values.iter().map(|value| record(at, value)).collect();
    transactor.append(&records).expect("appended");
    transactor.drain().expect("drained");
}

pub(crate) fn committed_records_appear_and_commit_returns_their_end_offsets<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-commit", (3, FOR_EVER));
    let (p, q) = (at(&topic, 0), at(&topic, 2));
    append(&*log, &q, &["before"]);
    let mut transactor = log.transactor("t-commit").unwrap();
    transactor.begin().unwrap();
    transactor.append(&[record(&p, "a"), record(&q, "x")]).unwrap();
    transactor.append(&[record(&p, "b")]).unwrap();
    transactor.drain().unwrap();
    let mut ends = transactor.commit().unwrap();
    ends.sort();
    assert_eq!(ends, [(p.clone(), Offset(2)), (q.clone(), Offset(2))]);
    assert_eq!(values(&read(&*log, &p, 0)), ["a", "b"]);
    assert_eq!(values(&read(&*log, &q, 0)), ["before", "x"]);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    assert!(reader.add(&p, Offset(2)).is_ok(), "a read can start after the commit");
}

pub(crate) fn nothing_is_visible_to_committed_readers_before_the_commit<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "t-open", (1, FOR_EVER)), 0);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&partition, Offset(0)).unwrap();
    let mut transactor = log.transactor("t-open").unwrap();
    write(&mut *transactor, &partition, &["a"]);
    let mut out = Vec::new();
    for _ in 0..5 {
        reader.wait(Duration::from_millis(5)).unwrap();
        assert_eq!(reader.take(slot, ALL, &mut out).unwrap(), 0);
    }
    let stable = log.bounds(&partition, Isolation::Committed).unwrap();
    assert_eq!(stable.end, Offset(0));
    assert!(log.bounds(&partition, Isolation::Uncommitted).unwrap().end >= stable.end);
    transactor.commit().unwrap();
    until("the record is there", || {
        reader.wait(Duration::from_millis(20)).unwrap();
        (reader.take(slot, ALL, &mut out).unwrap() > 0).then_some(())
    });
    assert_eq!(values(&out), ["a"]);
}

pub(crate) fn aborted_records_never_appear_to_committed_readers<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "t-abort", (1, FOR_EVER)), 0);
    let mut transactor = log.transactor("t-abort").unwrap();
    write(&mut *transactor, &partition, &["lost"]);
    transactor.abort().unwrap();
    write(&mut *transactor, &partition, &["kept"]);
    transactor.commit().unwrap();
    append(&*log, &partition, &["after"]);
    assert_eq!(values(&read(&*log, &partition, 0)), ["kept", "after"]);
}

pub(crate) fn offsets_in_a_transaction_are_committed_or_aborted_with_it<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-offsets", (1, FOR_EVER));
    let partition = at(&topic, 0);
    let mut only = member(&*log, &subject.group("t-offsets"), "one", std::slice::from_ref(&topic));
    settle(&mut [(&mut *only, &mut Vec::new())], &[&names(&[&topic], &[0])]);
    let mut transactor = log.transactor("t-offsets").unwrap();
    write(&mut *transactor, &partition, &["a"]);
    transactor.send_offsets(&only.token().unwrap(), &progress(&partition, 1)).unwrap();
    transactor.abort().unwrap();
    assert_eq!(committed(&*log, &subject.group("t-offsets"), &partition), None);
    write(&mut *transactor, &partition, &["b"]);
    transactor.send_offsets(&only.token().unwrap(), &progress(&partition, 2)).unwrap();
    match log.committed(&subject.group("t-offsets"), std::slice::from_ref(&partition)) {
        Ok(found) => assert_eq!(found, [None], "not before the commit"),
        Err(LogError::Retry(_)) => {}
        Err(other) => panic!("not an answer: {other:?}"),
    }
    match transactor.commit() {
        // A broker may not answer about offsets until the transaction that decides them has ended,
        // here by its time limit. Then another one takes its place.
        Err(LogError::Fenced(_)) => {
            transactor = log.transactor("t-offsets").unwrap();
            write(&mut *transactor, &partition, &["b"]);
            transactor.send_offsets(&only.token().unwrap(), &progress(&partition, 2)).unwrap();
            transactor.commit().unwrap();
        }
        done => drop(done.unwrap()),
    }
    assert_eq!(committed(&*log, &subject.group("t-offsets"), &partition), Some(2));
}

pub(crate) fn a_newer_producer_of_the_id_fences_the_older<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "t-fence", (1, FOR_EVER)), 0);
    let mut old = log.transactor("t-fence").unwrap();
    write(&mut *old, &partition, &["old"]);
    let mut new = log.transactor("t-fence").unwrap();
    assert_fenced(old.commit());
    write(&mut *new, &partition, &["new"]);
    new.commit().unwrap();
    assert_eq!(values(&read(&*log, &partition, 0)), ["new"]);
}

/// A fenced owner must get `Fenced`: after any other error it would initialise the id again, and
/// fence the current owner.
pub(crate) fn a_fenced_producer_gets_the_error_from_every_call<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-fenced", (8, FOR_EVER));
    let records =
        |value: &str| -> Vec<_> { (0..800).map(|n| record(&at(&topic, n % 8), value)).collect() };
    for (round, done) in (0..12).map(|n| (n, n % 4)) {
        let mut old = log.transactor("t-fenced").unwrap();
        let mut new = None;
        let mut steps = 0;
        let mut overtake = || {
            if steps == done {
                new = Some(log.transactor("t-fenced").unwrap());
            }
            steps += 1;
        };
        let outcome = (|| {
            overtake();
            old.begin()?;
            overtake();
            old.append(&records("old"))?;
            overtake();
            old.append(&records("old"))?;
            old.drain()?;
            overtake();
            old.append(&records("old"))?;
            old.drain()?;
            old.commit()
        })();
        assert_fenced(outcome);
        let mut new = new.expect("it took over at one of the steps");
        write(&mut *new, &at(&topic, 0), &[&round.to_string()]);
        new.commit().unwrap();
    }
    let rounds: Vec<_> = (0..12).map(|n| n.to_string()).collect();
    assert_eq!(values(&read(&*log, &at(&topic, 0), 0)), rounds);
}

pub(crate) fn offsets_of_a_fenced_member_are_refused<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-member", (1, FOR_EVER));
    let partition = at(&topic, 0);
    let topics = [topic.clone()];
    let mut old = member(&*log, "t-member", "one", &topics);
    settle(&mut [(&mut *old, &mut Vec::new())], &[&names(&[&topic], &[0])]);
    let token = old.token().unwrap();
    let mut new = member(&*log, "t-member", "one", &topics);
    settle(&mut [(&mut *new, &mut Vec::new())], &[&names(&[&topic], &[0])]);
    let mut transactor = log.transactor("t-member").unwrap();
    write(&mut *transactor, &partition, &["a"]);
    match transactor.send_offsets(&token, &progress(&partition, 1)) {
        Err(LogError::Fenced(_) | LogError::Abort(_)) => transactor.abort().unwrap(),
        outcome => panic!("not refused: {outcome:?}"),
    }
    assert_eq!(committed(&*log, "t-member", &partition), None);
    assert_eq!(values(&read(&*log, &partition, 0)), [""; 0]);
}

pub(crate) fn one_producer_runs_many_transactions_in_turn<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "t-many", (1, FOR_EVER)), 0);
    let mut transactor = log.transactor("t-many").unwrap();
    let mut expected = Vec::new();
    for n in 0..30 {
        let value = n.to_string();
        write(&mut *transactor, &partition, &[&value, &value]);
        if n % 4 == 3 {
            transactor.abort().unwrap();
        } else {
            transactor.commit().unwrap();
            expected.extend([value.clone(), value]);
        }
    }
    assert_eq!(values(&read(&*log, &partition, 0)), expected);
}

pub(crate) fn an_empty_transaction_commits<S: LogUnderTest>() {
    let subject = S::new();
    let mut transactor = subject.log().transactor("t-empty").unwrap();
    transactor.begin().unwrap();
    transactor.drain().unwrap();
    assert_eq!(transactor.commit().unwrap(), []);
    transactor.begin().unwrap();
    transactor.abort().unwrap();
}

pub(crate) fn the_position_skips_control_and_aborted_records<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "t-position", (1, FOR_EVER)), 0);
    let mut transactor = log.transactor("t-position").unwrap();
    write(&mut *transactor, &partition, &["a"]);
    transactor.commit().unwrap();
    write(&mut *transactor, &partition, &["lost"]);
    transactor.abort().unwrap();
    // Reads until the position is at the end, whatever the last entry is; `read` might not return.
    assert_eq!(values(&read(&*log, &partition, 0)), ["a"]);
}

/// The answer to a request for ends.
fn ends(log: &dyn Log, of: &[TopicPartition], isolation: Isolation) -> Vec<Option<Offset>> {
    let mut request = log.request_ends(of, isolation).expect("requested");
    until("the ends are known", || request.poll().expect("answered"))
}

pub(crate) fn requested_committed_ends_are_before_open_transactions<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-ends", (3, FOR_EVER));
    let [empty, outside, open] = [0, 1, 2].map(|partition| at(&topic, partition));
    append(&*log, &outside, &["a", "b"]);
    append(&*log, &open, &["a"]);
    let mut transactor = log.transactor("t-ends").unwrap();
    write(&mut *transactor, &open, &["b"]);
    let asked = [open, empty, outside];
    let found = ends(&*log, &asked, Isolation::Committed);
    assert_eq!(found, [1, 0, 2].map(|end| Some(Offset(end))));
    transactor.commit().unwrap();
    let found = ends(&*log, &asked[..1], Isolation::Committed);
    let bounds = log.bounds(&asked[0], Isolation::Committed).unwrap();
    let end = found[0].expect("the partition has a leader");
    assert!(end >= Offset(1) && end <= bounds.end, "{found:?}, then {bounds:?}");
    let unknown = at(&topic, 9);
    for isolation in [Isolation::Committed, Isolation::Uncommitted] {
        let request = log.request_ends(std::slice::from_ref(&unknown), isolation);
        let refused = request.and_then(|mut request| {
            until("there is an answer", || request.poll().transpose()).map(drop)
        });
        assert!(refused.is_err(), "the topic has no partition 9");
    }
}

/// A reader of committed records is at such an end only if no open transaction has a record before
/// it, and it gets there once all have ended, whatever the last entry is.
pub(crate) fn requested_uncommitted_ends_are_behind_open_transactions<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "t-all-ends", (3, FOR_EVER));
    let [empty, committed, aborted] = [0, 1, 2].map(|partition| at(&topic, partition));
    let mut transactor = log.transactor("t-all-ends").unwrap();
    for (at, commits) in [(&committed, true), (&aborted, false)] {
        append(&*log, at, &["a"]);
        write(&mut *transactor, at, &["open"]);
        // The next offset, unless this log writes a transaction only when it commits.
        let behind = append(&*log, at, &["b"])[0];
        let end = Offset(behind + 1);
        let asked = [empty.clone(), at.clone()];
        let request = || log.request_ends(&asked, Isolation::Uncommitted).expect("requested");
        let mut waits_for_it = request();
        if behind > 1 {
            let mut poll = || waits_for_it.poll().expect("answered");
            assert_eq!(until("the ends are known", &mut poll), [Some(Offset(0)), Some(end)]);
            // Not called again after an answer.
            waits_for_it = request();
        } else {
            for _ in 0..5 {
                assert_eq!(waits_for_it.poll().expect("no error"), None, "no end is behind it");
            }
            let unconcerned = ends(&*log, &asked[..1], Isolation::Uncommitted);
            assert_eq!(unconcerned, [Some(Offset(0))], "it writes nothing there");
        }
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let slot = reader.add(at, Offset(0)).unwrap();
        let mut before = Vec::new();
        for _ in 0..5 {
            reader.wait(Duration::from_millis(5)).unwrap();
            reader.take(slot, ALL, &mut before).unwrap();
        }
        let waits = reader.position(slot).unwrap() < end;
        assert_eq!(waits, behind > 1, "at the end beside an open transaction: {before:?}");
        drop(reader);
        let ended = if commits { transactor.commit().map(drop) } else { transactor.abort() };
        ended.unwrap();
        let found = until("the ends are known", || waits_for_it.poll().expect("answered"));
        let end = found[1].expect("the partition has a leader").max(end);
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let read = values(&read_to(&mut *reader, at, 0..end.0));
        let mut expected = vec!["a", "b"];
        if commits {
            expected.insert(if behind > 1 { 1 } else { 2 }, "open");
        }
        assert_eq!(read, expected);
    }
}

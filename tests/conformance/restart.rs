//! Clauses about stopping and starting.

use tidewire_engine::port::{Cleanup, Isolation};
use tidewire_engine::record::Offset;

use super::cleanup::COMPACTED;
use super::log_under_test::{
    Capability, FOR_EVER, LogUnderTest, append, append_all, at, committed, has_capability, keyed,
    member, names, pairs, progress, read, record, settle, topic, values,
};

pub(crate) fn records_offsets_and_topics_survive_a_restart<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::Restart) {
        return;
    }
    let mut subject = S::new();
    let topic = topic(&subject, "survives", (2, FOR_EVER));
    let partition = at(&topic, 1);
    append(&*subject.log(), &partition, &["a", "b"]);
    {
        let log = subject.log();
        let mut only = member(&*log, "survives", "one", std::slice::from_ref(&topic));
        settle(&mut [(&mut *only, &mut Vec::new())], &[&names(&[&topic], &[0, 1])]);
        only.commit(&progress(&partition, 1)).unwrap();
    }
    let before = subject.log().topics().unwrap();
    subject.restart();
    assert_eq!(subject.log().topics().unwrap(), before, "topics and ids are unchanged");
    assert_eq!(values(&read(&*subject.log(), &partition, 0)), ["a", "b"]);
    assert_eq!(committed(&*subject.log(), "survives", &partition), Some(1));
    assert_eq!(append(&*subject.log(), &partition, &["c"]), [2]);
    let log = subject.log();
    let mut only = member(&*log, "survives", "one", std::slice::from_ref(&topic));
    settle(&mut [(&mut *only, &mut Vec::new())], &[&names(&[&topic], &[0, 1])]);
}

pub(crate) fn an_open_transaction_is_gone_after_a_restart<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::Restart) {
        return;
    }
    let mut subject = S::new();
    let partition = at(&topic(&subject, "left-open", (1, FOR_EVER)), 0);
    {
        let mut transactor = subject.log().transactor("left-open").unwrap();
        transactor.begin().unwrap();
        transactor.append(&[record(&partition, "lost")]).unwrap();
        transactor.drain().unwrap();
    }
    subject.restart();
    let mut transactor = subject.log().transactor("left-open").unwrap();
    transactor.begin().unwrap();
    transactor.append(&[record(&partition, "kept")]).unwrap();
    transactor.drain().unwrap();
    transactor.commit().unwrap();
    assert_eq!(values(&read(&*subject.log(), &partition, 0)), ["kept"]);
}

pub(crate) fn starts_moved_by_retention_survive_a_restart<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::Restart) || !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let mut subject = S::new();
    for (name, cleanup) in [
        ("kept-age", Cleanup::Delete { retention_ms: Some(60_000), retention_bytes: None }),
        ("kept-both", Cleanup::Delete { retention_ms: Some(60_000), retention_bytes: Some(9_999) }),
    ] {
        let partition = at(&topic(&subject, name, (1, cleanup)), 0);
        append(&*subject.log(), &partition, &["a", "b"]);
        subject.advance_time(90_000);
        append(&*subject.log(), &partition, &["c"]);
        subject.restart();
        let bounds = subject.log().bounds(&partition, Isolation::Committed).unwrap();
        assert_eq!((bounds.start, bounds.end), (Offset(2), Offset(3)));
        assert_eq!(values(&read(&*subject.log(), &partition, 2)), ["c"]);
    }
}

pub(crate) fn compaction_continues_after_a_restart<S: LogUnderTest>() {
    if !has_capability::<S>(Capability::Restart) || !has_capability::<S>(Capability::AdvanceTime) {
        return;
    }
    let mut subject = S::new();
    let partition = at(&topic(&subject, "compact-on", (1, COMPACTED)), 0);
    append_all(
        &*subject.log(),
        &[keyed(&partition, "a", Some("1")), keyed(&partition, "b", Some("1"))],
    );
    subject.advance_time(60_000);
    append_all(
        &*subject.log(),
        &[keyed(&partition, "a", Some("2")), keyed(&partition, "a", Some("3"))],
    );
    subject.restart();
    append_all(&*subject.log(), &[keyed(&partition, "b", Some("2"))]);
    subject.advance_time(60_000);
    subject.restart();
    assert_eq!(pairs(&read(&*subject.log(), &partition, 0)), ["a=3", "b=2"]);
    let bounds = subject.log().bounds(&partition, Isolation::Committed).unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(5)));
}

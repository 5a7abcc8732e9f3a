//! Clauses about waiting.

use std::time::{Duration, Instant};

use tidewire_engine::port::Isolation;
use tidewire_engine::record::Offset;

use super::subject::{ALL, FOR_EVER, PATIENCE, Subject, append, at, topic, until, values};

/// How long the other thread lets us fall asleep. No clause depends on that it was enough.
const DOZE: Duration = Duration::from_millis(30);

pub(crate) fn a_wait_ends_when_a_record_comes<S: Subject>() {
    let subject = S::new();
    let log = subject.log();
    let place = at(&topic(&subject, "wait", (1, FOR_EVER)), 0);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&place, Offset(0)).unwrap();
    let before = Instant::now();
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(DOZE);
            append(&*log, &place, &["x"]);
        });
        until("the record is taken", || {
            reader.wait(PATIENCE).unwrap();
            (reader.take(slot, ALL, &mut out).unwrap() > 0).then_some(())
        });
    });
    assert_eq!(values(&out), ["x"]);
    assert!(before.elapsed() < PATIENCE, "the wait ended by its time");
}

pub(crate) fn a_wait_ends_when_it_is_woken_and_remembers_a_wake_before_it<S: Subject>() {
    let subject = S::new();
    let place = at(&topic(&subject, "wake", (1, FOR_EVER)), 0);
    let mut reader = subject.log().reader(Isolation::Committed).unwrap();
    reader.add(&place, Offset(0)).unwrap();
    let waker = reader.waker();
    let before = Instant::now();
    waker.wake();
    reader.wait(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(DOZE);
            waker.wake();
        });
        reader.wait(PATIENCE).unwrap();
    });
    assert!(before.elapsed() < PATIENCE, "a wait ended by its time");
}

pub(crate) fn a_wait_ends_when_its_time_is_over<S: Subject>() {
    let subject = S::new();
    let place = at(&topic(&subject, "timeout", (1, FOR_EVER)), 0);
    let mut reader = subject.log().reader(Isolation::Committed).unwrap();
    reader.add(&place, Offset(0)).unwrap();
    reader.wait(Duration::from_millis(5)).unwrap();
    reader.wait(Duration::ZERO).unwrap();
}

pub(crate) fn no_wake_up_is_missed_between_taking_and_waiting<S: Subject>() {
    const RECORDS: usize = 2_000;
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "ping", (2, FOR_EVER));
    let (ping, pong) = (at(&topic, 0), at(&topic, 1));
    let (ping, pong) = (&ping, &pong);
    let before = Instant::now();
    // Each side writes only when it has seen the other's record: one lost wake-up and both sleep.
    let play = |reads, writes, begins: usize| {
        let mut appender = log.appender().unwrap();
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let slot = reader.add(reads, Offset(0)).unwrap();
        let mut seen = Vec::new();
        for n in 0..RECORDS {
            while seen.len() + begins <= n {
                if reader.take(slot, ALL, &mut seen).unwrap() == 0 {
                    reader.wait(PATIENCE).unwrap();
                }
            }
            appender.append(&[super::subject::record(writes, "x")]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| play(ping, pong, 0));
        scope.spawn(|| play(pong, ping, 1));
    });
    assert!(before.elapsed() < PATIENCE, "a wait ended by its time: a wake-up was missed");
}

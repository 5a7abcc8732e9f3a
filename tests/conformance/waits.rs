//! Clauses about waiting.

use std::time::{Duration, Instant};

use tidewire_engine::port::Isolation;
use tidewire_engine::record::Offset;

use super::log_under_test::{
    ALL, FOR_EVER, LogUnderTest, TIMEOUT, append, at, topic, until, values,
};

/// How long the other thread waits for this one to sleep. No clause needs this to be enough.
const DOZE: Duration = Duration::from_millis(30);

pub(crate) fn a_wait_ends_when_a_record_comes<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let partition = at(&topic(&subject, "wait", (1, FOR_EVER)), 0);
    let mut reader = log.reader(Isolation::Committed).unwrap();
    let slot = reader.add(&partition, Offset(0)).unwrap();
    let before = Instant::now();
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(DOZE);
            append(&*log, &partition, &["x"]);
        });
        until("the record is taken", || {
            reader.wait(TIMEOUT).unwrap();
            (reader.take(slot, ALL, &mut out).unwrap() > 0).then_some(())
        });
    });
    assert_eq!(values(&out), ["x"]);
    assert!(before.elapsed() < TIMEOUT, "the wait ended only by its time-out");
}

pub(crate) fn a_wake_ends_the_wait_it_comes_in_or_the_next_one<S: LogUnderTest>() {
    let subject = S::new();
    let partition = at(&topic(&subject, "wake", (1, FOR_EVER)), 0);
    let mut reader = subject.log().reader(Isolation::Committed).unwrap();
    reader.add(&partition, Offset(0)).unwrap();
    let waker = reader.waker();
    let before = Instant::now();
    waker.wake();
    reader.wait(TIMEOUT).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(DOZE);
            waker.wake();
        });
        reader.wait(TIMEOUT).unwrap();
    });
    assert!(before.elapsed() < TIMEOUT, "a wait ended only by its time-out");
}

pub(crate) fn a_wait_ends_after_its_timeout<S: LogUnderTest>() {
    let subject = S::new();
    let partition = at(&topic(&subject, "timeout", (1, FOR_EVER)), 0);
    let mut reader = subject.log().reader(Isolation::Committed).unwrap();
    reader.add(&partition, Offset(0)).unwrap();
    reader.wait(Duration::from_millis(5)).unwrap();
    reader.wait(Duration::ZERO).unwrap();
}

pub(crate) fn no_wake_up_is_missed_between_taking_and_waiting<S: LogUnderTest>() {
    const RECORDS: usize = 2_000;
    let subject = S::new();
    let log = subject.log();
    let topic = topic(&subject, "ping", (2, FOR_EVER));
    let (ping, pong) = (at(&topic, 0), at(&topic, 1));
    let (ping, pong) = (&ping, &pong);
    let before = Instant::now();
    // Each side writes only after the other's record: with one lost wake-up both would sleep.
    let play = |reads, writes, begins: usize| {
        let mut appender = log.appender().unwrap();
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let slot = reader.add(reads, Offset(0)).unwrap();
        let mut seen = Vec::new();
        for n in 0..RECORDS {
            while seen.len() + begins <= n {
                if reader.take(slot, ALL, &mut seen).unwrap() == 0 {
                    reader.wait(TIMEOUT).unwrap();
                }
            }
            appender.append(&[super::log_under_test::record(writes, "x")]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| play(ping, pong, 0));
        scope.spawn(|| play(pong, ping, 1));
    });
    assert!(before.elapsed() < TIMEOUT, "a wake-up was missed: a wait ended by its time-out");
}

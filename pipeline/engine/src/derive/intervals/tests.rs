//! Tests of intervals: what is in memory is what the table says, at every step.

use proptest::prelude::*;

use super::*;
use crate::derive::memory_store::MemoryStore;

fn state() -> TaskState {
    TaskState::new(Box::<MemoryStore>::default())
}

fn key(n: u8) -> Bytes {
    vec![b'k', n].into()
}

/// Whether both give the same answers.
fn same(a: &Intervals, b: &Intervals) -> bool {
    let keys = (0..5).map(key);
    let rows =
        |of: &Intervals| (of.waiting.clone(), of.packs.clone(), of.slots.clone(), of.new.clone());
    let current = |of: &Intervals| keys.clone().map(|k| of.current(&k)).collect::<Vec<_>>();
    (rows(a), a.remembered, current(a)) == (rows(b), b.remembered, current(b))
}

fn rows(state: &mut TaskState) -> usize {
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    state.scan(INTERVALS.spec.table, KeyRange::ALL, count).expect("in memory");
    rows
}

proptest! {
    /// Changes of a few keys, whose times go up and down, with ticks now and then.
    #[test]
    fn after_every_transaction_the_table_gives_what_is_in_memory(
        steps in proptest::collection::vec((0..5u8, -90..120i64, any::<bool>(), 0..4u8), 1..80),
    ) {
        let (mut state, mut intervals) = (state(), Intervals::default());
        let (mut now, mut latest) = (1_000, Millis(0));
        for (n, moved, is_deferred, end) in steps {
            now += moved;
            latest = latest.max(Millis(now));
            intervals.set_latest(latest);
            let (key, end_of) = (key(n), Millis(now + 100));
            let cause = || Bytes::from_static(b"cause");
            match intervals.coalesce(&key, Millis(now)) {
                Coalesced::Send if !is_deferred => intervals.begin(&mut state, &key, end_of),
                _ => {
                    intervals.wait(&mut state, (&key, end_of), cause);
                    let waits = intervals.waiting.keys().any(|(_, waiting)| *waiting == key);
                    prop_assert!(waits, "no change is forgotten");
                }
            }
            if end == 0 {
                while let Some(ended) = intervals.take_ended(&mut state) {
                    prop_assert!(ended.end <= latest);
                    let next = Millis(ended.end.0 + 100);
                    intervals.begin(&mut state, &ended.key, next);
                }
            }
            if end < 3 {
                intervals.seal(&mut state);
                state.apply();
                let mut again = Intervals::default();
                again.load(&mut state).expect("in memory");
                again.set_latest(latest);
                prop_assert!(same(&again, &intervals));
                if end == 2 {
                    intervals = again;
                }
            }
        }
        intervals.set_latest(Millis(latest.0 + 1_000));
        while intervals.take_ended(&mut state).is_some() {}
        intervals.seal(&mut state);
        intervals.seal(&mut state);
        prop_assert_eq!((rows(&mut state), intervals.sent.len()), (0, 0));
    }

    #[test]
    fn damaged_rows_never_panic(key: Vec<u8>, value: Vec<u8>) {
        let mut intervals = Intervals::default();
        for kind in [OF_PACK, OF_WAITING, 2] {
            intervals.read_row(&[&[kind], &key[..]].concat(), &value);
        }
    }
}

#[test]
fn keys_beyond_the_limit_are_not_remembered() {
    let (mut state, mut intervals) = (state(), Intervals::default());
    intervals.set_latest(Millis(5));
    let key = |n: usize| Bytes::from(n.to_be_bytes().to_vec());
    for n in 0..=SENT_MAX {
        intervals.begin(&mut state, &key(n), Millis(9));
    }
    assert_eq!((intervals.sent.len(), intervals.is_full()), (SENT_MAX, true));
    assert_eq!(intervals.coalesce(&key(SENT_MAX), Millis(5)), Coalesced::Send);
    intervals.wait(&mut state, (&key(SENT_MAX), Millis(9)), Bytes::new);
    assert_eq!(intervals.first(), None, "nothing waits that is not remembered");
    intervals.wait(&mut state, (&key(0), Millis(9)), Bytes::new);
    assert_eq!(intervals.first(), Some(Millis(9)));
    intervals.seal(&mut state);
    assert_eq!(rows(&mut state), 1 + SENT_MAX.div_ceil((PACK_BYTES - 1) / 10 + 1), "large packs");
    intervals.set_latest(Millis(9));
    assert!(intervals.take_ended(&mut state).is_some());
    intervals.seal(&mut state);
    assert_eq!((rows(&mut state), intervals.is_full()), (0, false));
}

#[test]
fn packs_that_are_equal_are_two_and_ended_ones_leave_their_slots_to_others() {
    let (mut state, mut intervals) = (state(), Intervals::default());
    for n in 0..100 {
        intervals.set_latest(Millis(n));
        intervals.begin(&mut state, &key(1), Millis(n / 2 + 10));
        intervals.seal(&mut state);
        assert_eq!(rows(&mut state), intervals.packs.len());
        assert!(intervals.slots.last().is_some_and(|slot| *slot <= 22), "{:?}", intervals.slots);
    }
}

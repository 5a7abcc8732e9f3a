//! The matrix: every call, died before and after it, with every ending of a commit; and every call
//! at which partitions are lost or have to be given up.

use std::collections::BTreeSet;

use super::scene::{Heir, Run, Scene};
use crate::fake::{Call, Ending, Strike};

const ENDINGS: [Ending; 5] = [
    Ending::Committed,
    Ending::Refused,
    Ending::UnknownCommitted,
    Ending::UnknownAborted,
    Ending::UnknownPrepared,
];

/// The calls of a scene when nothing strikes, which is checked to its end too.
fn calls(scene: Scene, ending: Ending) -> Vec<Call> {
    let done = Run::new(scene).and_then(|mut run| {
        let calls = run.watch(None, ending)?;
        run.go_on(Heir::Itself)?;
        Ok(calls)
    });
    done.unwrap_or_else(|why| panic!("{scene:?}, {ending:?}, nothing strikes: {why}"))
}

/// Every call of these scenes has a place among them.
fn assert_watched(calls: &[Call], wanted: &[Call]) {
    let seen: BTreeSet<Call> = calls.iter().copied().collect();
    for call in wanted {
        assert!(seen.contains(call), "{call:?} is not among the calls that are watched: {seen:?}");
    }
}

/// Dies before and after each call, and is followed by itself and by another.
fn die_everywhere(scene: Scene, ending: Ending) -> usize {
    let calls = calls(scene, ending);
    for (at, call) in calls.iter().enumerate() {
        for strike in [Strike::CrashBefore, Strike::CrashAfter] {
            for heir in [Heir::Itself, Heir::Other] {
                let done = Run::new(scene).and_then(|mut run| {
                    run.written_at_death(at % 4);
                    run.watch(Some((at, strike)), ending)?;
                    run.go_on(heir)
                });
                done.unwrap_or_else(|why| {
                    panic!(
                        "{scene:?}, {ending:?}, {strike:?} call {at} ({call:?}), {heir:?}: {why}"
                    )
                });
            }
        }
    }
    calls.len()
}

#[test]
fn a_cycle_survives_a_death_at_every_call_whatever_becomes_of_its_commit() {
    let mut places = 0;
    for ending in ENDINGS {
        places += die_everywhere(Scene::Alone, ending);
    }
    eprintln!("{places} places to die at");
    assert_watched(
        &calls(Scene::Alone, Ending::Committed),
        &[
            Call::Changes,
            Call::Take,
            Call::Begin,
            Call::Produce,
            Call::Drain,
            Call::Token,
            Call::SendOffsets,
            Call::Commit,
            Call::StoreHandOver,
            Call::StoreWritten,
        ],
    );
    assert_watched(&calls(Scene::Alone, Ending::Refused), &[Call::Abort, Call::Seek]);
    assert_watched(
        &calls(Scene::Alone, Ending::UnknownAborted),
        &[Call::Transactor, Call::StoreClose, Call::StoreOpen],
    );
}

#[test]
fn a_restore_survives_a_death_at_every_call() {
    for scene in [
        Scene::Restore,
        Scene::TakeOver,
        Scene::TakeOverFromNew,
        Scene::TakeOverFromHeir,
        Scene::TakeOverAgain,
    ] {
        die_everywhere(scene, Ending::Committed);
        let calls = calls(scene, Ending::Committed);
        let fenced = calls.iter().filter(|call| **call == Call::Transactor).count();
        // Who takes over again has been there all the time.
        let (own, dead) = (scene != Scene::TakeOverAgain, scene != Scene::Restore);
        let owners = usize::from(own) + usize::from(dead);
        assert_eq!(fenced, 4 * owners, "{scene:?}: its own ids, and each of the dead one's once");
        if own {
            assert_watched(&calls, &[Call::Member]);
        }
        assert_watched(
            &calls,
            &[
                Call::Transactor,
                Call::Committed,
                Call::Bounds,
                Call::StoreOpen,
                Call::StoreProgress,
                Call::Reader,
                Call::Add,
                Call::Take,
                Call::Position,
            ],
        );
    }
}

#[test]
fn a_rebalance_may_come_at_every_call() {
    for ending in ENDINGS {
        let calls = calls(Scene::Beside, ending);
        for (at, call) in calls.iter().enumerate() {
            // Its own session ends: lost. The other's does: revoked, to be shared out anew.
            for whose in 0..2 {
                let done = Run::new(Scene::Beside).and_then(|mut run| {
                    let process = run.processes()[whose];
                    run.watch(Some((at, Strike::Expire(process))), ending)?;
                    run.go_on(Heir::Itself)
                });
                done.unwrap_or_else(|why| {
                    let lost = ["lost", "revoked"][whose];
                    panic!("{ending:?}, {lost} at call {at} ({call:?}): {why}")
                });
            }
        }
    }
}

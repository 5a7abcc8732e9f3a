//! The crash matrix: a crash before and after every call, and a rebalance at each.
//!
//! Every call is combined with every outcome of the commit.

use std::collections::BTreeSet;

use super::scenario::{CrashRun, Scenario, Successor};
use crate::fake::{Call, CommitOutcome, InjectedFault};

const COMMIT_OUTCOMES: [CommitOutcome; 5] = [
    CommitOutcome::Committed,
    CommitOutcome::Refused,
    CommitOutcome::UnknownCommitted,
    CommitOutcome::UnknownAborted,
    CommitOutcome::UnknownPrepared,
];

/// The calls of a scenario without a crash, which is checked to its end too.
fn calls(scenario: Scenario, commit_outcome: CommitOutcome) -> Vec<Call> {
    let done = CrashRun::new(scenario).and_then(|mut run| {
        let calls = run.watch(None, commit_outcome)?;
        run.finish(Successor::SameMachine)?;
        Ok(calls)
    });
    done.unwrap_or_else(|why| panic!("{scenario:?}, {commit_outcome:?}, without a crash: {why}"))
}

/// Asserts that these calls occur.
fn assert_watched(calls: &[Call], wanted: &[Call]) {
    let seen: BTreeSet<Call> = calls.iter().copied().collect();
    for call in wanted {
        assert!(seen.contains(call), "{call:?} is not among the recorded calls: {seen:?}");
    }
}

/// Crashes before and after each call; then the same machine or another one continues.
fn crash_everywhere(scenario: Scenario, commit_outcome: CommitOutcome) -> usize {
    let calls = calls(scenario, commit_outcome);
    for (at, call) in calls.iter().enumerate() {
        for injected in [InjectedFault::CrashBefore, InjectedFault::CrashAfter] {
            for successor in [Successor::SameMachine, Successor::OtherMachine] {
                let done = CrashRun::new(scenario).and_then(|mut run| {
                    run.batches_written_at_crash(at % 4);
                    run.watch(Some((at, injected)), commit_outcome)?;
                    run.finish(successor)
                });
                done.unwrap_or_else(|why| {
                    panic!(
                        "{scenario:?}, {commit_outcome:?}, {injected:?} call {at} ({call:?}), {successor:?}: {why}"
                    )
                });
            }
        }
    }
    calls.len()
}

#[test]
fn a_transaction_survives_a_crash_at_every_call_for_every_commit_outcome() {
    let mut places = 0;
    for commit_outcome in COMMIT_OUTCOMES {
        places += crash_everywhere(Scenario::Alone, commit_outcome);
    }
    eprintln!("{places} crash points");
    assert_watched(
        &calls(Scenario::Alone, CommitOutcome::Committed),
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
    assert_watched(&calls(Scenario::Alone, CommitOutcome::Refused), &[Call::Abort, Call::Seek]);
    assert_watched(
        &calls(Scenario::Alone, CommitOutcome::UnknownAborted),
        &[Call::Transactor, Call::StoreClose, Call::StoreOpen],
    );
}

#[test]
fn a_restore_survives_a_crash_at_every_call() {
    for scenario in [
        Scenario::Restore,
        Scenario::TakeOver,
        Scenario::TakeOverFromNew,
        Scenario::TakeOverFromSuccessor,
        Scenario::TakeOverAgain,
    ] {
        crash_everywhere(scenario, CommitOutcome::Committed);
        let calls = calls(scenario, CommitOutcome::Committed);
        let fenced = calls.iter().filter(|call| **call == Call::Transactor).count();
        // A machine that takes over again was a member all the time.
        let (own, dead) = (scenario != Scenario::TakeOverAgain, scenario != Scenario::Restore);
        let owners = usize::from(own) + usize::from(dead);
        assert_eq!(
            fenced,
            4 * owners,
            "{scenario:?}: its own ids, and each of the dead one's once"
        );
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
fn a_rebalance_is_survived_at_every_call() {
    for commit_outcome in COMMIT_OUTCOMES {
        let calls = calls(Scenario::Beside, commit_outcome);
        for (at, call) in calls.iter().enumerate() {
            // Its own session expires: lost. The other's does: revoked, and assigned again.
            for whose in 0..2 {
                let done = CrashRun::new(Scenario::Beside).and_then(|mut run| {
                    let process = run.processes()[whose];
                    run.watch(Some((at, InjectedFault::Expire(process))), commit_outcome)?;
                    run.finish(Successor::SameMachine)
                });
                done.unwrap_or_else(|why| {
                    let lost = ["lost", "revoked"][whose];
                    panic!("{commit_outcome:?}, {lost} at call {at} ({call:?}): {why}")
                });
            }
        }
    }
}

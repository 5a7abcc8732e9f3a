//! Small worlds in which one process is about to be interrupted.
//!
//! Nothing is random: up to the interruption, the same happens every time.

use crate::fake::{Call, CommitOutcome, FakeStores, FaultScript, InjectedFault};
use crate::world::{ADMITS, World};

/// The seed of the producers; it must write to every lane.
const SEED: u64 = 11;

/// Turns within which the recorded process completes a cycle.
const TURNS: u32 = 6;

/// Milliseconds between them: a hand-over is due every other turn.
const TURN_MS: i64 = 600;

/// The machine whose process is recorded.
const WATCHED: usize = 0;

/// Another machine.
const OTHER: usize = 1;

/// A former owner.
const FORMER: usize = 2;

/// Turns within which a process reaches its first transaction.
const TURNS_TO_BEGIN: u32 = 16;

/// The state of the recorded process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// Its tasks run, and records of every lane are waiting.
    Alone,
    /// The same, with half of the tasks; the other machine has the rest.
    Beside,
    /// It crashed before a commit, and its store is behind the log.
    Restore,
    /// Another process crashed inside a transaction, and this one has no tasks yet.
    TakeOver,
    /// The same, and it was the other one's first transaction.
    TakeOverFromNew,
    /// The same, and the other one had taken over itself, and had read only some lanes.
    TakeOverFromSuccessor,
    /// The same, and this one had taken over from the other one before.
    TakeOverAgain,
}

impl Scenario {
    /// Which process crashes before the recording, and at which call.
    fn crash_point(self) -> Option<(usize, Call)> {
        match self {
            Self::Alone | Self::Beside => None,
            Self::Restore => Some((WATCHED, Call::Commit)),
            // Once offsets are sent, another process would have to wait for the coordinator.
            _ => Some((OTHER, Call::SendOffsets)),
        }
    }
}

/// Which machine continues after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// The same one, started again.
    SameMachine,
    /// The other one; the first stays down.
    OtherMachine,
}

/// The process to record, and for how many turns.
#[derive(Clone, Copy)]
struct WatchedPart {
    machine: usize,
    turns: u32,
}

/// A run of a scenario, to its end.
pub(super) struct CrashRun(World);

impl CrashRun {
    /// The scenario, before anything is recorded.
    pub(super) fn new(scenario: Scenario) -> Result<Self, String> {
        let mut run = Self::prepared(scenario)?;
        if let Some((dying, last)) = scenario.crash_point() {
            let part = WatchedPart { machine: dying, turns: TURNS_TO_BEGIN };
            let calls =
                Self::prepared(scenario)?.watch_turns(part, None, CommitOutcome::Committed)?;
            let at = calls.iter().position(|call| *call == last);
            let injected = (at.ok_or("nothing is committed")?, InjectedFault::CrashBefore);
            run.watch_turns(part, Some(injected), CommitOutcome::Committed)?;
            run.remove_machine(dying);
        }
        run.0.check_facts()?;
        Ok(run)
    }

    /// The scenario up to the crash in it.
    fn prepared(scenario: Scenario) -> Result<Self, String> {
        match scenario {
            Scenario::Alone => {
                let mut run = Self::started(WATCHED)?;
                run.admit(6)?;
                Ok(run)
            }
            Scenario::Beside => {
                let mut run = Self::started(WATCHED)?;
                run.add_other_machine()?;
                run.admit(6)?;
                Ok(run)
            }
            Scenario::Restore => Self::started(WATCHED),
            Scenario::TakeOver => Self::started(OTHER),
            Scenario::TakeOverFromNew => {
                let mut run = Self::only(OTHER);
                run.admit(3)?;
                Ok(run)
            }
            Scenario::TakeOverFromSuccessor => {
                let mut run = Self::started(FORMER)?;
                run.turn(FORMER)?;
                run.take_over(FORMER, OTHER)?;
                run.admit(1)?;
                Ok(run)
            }
            Scenario::TakeOverAgain => {
                let mut run = Self::started(OTHER)?;
                run.take_over(OTHER, WATCHED)?;
                run.add_other_machine()?;
                run.admit(3)?;
                Ok(run)
            }
        }
    }

    /// Starts the other machine, which gets half of the tasks.
    fn add_other_machine(&mut self) -> Result<(), String> {
        self.0.loops.keep_down(OTHER, 0);
        [WATCHED, OTHER].repeat(8).into_iter().try_for_each(|n| self.turn(n))
    }

    /// One process crashes between two transactions; another one takes over and does some work.
    fn take_over(&mut self, from: usize, to: usize) -> Result<(), String> {
        self.0.loops.crash(ADMITS + from);
        self.remove_machine(from);
        self.0.loops.keep_down(to, 0);
        self.admit(1)?;
        (0..TURNS_TO_BEGIN).try_for_each(|_| self.turn(to))
    }

    /// Keeps a machine down for good; its session ends too, unless it is the recorded one.
    fn remove_machine(&mut self, machine: usize) {
        self.0.loops.keep_down(machine, u64::MAX);
        if machine != WATCHED {
            let dead = self.0.loops.process(machine);
            self.0.log.state().expire(dead);
        }
    }

    /// A world in which only this machine is up.
    fn only(machine: usize) -> Self {
        let mut run = Self(World::with_owners(SEED, 3));
        for other in [WATCHED, OTHER, FORMER].into_iter().filter(|other| *other != machine) {
            run.0.loops.keep_down(other, u64::MAX);
        }
        run
    }

    /// A world in which one machine has done some work, and has more to do.
    fn started(first: usize) -> Result<Self, String> {
        let mut run = Self::only(first);
        for _ in 0..3 {
            run.admit(2)?;
            run.turn(first)?;
            run.turn(first)?;
            run.0.log.state().now.0 += TURN_MS;
        }
        run.0.machines.iter().for_each(FakeStores::write_some);
        run.admit(3)?;
        run.turn(first)?;
        run.admit(1)?;
        Ok(run)
    }

    fn admit(&mut self, times: u32) -> Result<(), String> {
        for _ in 0..times {
            self.0.produce();
            for n in 0..ADMITS {
                self.0.turn_admit(n)?;
            }
            self.0.check_facts()?;
        }
        Ok(())
    }

    fn turn(&mut self, machine: usize) -> Result<(), String> {
        self.0.turn_derive(machine)?;
        self.0.check_facts()
    }

    /// Records the calls of the process until it has finished its turns or crashed.
    pub(super) fn watch(
        &mut self,
        injected: Option<(usize, InjectedFault)>,
        commit_outcome: CommitOutcome,
    ) -> Result<Vec<Call>, String> {
        self.0.loops.keep_down(WATCHED, 0);
        let part = WatchedPart { machine: WATCHED, turns: TURNS };
        self.watch_turns(part, injected, commit_outcome)
    }

    fn watch_turns(
        &mut self,
        part: WatchedPart,
        injected: Option<(usize, InjectedFault)>,
        commit_outcome: CommitOutcome,
    ) -> Result<Vec<Call>, String> {
        let WatchedPart { machine, turns } = part;
        let process = self.0.loops.process_to_turn(machine);
        let script = FaultScript { process, injected, commit_outcome, calls: Vec::new() };
        self.0.log.state().script = Some(script);
        for turn in 0..turns {
            self.turn(machine)?;
            if turn % 2 == 1 {
                self.0.machines[machine].write_some();
            }
            if self.0.log.as_process(process).is_dead() {
                break;
            }
            self.0.log.state().now.0 += TURN_MS;
        }
        Ok(self.0.log.state().script.take().expect("it was put there").calls)
    }

    /// The recorded process, and the other one.
    pub(super) fn processes(&self) -> [u64; 2] {
        [WATCHED, OTHER].map(|machine| self.0.loops.process_to_turn(machine))
    }

    /// Sets how many batches the disk still writes when its process crashes.
    pub(super) fn batches_written_at_crash(&mut self, batches: usize) {
        self.0.batches_written_at_crash = batches;
    }

    /// Lets everything finish, and checks it.
    pub(super) fn finish(mut self, successor: Successor) -> Result<(), String> {
        if successor == Successor::OtherMachine {
            let dead = self.0.loops.process(WATCHED);
            self.0.log.state().expire(dead);
            self.0.loops.keep_down(WATCHED, u64::MAX);
            self.0.loops.keep_down(OTHER, 0);
        }
        self.admit(2)?;
        self.0.settle_and_check()
    }
}

//! Decides, by chance or by a script, how each call of a port fails.
//!
//! The decision comes before the call's effect. A call may fail without an effect, or take effect
//! and lose its response.

use tidewire_engine::port::{LogError, StoreError};

use super::faults::{Call, CallKind, CallOutcome, CommitOutcome, InjectedFault};
use super::log::FakeLog;
use super::log_state::LogState;

/// One call in this many crashes its process, while faults are on.
const CRASH_ONCE_IN: u64 = 900;
/// One call in this many returns `Retry`.
const RETRY_ONCE_IN: u64 = 60;
/// One commit of offsets outside transactions in this many does: a group that rebalances refuses
/// them.
const COMMIT_REFUSED_ONCE_IN: u64 = 4;
/// One call in this many begins an outage, in which every call of every process returns `Retry`.
const OUTAGE_ONCE_IN: u64 = 4_000;
/// Longest outage in calls: more than a loop retries.
const OUTAGE_CALLS_MAX: u64 = 120;
/// One call in this many inside a transaction returns `Abort`.
const ABORT_ONCE_IN: u64 = 80;
/// One call in this many inside a transaction, or of its abort, gets no response.
const LOST_ONCE_IN: u64 = 150;
/// One commit in this many has an unknown outcome.
const UNKNOWN_ONCE_IN: u64 = 12;
/// One call in this many ends the sessions of its process.
const EXPIRE_ONCE_IN: u64 = 1_500;
/// One call in this many to a store fails, and with it the process.
const STORE_FAILS_ONCE_IN: u64 = 2_500;
/// One read in this many returns nothing although there are records.
pub(super) const LAZY_ONCE_IN: u64 = 10;

fn fatal(why: &str) -> LogError {
    LogError::Fatal(why.to_owned(), None)
}

fn unknown() -> LogError {
    LogError::Unknown("the response was lost".into())
}

impl FakeLog {
    /// A call of this process: first the faults, then the effect.
    pub(super) fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut LogState) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut log_state = self.state();
        let outcome = self.decide(&mut log_state, call)?;
        let done = effect(&mut log_state);
        self.after(&mut log_state, outcome, done)
    }

    /// The result that the caller gets of a call that took effect.
    pub(super) fn after<T>(
        &self,
        log_state: &mut LogState,
        outcome: CallOutcome,
        done: Result<T, LogError>,
    ) -> Result<T, LogError> {
        match outcome {
            CallOutcome::Succeeds => done,
            CallOutcome::CrashAfter => {
                log_state.dead.insert(self.process);
                Err(fatal("crashed after the call"))
            }
            CallOutcome::Unknown | CallOutcome::Prepared => Err(unknown()),
        }
    }

    /// A call of this process to its disk.
    pub(super) fn store_call<T>(
        &self,
        call: Call,
        effect: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        let failed = |error: LogError| StoreError { message: error.to_string(), source: None };
        let outcome = self.decide(&mut self.state(), call).map_err(failed)?;
        let done = effect();
        self.after(&mut self.state(), outcome, Ok(done)).map_err(failed)
    }

    pub(super) fn decide(
        &self,
        log_state: &mut LogState,
        call: Call,
    ) -> Result<CallOutcome, LogError> {
        if log_state.dead.contains(&self.process) {
            return Err(fatal("this process has crashed"));
        }
        log_state.count_call();
        if log_state.failing.contains(&call) {
            if let Some(script) = log_state.script.as_mut() {
                script.calls.push(call);
            }
            return Err(LogError::Retry("this call fails".into()));
        }
        if log_state.script.as_ref().is_some_and(|script| script.process == self.process) {
            return self.decide_by_script(log_state, call);
        }
        if log_state.faults {
            self.decide_by_chance(log_state, call)
        } else {
            Ok(CallOutcome::Succeeds)
        }
    }

    fn decide_by_script(
        &self,
        log_state: &mut LogState,
        call: Call,
    ) -> Result<CallOutcome, LogError> {
        let script = log_state.script.as_mut().expect("checked by the caller");
        let at = script.calls.len();
        script.calls.push(call);
        let commit_outcome = match call {
            Call::Commit => std::mem::take(&mut script.commit_outcome),
            _ => CommitOutcome::Committed,
        };
        let injected = script.injected.filter(|(n, _)| *n == at).map(|(_, injected)| injected);
        match injected {
            Some(InjectedFault::CrashBefore) => {
                log_state.dead.insert(self.process);
                return Err(fatal("crashed before the call"));
            }
            Some(InjectedFault::Expire(process)) => log_state.expire(process),
            Some(InjectedFault::CrashAfter) | None => {}
        }
        let crashes = injected == Some(InjectedFault::CrashAfter);
        match commit_outcome {
            CommitOutcome::Committed | CommitOutcome::UnknownCommitted if crashes => {
                Ok(CallOutcome::CrashAfter)
            }
            CommitOutcome::Committed => Ok(CallOutcome::Succeeds),
            CommitOutcome::UnknownCommitted => Ok(CallOutcome::Unknown),
            other => {
                if crashes {
                    log_state.dead.insert(self.process);
                }
                match other {
                    CommitOutcome::UnknownPrepared => Ok(CallOutcome::Prepared),
                    CommitOutcome::UnknownAborted => Err(unknown()),
                    _ => Err(LogError::Abort("the commit was refused".into())),
                }
            }
        }
    }

    fn decide_by_chance(
        &self,
        log_state: &mut LogState,
        call: Call,
    ) -> Result<CallOutcome, LogError> {
        let kind = call.kind();
        if log_state.random.one_in(CRASH_ONCE_IN) {
            log_state.count("crashes");
            if log_state.random.one_in(2) {
                return Ok(CallOutcome::CrashAfter);
            }
            log_state.dead.insert(self.process);
            return Err(fatal("crashed before the call"));
        }
        match kind {
            CallKind::Wait => return Ok(CallOutcome::Succeeds),
            CallKind::Store => return self.store_fails(log_state),
            _ => {}
        }
        if log_state.random.one_in(EXPIRE_ONCE_IN) {
            log_state.expire(self.process);
        }
        if log_state.outage == 0 && log_state.random.one_in(OUTAGE_ONCE_IN) {
            log_state.outage = 1 + log_state.random.below(OUTAGE_CALLS_MAX);
            log_state.count("outages");
        }
        let retry_once_in = match call {
            Call::CommitOffsets => COMMIT_REFUSED_ONCE_IN,
            _ => RETRY_ONCE_IN,
        };
        if log_state.outage > 0 || log_state.random.one_in(retry_once_in) {
            log_state.outage = log_state.outage.saturating_sub(1);
            log_state.count("retries");
            return Err(LogError::Retry("busy".into()));
        }
        match kind {
            CallKind::Transaction | CallKind::Commit if log_state.random.one_in(ABORT_ONCE_IN) => {
                log_state.count("aborts requested");
                Err(LogError::Abort("a delivery failed".into()))
            }
            CallKind::Transaction | CallKind::Abort if log_state.random.one_in(LOST_ONCE_IN) => {
                log_state.count("responses lost");
                if log_state.random.one_in(2) { Ok(CallOutcome::Unknown) } else { Err(unknown()) }
            }
            CallKind::Commit if log_state.random.one_in(UNKNOWN_ONCE_IN) => {
                Self::unknown_outcome(log_state)
            }
            _ => Ok(CallOutcome::Succeeds),
        }
    }

    fn unknown_outcome(log_state: &mut LogState) -> Result<CallOutcome, LogError> {
        match log_state.random.below(3) {
            0 => {
                log_state.count("unknown, committed");
                Ok(CallOutcome::Unknown)
            }
            1 => {
                log_state.count("unknown, committed later");
                Ok(CallOutcome::Prepared)
            }
            _ => {
                log_state.count("unknown, not committed");
                Err(unknown())
            }
        }
    }

    /// A failing disk ends its process.
    fn store_fails(&self, log_state: &mut LogState) -> Result<CallOutcome, LogError> {
        if !log_state.random.one_in(STORE_FAILS_ONCE_IN) {
            return Ok(CallOutcome::Succeeds);
        }
        log_state.count("stores failed");
        log_state.dead.insert(self.process);
        Err(fatal("the disk is full"))
    }
}

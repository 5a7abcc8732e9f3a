//! How calls fail: what the dice decide before a call has its effect, or instead of it.

use tidewire_engine::port::LogError;

use super::inner::Inner;
use super::log::FakeLog;

/// A crash is expected once in so many calls, while faults are on.
pub(super) const CRASH_ONCE_IN: u64 = 500;
/// A call asks to be repeated.
pub(super) const RETRY_ONCE_IN: u64 = 60;
/// A call inside a transaction says that it must be aborted.
pub(super) const ABORT_ONCE_IN: u64 = 80;
/// A commit leaves its outcome unknown.
pub(super) const UNKNOWN_ONCE_IN: u64 = 15;
/// A member loses its session in the middle of a call.
pub(super) const EXPIRE_ONCE_IN: u64 = 1_500;
/// A reader has nothing ready though there is something.
pub(super) const LAZY_ONCE_IN: u64 = 10;

/// What a call is to the faults.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Plain,
    Append,
    Transaction,
    Commit,
    /// No fault but a crash: the port gives it no other.
    Wait,
}

/// What the faults decided for a call that goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    CrashAfter,
    /// The effect happens and nobody says so.
    Unknown,
}

pub(super) fn fatal(why: &str) -> LogError {
    LogError::Fatal(why.to_owned(), None)
}

impl FakeLog {
    /// A call of this process: the faults first, then the effect.
    pub(super) fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut Inner) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut inner = self.inner();
        let fate = self.fate(&mut inner, call)?;
        let done = effect(&mut inner);
        match fate {
            Fate::Well => done,
            Fate::CrashAfter => {
                inner.dead.insert(self.process);
                Err(fatal("crashed after the call"))
            }
            Fate::Unknown => Err(LogError::Unknown("the answer was lost".into())),
        }
    }

    pub(super) fn fate(&self, inner: &mut Inner, call: Call) -> Result<Fate, LogError> {
        if inner.dead.contains(&self.process) {
            return Err(fatal("this process has crashed"));
        }
        if !inner.faults {
            return Ok(Fate::Well);
        }
        if inner.random.once_in(CRASH_ONCE_IN) {
            inner.count("crashes");
            if inner.random.once_in(2) {
                return Ok(Fate::CrashAfter);
            }
            inner.dead.insert(self.process);
            return Err(fatal("crashed before the call"));
        }
        if call == Call::Wait {
            return Ok(Fate::Well);
        }
        if inner.random.once_in(EXPIRE_ONCE_IN) {
            inner.expire(self.process);
        }
        if inner.random.once_in(RETRY_ONCE_IN) {
            inner.count("retries");
            return Err(LogError::Retry("busy".into()));
        }
        let in_transaction = matches!(call, Call::Transaction | Call::Commit);
        if in_transaction && inner.random.once_in(ABORT_ONCE_IN) {
            inner.count("aborts asked for");
            return Err(LogError::Abort("a delivery failed".into()));
        }
        if call == Call::Commit && inner.random.once_in(UNKNOWN_ONCE_IN) {
            if inner.random.once_in(2) {
                inner.count("unknown, committed");
                return Ok(Fate::Unknown);
            }
            inner.count("unknown, not committed");
            return Err(LogError::Unknown("the request was lost".into()));
        }
        Ok(Fate::Well)
    }
}

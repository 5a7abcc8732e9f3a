//! How calls fail: what the dice, or a script, decide before a call has its effect, or instead of
//! it.

use tidewire_engine::port::{LogError, StoreError};

use super::inner::Inner;
use super::log::FakeLog;

/// A crash is expected once in so many calls, while faults are on.
const CRASH_ONCE_IN: u64 = 900;
/// A call asks to be repeated.
const RETRY_ONCE_IN: u64 = 60;
/// Nobody answers for a while: every call of everybody asks to be repeated.
const OUTAGE_ONCE_IN: u64 = 4_000;
/// Calls an outage takes at most: more than a loop repeats.
const OUTAGE_CALLS_MAX: u64 = 120;
/// A call inside a transaction says that it must be aborted.
const ABORT_ONCE_IN: u64 = 80;
/// A call inside a transaction, or its abort, is never answered.
const LOST_ONCE_IN: u64 = 150;
/// A commit leaves its outcome unknown.
const UNKNOWN_ONCE_IN: u64 = 12;
/// A member loses its session in the middle of a call.
const EXPIRE_ONCE_IN: u64 = 1_500;
/// A store fails, and with it its process.
const STORE_FAILS_ONCE_IN: u64 = 2_500;
/// A reader has nothing ready though there is something.
pub(super) const LAZY_ONCE_IN: u64 = 10;

/// Every call a loop makes of the world; each is a place to crash at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Topics,
    Bounds,
    OffsetAt,
    Committed,
    Appender,
    Transactor,
    Reader,
    Member,
    Append,
    Begin,
    Produce,
    Drain,
    SendOffsets,
    Commit,
    Abort,
    Add,
    Seek,
    Take,
    Position,
    Wait,
    Changes,
    Token,
    CommitOffsets,
    StoreOpen,
    StoreDestroy,
    StoreGet,
    StoreScan,
    StoreHandOver,
    StoreWritten,
    StoreProgress,
    StoreClose,
}

/// In which ways a call may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Transaction,
    Commit,
    Abort,
    /// No fault but a crash: the port gives it no other.
    Wait,
    Store,
}

impl Call {
    fn kind(self) -> Kind {
        match self {
            Self::Create | Self::Wait => Kind::Wait,
            Self::Begin | Self::Produce | Self::Drain | Self::SendOffsets => Kind::Transaction,
            Self::Commit => Kind::Commit,
            Self::Abort => Kind::Abort,
            Self::StoreOpen
            | Self::StoreDestroy
            | Self::StoreGet
            | Self::StoreScan
            | Self::StoreHandOver
            | Self::StoreWritten
            | Self::StoreProgress
            | Self::StoreClose => Kind::Store,
            _ => Kind::Plain,
        }
    }
}

/// How a commit ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Committed, and said so.
    #[default]
    Committed,
    /// Refused: the transaction must be aborted.
    Refused,
    /// Committed, and the answer was lost.
    UnknownCommitted,
    /// The request was lost; the transaction stays open.
    UnknownAborted,
    /// The request arrived and nothing else is known: it is committed by whoever initialises the
    /// transactional id next.
    UnknownPrepared,
}

/// What a script does at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The process dies before the call's effect.
    CrashBefore,
    /// It dies after the effect.
    CrashAfter,
    /// Before the call, the sessions of this process are over.
    Expire(u64),
}

/// What happens to one process, call by call, in place of chance.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// To whom.
    pub(crate) process: u64,
    /// At which call, counted from 0, what happens.
    pub(crate) strike: Option<(usize, Strike)>,
    /// How its first commit ends.
    pub(crate) ending: Ending,
    /// The calls it has made.
    pub(crate) calls: Vec<Call>,
}

/// What was decided for a call that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    CrashAfter,
    /// The effect happens and nobody says so.
    Unknown,
    /// The effect happens later, and nobody says so.
    Prepared,
}

pub(super) fn fatal(why: &str) -> LogError {
    LogError::Fatal(why.to_owned(), None)
}

fn unknown() -> LogError {
    LogError::Unknown("the answer was lost".into())
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
        self.after(&mut inner, fate, done)
    }

    /// What the caller hears of a call that was made.
    pub(super) fn after<T>(
        &self,
        inner: &mut Inner,
        fate: Fate,
        done: Result<T, LogError>,
    ) -> Result<T, LogError> {
        match fate {
            Fate::Well => done,
            Fate::CrashAfter => {
                inner.dead.insert(self.process);
                Err(fatal("crashed after the call"))
            }
            Fate::Unknown | Fate::Prepared => Err(unknown()),
        }
    }

    /// A call of this process to its disk.
    pub(super) fn store_call<T>(
        &self,
        call: Call,
        effect: impl FnOnce() -> T,
    ) -> Result<T, StoreError> {
        let failed = |error: LogError| StoreError { message: error.to_string(), source: None };
        let fate = self.fate(&mut self.inner(), call).map_err(failed)?;
        let done = effect();
        self.after(&mut self.inner(), fate, Ok(done)).map_err(failed)
    }

    pub(super) fn fate(&self, inner: &mut Inner, call: Call) -> Result<Fate, LogError> {
        if inner.dead.contains(&self.process) {
            return Err(fatal("this process has crashed"));
        }
        inner.pass_call();
        if inner.script.as_ref().is_some_and(|script| script.process == self.process) {
            return self.scripted(inner, call);
        }
        if inner.faults { self.chance(inner, call) } else { Ok(Fate::Well) }
    }

    fn scripted(&self, inner: &mut Inner, call: Call) -> Result<Fate, LogError> {
        let script = inner.script.as_mut().expect("its caller has seen it");
        let at = script.calls.len();
        script.calls.push(call);
        let ending = match call {
            Call::Commit => std::mem::take(&mut script.ending),
            _ => Ending::Committed,
        };
        let strike = script.strike.filter(|(n, _)| *n == at).map(|(_, strike)| strike);
        match strike {
            Some(Strike::CrashBefore) => {
                inner.dead.insert(self.process);
                return Err(fatal("crashed before the call"));
            }
            Some(Strike::Expire(process)) => inner.expire(process),
            Some(Strike::CrashAfter) | None => {}
        }
        let crashes = strike == Some(Strike::CrashAfter);
        match ending {
            Ending::Committed | Ending::UnknownCommitted if crashes => Ok(Fate::CrashAfter),
            Ending::Committed => Ok(Fate::Well),
            Ending::UnknownCommitted => Ok(Fate::Unknown),
            other => {
                if crashes {
                    inner.dead.insert(self.process);
                }
                match other {
                    Ending::UnknownPrepared => Ok(Fate::Prepared),
                    Ending::UnknownAborted => Err(unknown()),
                    _ => Err(LogError::Abort("the commit was refused".into())),
                }
            }
        }
    }

    fn chance(&self, inner: &mut Inner, call: Call) -> Result<Fate, LogError> {
        let kind = call.kind();
        if inner.random.once_in(CRASH_ONCE_IN) {
            inner.count("crashes");
            if inner.random.once_in(2) {
                return Ok(Fate::CrashAfter);
            }
            inner.dead.insert(self.process);
            return Err(fatal("crashed before the call"));
        }
        match kind {
            Kind::Wait => return Ok(Fate::Well),
            Kind::Store => return self.store_fails(inner),
            _ => {}
        }
        if inner.random.once_in(EXPIRE_ONCE_IN) {
            inner.expire(self.process);
        }
        if inner.outage == 0 && inner.random.once_in(OUTAGE_ONCE_IN) {
            inner.outage = 1 + inner.random.below(OUTAGE_CALLS_MAX);
            inner.count("outages");
        }
        if inner.outage > 0 || inner.random.once_in(RETRY_ONCE_IN) {
            inner.outage = inner.outage.saturating_sub(1);
            inner.count("retries");
            return Err(LogError::Retry("busy".into()));
        }
        match kind {
            Kind::Transaction | Kind::Commit if inner.random.once_in(ABORT_ONCE_IN) => {
                inner.count("aborts asked for");
                Err(LogError::Abort("a delivery failed".into()))
            }
            Kind::Transaction | Kind::Abort if inner.random.once_in(LOST_ONCE_IN) => {
                inner.count("answers lost");
                if inner.random.once_in(2) { Ok(Fate::Unknown) } else { Err(unknown()) }
            }
            Kind::Commit if inner.random.once_in(UNKNOWN_ONCE_IN) => Self::lose_the_outcome(inner),
            _ => Ok(Fate::Well),
        }
    }

    fn lose_the_outcome(inner: &mut Inner) -> Result<Fate, LogError> {
        match inner.random.below(3) {
            0 => {
                inner.count("unknown, committed");
                Ok(Fate::Unknown)
            }
            1 => {
                inner.count("unknown, committed later");
                Ok(Fate::Prepared)
            }
            _ => {
                inner.count("unknown, not committed");
                Err(unknown())
            }
        }
    }

    /// A disk that fails ends its process.
    fn store_fails(&self, inner: &mut Inner) -> Result<Fate, LogError> {
        if !inner.random.once_in(STORE_FAILS_ONCE_IN) {
            return Ok(Fate::Well);
        }
        inner.count("stores failed");
        inner.dead.insert(self.process);
        Err(fatal("the disk is full"))
    }
}

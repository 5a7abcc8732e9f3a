//! How calls fail: what the dice, or a script, decide before a call has its effect, or instead of
//! it.

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
pub(super) enum CallKind {
    Plain,
    Transaction,
    Commit,
    Abort,
    /// No fault but a crash: the port gives it no other.
    Wait,
    Store,
}

impl Call {
    pub(super) fn kind(self) -> CallKind {
        match self {
            Self::Create | Self::Wait => CallKind::Wait,
            Self::Begin | Self::Produce | Self::Drain | Self::SendOffsets => CallKind::Transaction,
            Self::Commit => CallKind::Commit,
            Self::Abort => CallKind::Abort,
            Self::StoreOpen
            | Self::StoreDestroy
            | Self::StoreGet
            | Self::StoreScan
            | Self::StoreHandOver
            | Self::StoreWritten
            | Self::StoreProgress
            | Self::StoreClose => CallKind::Store,
            _ => CallKind::Plain,
        }
    }
}

/// How a commit ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
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
pub(crate) enum InjectedFault {
    /// The process dies before the call's effect.
    CrashBefore,
    /// It dies after the effect.
    CrashAfter,
    /// Before the call, the sessions of this process are over.
    Expire(u64),
}

/// What happens to one process, call by call, in place of chance.
#[derive(Clone, Debug)]
pub(crate) struct FaultScript {
    /// To whom.
    pub(crate) process: u64,
    /// At which call, counted from 0, what happens.
    pub(crate) injected: Option<(usize, InjectedFault)>,
    /// How its first commit ends.
    pub(crate) commit_outcome: CommitOutcome,
    /// The calls it has made.
    pub(crate) calls: Vec<Call>,
}

/// What was decided for a call that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Succeeds,
    CrashAfter,
    /// The effect happens and nobody says so.
    Unknown,
    /// The effect happens later, and nobody says so.
    Prepared,
}

//! The calls of the ports, and the ways in which each can fail.

/// Every call of a port; a process can crash at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Topics,
    Bounds,
    RequestEnds,
    PollEnds,
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

/// The ways in which a call may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Plain,
    Transaction,
    Commit,
    Abort,
    /// Only a crash: the port allows no other failure.
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
    /// Committed, and reported so.
    #[default]
    Committed,
    /// Refused: the transaction must be aborted.
    Refused,
    /// Committed, but the response was lost.
    UnknownCommitted,
    /// The request was lost; the transaction stays open.
    UnknownAborted,
    /// The request arrived but its response was lost; the transaction is committed when the
    /// transactional id is initialised next.
    UnknownPrepared,
}

/// What a script injects at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InjectedFault {
    /// The process dies before the call's effect.
    CrashBefore,
    /// It dies after the effect.
    CrashAfter,
    /// Before the call, the sessions of this process expire.
    Expire(u64),
}

/// What happens to one process, call by call, instead of random faults.
#[derive(Clone, Debug)]
pub(crate) struct FaultScript {
    /// The process.
    pub(crate) process: u64,
    /// The index of a call, from 0, and what happens there.
    pub(crate) injected: Option<(usize, InjectedFault)>,
    /// How its first commit ends.
    pub(crate) commit_outcome: CommitOutcome,
    /// The calls it has made.
    pub(crate) calls: Vec<Call>,
}

/// The decision for a call that takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Succeeds,
    CrashAfter,
    /// The effect happens, but the response is lost.
    Unknown,
    /// The effect happens later, and the response is lost.
    Prepared,
}

//! The names of the native protocol: operations, frames and reasons of gaps.
//!
//! They are a published contract and never change; new ones may be added. Their descriptions are
//! those of `docs/protocol.md` and of the AsyncAPI document.

/// Why events between two positions are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The log has deleted them.
    Retention,
    /// The position is of other topics, or of records that the log does not have.
    Epoch,
    /// The position says nothing about the channel.
    Uncovered,
}

impl GapReason {
    /// Every reason, in the order of the reference page.
    pub const ALL: [Self; 3] = [Self::Retention, Self::Epoch, Self::Uncovered];

    /// The name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Epoch => "epoch",
            Self::Uncovered => "uncovered",
        }
    }

    /// What it means, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Retention => {
                "the log has deleted events after `from`; every event kept from `to` on follows"
            }
            Self::Epoch => {
                "`from` is not of this log: its topics were created again, or an older copy of its \
                 data was restored; only new events follow"
            }
            Self::Uncovered => {
                "`from` says nothing about this channel, because it was not subscribed to when \
                 `from` was given; only new events follow"
            }
        }
    }
}

/// The `event:` of the block that says that an entry of a channel's state is deleted, in an SSE
/// stream. Other changes have the event's type there.
pub const DELETED: &str = "deleted";

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpName {
    /// Join a channel.
    Subscribe,
    /// Leave it.
    Unsubscribe,
    /// Be answered.
    Ping,
    /// Reserved.
    History,
    /// Reserved.
    Send,
    /// Reserved.
    Command,
    /// Reserved.
    Refresh,
}

impl OpName {
    /// Every operation, those that are served first.
    pub const ALL: [Self; 7] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ping,
        Self::History,
        Self::Send,
        Self::Command,
        Self::Refresh,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Ping => "ping",
            Self::History => "history",
            Self::Send => "send",
            Self::Command => "command",
            Self::Refresh => "refresh",
        }
    }

    /// The operation of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str() == name)
    }

    /// What it does, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Subscribe => "delivers the events of a channel from a position on",
            Self::Unsubscribe => "ends a subscription",
            Self::Ping => "asks for an answer, to measure or to keep the connection alive",
            Self::History => "not served yet: subscribe with `from` instead",
            Self::Send => "not served yet: post to `/v1/events` instead",
            Self::Command => "not served yet",
            Self::Refresh => "not served yet: connect again instead",
        }
    }

    /// The frames that answer it.
    pub fn answers(self) -> &'static [FrameName] {
        match self {
            Self::Subscribe | Self::Unsubscribe => &[FrameName::Ok, FrameName::Error],
            Self::Ping => &[FrameName::Pong, FrameName::Error],
            Self::History | Self::Send | Self::Command | Self::Refresh => &[FrameName::Error],
        }
    }
}

/// What the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameName {
    /// The first frame.
    Welcome,
    /// A request was done.
    Ok,
    /// A request was refused.
    Error,
    /// The answer to a ping.
    Pong,
    /// An event.
    Event,
    /// Where the connection is.
    Position,
    /// Events are lost.
    Gap,
    /// The server is about to stop.
    Move,
}

impl FrameName {
    /// Every frame, in the order of the reference page.
    pub const ALL: [Self; 8] = [
        Self::Welcome,
        Self::Ok,
        Self::Error,
        Self::Pong,
        Self::Event,
        Self::Position,
        Self::Gap,
        Self::Move,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Pong => "pong",
            Self::Event => "event",
            Self::Position => "position",
            Self::Gap => "gap",
            Self::Move => "move",
        }
    }

    /// The `event:` of its block in an SSE stream. `error` is the name of `EventSource`'s own event
    /// for lost connections.
    pub fn in_stream(self) -> &'static str {
        match self {
            Self::Error => "failure",
            other => other.as_str(),
        }
    }

    /// What it means, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Welcome => "the first frame of every connection",
            Self::Ok => "a `subscribe` or `unsubscribe` is done",
            Self::Error => "a message was refused; the connection stays open",
            Self::Pong => "the answer to `ping`",
            Self::Event => "an event of a channel",
            Self::Position => "sent every 30 s while nothing is waiting to be delivered",
            Self::Gap => "events between two positions are not available",
            Self::Move => "the server is stopping: connect again and resume",
        }
    }

    /// Whether it answers a request.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Ok | Self::Error | Self::Pong)
    }
}

//! The identity of a connection: user, accounts and roles, and what it may read.
//!
//! The HTTP layer makes it once, when a connection is opened. The fan-out checks every subscription
//! against its roles, and every record against its accounts: a record is delivered only if its
//! account is among [`Identity::accounts`]. Nothing here verifies a token.

use tidewire_schemas::catalogue::ReaderRole;
use tidewire_schemas::channel::Channel;

/// The accounts a connection may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// Every account (`*` in the claim).
    All,
    /// These.
    Only(Vec<Box<str>>),
}

impl Accounts {
    /// Whether records of `account` may be seen.
    pub fn allows(&self, account: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(accounts) => accounts.iter().any(|a| **a == *account),
        }
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// An end user.
    pub const CLIENT: Self = Self(1);
    /// One of the account's own people.
    pub const MEMBER: Self = Self(2);
    /// Reads every channel of its accounts.
    pub const ANALYST: Self = Self(4);
    /// Reads every channel of its accounts and operates.
    pub const ADMIN: Self = Self(8);
    /// Sends events.
    pub const PRODUCER: Self = Self(16);
    /// All of them, for `--insecure-dev`.
    pub const ALL: Self = Self(31);

    /// Both sets together.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `others` is among these.
    pub fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

/// Who a connection belongs to and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user (`sub`).
    pub user: Box<str>,
    /// The accounts it may see.
    pub accounts: Accounts,
    /// What it may do.
    pub roles: Roles,
}

impl Identity {
    /// Whether this user may subscribe to `channel`. Who takes part in a thread or conversation is
    /// not known here yet, so those require the role of a member.
    pub fn may_read(&self, channel: &Channel) -> bool {
        if self.roles.intersects(Roles::ANALYST.union(Roles::ADMIN)) {
            return true;
        }
        channel.kind.readers.iter().any(|who| match who {
            ReaderRole::Anyone => true,
            ReaderRole::Member | ReaderRole::Participant => self.roles.intersects(Roles::MEMBER),
            ReaderRole::User => channel.id.as_deref() == Some(&*self.user),
            ReaderRole::Producer => self.roles.intersects(Roles::PRODUCER),
        })
    }
}

//! The roles: which part of the pipeline a process is, by the verb that starts it.
//!
//! `dev` is all of them in one process. Apart, each needs a log that several processes can open.

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every part.
    All,
    /// Validates events and sorts them into lanes.
    Admit,
    /// Removes duplicates and delivers to channels.
    Derive,
    /// Serves sockets and takes events.
    Gateway,
}

impl Role {
    /// The verb that starts it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::All => "dev",
            Self::Admit => "admit",
            Self::Derive => "derive",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it is one of several processes that make a pipeline together.
    pub fn is_apart(self) -> bool {
        self != Self::All
    }

    /// Whether it reads the input.
    pub fn admits(self) -> bool {
        matches!(self, Self::All | Self::Admit)
    }

    /// Whether it reads the lanes and keeps state.
    pub fn derives(self) -> bool {
        matches!(self, Self::All | Self::Derive)
    }

    /// Whether clients come to it. To the others only operators do.
    pub fn serves_clients(self) -> bool {
        matches!(self, Self::All | Self::Gateway)
    }
}

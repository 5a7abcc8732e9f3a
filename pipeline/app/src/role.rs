//! The roles of a process: which part of the pipeline it runs.
//!
//! `dev` runs all of them in one process. A role that runs alone needs a log that several
//! processes can open.

/// Which part of the pipeline a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every part.
    All,
    /// Validates events and writes them to the lanes.
    Admit,
    /// Removes duplicates and delivers to channels.
    Derive,
    /// Accepts events over HTTP and serves subscribers.
    Gateway,
}

impl Role {
    /// The command that starts it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::All => "dev",
            Self::Admit => "admit",
            Self::Derive => "derive",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it runs alone, as one of several processes of a pipeline.
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

    /// Whether producers and subscribers connect to it. The other roles serve only administrators.
    pub fn serves_clients(self) -> bool {
        matches!(self, Self::All | Self::Gateway)
    }
}

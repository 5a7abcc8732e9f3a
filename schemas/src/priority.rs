//! How urgent an event is: four steps, one lane each.
//!
//! The numbers are what producers write in `priority` and what the internal encoding carries; they
//! never change their meaning.

/// How urgent an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Counters, progress, typing: what nobody misses for a second.
    Low = 0,
    /// The usual.
    Normal = 1,
    /// What somebody waits for.
    High = 2,
    /// What must overtake everything else.
    Critical = 3,
}

impl Priority {
    /// All four, least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// The priority of this number; `None` outside 0..=3.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| i64::from(priority.number()) == number)
    }

    /// Its number, 0 to 3.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its name, as in the names of lanes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

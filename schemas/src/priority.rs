//! The priority of an event: four levels, one lane each.
//!
//! The numbers are what producers write in `priority` and what the event encoding carries, so they
//! never change their meaning.

/// The priority of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Counters, progress, typing: a delay of a second goes unnoticed.
    Low = 0,
    /// The default.
    Normal = 1,
    /// Somebody waits for it.
    High = 2,
    /// Overtakes everything else.
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

    /// Its name, which is also the name of its lane.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

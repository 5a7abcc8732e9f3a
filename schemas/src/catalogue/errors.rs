//! The errors of a catalogue, collected so that all are reported together.

use std::fmt;

/// All errors of a catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueErrors(pub Vec<String>);

impl fmt::Display for CatalogueErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the catalogue has 1 error")?,
            count => write!(f, "the catalogue has {count} errors")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for CatalogueErrors {}

/// Collects errors, each with the entry it was found in.
#[derive(Default)]
pub(super) struct Errors(Vec<String>);

impl Errors {
    pub(super) fn add(&mut self, place: &str, error: impl fmt::Display) {
        self.0.push(format!("{place}: {error}"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value; an error is added and gives `None`.
    pub(super) fn keep<T>(&mut self, place: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|error| self.add(place, error)).ok()
    }

    /// All errors so far.
    pub(super) fn take(&mut self) -> CatalogueErrors {
        CatalogueErrors(std::mem::take(&mut self.0))
    }
}

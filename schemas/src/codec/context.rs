//! What decoding a record needs beside its value: headers, catalogue, registry and origin.

use super::Registry;
use crate::catalogue::Catalogue;
use crate::envelope::RecordOrigin;

/// A record's headers.
pub trait HeaderLookup {
    /// The value of a header; the last one if there are several.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

impl HeaderLookup for [(&str, &[u8])] {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// What records are read with.
#[derive(Clone, Copy, Debug)]
pub struct DecodeContext<'a> {
    /// What events are.
    pub catalogue: &'a Catalogue,
    /// Whom to ask for schemas, if there is somebody.
    pub registry: Option<&'a dyn Registry>,
    /// Where the record came from.
    pub origin: &'a RecordOrigin<'a>,
}

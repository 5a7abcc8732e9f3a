//! What decoders need beside a record's value: headers, catalogue, registry and origin.

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

/// What records are decoded with.
#[derive(Clone, Copy, Debug)]
pub struct DecodeContext<'a> {
    /// The event types.
    pub catalogue: &'a Catalogue,
    /// The schema registry, if one is configured.
    pub registry: Option<&'a dyn Registry>,
    /// Where the record came from.
    pub origin: &'a RecordOrigin<'a>,
}

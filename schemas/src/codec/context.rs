//! What decoders need beside a record's value: headers, catalogue, registry and origin.

use super::Registry;
use crate::catalogue::Catalogue;
use crate::envelope::RecordOrigin;

/// A record's headers.
pub trait HeaderLookup {
    /// Gives every header to the visitor in the order written; a name may occur more than once.
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8]));
}

impl HeaderLookup for [(&str, &[u8])] {
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.iter().for_each(|(name, value)| visit(name, value));
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

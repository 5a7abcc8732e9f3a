//! Reads from the log what the rings no longer hold, once for all feeds that need it.
//!
//! [`sweeper`] groups feeds into sweeps; `starts` resolves where they start, with the answers of
//! the [`lookup_worker`]; `scan` is one sweep over one partition; `feed_cursor` is what they keep
//! per feed. A feed that reads too slowly leaves its sweep and asks again later, so it never delays
//! the others.

mod feed_cursor;
pub mod lookup_worker;
mod scan;
mod starts;
pub mod sweeper;

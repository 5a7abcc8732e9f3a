//! Reads from the log what the rings no longer hold, once for all feeds that need it.
//!
//! [`sweeper`] resolves where feeds start and groups them into sweeps; `scan` is one sweep over one
//! partition; `feed_cursor` is what both keep per feed. A feed that reads too slowly leaves its
//! sweep and asks again later, so it never delays the others.

mod feed_cursor;
mod scan;
pub mod sweeper;

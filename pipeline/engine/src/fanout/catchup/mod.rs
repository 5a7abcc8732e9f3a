//! Reads from the log what the rings no longer hold, once for all feeds that need it.
//!
//! [`sweeper`] groups feeds into sweeps; `starts` resolves where they start, with the answers of
//! the [`lookup_worker`]; `scan` is one sweep over one partition; `feed_cursor` is what they keep
//! per feed. A feed that reads too slowly leaves its sweep and asks again later, so it never delays
//! the others. Neither does a partition that the log does not answer for: `retry_wait`.

mod feed_cursor;
pub mod lookup_worker;
mod retry_wait;
mod scan;
mod starts;
pub mod sweeper;

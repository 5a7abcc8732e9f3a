//! Integration tests in one binary: what must stay true of the whole, tried from outside.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails and speaks freely")]

mod conformance;
mod embedded_log;
mod pipeline;
mod store_killed;

//! Integration tests in one binary: what must stay true of the whole, tried from outside.

mod conformance;
mod embedded_log;
mod pipeline;
mod store_killed;

//! 100 real posts through the pipeline, unchanged; most are in Japanese.
//!
//! `mapper` turns the file into events and says which subscriber must get what; `delivery` compares
//! that with what was delivered, text byte for byte; `resume` repeats it while connections are cut
//! at random bytes and the server is killed. `expected` says what operators must publish, and
//! `operators` compares that with what they did.

pub(crate) mod delivery;
pub(crate) mod expected;
pub(crate) mod mapper;
mod operators;
pub(crate) mod resume;

//! Real posts in, the same posts out: 100 of them as they were published, most in Japanese.
//!
//! `mapper` turns the file into events and says which subscriber must get what; `delivery` compares
//! that with what came, text byte for byte; `resume` does it again while connections are cut at
//! random bytes and the server is killed.

pub(crate) mod delivery;
pub(crate) mod mapper;
pub(crate) mod resume;

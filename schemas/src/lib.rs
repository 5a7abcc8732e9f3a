//! Event schemas: the catalogue, the envelope and its validation, encodings and position tokens.
//!
//! In reading order: [`catalogue`] (types and channels as data), [`envelope`] (from a producer's
//! JSON to an [`event::Event`]), [`codec`] (the other formats), [`channel`] (names that clients
//! subscribe to), [`event`] (the encoded event), [`fields`] (the members of its data), [`typed`]
//! (a schema per type, for producers),
//! [`position`] (where a client resumes), and the functions on which every process must agree:
//! [`partition`], [`id`], [`time`], [`similar`].
//!
//! This crate does no IO, reads no clock and keeps no state except the catalogue, which is built
//! once from the files in `catalogue/`.

pub mod catalogue;
pub mod channel;
pub mod codec;
pub mod envelope;
pub mod event;
pub mod fields;
pub mod id;
mod json;
pub mod partition;
pub mod position;
pub mod priority;
pub mod similar;
pub mod time;
pub mod typed;

pub use priority::Priority;

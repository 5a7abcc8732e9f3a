//! What is: the catalogue of event types and channels, the envelope events arrive in, their one
//! internal encoding, and the small values that travel between processes.
//!
//! In reading order: [`catalogue`] (types and channels as data), [`envelope`] (from a producer's
//! JSON to an [`event::Event`]), [`channel`] (names clients subscribe to), [`event`] (the encoded
//! form), [`typed`] (a schema per type, for producers), [`position`] (where a client is in the
//! log), and the functions everyone must agree on: [`partition`], [`id`], [`time`].
//!
//! This crate does no IO, reads no clock and keeps no state besides the catalogue, which is built
//! once from the files in `catalogue/`.

pub mod catalogue;
pub mod channel;
pub mod codec;
pub mod envelope;
pub mod event;
pub mod id;
mod json;
pub mod partition;
pub mod position;
pub mod priority;
pub mod time;
pub mod typed;

pub use priority::Priority;

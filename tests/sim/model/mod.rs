//! The invariants, checked after every step against an independent model.
//!
//! The fakes keep a journal of everything irrevocable, and each fact is checked as it comes: what
//! ADMIT may append, what a transaction of DERIVE must contain to the byte, which offsets and store
//! contents are possible. So a check costs only what the step has done.
//!
//! The models know the rules and none of the implementation: no lane weights, no cache layers, no
//! restores.

mod admission;
mod audit;
mod batch;
mod disk;
mod ensure;
mod facts;
mod operators;
mod partials;
mod tables;
mod task;

pub(crate) use admission::ProducedInput;
pub(crate) use facts::Model;

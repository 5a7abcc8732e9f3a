//! What must hold after every step, worked out beside the code under test and in another way.
//!
//! The one idea: the fakes keep a journal of what can't be taken back, and each fact is held
//! against a model as it comes: what an append may say, what a transaction of DERIVE must contain
//! to the byte, where offsets and stores may stand. So a check costs what the step has done.
//!
//! The models know the rules and none of the machinery: no lanes' shares, no layers, no restores.

mod admission;
mod batch;
mod disk;
mod ensure;
mod facts;
mod operators;
mod tables;
mod task;

pub(crate) use admission::ProducedInput;
pub(crate) use facts::Model;

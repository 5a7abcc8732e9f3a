//! What each command of `tidewire` does, one file a command, except the roles.
//!
//! A command gets its parsed arguments, builds its configuration with `configure`, prints data to
//! standard output, and returns how it ended. Commands that need a log which a running process
//! holds ask that process over HTTP; `finalize` and `replay` need it stopped.

pub mod generate;
pub mod produce;
pub mod tail;

pub mod running_process;

pub mod catalogue;
pub mod dead_letters;
pub mod explain;
pub mod resume;

pub mod schemas;
pub mod topics;

pub mod finalize;
pub mod replay;
pub mod state;

pub mod doctor;
pub mod ready;
pub mod settings;

//! What is decided: the pipeline without IO. Values in, values out, time as a value.
//!
//! Parts in reading order.

pub mod port;
pub mod record;

pub mod lane_record;
pub mod topology;
pub mod turn;

pub mod dead_letters;

pub mod admit;

mod cache;
pub mod lanes;
pub mod overlay;
pub mod task;

pub mod derive;

pub mod replay;

pub mod fanout;

pub mod telemetry;

//! Dead letters as an operator meets them, and the line that stands still before too many.

mod commands;
pub(crate) mod fixture;
mod poison_breaker;
mod resolve;
mod stopped_input;

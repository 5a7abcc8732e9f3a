//! Dead letters and the poison limit, as an administrator uses them.

mod commands;
pub(crate) mod fixture;
pub(crate) mod operator;
mod poison_breaker;
mod registry_outage;
mod resolve;
mod stopped_input;

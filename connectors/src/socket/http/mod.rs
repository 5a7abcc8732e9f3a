//! HTTP: connections, routes and handlers, on a small tokio runtime.
//!
//! A handler answers a request in the one shape of [`response`], or leaves a [`takeover::Takeover`]
//! that moves the connection to a worker of [`super::stream`]. Handlers share one value,
//! [`state::RouterState`], made of values and closures that the wiring passes in.
//!
//! In reading order.

pub mod accept;
pub mod connection;
pub mod extensions;
mod monitored_stream;
pub mod takeover;

mod cors;
pub mod routes;
mod security_headers;
pub mod state;

pub mod guard;
pub mod query;
pub mod response;
pub mod status;

pub mod body;
mod body_arrival;
pub mod body_budget;
pub mod ingest;
pub mod publish;
mod request_headers;
mod transfer_rate;
mod unpack;
pub mod validation_slots;

pub mod admin;

mod channel_state;
pub mod subscribe;
pub mod subscribe_query;
